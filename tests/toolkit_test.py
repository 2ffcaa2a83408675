#!/usr/bin/env python3
"""Tests that a CUDA toolkit that is too old is refused when a build is configured."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class OldToolkit(unittest.TestCase):
    def configure(self, version, *arguments, **environment):
        with tempfile.TemporaryDirectory(prefix="xlate-toolkit-") as folder:
            compiler = os.path.join(folder, "nvcc")
            with open(compiler, "w", encoding="utf-8") as file:
                file.write("#!/bin/sh\necho 'Cuda compilation tools, release %s, V1'\n" % version)
            os.chmod(compiler, 0o755)
            arguments = [argument.replace("NVCC", compiler) for argument in arguments]
            environment = {
                name: value.replace("NVCC", compiler) for name, value in environment.items()
            }
            result = subprocess.run(
                ["cmake", "-S", ROOT, "-B", os.path.join(folder, "build"), *arguments],
                capture_output=True,
                text=True,
                env=os.environ | environment,
                timeout=600,
            )
            return result.returncode, " ".join(result.stderr.replace(folder, "").split())

    def test_it_is_refused_with_both_versions(self):
        if not shutil.which("cmake"):
            self.skipTest("no cmake here")
        for arguments, environment in (
            (["-DCMAKE_CUDA_COMPILER=NVCC"], {}),
            ([], {"CUDACXX": "NVCC"}),
        ):
            code, errors = self.configure("12.6", *arguments, **environment)
            self.assertEqual(code, 1, errors)
            self.assertIn("/nvcc is of CUDA 12.6, expected 12.8 or newer", errors)
            self.assertEqual(errors.count("CMake Error"), 1, errors)

    def test_the_documents_have_the_same_versions(self):
        _, errors = self.configure("12.6", "-DCMAKE_CUDA_COMPILER=NVCC")
        least = re.search(r"expected (\S+) or newer", errors)[1]
        for name, words in (
            ("README.md", ("toolkit is there (from %s;", "driver 580", "forward-compatibility")),
            ("docs/installation.md", ("CUDA toolkit for a build | %s |", "580", "cuda-compat-13-")),
        ):
            with open(os.path.join(ROOT, name), encoding="utf-8") as file:
                text = " ".join(file.read().split())
            for word in words:
                self.assertIn(word % least if "%" in word else word, text, name)

    def test_without_cuda_it_does_not_matter(self):
        code, errors = self.configure(
            "11.8", "-DXLATE_CUDA=OFF", "-DXLATE_TESTS=OFF", CUDACXX="NVCC"
        )
        self.assertEqual(code, 0, errors)


if __name__ == "__main__":
    unittest.main()
