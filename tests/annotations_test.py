#!/usr/bin/env python3
"""Tests --alignments and --token-scores. greedy.alignments of a family has the alignments that
transformers gives: line ||| ids ||| source-target … ||| leads. A lead says how far the largest
weight is above the second.

XLATE_TEST_DEVICE says where the lines are decoded (tests/program.py).
"""

import json
import os

from checkpoint_fixture import read
from families_test import FAMILIES, REFERENCE, model_of
from family_options import run_options
from program import EN_DE, Case, main, require, source_lines, text

setUpModule = require
IDS = ["--input-format", "ids", "--output-format", "ids"]
# A pair whose lead is smaller may be another one.
NEAR_LEAD = 5e-4
# The float32 numbers of two programs, and of a search and a scorer, differ by so much.
NEAR = 2e-4
SOURCE = "Hello world, how are you?"


def words_of(options):
    return [word for each in options.items() for word in each]


def pairs_of(field):
    return [tuple(map(int, pair.split("-"))) for pair in field.split()]


class AnnotationCase(Case):
    def rows(self, family, setting, *options, root=FAMILIES, lines=None, **changed):
        """Returns the fields of each row. `changed` has options that take another value than the
        setting's."""
        folder = os.path.join(root, family)
        source = read(folder, "source.ids").decode().splitlines()[:lines]
        search = run_options(family, folder, setting)
        search.update(("--" + name.replace("_", "-"), value) for name, value in changed.items())
        found = self.ok(
            *(*words_of(search), *IDS, *options),
            input=text(source),
            model=model_of(folder),
        ).lines
        return [row.split(" ||| ") for row in found]


class References(AnnotationCase):
    def check_family(self, family, root):
        expected = read(os.path.join(root, family), "greedy.alignments").decode().splitlines()
        for options in ([], ["--batch-tokens", "60"], ["--line-buffered"]):
            found = self.rows(family, "greedy", "--alignments", *options, root=root)
            self.assertEqual(len(found), len(expected))
            near = 0
            for row, reference in zip(found, expected):
                _, ids, pairs, leads = reference.split(" ||| ")
                self.assertEqual(row[0], ids)
                self.assertEqual(len(row), 2)
                mine = pairs_of(row[1])
                self.assertEqual([target for _, target in mine], list(range(len(ids.split()))))
                for pair, wanted, lead in zip(mine, pairs_of(pairs), leads.split()):
                    if float(lead) < NEAR_LEAD:
                        near += 1
                    else:
                        self.assertEqual(pair, wanted, reference)
            self.assertLess(near, 60)

    def test_nllb(self):
        self.check_family("nllb", FAMILIES)

    def test_families_of_the_reference_folder(self):
        for family in ("nllb", "t5"):
            if os.path.isdir(os.path.join(REFERENCE, family)):
                with self.subTest(family):
                    self.check_family(family, REFERENCE)


class Alignments(AnnotationCase):
    def test_layers_and_heads(self):
        def aligned(*options):
            rows = self.rows("nllb", "greedy", "--alignments", *options, lines=20)
            return [row[1] for row in rows]

        default = aligned()
        # The decoder of this model has 3 layers of 3 heads.
        self.assertEqual(aligned("--alignment-layer", "2"), default)
        self.assertEqual(aligned("--alignment-heads", "2,0,1"), default)
        for options in (["--alignment-layer", "0"], ["--alignment-heads", "1"]):
            self.assertNotEqual(aligned(*options), default)

    def test_words(self):
        """In these lines every word begins with a piece that begins with the mark of a space."""
        folder = os.path.join(FAMILIES, "nllb")
        options = words_of(run_options("nllb", folder, "greedy"))
        lines = read(FAMILIES, "input.txt").decode().splitlines()[:60]
        model = model_of(folder)
        with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as file:
            pieces = {}
            data = json.load(file)
            for piece, id in data["model"]["vocab"].items():
                pieces[id] = piece
            for added in data["added_tokens"]:
                pieces[added["id"]] = None

        def words(ids):
            """Returns the word of each id, or None for a special token."""
            numbers, number = [], -1
            for id in ids:
                piece = pieces[int(id)]
                number += piece is not None and piece.startswith("\u2581")
                numbers.append(None if piece is None else number)
            return numbers

        run = {
            name: self.ok(*options, *more, input=text(lines), model=model, lines=60).lines
            for name, more in (
                ("ids", ["--output-format", "ids", "--alignments"]),
                ("words", ["--alignments", "--alignment-words"]),
                ("text", []),
            )
        }
        sources = read(folder, "source.ids").decode().splitlines()
        checked = 0
        for line, source, with_ids, with_words, plain in zip(
            lines, sources, run["ids"], run["words"], run["text"]
        ):
            ids, pairs = with_ids.split(" ||| ")
            output, found = with_words.split(" ||| ")
            self.assertEqual(output, plain)
            of_source, of_target = words(source.split()), words(ids.split())
            count = max(n for n in of_target + [-1] if n is not None) + 1
            if "\u2581" in (pieces[int(id)] for id in source.split() + ids.split()):
                continue
            if "\u2047" in output or count != len(output.split(" ")):
                continue
            if max(n for n in of_source if n is not None) + 1 != len(line.split()):
                continue
            expected = {
                (of_source[a], of_target[b])
                for a, b in pairs_of(pairs)
                if of_source[a] is not None and of_target[b] is not None
            }
            self.assertEqual(
                pairs_of(found), sorted(expected, key=lambda pair: (pair[1], pair[0])), line
            )
            checked += 1
        self.assertGreater(checked, 40)

    def test_words_are_those_of_the_line(self):
        """A no-break space is no border of words, although the tokenizer makes a space of it."""
        for line in ("The year\u00a02000 was good.", "  Two  spaces   here ", SOURCE):
            found = self.ok(
                "--alignments", "--alignment-words", input=line + "\n", model=EN_DE
            ).lines[0]
            output, pairs = found.rsplit(" ||| ", 1)
            for source, target in pairs_of(pairs):
                self.assertLess(source, len(line.split(" ")) - line.split(" ").count(""))
                self.assertLess(target, len(output.split()))


class TokenScores(AnnotationCase):
    def check_sums(self, rows):
        for row in rows:
            ids, total, score, scores = row[1], row[2], row[3], row[-1].split()
            length = len(scores)
            self.assertIn(length - len(ids.split()), (0, 1), row)
            expected = float(total.removeprefix("F0= "))
            self.assertAlmostEqual(sum(map(float, scores)), expected, delta=NEAR * length, msg=row)
            self.assertAlmostEqual(expected / length, float(score), delta=1e-4, msg=row)

    def test_they_add_up_to_the_score(self):
        for family in ("nllb", "t5", "bart", "m2m100"):
            with self.subTest(family):
                self.check_sums(
                    self.rows(family, "beam4", "--n-best", "4", "--token-scores", lines=30)
                )
                # Here the end is forced at the limit, or the hypothesis is cut.
                limited = self.rows(
                    *(family, "beam4", "--n-best", "2", "--token-scores"), max_length="6", lines=30
                )
                self.check_sums(limited)

    def test_prompts(self):
        for family in ("random-gpt2", "random-llama", "random-qwen3"):
            with self.subTest(family):
                setting = "beam5.nbest5.limit24.stop-false"
                self.check_sums(self.rows(family, setting, "--token-scores", lines=20))

    def test_both(self):
        rows = self.rows("nllb", "beam4", "--token-scores", "--alignments", "--scores", lines=20)
        for row in rows:
            _, ids, pairs, scores = row
            self.assertEqual(len(pairs.split()), len(ids.split()))
            self.assertIn(len(scores.split()) - len(ids.split()), (0, 1))
            # The language code is forced.
            self.assertEqual(float(scores.split()[0]), 0)


class Formats(Case):
    def annotated(self, *options, lines):
        return self.ok(*options, input=text(lines), model=EN_DE).lines

    def test_the_text_is_the_same(self):
        lines = source_lines()[:80]
        plain = self.annotated(lines=lines)
        for options in (["--alignments"], ["--token-scores"], ["--alignments", "--window", "7"]):
            found = self.annotated(*options, lines=lines)
            self.assertEqual([line.rsplit(" ||| ", 1)[0] for line in found], plain)

    def test_empty_lines(self):
        both = ["--alignments", "--token-scores"]
        self.assertEqual(self.annotated(*both, lines=[""]), [" |||  ||| "])
        self.assertEqual(self.annotated(*both, "--scores", lines=[""]), ["0 |||  |||  ||| "])

    def test_objects(self):
        options = ["--input-format", "jsonl", "--output-format", "jsonl"]
        line = json.dumps({"text": SOURCE, "alignments": 1, "token_scores": 2})
        plain = json.loads(self.annotated(*options, lines=[line])[0])
        self.assertEqual((plain["alignments"], plain["token_scores"]), (1, 2))
        row, empty = map(
            json.loads,
            self.annotated(
                *(*options, "--alignments", "--token-scores"), lines=[line, '{"text": ""}']
            ),
        )
        self.assertEqual(row["output"], plain["output"])
        self.assertEqual(len(row["token_scores"]), row["tokens"])
        self.assertEqual(
            [target for _, target in row["alignments"]], list(range(row["tokens"] - 1))
        )
        self.assertEqual((empty["alignments"], empty["token_scores"]), ([], []))
        many = json.loads(
            self.annotated(*options, "--n-best", "2", "--token-scores", lines=[line])[0]
        )
        for result in many["output"]:
            self.assertEqual(len(result["token_scores"]), result["tokens"])

    def test_lines_are_answered_while_the_input_waits(self):
        """What was decoded is annotated before the program waits for more."""
        running = self.start("--alignments", model=EN_DE)
        running.process.stdin.write((SOURCE + "\n").encode())
        running.process.stdin.flush()
        self.assertTrue(running.until(lambda: running.count() == 1))
        running.process.stdin.close()
        self.check(running.wait(), 0)

    def test_usage_errors(self):
        for options, names in (
            (["--alignment-layer", "0"], "--alignments"),
            (["--alignment-heads", "0"], "--alignments"),
            (["--alignment-words"], "--alignments"),
            (["--alignments", "--alignment-layer", "99"], "--alignment-layer"),
            (["--alignments", "--alignment-heads", "0,99"], "99"),
            (["--alignments", "--alignment-heads", "0,,1"], "--alignment-heads"),
            (["--alignments", "--alignment-words", "--output-format", "ids"], "--alignment-words"),
        ):
            self.usage_error(*options, names=names, model=EN_DE)
        decoder = model_of(os.path.join(FAMILIES, "random-gpt2"))
        self.usage_error(*IDS, "--alignments", names="no encoder", model=decoder)


if __name__ == "__main__":
    main()
