"""Tests scripts/wmt on the CPU: run.sh with both tasks and wrong arguments, and the table of
scripts/wmt/measure, which needs the Python package sacrebleu."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import unittest

import program
from bench_case import BenchCase
from program import BINARY, EN_DE, ROOT, xlate

sys.path.insert(0, os.path.join(ROOT, "scripts"))
sys.dont_write_bytecode = True

import measure

setUpModule = program.require
RUN = os.path.join(ROOT, "scripts", "wmt", "run.sh")
LINES = "The file is open.\nPlease close it.\n"


class Run(BenchCase):
    def run_script(self, *arguments, given="", code=0, script=RUN, **environment):
        done = subprocess.run(
            [script, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=program.TIMEOUT,
            env={**os.environ, "XLATE_BINARY": BINARY, "XLATE_MODEL": EN_DE, **environment},
        )
        self.assertEqual(done.returncode, code, done.stderr)
        if code:
            self.assertEqual((done.stderr.count("\n"), done.stdout), (1, ""), done.stderr)
            self.assertTrue(done.stderr.startswith("run.sh: "), done.stderr)
        return done.stderr if code else done.stdout

    def test_both_tasks_translate_greedily(self):
        expected = xlate("-b", "1", model=EN_DE, device="cpu", input=LINES).out.decode()
        self.assertEqual(expected.count("\n"), 2)
        for task in ("throughput", "latency"):
            self.assertEqual(self.run_script("CPU", task, "-", "-", given=LINES), expected)
            out = self.path("out.txt")
            self.run_script("CPU", task, self.path("in.txt", LINES), out)
            with open(out, encoding="utf-8") as file:
                self.assertEqual(file.read(), expected)

    def test_links_lead_to_its_folder(self):
        os.makedirs(os.path.join(self.folder, "wmt", "bin"))
        shutil.copy(RUN, os.path.join(self.folder, "wmt", "run.sh"))
        os.symlink(BINARY, os.path.join(self.folder, "wmt", "bin", "xlate"))
        os.mkdir(os.path.join(self.folder, "other"))
        for name, target in (("link.sh", "wmt/run.sh"), ("other/link.sh", "../link.sh")):
            link = os.path.join(self.folder, name)
            os.symlink(target, link)
            out = self.run_script(
                "CPU", "throughput", "-", "-", given=LINES, script=link, XLATE_BINARY=""
            )
            self.assertEqual(out.count("\n"), 2)

    def test_latency_answers_before_the_next_line(self):
        with subprocess.Popen(
            [RUN, "CPU", "latency", "-", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "XLATE_BINARY": BINARY, "XLATE_MODEL": EN_DE},
        ) as process:
            for line in LINES.encode().splitlines(keepends=True):
                process.stdin.write(line)
                process.stdin.flush()
                self.assertTrue(process.stdout.readline().endswith(b"\n"))
            process.stdin.close()

    def test_options_follow(self):
        report = self.path("report.json")
        arguments = ("-b", "3", "--report", report)
        self.run_script("CPU", "throughput", "-", "-", *arguments, given=LINES)
        with open(report) as file:
            self.assertEqual(json.load(file)["options"]["beam_size"], 3)

    def test_wrong_arguments_are_one_line(self):
        source, missing = self.path("in.txt", LINES), self.path("missing")
        for said, *arguments in (
            ("expected four",),
            ("expected four", "CPU", "latency", source),
            ("'TPU': expected GPU or CPU", "TPU", "latency", source, "-"),
            ("'speed': expected throughput or latency", "CPU", "speed", source, "-"),
            ("missing: cannot be read", "CPU", "latency", missing, "-"),
        ):
            self.assertIn(said, self.run_script(*arguments, code=2))
        paths = ("CPU", "latency", source, "-")
        for name, said in (("XLATE_MODEL", "no model there"), ("XLATE_BINARY", "no program there")):
            self.assertIn(said, self.run_script(*paths, code=2, **{name: missing}))


class Texts(BenchCase):
    def test_lines_of_a_reference(self):
        path = self.path("text.de", b"\xef\xbb\xbfEins\rzwei\xe2\x80\xa8drei\n\nvier".decode())
        self.assertEqual(measure.text_lines(path), ["Eins\rzwei\u2028drei", "", "vier"])
        self.assertEqual(measure.text_lines(self.path("empty.de", "")), [])


class Measure(BenchCase):
    def setUp(self):
        super().setUp()
        self.sets = os.path.join(self.folder, "sets")
        os.mkdir(self.sets)
        for name in ("one", "two"):
            self.path("sets/%s.en" % name, LINES)
            self.path("sets/%s.de" % name, "Die Datei ist offen.\nBitte schließen Sie sie.\n")

    def measure(self, *arguments, code=0):
        options = ("-m", EN_DE, "--hardware", "CPU", "--xlate", BINARY)
        return self.script("wmt/measure", *arguments, *options, code=code)

    @unittest.skipUnless(importlib.util.find_spec("sacrebleu"), "no sacrebleu")
    def test_the_table(self):
        path = self.path("wmt.json")
        table, _ = self.measure(self.sets, "--lines", "10", "--latency-lines", "3", "--json", path)
        rows = [row.split(" | ") for row in table.split("\n") if row.startswith("| ")]
        self.assertEqual(
            [row[:2] for row in rows[2:]], [["| throughput", "10"], ["| latency", "3"]]
        )
        with open(path) as file:
            throughput, latency = json.load(file)["runs"]
        self.assertEqual(set(throughput["scores"]), {"one", "two"})
        self.assertEqual(set(latency["scores"]), {"one"}, "the second set is not whole")
        import sacrebleu

        with open(os.path.join(self.sets, "one.de"), encoding="utf-8") as file:
            references = [file.read().splitlines()]
        lines = xlate("-q", "-b", 1, input=LINES, model=EN_DE, device="cpu").lines
        for score, function in (("bleu", sacrebleu.corpus_bleu), ("chrf", sacrebleu.corpus_chrf)):
            wanted = function(lines, references).score
            self.assertGreater(wanted, 1)
            self.assertAlmostEqual(throughput["scores"]["one"][score], wanted, places=6)
            self.assertIn("%.2f" % wanted, rows[2], score)
        self.assertEqual(latency["report"]["device"]["threads"], 1, "one core")
        self.assertGreater(latency["latency_ms"]["p50"], 0)
        self.assertGreater(throughput["host_bytes"], 1 << 20)

    @unittest.skipUnless(importlib.util.find_spec("sacrebleu"), "no sacrebleu")
    def test_errors_are_one_line(self):
        self.path("sets/bad.en", LINES)
        self.path("sets/bad.de", "Eine Zeile.\n")
        empty = os.path.join(self.folder, "empty")
        os.mkdir(empty)
        for folder, said in (
            (self.sets, "bad: source and reference have 2 and 1 lines"),
            (empty, "no test set there"),
            (self.path("missing"), "No such file"),
        ):
            _, errors = self.measure(folder, code=1)
            self.assertIn(said, errors)
            self.assertEqual(errors.count("\n"), 1, errors)


if __name__ == "__main__":
    program.main()
