#!/usr/bin/env python3
"""Tests scripts/compare_bfloat16 with a stand-in for xlate, whose scores in bfloat16 are a given
distance away from those in float32, and with xlate itself in float32."""

import json
import os
import subprocess
import sys
import unittest

import numpy as np

import program
from checkpoint_fixture import convert
from decoder_case import folder_of, ids_of
from decoder_families_test import RANDOM
from program import BINARY, ROOT, Case

# The stand-in gives a token of id i the log-probability -i / 10, and in bfloat16 one that is too
# large and too small in turns.
STAND_IN = """#!/usr/bin/env python3
import sys
options, apart = sys.argv[1:], %s
apart = apart if options[options.index("--precision") + 1] == "bf16" else 0
assert {"--score-text", "--input-format"} < set(options)
for line in sys.stdin:
    ids = [int(word) for word in line.split()][1:]
    score = sum(-i / 10 + apart * (-1) ** at for at, i in enumerate(ids))
    print("%%.6g ||| %%d" %% (score, len(ids)))
"""
TEXTS = [[1, 5, 9, 2], [3, 4], [7, 7, 7, 7, 7, 12]]
setUpModule = program.require


class CompareBfloat16(Case):
    def compare(self, binary, scores, texts, model="none.bin"):
        """Returns the exit code and the cells of the row. `scores` has those of PyTorch in float32.
        In bfloat16 they are 0.02 larger."""
        away = [[score + 0.02 for score in text] for text in scores]
        content = {"name": "few", "texts": texts, "fp32": scores, "bf16": away}
        path = self.path("few.json", json.dumps(content))
        done = subprocess.run(
            [
                *(sys.executable, os.path.join(ROOT, "scripts", "compare_bfloat16"), "compare"),
                *(path, "--xlate", binary, "--model", model, "--device", "cpu"),
            ],
            stdout=subprocess.PIPE,
            text=True,
            timeout=program.TIMEOUT,
        )
        return done.returncode, done.stdout.splitlines()[-1].strip("| ").split(" | ")

    def stand_in(self, apart):
        path = self.path("stand-in", STAND_IN % apart)
        os.chmod(path, 0o755)
        return path

    def test_what_is_allowed(self):
        scores = [[-i / 10 for i in ids[1:]] for ids in TEXTS]
        for apart, code, said in ((0.022, 0, "met"), (0.026, 1, "NOT MET"), (0, 1, "NOT MET")):
            found, row = self.compare(self.stand_in(apart), scores, TEXTS)
            self.assertEqual((found, row[-1]), (code, said))
            self.assertEqual(row[:3], ["few", "3", "9"])
            self.assertEqual(row[4:7], ["0.02000", "%.5f" % apart, "%.3f" % (apart / 0.02)])

    def test_another_network(self):
        scores = [[-i / 10 - 0.1 for i in ids[1:]] for ids in TEXTS]
        code, row = self.compare(self.stand_in(0.02), scores, TEXTS)
        self.assertEqual((code, row[-1]), (1, "NOT THE SAME NETWORK in float32"))

    def test_xlate_scores_each_token_as_pytorch_does(self):
        """The CPU has float32 alone, so that a shell script takes it in place of bfloat16."""
        path = self.path(
            "only-float32",
            '#!/bin/sh\nfor word; do shift; [ "$word" = bf16 ] && word=fp32\n'
            'set -- "$@" "$word"; done\nexec \'%s\' "$@"\n' % BINARY,
        )
        os.chmod(path, 0o755)
        name = RANDOM[0]
        ids, model = ids_of(folder_of(name), "target.ids")[0], self.path("model.bin")
        convert.convert(folder_of(name), model)
        logits = np.load(os.path.join(folder_of(name), "logits.npy")).astype(np.float64)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        scores = [[float(logits[at, id]) for at, id in enumerate(ids[1:])]]
        _, row = self.compare(path, scores, [ids], model)
        self.assertEqual(row[-1], "NOT MET")
        self.assertEqual(row[5], "0.00000")


if __name__ == "__main__":
    unittest.main()
