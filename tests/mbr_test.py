#!/usr/bin/env python3
"""Tests scripts/mbr with a stand-in for sacrebleu, whose similarity is the share of common
characters."""

import os
import subprocess
import sys
import tempfile
import unittest

from program import ROOT

STAND_IN = """
class Score:
    def __init__(self, score):
        self.score = score


class CHRF:
    def sentence_score(self, text, others):
        (other,) = others
        return Score(100 * len(set(text) & set(other)) / max(1, len(set(text) | set(other))))
"""


def row(number, text):
    return "%d ||| %s ||| F0= -1.5 ||| -0.5\n" % (number, text)


class Mbr(unittest.TestCase):
    def run_mbr(self, rows, stand_in=True):
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, "sacrebleu"))
            for name, text in (("__init__.py", ""), ("metrics.py", STAND_IN if stand_in else "")):
                with open(os.path.join(folder, "sacrebleu", name), "w", encoding="utf-8") as file:
                    file.write(text)
            return subprocess.run(
                [sys.executable, os.path.join(ROOT, "scripts", "mbr")],
                input=rows.encode("utf-8"),
                capture_output=True,
                env={**os.environ, "PYTHONPATH": folder},
                check=False,
            )

    def chosen(self, rows):
        result = self.run_mbr(rows)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout.decode("utf-8").split("\n")[:-1]

    def test_the_text_that_is_most_like_the_others(self):
        rows = "".join(row(0, text) for text in ("abx", "abc", "abcd", "yz"))
        self.assertEqual(self.chosen(rows + row(1, "only")), ["abc", "only"])

    def test_copies_count(self):
        rows = "".join(row(0, text) for text in ("ab", "yz", "yz", "yz", "ac"))
        self.assertEqual(self.chosen(rows), ["yz"])

    def test_the_first_of_equal_ones(self):
        self.assertEqual(self.chosen(row(0, "ab") + row(0, "ba")), ["ab"])

    def test_text_with_bars_and_empty_text(self):
        self.assertEqual(self.chosen(row(0, "a ||| b") + row(1, "")), ["a ||| b", ""])
        self.assertEqual(self.chosen(""), [])

    def test_what_is_no_row(self):
        for rows, said in (
            ("Hello\n", "row 1"),
            (row(0, "a") + "x ||| y\n", "row 2"),
            (row(1, "a"), "line 1"),
            (row(0, "a") + row(2, "a"), "line 2"),
        ):
            result = self.run_mbr(rows)
            self.assertEqual(result.returncode, 1)
            self.assertIn(said, result.stderr.decode("utf-8"))

    def test_without_sacrebleu(self):
        result = self.run_mbr(row(0, "a"), stand_in=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("pip install sacrebleu", result.stderr.decode("utf-8"))


if __name__ == "__main__":
    unittest.main()
