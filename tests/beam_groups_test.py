#!/usr/bin/env python3
"""Tests --beam-groups. The files …groups… of tests/data/opus-shape have what transformers 4.49
gives with num_beam_groups, diversity_penalty and early_stopping=True. Later versions do not have
this search.

XLATE_TEST_DEVICE says where the lines are decoded (tests/program.py).
"""

import os

from program import (
    DEVICE,
    EN_DE,
    IDS,
    REFERENCE_LIMITS,
    Case,
    main,
    reference,
    require,
    source_ids,
    source_lines,
    text,
)

setUpModule = require
LINES = 40
# Beams, groups and diversity.
SETTINGS = ((4, 2, 1), (4, 4, 0.3), (6, 3, 0.5))
PRECISION = os.environ.get("XLATE_TEST_PRECISION", "fp32")


def options_of(beams, groups, diversity):
    return ["-b", beams, "--beam-groups", groups, "--diversity", diversity]


class BeamGroups(Case):
    def test_hypotheses_are_the_references(self):
        if PRECISION != "fp32":
            self.skipTest("the references are in float32")
        sources = source_ids()[:LINES]
        for beams, groups, diversity in SETTINGS:
            setting = "beam%d.groups%d.diversity%g.nbest%d" % (beams, groups, diversity, beams)
            with self.subTest(setting):
                result = self.ok(
                    *options_of(beams, groups, diversity),
                    *("--length-penalty", 1, "--early-stopping", "true", "--n-best", beams),
                    *(REFERENCE_LIMITS + IDS),
                    input=text(sources),
                )
                rows = [row.split(" ||| ") for row in result.lines]
                expected = [
                    (str(i), ids, score)
                    for i, hypotheses in enumerate(reference("shared", setting))
                    for ids, score in hypotheses
                ]
                self.same(
                    [" ".join(row[:2]) for row in expected], [" ".join(row[:2]) for row in rows]
                )
                for row, (_, _, score) in zip(rows, expected):
                    self.assertLess(abs(float(row[3]) - score), 1e-4, row)

    def test_a_line_is_the_same_in_any_batch(self):
        lines = source_lines()[:60]
        for beams, groups, diversity in SETTINGS:
            options = [*options_of(beams, groups, diversity), "--n-best", beams]
            with self.subTest(beams=beams, groups=groups):
                together = self.ok(*options, input=text(lines)).lines
                few = self.ok(
                    *options, "--batch-tokens", 40, "--window", 7, input=text(lines)
                ).lines
                if DEVICE == "cpu":
                    # There the last digit of a score may depend on the batch.
                    together, few = (
                        [row.split(" F0= ")[0] for row in rows] for rows in (together, few)
                    )
                self.same(together, few)

    def test_groups_differ_more_with_more_diversity(self):
        distinct = []
        for diversity in (0.01, 5):
            rows = self.ok(
                *options_of(4, 4, diversity),
                "--n-best",
                4,
                model=EN_DE,
                input="The house is old.\n",
            ).lines
            distinct.append(len({row.split(" ||| ")[1].split()[0] for row in rows}))
        self.assertLess(distinct[0], distinct[1])

    def test_the_report_has_the_options(self):
        _, report = self.report(*options_of(6, 3, 0.5), input="a\n")
        self.assertEqual(report["options"]["beam_groups"], 3)
        self.assertEqual(report["options"]["diversity"], 0.5)
        _, report = self.report("-b", 2, input="a\n")
        self.assertEqual(report["options"]["beam_groups"], 1)
        self.assertEqual(report["options"]["diversity"], 0)

    def test_what_makes_no_sense_is_a_usage_error(self):
        for options, names in (
            (options_of(4, 3, 1), ["--beam-groups", "3", "divisor", "4"]),
            (options_of(1, 2, 1), ["--beam-groups", "2", "divisor", "1"]),
            (["-b", 4, "--beam-groups", 2], ["--beam-groups", "2", "--diversity"]),
            (options_of(4, 2, 0), ["--beam-groups", "2", "--diversity"]),
            (["-b", 4, "--diversity", 1], ["--diversity", "1", "--beam-groups"]),
            (options_of(4, 0, 1), ["--beam-groups", "0", "1 to 256"]),
            (options_of(4, 2, -1), ["--diversity", "-1", "0 to 1000"]),
            (options_of(4, 2, "nan"), ["--diversity", "nan", "0 to 1000"]),
            (["--sample", "--beam-groups", 2], ["--beam-groups", "--sample"]),
            (["--sample", "--diversity", 1], ["--diversity", "--sample"]),
            (["--score-pairs", "--beam-groups", 2], ["--beam-groups", "--score-pairs"]),
            (["--score-pairs", "--diversity", 2], ["--diversity", "--score-pairs"]),
        ):
            with self.subTest(options=options):
                self.usage_error(*options, names=names)


if __name__ == "__main__":
    main()
