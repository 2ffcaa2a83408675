#!/usr/bin/env python3
"""Tests --suppress and --suppress-unk.

XLATE_TEST_DEVICE says where the lines are decoded (tests/program.py).
"""

import collections
import os

from checkpoint_fixture import read
from family_options import run_options
from families_test import FAMILIES, model_of
from program import (
    BEAM4,
    EN_DE,
    GREEDY,
    IDS,
    IDS_OUT,
    REFERENCE_LIMITS,
    Case,
    best,
    main,
    pieces,
    require,
    source_ids,
    source_lines,
    text,
)

setUpModule = require
FAMILY_UNKNOWN = {"m2m100": "3", "nllb": "3"}


class Suppressed(Case):
    def decode(self, *options):
        """Returns the ids of each line of the reference sources."""
        found = self.ok(*REFERENCE_LIMITS, *IDS, *options, input=text(source_ids()), lines=200)
        return [line.split() for line in found.lines]

    def test_ids_are_never_chosen(self):
        for search, reference in ((GREEDY, "greedy"), (BEAM4, "beam4")):
            expected = [line.split() for line in best("shared", reference)]
            counts = collections.Counter(id for line in expected for id in line)
            first, second = [id for id, _ in counts.most_common(2)]
            found = self.decode(*search, "--suppress", first, "--suppress", second)
            self.assertFalse(any({first, second} & set(line) for line in found))
            self.assertNotEqual(found, expected)
        # A line that would not have the token keeps its translation in greedy search.
        expected = [line.split() for line in best("shared", "greedy")]
        counts = collections.Counter(id for line in expected for id in line)
        rare = min(counts, key=counts.get)
        found = self.decode(*GREEDY, "--suppress", rare)
        changed = [i for i, line in enumerate(expected) if rare in line]
        for i, line in enumerate(found):
            if i not in changed:
                self.assertEqual(line, expected[i])

    def test_pieces_are_written_as_the_vocabulary_has_them(self):
        expected = [line.split() for line in best("shared", "greedy")]
        table = pieces("shared")
        counts = collections.Counter(id for line in expected for id in line)
        id = next(id for id, _ in counts.most_common() if table[int(id)].startswith("\u2581"))
        by_id = self.decode(*GREEDY, "--suppress", id)
        by_piece = self.ok(
            *(*REFERENCE_LIMITS, *GREEDY, "--suppress", table[int(id)]),
            *("--input-format", "ids", "--output-format", "pieces"),
            input=text(source_ids()),
            lines=200,
        )
        self.assertEqual(
            [" ".join(table[int(id)] for id in line) for line in by_id], by_piece.lines
        )

    def test_text_is_a_token_of_the_target(self):
        lines = text(source_lines()[:40] + ["You and me and the others."] * 2)
        common = ["-b", "1"]
        plain = self.ok(*common, input=lines, model=EN_DE).lines
        by_word = self.ok(*common, "--suppress", "und", input=lines, model=EN_DE).lines
        by_piece = self.ok(*common, "--suppress", "\u2581und", input=lines, model=EN_DE).lines
        self.assertEqual(by_word, by_piece)
        self.assertTrue(any("und" in line.split() for line in plain), plain)
        self.assertFalse(any("und" in line.split() for line in by_word), by_word)

    def test_the_unknown_token(self):
        for family, unknown in FAMILY_UNKNOWN.items():
            folder = os.path.join(FAMILIES, family)
            options = [w for each in run_options(family, folder, "greedy").items() for w in each]
            run = [
                [
                    line.split()
                    for line in self.ok(
                        *(*options, *IDS, *more),
                        input=read(folder, "source.ids"),
                        model=model_of(folder),
                    ).lines
                ]
                for more in ([], ["--suppress-unk"], ["--suppress", unknown])
            ]
            self.assertEqual(run[1], run[2])
            self.assertFalse(any(unknown in line for line in run[1]))
            for plain, found in zip(run[0], run[1]):
                if unknown not in plain:
                    self.assertEqual(found, plain)

    def test_the_report_names_them(self):
        _, report = self.report(*GREEDY, *IDS, "--suppress", "7", "--suppress-unk", input="5 0\n")
        self.assertEqual(report["options"]["suppress"], ["7"])
        self.assertTrue(report["options"]["suppress_unk"])


class UsageErrors(Case):
    def test_texts_of_several_tokens(self):
        found = self.usage_error(
            "--suppress", "Donaudampfschiff", names="expected one", model=EN_DE
        )
        self.says(found, "\u2581", "Donaudampfschiff")
        self.usage_error("--suppress", "", names="--suppress")
        self.usage_error("--suppress", " ", names="nothing is left", model=EN_DE)
        self.usage_error("--suppress", "\udcff", names="UTF-8", model=EN_DE)

    def test_pieces_and_ids_that_the_model_does_not_have(self):
        names = "target vocabulary"
        self.usage_error("--suppress", "xyzzy", "--output-format", "pieces", names=names)
        for id in ("100000000", "-1", "und", "3 4"):
            self.usage_error("--suppress", id, *IDS_OUT, names=id.split()[0])

    def test_a_model_without_an_unknown_token(self):
        model = model_of(os.path.join(FAMILIES, "random-gpt2"))
        self.usage_error(*IDS, "--suppress-unk", names="no unknown token", model=model)


if __name__ == "__main__":
    main()
