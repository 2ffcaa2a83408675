"""Tests scripts/check_style on small trees with one bad line each, and on this repository."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
GOOD = {
    "app/main.cpp": "int main() { return 0; }\n",
    "engine/kernel.cuh": "// " + 97 * "é" + "\n",
    "scripts/run": "#!/usr/bin/env bash\necho\n",
    "scripts/tool": '#!/usr/bin/env python3\nprint("")\n',
    "tests/tool_test.py": 'print("")\n',
    "CMakeLists.txt": "project(x)\n",
    "LICENSE": 200 * "x" + "\t\n",
    "docs/table.md": "|" + 200 * "x" + "|\n" + 120 * "y" + "\n- https://" + 120 * "z" + "\n",
    "tests/data/input.txt": "\t\n",
    "tests/data/make.py": "x  =  '\t'  \n",
    "data/LICENSE.md": 200 * "x " + "\n",
    "build/generated.h": "\t\n",
}
# These scripts stand for programs that a machine may lack. Each reports line 1 of every file that
# contains "ugly", and that of ruff also line 2 of every file that contains "unused".
CLANG_FORMAT = """#!/bin/sh
[ "$1" = --version ] && echo "Debian clang-format version %s.0.6" && exit
code=0
for file; do
  [ -f "$file" ] && grep -q ugly "$file" && echo "$file:1:5: error: code should be" >&2 && code=1
done
exit $code
"""
RUFF = """#!/bin/sh
[ "$1" = --version ] && echo "ruff %s.4" && exit
code=0
if [ "$1" = check ]; then
  for file; do
    [ -f "$file" ] && grep -q unused "$file" && echo "$file:2:8: F401 unused" && code=1
  done
  exit $code
fi
for file; do
  [ -f "$file" ] && grep -q ugly "$file" && echo "--- $file" && echo "@@ -1,2 +1,2 @@" && code=1
done
exit $code
"""


def run(folder, path=os.environ["PATH"]):
    return subprocess.run(
        [sys.executable, REPOSITORY / "scripts/check_style", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PATH": str(path)},
    )


class CheckStyle(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.programs = Path(folder.name, "bin")
        self.programs.mkdir()
        self.tree = Path(folder.name, "tree")

    def install(self, name, text):
        """Puts a program into the folder in which check_style looks, beside the programs that the
        script itself calls."""
        self.programs.joinpath(name).write_text(text, encoding="utf-8")
        self.programs.joinpath(name).chmod(stat.S_IRWXU)

    def check(self, changes):
        """Returns (lines on stdout, stderr) for the good tree with changes. PATH has only git,
        grep and the programs that a test has installed."""
        for name, text in {**GOOD, **changes}.items():
            path = self.tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        for name in ("git", "grep"):
            for folder in os.environ["PATH"].split(":"):
                if Path(folder, name).exists() and not Path(self.programs, name).exists():
                    Path(self.programs, name).symlink_to(Path(folder, name))
        result = run(self.tree, self.programs)
        lines = result.stdout.splitlines()
        self.assertEqual(result.returncode, 1 if lines else 0, result.stdout + result.stderr)
        return lines, result.stderr

    def test_good_tree(self):
        lines, said = self.check({})
        self.assertEqual(lines, [])
        self.assertEqual(
            said.splitlines(),
            [
                "check_style: no clang-format 14: C++ was not compared",
                "check_style: no ruff 0.8: Python was not compared",
            ],
        )

    def test_long_lines(self):
        wide = 101 * "x"
        for name, text in (
            ("app/a.h", "//\n" + wide),
            ("engine/a.cu", "\n" + wide),
            ("scripts/a.py", "\n" + wide),
            ("scripts/a", "#!/usr/bin/env python3\n" + wide),
            ("scripts/b", "#!/usr/bin/env bash\n" + wide),
            ("findings/a.sh", "\n" + wide),
            ("tests/CMakeLists.txt", "\n" + wide),
            ("cmake/a.cmake", "\n" + wide),
        ):
            with self.subTest(name):
                lines, _ = self.check({name: text + "\n"})
                self.assertEqual(lines, [f"{name}:2: 101 columns, at most 100 are allowed"])
                (self.tree / name).unlink()
        lines, _ = self.check({"docs/a.md": "\n" + 61 * "x " + "\n"})
        self.assertIn("docs/a.md:2: 122 columns, at most 120 are allowed", lines)

    def test_tabs_and_white_space_at_the_end(self):
        lines, _ = self.check({"app/a.cpp": "int a;\n\tint b;\nint c; \n"})
        self.assertEqual(
            lines,
            ["app/a.cpp:2: a tab", "app/a.cpp:3: white space at the end of the line"],
        )

    def test_clang_format(self):
        self.install("clang-format", CLANG_FORMAT % 14)
        lines, said = self.check({"app/a.cpp": "int ugly;\n"})
        self.assertEqual(lines, ["app/a.cpp:1: clang-format 14 writes this line otherwise"])
        self.assertNotIn("clang-format", said)

    def test_another_clang_format(self):
        self.install("clang-format", CLANG_FORMAT % 15)
        lines, said = self.check({"app/a.cpp": "int ugly;\n"})
        self.assertEqual(lines, [])
        self.assertIn("no clang-format 14", said)

    def test_ruff(self):
        self.install("ruff", RUFF % "0.8")
        lines, said = self.check({"scripts/tool": "#!/usr/bin/env python3\nugly\n"})
        self.assertEqual(
            lines, ["scripts/tool:1: ruff format writes the lines from here on otherwise"]
        )
        self.assertNotIn("ruff", said)

    def test_ruff_finds_what_is_not_used(self):
        self.install("ruff", RUFF % "0.8")
        lines, _ = self.check({"scripts/tool": "#!/usr/bin/env python3\nimport unused\n"})
        self.assertEqual(lines, ["scripts/tool:2: F401 unused"])

    def test_another_ruff(self):
        self.install("ruff", RUFF % "0.18")
        lines, said = self.check({"scripts/tool": "#!/usr/bin/env python3\nugly\n"})
        self.assertEqual(lines, [])
        self.assertIn("no ruff 0.8", said)

    @unittest.skipUnless(shutil.which("git"), "needs git")
    def test_only_what_git_tracks(self):
        self.check({})
        subprocess.run(["git", "init", "--quiet", self.tree], check=True)
        subprocess.run(["git", "-C", self.tree, "add", "."], check=True)
        lines, _ = self.check({"app/main.cpp": "\tint a;\n", "untracked.h": "\t\n"})
        self.assertEqual(lines, ["app/main.cpp:1: a tab"])

    def test_this_repository(self):
        result = run(REPOSITORY)
        self.assertEqual(result.stdout, "", result.stderr)


if __name__ == "__main__":
    unittest.main()
