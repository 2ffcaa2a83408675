"""Tests the Debian package of a finished build. The long test installs it in bare systems."""

import glob
import os
import shutil
import subprocess
import unittest

import program
from bare_root import ROOT, BareRoot
from program import BINARY, Case

setUpModule = program.require

BUILD = os.path.dirname(os.path.dirname(BINARY))
FILES = (
    "usr/bin/xlate",
    "usr/share/man/man1/xlate.1.gz",
    "usr/share/bash-completion/completions/xlate",
    "usr/share/zsh/vendor-completions/_xlate",
    "usr/share/fish/vendor_completions.d/xlate.fish",
    "usr/share/doc/xlate/copyright",
    "usr/share/doc/xlate/changelog.gz",
    "usr/share/xlate/en-de.bin",
    "usr/share/xlate/sample.en",
)


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Package(Case):
    def setUp(self):
        super().setUp()
        config = os.path.join(BUILD, "CPackConfig.cmake")
        for needed in ("cpack", "dpkg-deb", "dpkg-shlibdeps", "file"):
            if not shutil.which(needed):
                self.skipTest("no %s here" % needed)
        if not os.path.exists(config):
            self.skipTest("the program was built elsewhere")
        command = ["cpack", "-G", "DEB", "--config", config, "-B", self.folder]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(made.returncode, 0, made.stdout + made.stderr)
        (self.package,) = glob.glob(os.path.join(self.folder, "*.deb"))

    def test_its_files_and_fields(self):
        listed = output_of("dpkg-deb", "--contents", self.package)
        for name in FILES:
            self.assertIn(" ./%s\n" % name, listed)
        # Debian's zsh does not look there, and a library there would serve other programs as well.
        self.assertNotRegex(listed, r"site-functions|usr/lib/lib|LICENSE\n")
        self.assertIn(" ./usr/lib/xlate/libsentencepiece.so.0\n", listed)
        self.assertRegex(listed, r" \./usr/share/doc/xlate/libraries/libsentencepiece0\n")
        version = output_of("dpkg-deb", "--field", self.package, "Version").strip()
        self.assertEqual(output_of(BINARY, "--version"), "xlate %s\n" % version)
        depends = output_of("dpkg-deb", "--field", self.package, "Depends")
        names = {part.split()[0] for part in depends.split(",")}
        self.assertEqual(names, {"libc6", "libgcc-s1", "libstdc++6"})
        self.assertIn(" ./usr/lib/xlate/libxlate_onednn.so\n", listed)
        self.assertRegex(listed, r" \./usr/lib/xlate/libdnnl\.so\.\d+\n")

    def test_lintian_finds_no_error(self):
        if not shutil.which("lintian"):
            self.skipTest("no lintian here")
        command = ["lintian", "--allow-root", "--fail-on", "error", self.package]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(found.returncode, 0, found.stdout + found.stderr)

    def install_in(self, release):
        bare = BareRoot(release)
        self.addCleanup(bare.remove)
        shutil.copy(self.package, bare.path("/tmp/xlate.deb"))
        installed = bare.run(["dpkg", "-i", "/tmp/xlate.deb"])
        self.assertEqual(installed.returncode, 0, installed.stderr)
        with open(os.path.join(ROOT, "data", "sample.en"), encoding="utf-8") as file:
            sample = file.read()
        translate = ["xlate", "-m", "/usr/share/xlate/en-de.bin", "--device", "cpu"]
        for command in (
            ["apt-get", "update"],
            ["apt-get", "install", "-y", "--no-install-recommends", "man-db"],
        ):
            done = bare.run(command)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        with open(os.path.join(ROOT, "data", "sample.en"), "rb") as file:
            expected = subprocess.run(
                [BINARY, "-m", program.EN_DE, "--device", "cpu"],
                stdin=file,
                capture_output=True,
                check=True,
            ).stdout.decode()
        translated = bare.run(translate, input=sample)
        self.assertEqual((translated.returncode, translated.stderr), (0, ""))
        self.assertEqual(translated.stdout, expected)
        page = bare.run(["man", "xlate"])
        self.assertIn("--beam-size", page.stdout, page.stderr)
        removed = bare.run(["dpkg", "-r", "xlate"])
        self.assertEqual(removed.returncode, 0, removed.stderr)
        self.assertFalse(os.path.exists(bare.path("/usr/lib/xlate")))

    @unittest.skipUnless(os.environ.get("XLATE_LONG"), "a long test")
    def test_it_serves_bare_systems(self):
        for release in ("bookworm", "trixie", "noble"):
            with self.subTest(release):
                self.install_in(release)


if __name__ == "__main__":
    program.main()
