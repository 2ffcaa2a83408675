#!/usr/bin/env python3
"""Tests that the output of a line depends on the line alone with the options of decoding that other
tests of invariance do not have: suppressed tokens, prefixes, samples, annotations, given pairs,
parts of lines, objects, languages of lines, and what is around prompts. The bytes must be the same,
on a GPU and on the CPU.

XLATE_TEST_DEVICE and XLATE_TEST_PRECISION say where the lines are decoded (tests/program.py).
"""

import json
import os
import random

import chat_test
import program
from family_options import LANGUAGES
from families_test import FAMILIES, model_of
from program import EN_DE, Case, main, require, source_lines

setUpModule = require
BEAM, GREEDY = ["-b", "4", "--length-penalty", "1"], ["-b", "1"]
IDS = ["--input-format", "ids", "--output-format", "ids"]
# Some of the lines would otherwise go on up to the model's limit.
LIMIT = ["--max-length", "24"]
# Some source tokens in flight, and some lines that are read ahead. By default, all lines of a test
# are decoded together.
BUDGET, WINDOW = 90, 7
COPIES = 12


def rows_by_line(rows):
    """Returns the rows `number ||| …` of each line, without the number of the line."""
    lines = []
    for row in rows:
        number, rest = row.split(" ||| ", 1)
        while len(lines) <= int(number):
            lines.append([])
        lines[int(number)].append(rest)
    return ["\n".join(each) for each in lines]


class OptionInvariance(Case):
    def decode(self, model, lines, options, prefixes=None, has_rows=False):
        """Returns the output of each line."""
        if prefixes is not None:
            options = [*options, "--target-prefix", self.path("prefix", program.text(prefixes))]
        if model == EN_DE and "--score-pairs" not in options:
            options = [*options, *LIMIT]
        found = self.ok("-q", *options, input=program.text(lines), model=model).lines
        found = rows_by_line(found) if has_rows else found
        self.assertEqual(len(found), len(lines))
        return found

    def compare(self, wanted, found, what):
        wrong = [i + 1 for i, (a, b) in enumerate(zip(wanted, found)) if a != b]
        self.assertEqual(wrong, [], "%s: these lines have other bytes" % (what,))

    def check_invariance(self, model, lines, *options, prefixes=None, in_any_order=True, **more):
        """Compares other budgets, a small window and, where the number of a line has no influence,
        another order. Returns the output of each line. First many copies of the lines are decoded
        together, on a CPU by four threads, each of which computes a part of the batch."""
        many = [None if texts is None else list(texts) * COPIES for texts in (lines, prefixes)]
        copies = self.decode(model, many[0], [*options, "--threads", 4], many[1], **more)
        wanted = copies[: len(lines)]
        if in_any_order:
            self.compare(wanted * COPIES, copies, (options, "copies"))
        order = range(len(lines))
        for where in (
            ["--batch-tokens", 1],
            ["--batch-tokens", BUDGET, "--window", WINDOW],
        ):
            if in_any_order:
                order = random.Random(len(where)).sample(order, len(lines))
            shuffled = [
                texts if texts is None else [texts[i] for i in order] for texts in (lines, prefixes)
            ]
            rows = self.decode(model, shuffled[0], [*options, *where], shuffled[1], **more)
            found = [None] * len(lines)
            for i, row in zip(order, rows, strict=True):
                found[i] = row
            self.compare(wanted, found, (options, where))
        return wanted

    def check_changes(self, model, lines, search, *options, **more):
        """Checks the options, and that they change lines. Otherwise they would show nothing."""
        plain = self.decode(model, lines, search)
        self.assertNotEqual(self.check_invariance(model, lines, *search, *options, **more), plain)

    def setUp(self):
        super().setUp()
        # Some of these lines are odd ones.
        self.texts = source_lines()[:9] + source_lines()[-9:]

    def test_suppressed_tokens(self):
        for search in (GREEDY, BEAM):
            self.check_changes(EN_DE, self.texts, search, "--suppress", "und", "--suppress", "die")
        self.check_invariance(EN_DE, self.texts, *BEAM, "--suppress-unk")

    def test_prefixes(self):
        prefixes = ["", "Das ist", "Wir haben keine", "Die", "Es gibt"] * len(self.texts)
        prefixes = prefixes[: len(self.texts)]
        for search in (GREEDY, [*BEAM, "--min-length", "6", "--no-repeat-ngram", "2"]):
            self.check_changes(EN_DE, self.texts, search, prefixes=prefixes)
        self.check_invariance(
            EN_DE, self.texts, *BEAM, "--token-scores", "--alignments", prefixes=prefixes
        )

    def test_groups_of_beams(self):
        groups = ["-b", "4", "--beam-groups", "2", "--diversity", "0.5"]
        self.check_changes(EN_DE, self.texts, BEAM, *groups[2:])
        self.check_invariance(EN_DE, self.texts, *groups, "--n-best", "4", has_rows=True)

    def test_annotations(self):
        for search in (GREEDY, BEAM):
            self.check_invariance(
                EN_DE, self.texts, *search, "--scores", "--token-scores", "--alignments"
            )
        self.check_invariance(EN_DE, self.texts, *BEAM, "--alignments", "--alignment-words")
        options = [*BEAM, "--n-best", "3", "--token-scores", "--alignments"]
        self.check_invariance(EN_DE, self.texts, *options, has_rows=True)

    def test_samples(self):
        """A draw depends on the number of its line."""
        options = ["--sample", "--num-samples", "3", "--top-p", "0.9", "--top-k", "30"]
        more = {"has_rows": True, "in_any_order": False}
        self.check_invariance(EN_DE, self.texts, *options, **more)
        self.check_invariance(EN_DE, self.texts, *options, "--token-scores", "--seed", "5", **more)

    def test_pairs(self):
        outputs = self.decode(EN_DE, self.texts, GREEDY)
        pairs = [
            line.replace("\t", " ") + "\t" + output
            for line, output in zip(self.texts, outputs[1:] + outputs[:1])
        ]
        self.check_invariance(EN_DE, pairs, "--score-pairs")

    def test_parts_of_lines(self):
        lines = [a + " " + b for a, b in zip(self.texts, self.texts[1:])]
        for split in (["--long-lines", "split", "--max-source-length", "9"], ["--split-sentences"]):
            self.check_changes(EN_DE, lines, BEAM, *split)
            self.check_invariance(EN_DE, lines, *GREEDY, *split, "--scores")

    def test_objects(self):
        lines = [json.dumps({"number": i, "text": line}) for i, line in enumerate(self.texts)]
        objects = ["--input-format", "jsonl", "--output-format", "jsonl"]
        for options in (GREEDY, [*BEAM, "--n-best", "2"], [*BEAM, "--suppress", "und"]):
            self.check_invariance(EN_DE, lines, *objects, *options)
        prefixes = ["Das ist", "", "Die"] * (len(lines) // 3)
        self.check_invariance(EN_DE, lines, *objects, *BEAM, prefixes=prefixes)

    def test_languages_of_lines(self):
        english, german, third = LANGUAGES["nllb"]
        lines = [
            "%s\t%s\t%s" % (english, (german, third)[i % 2], line.replace("\t", " "))
            for i, line in enumerate(self.texts)
        ]
        model = model_of(os.path.join(FAMILIES, "nllb"))
        options = ["--lang-column", "--max-length", "40", "--suppress-unk"]
        for search in (GREEDY, BEAM):
            self.check_invariance(model, lines, *search, *options)

    def test_prompts_of_ids(self):
        model = model_of(os.path.join(FAMILIES, "random-gpt2"))
        numbers = random.Random(4)
        lines = [
            " ".join(str(numbers.randrange(4, 90)) for _ in range(numbers.randrange(1, 30)))
            for _ in range(40)
        ]
        limit = ["--max-new-tokens", "12", *IDS]
        self.check_invariance(model, lines, *limit, *BEAM, "--suppress", "7", "--suppress", "9")
        self.check_invariance(model, lines, *limit, *GREEDY, "--token-scores", "--echo")
        self.check_invariance(model, lines, "--score-text", *IDS[:2])
        samples = ["--sample", "--num-samples", "2", "--top-k", "8"]
        self.check_invariance(model, lines, *limit, *samples, has_rows=True, in_any_order=False)
        pairs = ["\t".join(pair) for pair in zip(lines, lines[1:])]
        self.check_invariance(model, pairs, "--score-pairs", *IDS[:2])

    def test_text_around_prompts(self):
        model = chat_test.model_of(next(iter(chat_test.FORMATS)))
        limit = ["--max-new-tokens", "10"]
        lines = [line for line in self.texts if line.strip()][:30]
        template = ["--template", "Say: {line}\\nGerman:"]
        for options in (template, [*template, "--echo"], ["--chat"], [*template, "--stop", "e"]):
            self.check_invariance(model, lines, *limit, *GREEDY, *options)
        self.check_invariance(model, lines, *limit, *BEAM, *template)
        objects = [
            json.dumps({"text": line, "max_new_tokens": 1 + i % 9}) for i, line in enumerate(lines)
        ]
        formats = ["--input-format", "jsonl", "--output-format", "jsonl"]
        self.check_invariance(model, objects, *formats, *BEAM, *template)


if __name__ == "__main__":
    main()
