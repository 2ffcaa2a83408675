"""Tests the manual page and the completions for shells: they agree with --help, and the shells
themselves do what they should with them."""

import os
import re
import shutil
import subprocess

import program
from program import BINARY, GREEDY, Case, xlate
from shells import Shell

setUpModule = program.require

SHARE = os.path.join(os.path.dirname(os.path.dirname(BINARY)), "share")
PAGE = os.path.join(SHARE, "man", "man1", "xlate.1")
BASH = os.path.join(SHARE, "bash-completion", "completions", "xlate")
ZSH = os.path.join(SHARE, "zsh", "site-functions", "_xlate")
FISH = os.path.join(SHARE, "fish", "vendor_completions.d", "xlate.fish")
NAME = r"--?[a-z][a-z-]*"


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def output_of(*command):
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    ).stdout


def help_options():
    """Returns the lines of --help with an option, by the names of the option."""
    help = xlate("--help", model=None, device=None).out.decode()
    found = re.findall(r"^  ((?:-\w,)?--[a-z-]+)(.*)$", help, re.MULTILINE)
    return {tuple(names.split(",")): rest for names, rest in found}


class DocumentsCase(Case):
    def needs(self, *programs):
        for name in programs:
            if not shutil.which(name):
                self.skipTest("no %s here" % name)

    def has_all(self, text, *words):
        for word in words:
            self.assertRegex(text, r"(?<![\w-])%s(?![\w-])" % re.escape(word))


class InStepWithHelp(DocumentsCase):
    def setUp(self):
        super().setUp()
        self.options = help_options()
        self.names = sorted(name for names in self.options for name in names)
        self.assertGreater(len(self.names), 40)

    def test_the_manual_page(self):
        plain = read(PAGE).replace("\\-", "-")
        headings = re.findall(r"^\.TP\n(?=\\fB-)(.*)$", plain, re.MULTILINE)
        names = [name for heading in headings for name in re.findall(NAME, heading)]
        self.assertEqual(sorted(names), self.names)

    def test_bash(self):
        (words,) = re.findall(r"local options='(.*)'", read(BASH))
        self.assertEqual(sorted(words.split()), self.names)

    def test_zsh(self):
        found = []
        for line in read(ZSH).split("\n")[2:-1]:
            outside = line.split("'")[2]
            found += re.findall(NAME, outside)
        self.assertEqual(sorted(found), self.names)

    def test_fish(self):
        found = []
        for line in read(FISH).split("\n"):
            found += ["--" + name for name in re.findall(r" -l ([a-z-]+)", line)]
            found += ["-" + name for name in re.findall(r" -s (\w)", line.split(" -d ")[0])]
        self.assertEqual(sorted(found), self.names)

    def test_what_takes_a_file_gets_files(self):
        files = sorted(names[-1] for names, rest in self.options.items() if " FILE " in rest)
        self.assertIn("--report", files)
        fish = sorted("--" + name for name in re.findall(r" -l ([a-z-]+)[^\n]* -r -F", read(FISH)))
        zsh = sorted(re.findall(r"(--[a-z-]+)=\}?'[^\n]*:_files'", read(ZSH)))
        self.assertEqual((fish, zsh), (files, files))

    def test_the_values_are_those_that_xlate_takes(self):
        offered = dict(re.findall(r"^    (--[a-z-]+)\) .*-W '(.*?)'", read(BASH), re.MULTILINE))
        self.assertIn("--precision", offered)
        for option, values in offered.items():
            for value in values.split():
                result = xlate(*GREEDY, option, value, input="", device=None)
                self.assertNotIn("'%s', expected" % value, result.errors, option)
        for option in ("--precision", "--progress", "--long-lines", "--early-stopping"):
            expected = xlate(option, "-", input="").errors
            self.has_all(expected, *offered[option].split())
            self.assertEqual(expected.count(","), len(offered[option].split()), expected)


class ManualPage(DocumentsCase):
    def test_groff_and_mandoc_have_no_complaint(self):
        self.needs("groff", "mandoc")
        self.assertEqual(output_of("groff", "-man", "-ww", "-z", PAGE), "")
        self.assertEqual(output_of("mandoc", "-T", "lint", "-W", "warning", PAGE), "")

    def test_man_shows_it(self):
        self.needs("man")
        shown = " ".join(output_of("man", "-l", PAGE).split())
        self.assertIn("1 is greedy search [the model's, else 4].", shown)
        self.has_all(shown, "--beam-size", "SYNOPSIS", "EXAMPLES", "{line}")

    def test_it_does_not_depend_on_the_machine_that_built_it(self):
        self.assertIn("within its quota]", read(PAGE))


class Bash(DocumentsCase):
    def setUp(self):
        super().setUp()
        self.needs("bash")
        self.path("a model.bin", "")
        self.path("other.txt", "")
        self.shell = Shell("bash", BASH, self.folder)
        self.addCleanup(self.shell.close)

    def test_options(self):
        offered, _ = self.shell.complete("xlate --max-l")
        self.has_all(offered, "--max-length", "--max-length-factor")
        self.assertNotIn("--max-source-length", offered)
        self.assertEqual(self.shell.complete("xlate --prec")[1], "xlate --precision")
        self.has_all(self.shell.complete("xlate ")[0], "--model", "-b")
        # --quiet takes no value.
        self.assertEqual(self.shell.complete("xlate --quiet --vers")[1], "xlate --quiet --version")

    def test_values(self):
        self.has_all(
            self.shell.complete("xlate --precision ")[0], "fp32", "fp16", "bf16", "int8", "auto"
        )
        self.has_all(
            self.shell.complete("xlate --precision=")[0], "fp32", "fp16", "bf16", "int8", "auto"
        )
        for begun in ("xlate --device cu", "xlate --device=cu"):
            self.assertEqual(self.shell.complete(begun)[1], begun + "da")
        offered, words = self.shell.complete("xlate -b ")
        self.assertEqual(words, "xlate -b")
        self.assertNotIn("other.txt", offered)

    def test_files(self):
        for begun in ("xlate -m a", "xlate --model=a", "xlate -i other.txt a", "xlate -q -i a"):
            self.assertEqual(self.shell.complete(begun)[1], begun + " model.bin")
        for begun in ("xlate --precision fp32 oth", "xlate -i a -q oth"):
            self.assertEqual(self.shell.complete(begun)[1], begun)


class Zsh(DocumentsCase):
    def setUp(self):
        super().setUp()
        self.needs("zsh")
        self.path("a model.bin", "")
        self.path("other.txt", "")
        self.shell = Shell("zsh", os.path.dirname(ZSH), self.folder)
        self.addCleanup(self.shell.close)

    def test_options(self):
        self.has_all(self.shell.complete("xlate --max-l")[0], "--max-length", "--max-length-factor")
        self.assertEqual(self.shell.complete("xlate --vers")[1], "xlate --version")

    def test_values(self):
        self.has_all(
            self.shell.complete("xlate --precision ")[0], "fp32", "fp16", "bf16", "int8", "auto"
        )
        for begun in ("xlate --device cu", "xlate --device=cu"):
            self.assertEqual(self.shell.complete(begun)[1], begun + "da")
        self.assertNotIn("other.txt", self.shell.complete("xlate -b ")[0])

    def test_files(self):
        for begun in ("xlate -m a", "xlate --model=a", "xlate -i other.txt a", "xlate -q -i a"):
            self.assertEqual(self.shell.complete(begun)[1], begun + " model.bin")


class Fish(DocumentsCase):
    def complete(self, line):
        """Returns what fish offers behind the beginning of a command."""
        self.needs("fish")
        script = "cd $argv[1]; source $argv[2]; complete -C $argv[3]"
        command = ["fish", "--no-config", "-c", script, "--", self.folder, FISH, line]
        return [line.split("\t")[0] for line in output_of(*command).split("\n") if line]

    def test_options(self):
        offered = self.complete("xlate --max-l")
        self.assertEqual(sorted(offered), ["--max-length", "--max-length-factor"])
        self.assertEqual(self.complete("xlate "), [])

    def test_values(self):
        values = ["auto", "bf16", "fp16", "fp32", "int8"]
        self.assertEqual(sorted(self.complete("xlate --precision ")), values)
        self.assertEqual(self.complete("xlate --device=cu"), ["--device=cuda"])
        self.assertEqual(self.complete("xlate -b "), [])

    def test_files(self):
        self.path("other.txt", "")
        for begun in ("xlate -m oth", "xlate -i more oth", "xlate -q -i oth"):
            self.assertEqual(self.complete(begun), ["other.txt"], begun)
        for begun in ("xlate -q oth", "xlate -i more -q oth"):
            self.assertEqual(self.complete(begun), [], begun)


if __name__ == "__main__":
    program.main()
