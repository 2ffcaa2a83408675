#!/usr/bin/env python3
"""Tests that the output of a line depends on the line alone, for families whose networks differ
most: T5 (RMS norms, distance biases), NLLB (computed positions, language tokens), and two models
that continue prompts, Gemma 2 (windows, softcaps) and GPT-2, with and without row rules. A GPU must
give the same bytes in every type. On the CPU the last bits of a score depend on the batch, so that
near-ties may fall either way.

XLATE_TEST_DEVICE and XLATE_TEST_PRECISION say where the lines are decoded (tests/program.py).
"""

import os
import random

import program
from checkpoint_fixture import read
from families_test import FAMILIES, language_options, model_of, search_options
from family_options import run_options
from program import Case

RULES = {"--min-length": "8", "--no-repeat-ngram": "3", "--repetition-penalty": "1.3"}
FORMATS = ["--input-format", "ids", "--output-format", "ids", "--scores"]
# On the CPU, scores may differ by this much, and this many lines may be near-ties.
NEAR, NEAR_TIES = 1e-4, 1
# A GPU decodes all lines of source.ids, and then so many copies of them at once.
COPIES = 8

setUpModule = program.require


class FamilyInvariance(Case):
    device, precision = program.DEVICE, program.PRECISION

    @property
    def exact(self):
        return self.device != "cpu"

    def lines_of(self, family):
        lines = read(FAMILIES, family, "source.ids").splitlines()
        return lines if self.exact else lines[:40]

    def rows(self, family, lines, *options):
        """Returns (score, ids) of each line as printed."""
        where = ["--device", self.device]
        if self.exact:
            where += ["--precision", self.precision, "--gpu-memory", "8GiB"]
        result = self.ok(
            *FORMATS,
            *where,
            *options,
            input=b"".join(line + b"\n" for line in lines),
            lines=len(lines),
            model=model_of(os.path.join(FAMILIES, family)),
            device=None,
        )
        return [line.split(" ||| ", 1) for line in result.lines]

    def check_same(self, wanted, got, what):
        if self.exact:
            wrong = [i + 1 for i, (a, b) in enumerate(zip(wanted, got)) if a != b]
            self.assertEqual(wrong, [], "%s: these lines have other bytes" % what)
            return
        wrong = [i + 1 for i, (a, b) in enumerate(zip(wanted, got)) if a[1] != b[1]]
        self.assertLessEqual(len(wrong), NEAR_TIES, "%s: lines %s differ" % (what, wrong))
        for a, b in zip(wanted, got):
            self.assertAlmostEqual(float(a[0]), float(b[0]), delta=NEAR, msg=(what, a, b))

    def check_orders(self, family, options, wanted):
        """Compares other orders in other budgets, and on a GPU many copies at once."""
        lines = self.lines_of(family)
        count = len(lines)
        shuffled = random.Random(3).sample(range(count), count)
        for order, budget in ((range(count - 1, -1, -1), 512), (shuffled, 200), (shuffled, 1)):
            rows = self.rows(family, [lines[i] for i in order], *options, "--batch-tokens", budget)
            got = [None] * count
            for i, row in zip(order, rows):
                got[i] = row
            self.check_same(wanted, got, "budget %d" % budget)
        copies = COPIES if self.exact else 2
        self.check_same(wanted * copies, self.rows(family, lines * copies, *options), "copies")

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
