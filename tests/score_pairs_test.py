#!/usr/bin/env python3
"""Tests --score-pairs. The reference outputs of the families have the ids of hypotheses and their
scores, which scoring must give again.

XLATE_TEST_DEVICE says where the pairs are scored (tests/program.py).
"""

import json
import math
import os

import numpy as np

from checkpoint_fixture import read
from decoder_families_test import RANDOM as DECODERS
from families_test import FAMILIES, RANDOM, TRAINED, model_of
from family_options import is_known, language_options, parts_of, run_options, source_name
from program import EN_DE, Case, main, require, source_lines, text

setUpModule = require
PAIRS = ["--score-pairs", "--input-format", "ids"]
# The scores of xlate and of transformers differ by so much.
NEAR = 1e-4


def rows_of(folder, setting):
    """Returns (line, ids, score) of each hypothesis of a reference output that ended by itself."""
    options = run_options(os.path.basename(folder), folder, setting)
    with open(os.path.join(folder, "generation_config.json"), encoding="utf-8") as file:
        forced = "forced_eos_token_id" in json.load(file)
    for row in read(folder, setting + ".txt").decode().splitlines():
        line, ids, end, score = row.split(" ||| ")
        # A forced end adds 0, which nothing shows but the number of tokens.
        limit = int(options.get("--max-length", options.get("--max-new-tokens")))
        if end == "end" and not (forced and len(ids.split()) + 1 >= limit):
            yield int(line), ids, float(score)


class PairsCase(Case):
    def scores(self, lines, *options, model):
        found = self.ok(*options, input=text(lines), lines=len(lines), model=model).lines
        return [float(line) for line in found]


class References(PairsCase):
    """Scores of the reference outputs of all families in tests/data/families."""

    def check_setting(self, folder, setting):
        family = os.path.basename(folder)
        options = run_options(family, folder, setting)
        used = {
            name: options[name]
            for name in ("--length-penalty", "--target-lang", "--source-lang")
            if name in options
        }
        sources = read(folder, source_name(setting)).decode().splitlines()
        rows = list(rows_of(folder, setting))
        if family in TRAINED:
            self.assertGreater(len(rows), 2)
        # No end token is appended where there are several, and each hypothesis ended by one.
        ends = json.loads(read(folder, "generation_config.json"))["eos_token_id"]
        suffixes = ["" if isinstance(ends, int) else " %d" % end for end in np.ravel(ends)]
        found = [
            self.scores(
                ["%s\t%s%s" % (sources[line], ids, suffix) for line, ids, _ in rows],
                *(*PAIRS, *(word for each in used.items() for word in each)),
                model=model_of(folder),
            )
            for suffix in suffixes
        ]
        for i, (line, ids, score) in enumerate(rows):
            mine = min((scores[i] for scores in found), key=lambda value: abs(value - score))
            self.assertAlmostEqual(
                mine, score, delta=NEAR, msg="%s %s, line %d: %s" % (family, setting, line, ids)
            )

    def check_family(self, family):
        folder = os.path.join(FAMILIES, family)
        settings = 0
        for file in sorted(os.listdir(folder)):
            setting, extension = os.path.splitext(file)
            rules = any(
                part.startswith(("rep", "ngram", "min", "prefix")) for part in parts_of(setting)
            )
            if extension == ".txt" and is_known(setting) and not rules:
                if setting != "defaults":
                    with self.subTest(family=family, setting=setting):
                        self.check_setting(folder, setting)
                    settings += 1
        self.assertGreater(settings, 0)


def add_families():
    names = (*TRAINED, *("random-" + name for name in (*RANDOM, *DECODERS)))
    for family in names:

        def test(self, family=family):
            self.check_family(family)

        setattr(References, "test_" + family.replace("-", "_"), test)


add_families()


class Pairs(PairsCase):
    def translations(self, lines, *options):
        """Returns (score, text) of each line."""
        found = self.ok(*options, "--scores", input=text(lines), lines=len(lines), model=EN_DE)
        return [tuple(row.split(" ||| ")) for row in found.lines]

    def test_translations_have_the_scores_that_search_gave_them(self):
        lines = source_lines()[:60]
        for penalty in ("1", "0.6", "0"):
            options = ["--length-penalty", penalty]
            rows = self.translations(lines, *options)
            pairs = ["%s\t%s" % (line, target) for line, (_, target) in zip(lines, rows)]
            found = self.scores(pairs, "--score-pairs", *options, model=EN_DE)
            near = [
                math.isclose(mine, float(score), rel_tol=1e-4, abs_tol=1e-4)
                for mine, (score, _) in zip(found, rows)
            ]
            # Search may write a text in other pieces than the tokenizer makes of it.
            self.assertGreater(sum(near), 0.9 * len(lines), (penalty, found, rows))

    def test_objects_and_the_report(self):
        lines = ["Hello world.", "The cat sleeps."]
        ids_out = ["--output-format", "ids"]
        target_ids = self.ok(*ids_out, input=text(lines), model=EN_DE, lines=2).lines
        texts = self.ok(input=text(lines), model=EN_DE).lines
        by_text = self.scores(
            ["%s\t%s" % pair for pair in zip(lines, texts)], "--score-pairs", model=EN_DE
        )
        report = self.path("report.json")
        objects = [json.dumps({"text": a, "target": b, "id": 7}) for a, b in zip(lines, texts)]
        found = self.ok(
            *("--score-pairs", "--input-format", "jsonl", "--output-format", "jsonl"),
            *("--report", report),
            input=text(objects),
            model=EN_DE,
        ).lines
        rows = [json.loads(line) for line in found]
        for row, score, target, ids in zip(rows, by_text, texts, target_ids):
            self.assertEqual(row["target"], target)
            self.assertEqual(row["id"], 7)
            self.assertEqual(row["tokens"], len(ids.split()) + 1)
            self.assertAlmostEqual(row["score"], score, delta=NEAR)
        with open(report, encoding="utf-8") as file:
            data = json.load(file)
        tokens = sum(row["tokens"] for row in rows)
        total = sum(row["score"] * row["tokens"] for row in rows)
        self.assertEqual(data["counts"]["target_tokens"], tokens)
        self.assertEqual(data["counts"]["target_tokens_without_end"], tokens - len(rows))
        self.assertAlmostEqual(data["log_probability"], total, delta=0.01)
        self.assertAlmostEqual(data["perplexity"], math.exp(-total / tokens), delta=0.01)

    def test_a_printed_language_code_is_not_scored_twice(self):
        """Text has no code, and ids have the one that a run has printed."""
        folder = os.path.join(FAMILIES, "nllb")
        languages = [w for each in language_options("nllb", "greedy").items() for w in each]
        sources = read(folder, "source.ids").decode().splitlines()[:20]
        _, ids, _ = next(rows_of(folder, "beam4"))
        with_code, without = (
            self.scores(
                ["%s\t%s" % (sources[0], target)], *PAIRS, *languages, model=model_of(folder)
            )
            for target in (ids, " ".join(ids.split()[1:]))
        )
        self.assertEqual(with_code, without)

    def test_languages_of_each_line(self):
        folder = os.path.join(FAMILIES, "nllb")
        english, german = "eng_Latn", "deu_Latn"
        lines = read(FAMILIES, "input.txt").decode().splitlines()[:10]
        targets = read(folder, "beam4.decoded").decode().splitlines()[:10]
        pairs = ["%s\t%s" % pair for pair in zip(lines, targets)]
        expected = self.scores(
            pairs,
            *("--score-pairs", "--source-lang", english, "--target-lang", german),
            model=model_of(folder),
        )
        columns = ["%s\t%s\t%s" % (english, german, pair) for pair in pairs]
        found = self.scores(columns, "--score-pairs", "--lang-column", model=model_of(folder))
        for mine, score in zip(found, expected):
            self.assertAlmostEqual(mine, score, delta=NEAR)

    def test_empty_texts(self):
        found = self.scores(["", " \t ", "Yes.\t", "\tJa."], "--score-pairs", model=EN_DE)
        self.assertEqual(found[0], 0)
        self.assertEqual(found[1], 0)
        # The end token alone is scored.
        self.assertLess(found[2], 0)
        self.assertEqual(found[3], 0)

    def test_a_line_without_a_tab_ends_the_run(self):
        found = self.fails("--score-pairs", input="Yes.\tJa.\nNo.\n", model=EN_DE, names="line 2")
        self.says(found, "tab", "--score-pairs")
        self.assertEqual(len(found.lines), 1)
        lines = '{"text": "Yes."}\n'
        objects = ["--score-pairs", "--input-format", "jsonl"]
        self.fails(*objects, input=lines, model=EN_DE, names=("line 1", "target"))

    def test_long_texts_on_both_sides(self):
        long, short = " ".join(["word"] * 40), "Yes."
        lines = ["%s\t%s" % pair for pair in ((long, short), (short, long), (short, short))]
        options = ["--score-pairs", "--max-source-length", "12"]
        found, report = self.report(*options, input=text(lines), model=EN_DE, lines=3)
        self.assertEqual(report["lines"]["truncated"], 2)
        self.says(found, "source tokens", "target tokens")
        skipped, report = self.report(
            *options, "--long-lines", "skip", input=text(lines), model=EN_DE, lines=3
        )
        self.assertEqual(skipped.lines[:2], ["0", "0"])
        self.assertEqual(report["lines"]["skipped"], 2)
        self.fails(
            *options, "--long-lines", "error", input=text(lines), model=EN_DE, names="line 1"
        )

    def test_what_means_nothing_is_refused(self):
        for option in (
            ["-b", "2"],
            ["--n-best", "1"],
            ["--scores"],
            ["--max-length", "3"],
            ["--suppress-unk"],
            ["--output-format", "ids"],
            ["--early-stopping", "true"],
            ["--score-text"],
        ):
            name = "--beam-size" if option[0] == "-b" else option[0]
            self.usage_error("--score-pairs", *option, names=name, model=EN_DE)


class Continuations(PairsCase):
    """Pairs of models without an encoder: PROMPT<TAB>CONTINUATION."""

    def model(self, name="random-gpt2"):
        return model_of(os.path.join(FAMILIES, name))

    def test_the_score_is_that_of_the_text_without_the_prompt(self):
        ids = [5, 6, 7, 8, 9, 10]
        sums = {}
        for length in (3, 6):
            line = " ".join(map(str, ids[:length]))
            found = self.ok("--score-text", *PAIRS[1:], input=line + "\n", model=self.model()).lines
            sums[length] = float(found[0].split(" ||| ")[0])
        options = [*PAIRS, "--length-penalty", "0"]
        prompt, rest = (" ".join(map(str, part)) for part in (ids[:3], ids[3:]))
        empty, one = self.scores(
            ["%s\t" % " ".join(map(str, ids)), "%s\t%s" % (prompt, rest)],
            *options,
            model=self.model(),
        )
        # The end token is scored behind the continuation.
        self.assertAlmostEqual(one, sums[6] - sums[3] + empty, delta=NEAR)

    def test_a_prompt_and_its_continuation_fill_the_context(self):
        context = 64
        lines = ["%s\t%s" % (" ".join(["5"] * 60), " ".join(["6"] * n)) for n in (3, 4, 9)]
        found, report = self.report(*PAIRS, input=text(lines), model=self.model(), lines=3)
        self.assertEqual(report["lines"]["truncated"], 2)
        self.assertEqual(found.lines[0], found.lines[1])
        self.usage_error(*PAIRS, "--max-source-length", context, names="64", model=self.model())


if __name__ == "__main__":
    main()
