#!/usr/bin/env python3
"""Tests --split-sentences and --long-lines split: what is translated of a line, how the parts are
joined, and what is counted."""

import json
import os
import re

import families_test
import program
from program import EN_DE, IDS_OUT, SHARED, Case, main, require
from prompts_test import model_of

SENTENCES = ["--split-sentences"]
SPLIT = ["--long-lines", "split"]
SHORT = [*SPLIT, "--max-source-length", "16"]
TEXTS = ["The house is small.", "I see a dog and a cat.", "He said no.", "Where are you going?"]
LINE = " ".join(TEXTS)
setUpModule = require


class SplitCase(Case):
    def lines(self, *options, input, model=EN_DE):
        input = program.text(input) if isinstance(input, list) else input
        return self.ok(*options, input=input, model=model).lines

    def scored(self, *options, input, penalty="1"):
        """Returns the sum of the log-probabilities, the tokens and the text of each line."""
        options = ["--output-format", "jsonl", "--length-penalty", penalty, *options]
        objects = [json.loads(line) for line in self.lines(*options, input=input)]
        return [(x["score"] * x["tokens"], x["tokens"], x["output"]) for x in objects]


class Sentences(SplitCase):
    def test_each_sentence_is_translated_by_itself(self):
        alone = self.lines(input=TEXTS)
        lines = [LINE, TEXTS[1], "", "  \t", "  %s  \u2028 %s " % (TEXTS[2], TEXTS[3]), LINE]
        joined = " ".join(alone)
        result, report = self.report(*SENTENCES, input=program.text(lines), model=EN_DE, lines=6)
        expected = [joined, alone[1], "", "", " ".join(alone[2:]), joined]
        self.assertEqual(result.lines, expected)
        self.assertEqual((report["lines"]["split"], report["lines"]["empty"]), (0, 2))
        _, whole = self.report(input=program.text(lines), model=EN_DE)
        self.assertEqual(report["counts"]["source_words"], whole["counts"]["source_words"])
        self.assertIs(report["options"]["split_sentences"], True)

    def test_every_batch_gives_the_same(self):
        lines = [LINE, TEXTS[0], LINE + " " + LINE, ""] * 8
        expected = self.lines(*SENTENCES, input=lines)
        for options in (["--window", "3"], ["--batch-tokens", "9"], ["--line-buffered"]):
            self.assertEqual(self.lines(*SENTENCES, *options, input=lines), expected)

    def test_scores_are_those_of_all_tokens_together(self):
        alone = self.scored(input=TEXTS)
        for options in (SENTENCES, SHORT):
            (total, tokens, text), other = self.scored(*options, input=[LINE, TEXTS[0]])
            if options is SENTENCES:
                self.assertAlmostEqual(total, sum(x[0] for x in alone), places=3)
                self.assertEqual(tokens, sum(x[1] for x in alone))
                self.assertEqual(text, " ".join(x[2] for x in alone))
            self.assertEqual(other, alone[0])
        half = self.lines(*SENTENCES, "--scores", "--length-penalty", "0.5", input=[LINE])[0]
        score, text = half.split(" ||| ")
        total, tokens, same = self.scored(*SENTENCES, penalty="0.5", input=[LINE])[0]
        self.assertEqual((text, float(score)), (same, total / tokens))
        one = self.scored(*SENTENCES, input=[LINE])[0]
        self.assertAlmostEqual(total / tokens, one[0] / tokens**0.5, places=4)

    def test_ids_and_pieces_are_joined_by_a_space(self):
        for form in (IDS_OUT, ["--output-format", "pieces"]):
            alone = self.lines(*form, input=TEXTS)
            self.assertEqual(self.lines(*SENTENCES, *form, input=[LINE]), [" ".join(alone)])

    def test_objects_keep_their_fields(self):
        both = ["--input-format", "jsonl", "--output-format", "jsonl"]
        alone = self.lines(input=TEXTS)
        input = '{"id": 1, "text": "%s"}\n\n{"text": ""}\n{"text": "Yes.\\nNo."}\n' % LINE
        lines = self.lines(*SENTENCES, *both, input=input)
        found = json.loads(lines[0])
        self.assertEqual((found["id"], found["output"]), (1, " ".join(alone)))
        self.assertEqual((lines[1], json.loads(lines[2])["output"]), ("", ""))
        self.assertEqual(
            json.loads(lines[3])["output"], " ".join(self.lines(input=["Yes.", "No."]))
        )

    def test_a_long_sentence_is_a_long_line(self):
        long = " ".join(["word"] * 40) + "."
        line = TEXTS[0] + " " + long
        limit = ["--max-source-length", "12"]
        for rule, count in (("truncate", "truncated"), ("skip", "skipped"), ("split", "split")):
            result, report = self.report(
                *SENTENCES, *limit, "--long-lines", rule, input=program.text([line]), model=EN_DE
            )
            self.assertEqual(report["lines"][count], 1)
            self.says(result, "line 1: a sentence of ", "expected at most 12: " + count)
            first = self.lines(*limit, input=[TEXTS[0]])[0]
            self.assertEqual(result.lines[0].startswith(first), rule != "skip")
        self.fails(
            *SENTENCES,
            *limit,
            "--long-lines",
            "error",
            input=line + "\n",
            model=EN_DE,
            names=["line 1"],
        )

    def test_lines_that_hit_the_limit_are_counted_once(self):
        options = [*SENTENCES, "--max-length", "2"]
        _, report = self.report(*options, input=program.text([LINE, TEXTS[0]]), model=EN_DE)
        self.assertEqual(report["lines"]["hit_length_limit"], 2)


class LongLines(SplitCase):
    def test_short_lines_are_as_without_the_option(self):
        lines = ["  The  house. It is small. ", "", "Yes."]
        self.assertEqual(self.lines(*SPLIT, input=lines), self.lines(input=lines))

    def test_a_part_has_as_many_sentences_as_fit(self):
        # Pieces show where a part ends: each has at most 16 tokens with its end token.
        counts = [len(x.split()) for x in self.lines("--max-length", "1", *IDS_OUT, input=TEXTS)]
        self.assertEqual(len(counts), 4)
        result, report = self.report(
            *SHORT, input=program.text([TEXTS[0], LINE]), model=EN_DE, lines=2
        )
        self.assertEqual(report["lines"]["split"], 1)
        self.assertEqual(report["lines"]["truncated"], 0)
        self.says(result, "line 2: ", "source tokens, expected at most 16: split")
        parts = [" ".join(TEXTS[:2]), " ".join(TEXTS[2:])]
        self.assertEqual(report["counts"]["source_tokens"], self.tokens_of([TEXTS[0], *parts]))
        self.assertEqual(result.lines[1], " ".join(self.lines(input=parts)))

    def tokens_of(self, lines):
        _, report = self.report(input=program.text(lines), model=EN_DE)
        return report["counts"]["source_tokens"]

    def test_ten_lines_are_named(self):
        result, report = self.report(*SHORT, input=program.text([LINE] * 14), model=EN_DE)
        self.assertEqual(report["lines"]["split"], 14)
        self.assertEqual(len(re.findall(r"line \d+: ", result.errors)), 10)

    def test_the_best_of_the_parts_make_one_row(self):
        options = [*SHORT, "-b", "3", "--n-best", "3"]
        rows = self.lines(*options, input=[TEXTS[0], LINE, TEXTS[1]])
        self.assertEqual([row.split(" ||| ")[0] for row in rows], ["0"] * 3 + ["1"] + ["2"] * 3)
        line, text, total, score = rows[3].split(" ||| ")
        best = self.lines(*SHORT, "-b", "3", "--scores", input=[LINE])[0]
        self.assertEqual("%s ||| %s" % (score, text), best)
        self.assertLess(float(total.replace("F0= ", "")), float(score))

    def test_a_line_of_a_mebibyte(self):
        # Most of these bytes are spaces, which are no tokens, so that the model has little to do.
        spaced = ("information" + " " * 117) * (1 << 13)
        for text in (spaced, "x" * 10000, "x," * 5000):
            options = [*SPLIT, "-b", "1", "--max-length", "1", "--max-source-length", "500"]
            result, report = self.report(
                *options, input=text + "\n" + TEXTS[0] + "\n", model=EN_DE, lines=2, timeout=300
            )
            self.assertEqual((report["lines"]["split"], report["lines"]["truncated"]), (1, 0))
            # A part of the line and its translation are small. The model takes most of this.
            self.assertLess(report["memory"]["host_peak_bytes"], 1 << 30)

    def test_a_line_that_is_cut_at_a_mebibyte_is_truncated_as_well(self):
        options = [*SPLIT, "-b", "1", "--max-length", "1"]
        result, report = self.report(
            *options, input=("cats" + " " * 200) * 6000 + "\n", model=EN_DE, timeout=300
        )
        self.assertEqual((report["lines"]["split"], report["lines"]["truncated"]), (1, 1))
        self.says(result, "line 1: more than", ": truncated and split")

    def test_a_length_without_room_for_a_character_is_an_error(self):
        names = ["line 1: ", "--max-source-length: 1"]
        options = [*SPLIT, "--max-source-length", "1"]
        self.fails(*options, input="Yes.\n", model=EN_DE, names=names)


class Languages(SplitCase):
    def test_parts_keep_the_languages_of_their_line(self):
        model = families_test.model_of(os.path.join(families_test.FAMILIES, "m2m100"))
        texts = ["en\tde\tOne. Two.", "de\ten\tOne. Two.", "en\tfr\tOne."]
        alone = self.lines(
            "--lang-column",
            input=["en\tde\tOne.", "en\tde\tTwo.", "de\ten\tOne.", "de\ten\tTwo.", "en\tfr\tOne."],
            model=model,
        )
        expected = [" ".join(alone[:2]), " ".join(alone[2:4]), alone[4]]
        self.assertEqual(
            self.lines(*SENTENCES, "--lang-column", input=texts, model=model), expected
        )

    def test_a_language_token_stands_before_each_part(self):
        alone = self.lines(*IDS_OUT, input=[">>fra<< One.", ">>fra<< Two."], model=SHARED)
        for line in (">>fra<< One. Two.", ">>fra<<One. Two."):
            self.assertEqual(
                self.lines(*SENTENCES, *IDS_OUT, input=[line], model=SHARED), [" ".join(alone)]
            )
        lines = [">>fra<<", ">>fra<< "]
        self.assertEqual(
            self.lines(*SENTENCES, *IDS_OUT, input=lines, model=SHARED),
            self.lines(*IDS_OUT, input=lines, model=SHARED),
        )


class Usage(SplitCase):
    def refused(self, *options, names, model=EN_DE):
        self.usage_error(*options, names=names, model=model)

    def test_what_makes_no_sense_is_a_usage_error(self):
        for options, name in ((SENTENCES, "--split-sentences"), (SPLIT, "--long-lines split")):
            for form in ("ids", "pieces"):
                self.refused(*options, "--input-format", form, names=[name, form, "no text"])
            self.refused(*options, "--stop", "x", names=["--stop", name])
        self.refused(*SENTENCES, "--n-best", "2", names=["--n-best", "--split-sentences"])

    def test_a_model_without_an_encoder_has_neither(self):
        for options, name in ((SENTENCES, "--split-sentences"), (SPLIT, "--long-lines split")):
            for more in ([], ["--template", "a {line}"]):
                self.refused(
                    *options, *more, names=[name, "has no encoder"], model=model_of("qwen3")
                )


if __name__ == "__main__":
    main()
