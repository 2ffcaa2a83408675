"""Tests scripts/check_includes on small trees that each break one rule, and on this repository."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
GOOD = {
    "engine/error.h": "#include <string>\n",
    "engine/tensor.h": '#include "engine/error.h"\n',
    "engine/backend.h": '#include "engine/tensor.h"\n',
    "engine/backend.cpp": '#include "engine/backend.h"\n#include "engine/cpu/cpu.h"\n'
    '#include "engine/cuda/cuda.h"\n',
    "engine/search.h": '#include "engine/backend.h"\n',
    "engine/cpu/cpu.h": '#include "engine/backend.h"\n',
    "engine/search_state.h": "#include <vector>\n",
    "engine/cuda/cuda.h": '#include "engine/backend.h"\n#include "engine/cuda/norms/norms.h"\n',
    "engine/cuda/views.h": '#include <cstdint>\n#include "engine/search_state.h"\n',
    "engine/cuda/device.cuh": '#include <cuda_fp16.h>\n#include "engine/cuda/views.h"\n',
    "engine/cuda/norms/norms.h": '#include <cuda.h>\n#include "engine/cuda/views.h"\n',
    "engine/cuda/norms/rows.cuh": '#include "engine/cuda/device.cuh"\n',
    "engine/cuda/norms/norm.cu": '#include <cub/block/block_reduce.cuh>\n#include "norms.h"\n'
    '#include "engine/cuda/norms/rows.cuh"\n',
    "engine/cuda/norms/plans.h": '#include "engine/tensor.h"\n',
    "tokenization/tokenizer.h": '#include "engine/error.h"\n',
    "tokenization/tokenizer.cpp": '#include "tokenization/tokenizer.h"\n'
    "#include <sentencepiece_processor.h>\n",
    "models/config.h": '#include "engine/search.h"\n',
    "app/main.cpp": '// #include "engine/cpu/cpu.h"\n/*\n#include "nowhere.h"\n*/\n'
    '#include "models/config.h"\n#include "tokenization/tokenizer.h"\n',
    "tests/cpu_test.cpp": '#include "engine/cpu/cpu.h"\n#include "app/options.h"\n',
    "app/options.h": "#pragma once\n",
}


def run(folder):
    command = [sys.executable, REPOSITORY / "scripts/check_includes", folder]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)


class CheckIncludes(unittest.TestCase):
    def check(self, changes):
        """Returns the lines printed for the good tree with changes."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {**GOOD, **changes}.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            result = run(folder)
        lines = result.stdout.splitlines()
        self.assertEqual(result.returncode, 1 if lines else 0, result.stdout)
        return lines

    def refuses(self, name, text, *expected):
        """Checks that line 1 of `name` is the only violation when `name` joins the good tree."""
        lines = self.check({name: text})
        self.assertEqual(len(lines), 1, lines)
        self.assertTrue(lines[0].startswith(name + ":1: "), lines)
        for part in expected:
            self.assertIn(part, lines[0])

    def test_good_tree(self):
        self.assertEqual(self.check({}), [])

    def test_upward(self):
        self.refuses(
            "engine/arena.h",
            '#include "models/config.h"\n',
            "engine may not include models/config.h",
        )
        self.refuses(
            "models/load.h", '#include "app/options.h"\n', "models may not include app/options.h"
        )
        self.refuses("engine/tensor.cpp", '#include "engine/search.h"\n', "stands above")
        lines = self.check(
            {"app/options.cpp": '#include "tests/support.h"\n', "tests/support.h": ""}
        )
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("app may not include tests/support.h", lines[0])

    def test_error_includes_nothing(self):
        lines = self.check({"engine/error.h": '#include "engine/names.h"\n', "engine/names.h": ""})
        self.assertEqual(
            lines,
            [
                "engine/error.h:1: engine/error.h stands below everything and may not include "
                "engine/names.h"
            ],
        )

    def test_sideways(self):
        self.refuses(
            "tokenization/bytes.h",
            '#include "engine/tensor.h"\n',
            "tokenization may not include engine/tensor.h",
        )
        self.refuses(
            "engine/runner.cpp",
            '#include "tokenization/tokenizer.h"\n',
            "engine may not include tokenization",
        )
        self.refuses(
            "engine/search.cpp",
            '#include "tokenization/tokenizer.h"\n',
            "engine may not include tokenization",
        )

    def test_angle_brackets_hide_nothing(self):
        self.refuses(
            "models/load.cpp", "#include <app/options.h>\n", "models may not include app/options.h"
        )
        self.refuses(
            "models/load.cpp",
            ' #  include "app/options.h" // why\n',
            "models may not include app/options.h",
        )

    def test_devices_are_private(self):
        for name in (
            "engine/search.cpp",
            "models/load.cpp",
            "app/translate.cpp",
            "engine/cuda/norms/plans.cpp",
            "engine/runner.h",
        ):
            self.refuses(name, '#include "engine/cpu/cpu.h"\n', "belongs to engine/cpu")
        self.refuses(
            "engine/cpu/loops.cpp",
            '#include "engine/cuda/norms/norms.h"\n',
            "belongs to engine/cuda",
        )

    def test_kernel_files(self):
        host = (
            '"engine/tensor.h"',
            '"engine/cuda/cuda.h"',
            '"engine/cuda/norms/plans.h"',
            '"plans.h"',
            "<vector>",
            "<fmt/format.h>",
            "<cutlass/cutlass.h>",
            '"gone.h"',
        )
        for included in host:
            for file in "rows.cu", "packs.cuh", "norms/sums.cu", "norms/packs.cuh", "rows/rows.h":
                self.refuses(
                    f"engine/cuda/{file}",
                    f"#include {included}\n",
                    "kernel files include only",
                    included[1:-1],
                )
        for file in "views.h", "norms/norms.h":
            self.refuses(
                f"engine/cuda/{file}", '#include "engine/tensor.h"\n', "kernel files include only"
            )
        self.assertEqual(
            self.check({"engine/cuda/norms/norm_cutlass.cu": "#include <cutlass/cutlass.h>\n"}), []
        )

    def test_launchers_are_in_the_header_named_as_the_folder(self):
        for name in "kernels.h", "norms/sums.h", "rows/norms.h", "deep/norms/norms.h":
            lines = self.check(
                {
                    f"engine/cuda/{name}": "",
                    "engine/cuda/rows.cu": f'#include "engine/cuda/{name}"\n',
                }
            )
            self.assertEqual(len(lines), 1, lines)
            self.assertIn("kernel files include only", lines[0])
        good = {
            "engine/cuda/rows/rows.h": "",
            "engine/cuda/rows.cu": '#include "engine/cuda/rows/rows.h"\n',
        }
        self.assertEqual(self.check(good), [])

    def test_names_start_at_the_root(self):
        self.refuses("engine/cpu/loops.cpp", '#include "cpu.h"\n', 'no "cpu.h" from the root')

    def test_circles(self):
        lines = self.check(
            {
                "models/a.h": '\n#include "models/b.h"\n',
                "models/b.h": '#include "models/c.h"\n',
                "models/c.h": '#include "engine/error.h"\n#include "models/a.h"\n',
            }
        )
        self.assertEqual(
            lines,
            [
                "models/c.h:2: circular #include: models/a.h -> models/b.h -> models/c.h -> "
                "models/a.h"
            ],
        )
        self.refuses(
            "models/self.h", '#include "models/self.h"\n', "models/self.h -> models/self.h"
        )
        self.assertEqual(
            len(
                self.check(
                    {"tests/a.h": '#include "tests/b.h"\n', "tests/b.h": '#include "tests/a.h"\n'}
                )
            ),
            1,
        )

    def test_this_repository(self):
        self.assertEqual(run(REPOSITORY).stdout, "")


if __name__ == "__main__":
    unittest.main()
