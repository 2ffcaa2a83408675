#!/usr/bin/env python3
"""Tests --sample. The folders random-… of tests/data/families have the logits that transformers
gives behind each id of a text. From these follow the probabilities of the next token, and which
tokens top-k and top-p keep.

XLATE_TEST_DEVICE says where the lines are decoded (tests/program.py).
"""

import collections
import itertools
import json
import math
import os
import unittest

import numpy as np

from checkpoint_fixture import read
from decoder_case import folder_of, ids_of
from families_test import FAMILIES, REFERENCE, TRAINED, model_of
from family_options import DECODERS, LANGUAGES, language_options
from program import EN_DE, Case, main, require, source_lines

setUpModule = require
FORMATS = ["--input-format", "ids", "--output-format", "ids"]
IDS = ["--sample", *FORMATS]


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
            self.assertEqual(found, expected)
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
            *("-b", "1", "--max-new-tokens", "10", *FORMATS),
            input="".join(line + "\n" for line in lines),
            model=model_of(os.path.join(FAMILIES, "random-gpt2")),
        ).lines
        for options in (["--top-k", "1"], ["--top-p", "0.000001"]):
            self.assertEqual(
                self.draw("gpt2", lines, "--max-new-tokens", "10", *options), greedy, options
            )


@unittest.skipUnless(os.path.isdir(os.path.join(REFERENCE, "gpt2")), "no reference folder")
class OfTheReferenceFolder(DrawsCase):
    """Compares the next token behind the prefixes in sampling.json with the ids that transformers
    keeps and with their probabilities: once by many draws, and once to 1e-5 by the scores of a
    search, which are the logits but for a constant."""

    # A prompt is read at once, but a prefix takes a step of each draw for each of its tokens.
    total_of_prompts, total_of_prefixes = 1000, 100
    # A search with this many beams finds more tokens than top-k keeps.
    beams = 64

    def read_folder(self, name):
        self.family, self.reference = name, os.path.join(REFERENCE, name)
        self.settings = json.loads(read(self.reference, "sampling.json"))
        self.generation = json.loads(read(self.reference, "generation_config.json"))
        ends = self.generation["eos_token_id"]
        self.ends = ends if isinstance(ends, list) else [ends]
        # The forced first token, or that of the language, is the first id of each prefix.
        self.forced = int(name in LANGUAGES or "forced_bos_token_id" in self.generation)

    def rows_of(self, pairs, tokens, *options):
        """Returns (number of the pair, ids behind its prefix, score) of each row of a run that
        chooses so many tokens."""
        sources = read(self.reference, "source.ids").decode().splitlines()
        prefixes = [pair["prefix"][self.forced :] for pair in pairs]
        lines = [sources[pair["line"]] for pair in pairs]
        if self.family in DECODERS:
            # The continuation of a prompt and its prefix is chosen as behind the prefix.
            lines = [" ".join([line, *map(str, ids)]) for line, ids in zip(lines, prefixes)]
            limit = ["--max-new-tokens", str(tokens)]
        else:
            text = "".join(" ".join(map(str, ids)) + "\n" for ids in prefixes)
            # A forced end token takes another step.
            tokens += "forced_eos_token_id" in self.generation
            limit = ["--max-length", str(tokens), "--target-prefix", self.path("prefix.ids", text)]
        languages = language_options(self.family, "greedy").items()
        rows = self.ok(
            *(*FORMATS, *options, *limit, *itertools.chain(*languages)),
            *("--repetition-penalty", "1", "--no-repeat-ngram", "0", "--min-length", "0"),
            input="".join(line + "\n" for line in lines),
            model=model_of(self.reference),
        ).lines
        for row in rows:
            number, ids, _, score = row.split(" ||| ")
            given = 0 if self.family in DECODERS else len(pairs[int(number)]["prefix"])
            yield int(number), [int(id) for id in ids.split()][given:], float(score)

    def choices_of(self, *options):
        """Yields a pair with the next tokens that a run chooses behind its prefix, as {id: scores}.
        All end tokens are −1, because they give the same output."""
        # An empty prefix leaves the forced first token to the search, which takes another step.
        for is_empty in (False, True):
            pairs = [
                pair
                for pair in self.settings["pairs"]
                if is_empty == (self.forced == len(pair["prefix"]) == 1)
            ]
            choices = [collections.defaultdict(list) for _ in pairs]
            for number, ids, score in self.rows_of(pairs, 1 + is_empty, *options) if pairs else ():
                choices[number][ids[0] if ids else -1].append(score)
            yield from zip(pairs, choices, strict=True)

    def probabilities_of(self, items):
        """Returns the sums of the probabilities of ids. All end tokens are −1."""
        merged = collections.Counter()
        for id, probability in items:
            merged[-1 if id in self.ends else id] += probability
        return merged

    def check_draws(self, name):
        self.read_folder(name)
        total = self.total_of_prompts if name in DECODERS else self.total_of_prefixes
        words = [
            word
            for key in ("temperature", "top_k", "top_p")
            for word in ("--" + key.replace("_", "-"), str(self.settings[key]))
        ]
        pairs = 0
        for pair, found in self.choices_of("--sample", *words, "--num-samples", str(total)):
            expected = self.probabilities_of(zip(pair["ids"], pair["probabilities"]))
            counts = collections.Counter({id: len(scores) for id, scores in found.items()})
            self.assertEqual(counts.total(), total)
            self.check_frequencies(counts, expected, total)
            pairs += 1
        self.assertEqual(pairs, len(self.settings["pairs"]))

    def check_probabilities(self, name):
        self.read_folder(name)
        rules = {key: self.settings[key] for key in ("temperature", "top_k", "top_p")}
        search = ["-b", self.beams, "--n-best", self.beams, "--length-penalty", "0"]
        for pair, found in self.choices_of(*search, "--early-stopping", "false"):
            expected = self.probabilities_of(zip(pair["ids"], pair["probabilities"]))
            # Each of several end tokens has a row.
            ids = [id for id, scores in found.items() for _ in scores]
            scores = np.array([score for scores in found.values() for score in scores])
            self.assertGreater(len(ids), 2 * rules["top_k"])
            kept = kept_of(scores, **rules).items()
            mine = self.probabilities_of((ids[at], probability) for at, probability in kept)
            self.assertEqual(set(mine), set(expected), pair)
            for id, probability in expected.items():
                self.assertAlmostEqual(mine[id], probability, delta=1e-5, msg=(pair, id))


def add_reference_tests():
    for name in (*TRAINED, "gpt2", "llama", "qwen3", "opt"):
        for what in ("draws", "probabilities"):
            check = getattr(OfTheReferenceFolder, "check_" + what)
            test = lambda self, check=check, name=name: check(self, name)
            setattr(OfTheReferenceFolder, "test_reference_%s_%s" % (name, what), test)


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
