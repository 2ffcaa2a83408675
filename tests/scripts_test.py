#!/usr/bin/env python3
"""Tests how scripts/package and scripts/quickstart answer wrong arguments and requests for help,
which they do before any work."""

import os
import subprocess
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Usage(unittest.TestCase):
    def execute(self, name, *arguments):
        command = [os.path.join(ROOT, "scripts", name), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20)

    def test_help(self):
        for name in ("package", "quickstart"):
            for option in ("-h", "--help"):
                result = self.execute(name, option)
                self.assertEqual((result.returncode, result.stderr), (0, ""), result)
                self.assertTrue(result.stdout.startswith("usage: scripts/" + name), result)

    def test_unknown_arguments(self):
        for name, wrong, arguments in (
            ("package", "--folder", ["--folder", "x"]),
            ("package", "y", ["x", "y"]),
            ("package", "--help", ["x", "--help"]),
            ("quickstart", "--fast", ["--fast"]),
            ("quickstart", "", [""]),
        ):
            result = self.execute(name, *arguments)
            self.assertEqual((result.returncode, result.stdout), (2, ""), result)
            self.assertEqual(result.stderr.count("\n"), 1, result)
            self.assertTrue(
                result.stderr.startswith(f"{name}: '{wrong}': unknown argument"), result
            )


if __name__ == "__main__":
    unittest.main()
