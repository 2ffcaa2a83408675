#!/usr/bin/env python3
"""Tests --sample. The folders random-… of tests/data/families have the logits that transformers
gives behind each id of a text. From these follow the probabilities of the next token, and which
tokens top-k and top-p keep.

XLATE_TEST_DEVICE says where the lines are decoded (tests/program.py).
"""

import collections
import json
import math
import os
import unittest

import numpy as np

from checkpoint_fixture import read
from decoder_case import folder_of, ids_of
from families_test import FAMILIES, REFERENCE, model_of
from program import EN_DE, Case, main, require, source_lines

setUpModule = require
IDS = ["--sample", "--input-format", "ids", "--output-format", "ids"]


def kept_of(logits, temperature=1.0, top_k=0, top_p=1.0):
    """Returns the probabilities of the ids that are kept, by their ids."""
    order = sorted(range(len(logits)), key=lambda id: (-logits[id], -id))
    if 0 < top_k < len(order):
        order = [id for id in order if logits[id] >= logits[order[top_k - 1]]]
    weights = np.exp((logits[order] - logits[order[0]]) / temperature)
    reached = np.cumsum(weights)
    count = 1 + int(np.searchsorted(reached, top_p * reached[-1]))
    order, weights = order[:count], weights[:count]
    return dict(zip(order, weights / weights.sum()))


def ids_of_rows(rows):
    return [row.split(" ||| ")[:2] for row in rows]


class DrawsCase(Case):
    def check_frequencies(self, counts, expected, total):
        self.assertEqual(set(counts) - set(expected), set())
        cells = {id: p * total for id, p in expected.items() if p * total >= 5}
        chi_square = sum((counts[id] - mean) ** 2 / mean for id, mean in cells.items())
        # One in a million correct programs has a larger one (Wilson and Hilferty 1931).
        spread = 2 / (9 * len(cells))
        self.assertLess(
            (chi_square / len(cells)) ** (1 / 3), 1 - spread + 4.75 * math.sqrt(spread), counts
        )


class Draws(DrawsCase):
    def draw(self, name, lines, *options):
        return self.ok(
            *(*IDS, *options),
            input="".join(line + "\n" for line in lines),
            model=model_of(os.path.join(FAMILIES, "random-" + name)),
        ).lines

    def test_frequencies_are_the_probabilities(self):
        total = 1000
        for name in ("gpt2", "gemma2", "llama"):
            logits = np.load(os.path.join(folder_of(name), "logits.npy")).astype(np.float64)
            ids = ids_of(folder_of(name), "target.ids")[0]
            for tokens, settings in (
                (6, {}),
                (9, {"temperature": 0.7, "top_k": 20, "top_p": 0.9}),
                (12, {"temperature": 1.5, "top_p": 0.5}),
            ):
                words = [
                    word
                    for key, value in settings.items()
                    for word in ("--" + key.replace("_", "-"), str(value))
                ]
                prompt = " ".join(map(str, ids[:tokens]))
                rows = self.draw(
                    name, [prompt] * 3, *words, "--num-samples", str(total), "--max-new-tokens", "1"
                )
                self.assertEqual(len(rows), 3 * total)
                fields = [row.split(" ||| ") for row in rows]
                self.assertEqual([int(row[0]) for row in fields], sorted(total * [0, 1, 2]))
                end = json.loads(read(folder_of(name), "generation_config.json"))["eos_token_id"]
                ends = end if isinstance(end, list) else [end]
                expected = kept_of(logits[tokens - 1], **settings)
                # All end tokens give an empty output.
                merged = collections.Counter()
                for id, probability in expected.items():
                    merged[-1 if id in ends else id] += probability
                counts = collections.Counter(int(row[1]) if row[1] else -1 for row in fields)
                self.check_frequencies(counts, merged, 3 * total)

    def test_nothing_but_the_line_the_seed_and_the_model_matters(self):
        lines = ["%d 5 6" % (7 + i % 20) for i in range(60)]
        options = ["--max-new-tokens", "12", "--top-p", "0.95", "--num-samples", "3"]
        expected = self.draw("gpt2", lines, *options)
        for more in (["--batch-tokens", "1"], ["--batch-tokens", "64"], ["--line-buffered"]):
            found = self.draw("gpt2", lines, *options, *more)
            # The last bits of scores depend on the batch on the CPU.
            self.assertEqual(ids_of_rows(found), ids_of_rows(expected))
        self.assertEqual(self.draw("gpt2", lines, *options, "--seed", "0"), expected)
        self.assertNotEqual(self.draw("gpt2", lines, *options, "--seed", "1"), expected)
        # The first draw of each line is the one that it has alone.
        single = self.draw("gpt2", lines, "--max-new-tokens", "12", "--top-p", "0.95")
        self.assertEqual([row.split(" ||| ")[1] for row in expected[::3]], single)

    def test_scores_are_those_of_the_text(self):
        """Temperature and top-k are not in the scores."""
        options = ["--max-new-tokens", "5", "--temperature", "0.5", "--top-k", "4", "--scores"]
        prompt = "7 5 6"
        for row in self.draw("llama", [prompt] * 4, *options):
            score, ids = row.split(" ||| ")
            tokens = len(ids.split())
            if tokens < 5:
                continue
            sums = [
                float(
                    self.ok(
                        *("--score-text", "--input-format", "ids"),
                        input=text + "\n",
                        model=model_of(os.path.join(FAMILIES, "random-llama")),
                    )
                    .lines[0]
                    .split(" ||| ")[0]
                )
                for text in (prompt, prompt + " " + ids)
            ]
            self.assertAlmostEqual(float(score), (sums[1] - sums[0]) / tokens, delta=1e-3)

    def test_one_token_that_is_kept_is_greedy_search(self):
        lines = ["%d 5 6" % (7 + i) for i in range(10)]
        greedy = self.ok(
            *("-b", "1", "--max-new-tokens", "10", *IDS[1:]),
            input="".join(line + "\n" for line in lines),
            model=model_of(os.path.join(FAMILIES, "random-gpt2")),
        ).lines
        for options in (["--top-k", "1"], ["--top-p", "0.000001"]):
            self.assertEqual(
                self.draw("gpt2", lines, "--max-new-tokens", "10", *options), greedy, options
            )


@unittest.skipUnless(os.path.isdir(os.path.join(REFERENCE, "gpt2")), "no reference folder")
class OfTheReferenceFolder(DrawsCase):
    """Compares draws with the ids that transformers keeps, and with their probabilities."""

    total = 1000

    def check_model(self, name):
        folder = os.path.join(REFERENCE, name)
        settings = json.loads(read(folder, "sampling.json"))
        sources = read(folder, "source.ids").decode().splitlines()
        generation = json.loads(read(folder, "generation_config.json"))
        ends = generation.get("eos_token_id")
        ends = ends if isinstance(ends, list) else [ends]
        pairs = settings["pairs"]
        # A continuation of a prompt and its prefix is drawn as behind the prefix.
        prompts = [" ".join([sources[pair["line"]], *map(str, pair["prefix"])]) for pair in pairs]
        words = [
            word
            for key in ("temperature", "top_k", "top_p")
            for word in ("--" + key.replace("_", "-"), str(settings[key]))
        ]
        rows = self.ok(
            *(*IDS, *words, "--num-samples", str(self.total), "--max-new-tokens", "1"),
            *("--repetition-penalty", "1", "--no-repeat-ngram", "0", "--min-length", "0"),
            input="".join(prompt + "\n" for prompt in prompts),
            model=model_of(folder),
        ).lines
        counts = [collections.Counter() for _ in pairs]
        for row in rows:
            number, ids, *_ = row.split(" ||| ")
            counts[int(number)][int(ids) if ids else -1] += 1
        for pair, found in zip(pairs, counts):
            expected = collections.Counter()
            for id, probability in zip(pair["ids"], pair["probabilities"]):
                expected[-1 if id in ends else id] += probability
            self.check_frequencies(found, expected, self.total)


def add_reference_tests():
    for name in ("gpt2", "llama", "qwen3", "opt"):
        check = lambda self, name=name: self.check_model(name)
        setattr(OfTheReferenceFolder, "test_reference_" + name, check)


class Translations(Case):
    def test_text_and_objects(self):
        text = "".join(line + "\n" for line in source_lines()[:5]) + "\n"
        rows = self.ok(
            *("--sample", "--num-samples", "2", "--top-k", "10"), input=text, model=EN_DE
        ).lines
        self.assertEqual([row.split(" ||| ")[0] for row in rows], [*"0011223344", "5"])
        found = self.ok(
            *("--sample", "--num-samples", "2", "--top-k", "10", "--output-format", "jsonl"),
            input=text,
            model=EN_DE,
            lines=6,
        ).lines
        objects = [json.loads(line)["output"] for line in found]
        self.assertEqual(
            [row.split(" ||| ")[1] for row in rows],
            [entry["output"] for outputs in objects for entry in outputs],
        )
        self.assertEqual([len(outputs) for outputs in objects], [2, 2, 2, 2, 2, 1])

    def test_what_means_nothing_is_refused(self):
        for options, name in (
            (["--top-k", "5"], "--top-k"),
            (["--seed", "1"], "--seed"),
            (["--num-samples", "2"], "--num-samples"),
            (["--sample", "-b", "4"], "--beam-size"),
            (["--sample", "--n-best", "1"], "--num-samples"),
            (["--sample", "--early-stopping", "never"], "--early-stopping"),
            (["--sample", "--temperature", "0"], "--temperature"),
            (["--sample", "--top-p", "1.5"], "--top-p"),
            (["--sample", "--top-p", "nan"], "--top-p"),
            (["--sample", "--num-samples", "2", "--split-sentences"], "--num-samples"),
        ):
            self.usage_error(*options, names=name)


add_reference_tests()

if __name__ == "__main__":
    main()
