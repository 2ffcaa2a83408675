#!/usr/bin/env python3
"""Tests the plain parts of scripts/compare_search, which need no PyTorch: its arguments, the
options of xlate for each combination of rules, and the comparison of hypotheses."""

import os
import subprocess
import sys
import unittest

import program
from checkpoint_fixture import read
from families_test import FAMILIES, model_of
from program import ROOT, Case

sys.path.insert(0, os.path.join(ROOT, "scripts"))

from search_combinations import (
    COMBINATIONS,
    DIFFERENT,
    EQUAL,
    NEAR_TIE,
    Combination,
    compare_line,
    count_cell,
    is_tie_inside,
    read_rows,
)

setUpModule = program.require


class Arguments(Case):
    def compare(self, *arguments):
        script = os.path.join(ROOT, "scripts", "compare_search")
        return subprocess.run(
            [sys.executable, script, *arguments],
            capture_output=True,
            text=True,
            timeout=program.TIMEOUT,
        )

    def test_usage_errors(self):
        for arguments, said in (
            ([], "FOLDER"),
            ([self.path("none")], "none: not a folder"),
            ([self.folder], "no folder in it has a source.ids"),
            ([FAMILIES, "--family", "klingon"], "--family klingon: expected one of bart, flan, "),
            ([FAMILIES, "--only", "beam 77"], "no combination"),
            ([FAMILIES, "--lines", "0"], "--lines: 0: expected at least 1"),
        ):
            result = self.compare(*arguments)
            self.assertEqual((result.returncode, result.stdout), (2, ""), arguments)
            self.assertIn(said, result.stderr, arguments)

    def test_help(self):
        result = self.compare("--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("near tie", result.stdout)


class Options(Case):
    def test_xlate_takes_every_combination(self):
        prefixes = self.path("prefixes", "5 6\n" * 3)
        for family, has_encoder in (("t5", True), ("random-gpt2", False)):
            folder = os.path.join(FAMILIES, family)
            lines = b"".join(read(folder, "source.ids").splitlines(keepends=True)[:3])
            for name, combination in COMBINATIONS.items():
                if not combination.suits(has_encoder):
                    continue
                found = self.ok(
                    *combination.xlate_options(has_encoder, [7, 8], prefixes),
                    *("--input-format", "ids", "--output-format", "ids"),
                    input=lines,
                    model=model_of(folder),
                )
                hypotheses = read_rows(found.lines, combination.n_best)
                self.assertEqual([len(each) for each in hypotheses], [combination.n_best] * 3, name)

    def test_settings_of_generate(self):
        combination = Combination(
            beams=4, early_stopping="true", length_penalty=2, min_new_tokens=8, suppress=True
        )
        found = combination.generate_settings(True, [7, 9])
        expected = {
            "num_beams": 4,
            "early_stopping": True,
            "length_penalty": 2.0,
            "min_new_tokens": 8,
            "bad_words_ids": [[7]],
            "suppress_tokens": [9],
            "max_new_tokens": 60,
        }
        self.assertEqual({key: found[key] for key in expected}, expected)
        self.assertEqual(Combination(limit=12).generate_settings(False)["max_new_tokens"], 12)
        self.assertNotIn("length_penalty", Combination().generate_settings(True))


class Comparison(unittest.TestCase):
    scores = {(1, 2): -1.0, (1, 3): -1.0004, (1, 4): -1.01}

    def compare(self, expected, found):
        score_of = lambda ids: self.scores[tuple(ids)]
        return compare_line(expected, found, score_of)[0]

    def test_kinds(self):
        best = ([1, 2], -1.0)
        for found, kind in (
            (([1, 2], -1.0003), EQUAL),
            # The ids are equal, but not the scores.
            (([1, 2], -1.002), DIFFERENT),
            (([1, 3], -1.0004), NEAR_TIE),
            (([1, 4], -1.01), DIFFERENT),
            # The program gives its hypothesis another score than transformers' model.
            (([1, 3], -1.0), NEAR_TIE),
            (([1, 3], -0.99), DIFFERENT),
        ):
            self.assertEqual(self.compare([best], [found]), kind, found)

    def test_all_ranks_are_compared(self):
        rows = [([1, 2], -1.0), ([1, 3], -1.0004), ([1, 4], -1.01)]
        self.assertEqual(self.compare(rows, rows), EQUAL)
        self.assertEqual(self.compare(rows, [rows[1], rows[0], rows[2]]), NEAR_TIE)
        self.assertEqual(self.compare(rows, [rows[0], rows[2], rows[1]]), DIFFERENT)
        self.assertEqual(self.compare(rows, rows[:2]), DIFFERENT)

    def test_ties_inside_a_search(self):
        found = [([1, 4], -1.01), ([1, 2], -1.0)]
        self.assertTrue(is_tie_inside(found, [[([1, 2], -1)], [([1, 4], -1), ([1, 2], -1)]]))
        self.assertFalse(is_tie_inside(found, [[([1, 4], -1)], [([1, 2], -1), ([1, 4], -1)]]))

    def test_rows_of_xlate(self):
        self.assertEqual(read_rows(["-1.5 ||| 4 5", "0 ||| "], 1), [[([4, 5], -1.5)], [([], 0)]])
        rows = [
            "0 ||| 4 ||| F0= -3 ||| -1.5",
            "0 ||| 5 ||| F0= -4 ||| -2",
            "1 |||  ||| F0= 0 ||| 0",
        ]
        self.assertEqual(read_rows(rows, 2), [[([4], -1.5), ([5], -2)], [([], 0)]])

    def test_cells(self):
        self.assertEqual(count_cell({EQUAL: 120}), "120")
        self.assertEqual(count_cell({EQUAL: 119, NEAR_TIE: 1}), "119 / 1")
        self.assertEqual(count_cell({EQUAL: 118, DIFFERENT: 2}), "118 / 0 / **2**")


if __name__ == "__main__":
    program.main()
