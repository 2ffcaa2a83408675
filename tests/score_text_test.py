#!/usr/bin/env python3
"""Tests --score-text. The folders random-… of tests/data/families have the logits that transformers
gives for a text, from which the log-probability of the text follows.

XLATE_TEST_DEVICE says where the lines are scored (tests/program.py).
"""

import json
import os

import numpy as np

from checkpoint_fixture import read
from decoder_case import folder_of, ids_of
from decoder_families_test import RANDOM
from families_test import FAMILIES, model_of
from program import Case, main, require

setUpModule = require
IDS = ["--score-text", "--input-format", "ids"]
# The float32 sums of xlate and transformers differ by so much a token.
NEAR = 2e-4


def log_probabilities(name):
    """Returns the log-probability of each id of the text behind the first one."""
    logits = np.load(os.path.join(folder_of(name), "logits.npy")).astype(np.float64)
    ids = ids_of(folder_of(name), "target.ids")[0]
    logits -= logits.max(-1, keepdims=True)
    all_ids = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return [all_ids[i, id] for i, id in enumerate(ids[1:])]


class Scores(Case):
    def scores(self, name, lines, *options):
        """Returns the score and the tokens of each line, and the report."""
        report = self.path("report.json")
        found = self.ok(
            *(*IDS, *options, "--report", report),
            input="".join(line + "\n" for line in lines),
            lines=len(lines),
            model=model_of(os.path.join(FAMILIES, "random-" + name)),
        ).lines
        rows = [line.split(" ||| ") for line in found]
        return [(float(score), int(tokens)) for score, tokens in rows], json.loads(read(report))

    def test_transformers_gives_the_same(self):
        for name in RANDOM:
            ids, expected = ids_of(folder_of(name), "target.ids")[0], log_probabilities(name)
            lengths = (len(ids), 1, len(ids) // 2, 2)
            lines = [" ".join(map(str, ids[:length])) for length in lengths]
            for options in ([], ["--batch-tokens", "1"], ["--line-buffered"]):
                found, report = self.scores(name, lines, *options)
                for length, (score, tokens) in zip(lengths, found):
                    self.assertEqual(tokens, length - 1)
                    self.assertAlmostEqual(
                        score, sum(expected[: length - 1]), delta=NEAR * length, msg=name
                    )
                tokens = sum(tokens for _, tokens in found)
                mean = -sum(score for score, _ in found) / tokens
                self.assertAlmostEqual(report["perplexity"] / np.exp(mean), 1, delta=1e-4)
                self.assertEqual(report["counts"]["target_tokens"], tokens)
                self.assertEqual(report["counts"]["source_tokens"], sum(lengths))

    def test_empty_and_long_lines(self):
        context = 64
        lines = ["", "5 6 7", " ".join(["5"] * context), " ".join(["5"] * (context + 9)), "7"]
        found, report = self.scores("gpt2", lines)
        self.assertEqual([tokens for _, tokens in found], [0, 2, context - 1, context - 1, 0])
        self.assertEqual(found[0], (0, 0))
        self.assertEqual(found[2], found[3])
        self.assertEqual(report["lines"]["truncated"], 1)
        self.assertEqual(report["lines"]["empty"], 1)

    def test_objects(self):
        found = self.ok(
            *("--score-text", "--input-format", "ids", "--output-format", "jsonl"),
            input="5 6 7\n\n5\n",
            lines=3,
            model=model_of(os.path.join(FAMILIES, "random-gpt2")),
        ).lines
        score, tokens = self.scores("gpt2", ["5 6 7"])[0][0]
        rows = [json.loads(line) for line in found]
        self.assertEqual(rows[1:], 2 * [{"score": 0, "tokens": 0}])
        self.assertAlmostEqual(rows[0]["score"], score, delta=NEAR)
        self.assertEqual(rows[0]["tokens"], tokens)

    def test_no_lines(self):
        found, report = self.scores("gpt2", [])
        self.assertEqual(found, [])
        self.assertIsNone(report["perplexity"])

    def test_what_means_nothing_is_refused(self):
        model = model_of(os.path.join(FAMILIES, "random-gpt2"))
        for option in (
            ["-b", "2"],
            ["--n-best", "1"],
            ["--scores"],
            ["--max-new-tokens", "3"],
            ["--echo"],
            ["--template", "{line}"],
            ["--output-format", "ids"],
            ["--repetition-penalty", "1.1"],
        ):
            name = "--beam-size" if option[0] == "-b" else option[0]
            self.usage_error(*IDS, *option, names=name, model=model)
        self.usage_error(*IDS, "--max-source-length", "65", names="65", model=model)
        t5 = model_of(os.path.join(FAMILIES, "t5"))
        self.usage_error(*IDS, names="--score-text", model=t5)


if __name__ == "__main__":
    main()
