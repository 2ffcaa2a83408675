#!/usr/bin/env python3
"""Tests --target-prefix. families_test.py compares prefixes with transformers; this suite tests the
file, the text, and what cannot be used with it.

XLATE_TEST_DEVICE says where the lines are decoded (tests/program.py).
"""

import json
import os

from families_test import FAMILIES, model_of
from program import EN_DE, GREEDY, Case, main, require, source_lines, xlate

setUpModule = require


class Prefixes(Case):
    def file_of(self, lines):
        return self.path("prefix.txt", "".join(line + "\n" for line in lines).encode())

    def translate(self, lines, prefixes, *options, **more):
        return self.ok(
            *(*([] if "-b" in options else GREEDY), "--target-prefix", self.file_of(prefixes)),
            *options,
            input="".join(line + "\n" for line in lines),
            lines=len(lines),
            model=EN_DE,
            **more,
        ).lines

    def test_outputs_begin_with_the_text(self):
        lines = source_lines()[:6]
        prefixes = ["Das ist", "", "Wir haben", "Ich", "Aber", "Die"]
        plain = self.translate(lines, [""] * 6)
        for options in ([], ["--line-buffered"], ["-b", "4"]):
            found = self.translate(lines, prefixes, *options)
            for text, prefix in zip(found, prefixes):
                self.assertTrue(text.startswith(prefix), (text, prefix))
            if not options:
                self.assertEqual(found[1], plain[1])
        self.assertNotEqual(plain[0], self.translate(lines, prefixes)[0])

    def test_a_whole_output_as_its_prefix_is_continued_by_its_end(self):
        lines = source_lines()[:6]
        ids = ["--output-format", "ids"]
        source = self.ok(
            *(*GREEDY, *ids), input="".join(line + "\n" for line in lines), model=EN_DE
        ).lines
        first = [" ".join(line.split()[:3]) for line in source]
        found = self.ok(
            *(*GREEDY, *ids, "--target-prefix", self.file_of([""] * 6)),
            input="".join(line + "\n" for line in lines),
            model=EN_DE,
        ).lines
        self.assertEqual(found, source)
        self.assertTrue(all(first))

    def test_objects_take_the_lines_of_the_file(self):
        objects = [json.dumps({"text": line}) for line in source_lines()[:2]]
        found = self.translate(
            objects, ["Das", "Wir"], "--input-format", "jsonl", "--output-format", "jsonl"
        )
        self.assertEqual(
            [json.loads(line)["output"].split()[0][:3] for line in found], ["Das", "Wir"]
        )

    def test_token_scores_of_given_tokens_are_0(self):
        found = self.translate(source_lines()[:1], ["Das ist"], "--token-scores", "--alignments")
        text, pairs, scores = found[0].split(" ||| ")
        values = [float(score) for score in scores.split()]
        self.assertEqual(len(values), len(pairs.split()) + 1)
        self.assertEqual(values[:2], [0, 0])
        self.assertTrue(all(value < 0 for value in values[4:]))

    def test_the_files_must_have_as_many_lines(self):
        lines = source_lines()[:3]
        for prefixes, wrong in ((["Das"] * 2, "line 3 is missing"), (["Das"] * 4, "line 4")):
            result = xlate(
                *(*GREEDY, "--target-prefix", self.file_of(prefixes)),
                input="".join(line + "\n" for line in lines),
                model=EN_DE,
            )
            self.check(result, 1)
            self.says(result, "--target-prefix", wrong)
            self.assertEqual(len(result.lines), min(3, len(prefixes)))

    def test_a_prefix_that_is_too_long(self):
        result = xlate(
            *(*GREEDY, "--target-prefix", self.file_of(["Das", "Haus " * 200])),
            input="".join(line + "\n" for line in source_lines()[:2]),
            model=EN_DE,
        )
        self.check(result, 1)
        self.says(result, "line 2", "expected at most 128")
        self.assertEqual(len(result.lines), 1)

    def test_scores_of_a_long_prefix_within_small_limits(self):
        lines, prefixes = ["Hello!"] * 3, ["ein " * 60, "ein Haus", "ein " * 100]
        limits = ["--max-source-length", "5", "--max-length", "3", "--length-penalty", "0"]
        for more in ([], ["--batch-tokens", "1"], ["--line-buffered"]):
            found = self.translate(
                lines, prefixes, *limits, *more, "--token-scores", "--scores", "--alignments"
            )
            plain = self.translate(lines, prefixes, *limits)
            for row, text in zip(found, plain):
                score, printed, pairs, scores = row.split(" ||| ")
                values = [float(value) for value in scores.split()]
                self.assertEqual(printed, text)
                self.assertAlmostEqual(sum(values), float(score), delta=1e-3)
                self.assertLessEqual(len(values) - len(pairs.split()), 1)

    def test_the_file_is_not_written(self):
        prefix = self.file_of(["Das"])
        self.usage_error(
            "--target-prefix", prefix, "--report", prefix, names=["--report", "--target-prefix"]
        )

    def test_lines_that_are_not_translated_need_none(self):
        lines = ["", "Hello world, how are you today?", "Good day."]
        found = self.translate(
            lines,
            ["Das " * 200, "Das " * 200, "Guten"],
            "--long-lines",
            "skip",
            "--max-source-length",
            "6",
        )
        self.assertEqual(found[:2], ["", ""])
        self.assertTrue(found[2].startswith("Guten"))

    def test_what_means_nothing_is_refused(self):
        prefix = ["--target-prefix", self.file_of(["Das"])]
        for options, name in (
            (["--split-sentences"], "split"),
            (["--score-pairs"], "--target-prefix"),
        ):
            self.usage_error(*prefix, *options, names=name, model=EN_DE)
        decoder = model_of(os.path.join(FAMILIES, "random-gpt2"))
        formats = ["--input-format", "ids", "--output-format", "ids"]
        self.usage_error(*prefix, *formats, names=["no encoder", "--template"], model=decoder)
        self.usage_error("--target-prefix", "-", names="--target-prefix", model=EN_DE)


if __name__ == "__main__":
    main()
