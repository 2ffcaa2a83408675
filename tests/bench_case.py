"""Runs the scripts that measure xlate, for their tests."""

import os
import subprocess
import sys

import program
from program import ROOT, Case


class BenchCase(Case):
    def script(self, name, *arguments, code=0):
        done = subprocess.run(
            [sys.executable, os.path.join(ROOT, "scripts", name), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=program.TIMEOUT,
        )
        self.assertEqual(done.returncode, code, done.stderr.decode())
        return done.stdout.decode(), done.stderr.decode()
