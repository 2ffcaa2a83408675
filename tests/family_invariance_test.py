#!/usr/bin/env python3
"""Tests that the output of a line depends on the line alone, for families whose networks differ
most: T5 (RMS norms, distance biases), NLLB (computed positions, language tokens), and two models
that continue prompts, Gemma 2 (windows, softcaps) and GPT-2, with and without row rules
(invariance_case.py says what must be the same).

XLATE_TEST_DEVICE and XLATE_TEST_PRECISION say where the lines are decoded (tests/program.py).
"""

import os
import random

import program
from checkpoint_fixture import read
from families_test import FAMILIES, language_options, model_of, search_options
from family_options import run_options
from invariance_case import InvarianceCase

RULES = {"--min-length": "8", "--no-repeat-ngram": "3", "--repetition-penalty": "1.3"}
# A GPU decodes all lines of source.ids, and then so many copies of them at once. A CPU decodes so
# many of them that each of four threads has rows enough to compute a part by itself.
COPIES, THREADS, ROWS = 8, 4, 200

setUpModule = program.require


class FamilyInvariance(InvarianceCase):
    def lines_of(self, family):
        lines = read(FAMILIES, family, "source.ids").splitlines()
        return lines if self.is_on_gpu else lines[:40]

    def rows(self, family, lines, *options):
        """Returns (score, ids) of each line as printed."""
        return self.rows_of(model_of(os.path.join(FAMILIES, family)), lines, *options)[0]

    def check_orders(self, family, options, wanted):
        """Compares other orders in other budgets, and many copies at once: on a CPU by four
        threads, each of which computes a part of the batch."""
        lines = self.lines_of(family)
        count = len(lines)
        shuffled = random.Random(3).sample(range(count), count)
        for order, budget in ((range(count - 1, -1, -1), 512), (shuffled, 200), (shuffled, 1)):
            rows = self.rows(family, [lines[i] for i in order], *options, "--batch-tokens", budget)
            self.check_order(wanted, order, rows, "budget %d" % budget)
        copies = COPIES if self.is_on_gpu else -(-ROWS // count)
        rows = self.rows(family, lines * copies, *options, "--threads", THREADS)
        self.check_same(wanted * copies, rows, "copies")

    def check_alone(self, family, options, wanted):
        lines = self.lines_of(family)[:40]
        self.check_same(
            wanted[: len(lines)],
            self.rows(family, lines, *options, "--line-buffered"),
            "one sentence at a time",
        )

    def check_family(self, family, check):
        for setting in ("greedy", "beam4"):
            for rules in ({}, RULES):
                with self.subTest(family=family, setting=setting, rules=bool(rules)):
                    settings = run_options(family, os.path.join(FAMILIES, family), setting)
                    options = [word for each in {**settings, **rules}.items() for word in each]
                    check(family, options, self.rows(family, self.lines_of(family), *options))

    def test_t5_in_any_order_and_budget(self):
        self.check_family("t5", self.check_orders)

    def test_nllb_in_any_order_and_budget(self):
        self.check_family("nllb", self.check_orders)

    def test_prompts_in_any_order_and_budget(self):
        for family in ("random-gemma2", "random-gpt2"):
            self.check_family(family, self.check_orders)

    def test_prompts_alone(self):
        for family in ("random-gemma2", "random-gpt2"):
            self.check_family(family, self.check_alone)

    def test_t5_alone(self):
        self.check_family("t5", self.check_alone)

    def test_nllb_alone(self):
        self.check_family("nllb", self.check_alone)

    def test_the_rules_change_lines(self):
        """Otherwise the tests above would show nothing about the rules."""
        for family in ("t5", "nllb"):
            for setting in ("greedy", "beam4"):
                settings = {**search_options(setting), **language_options(family, setting)}
                plain, ruled = (
                    self.rows(
                        family,
                        self.lines_of(family),
                        *(word for each in {**settings, **rules}.items() for word in each),
                    )
                    for rules in ({}, RULES)
                )
                self.assertGreater(sum(a[1] != b[1] for a, b in zip(plain, ruled)), 5)


if __name__ == "__main__":
    program.main()
