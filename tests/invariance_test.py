"""Tests that the translation of a line depends on the line alone, and not on its batch, its place,
the budget, the threads or the window. On the CPU the bytes are the same, in every precision, as
they are on a GPU.

XLATE_REFERENCE=1 adds the same tests on ende-small and the first 1000 lines of newstest2014, from
XLATE_REFERENCE_DIR (ctest label `reference`). XLATE_TEST_DEVICE adds news text through ende-base,
which a GPU must translate to the same bytes.
"""

import math
import os
import random
import unittest

import program
import reference_test
from golden_test import Search
from program import EN_DE, SEPARATE, SHARED, Case, best, source_lines

# Four threads each compute a part of a large batch, while two compute a step together.
BUDGETS, THREADS = (64, 512, 4096), (2, 4)
SCORES_APART = 1e-4
setUpModule = program.require
GREEDY, BEAM4 = Search(), Search(beam=4, stop="false", limit=24)
IN_ANY_ORDER = [
    "lines",
    "source_words",
    "source_tokens",
    "target_tokens",
    "target_tokens_without_end",
    "decoding_rows_useful",
    "buckets",
]


def thousand(lines):
    """Returns 1000 lines in which every one of these lines comes several times, each time among
    others."""
    lines = lines * math.ceil(1000 / len(lines))
    random.Random(1).shuffle(lines)
    return lines[:1000]


class InvarianceCase(Case):
    def translate(self, lines, search, *options, model=SHARED, timeout=program.TIMEOUT):
        """Returns ((ids, score) of each line, report)."""
        result, report = self.report(
            *search.options,
            "--output-format",
            "ids",
            *options,
            model=model,
            input="".join(line + "\n" for line in lines),
            lines=len(lines),
            timeout=timeout,
        )
        self.check_counts(report, search)
        return [search.row(line)[1:3] for line in result.lines], report

    def check_same(self, wanted, got, what):
        """Checks that hypotheses and scores are the same."""
        wrong = [i + 1 for i, (a, b) in enumerate(zip(wanted, got, strict=True)) if a != b]
        self.assertEqual(wrong, [], "%s: these lines have other ids or scores" % what)

    def check_settings(
        self, lines, search, settings, model=SHARED, timeout=program.TIMEOUT, always=()
    ):
        wanted, report = self.translate(lines, search, *always, model=model, timeout=timeout)
        first = {}
        for line, row in zip(lines, wanted):
            first.setdefault(line, row)
        self.check_same([first[line] for line in lines], wanted, "the same line again")
        for options in settings:
            with self.subTest(" ".join(map(str, options))):
                got, other = self.translate(
                    lines, search, *always, *options, model=model, timeout=timeout
                )
                for each in (report, other):
                    # How many sentences are preempted depends on the budget.
                    each["lines"].pop("retried", None)
                self.check_same(wanted, got, " ".join(map(str, options)))
                for name in IN_ANY_ORDER:
                    self.assertEqual(
                        report["counts"].get(name, report.get(name)),
                        other["counts"].get(name, other.get(name)),
                        name,
                    )

    def check_shuffled(self, lines, search, *options, model=SHARED, timeout=program.TIMEOUT):
        wanted, _ = self.translate(lines, search, model=model, timeout=timeout)
        order = list(range(len(lines)))
        random.Random(2).shuffle(order)
        shuffled, _ = self.translate(
            [lines[i] for i in order], search, *options, model=model, timeout=timeout
        )
        got = [None] * len(lines)
        for i, row in zip(order, shuffled):
            got[i] = row
        self.check_same(wanted, got, "shuffled")

    def check_counts(self, report, search):
        """Checks that a report is consistent where it has the same figure in several places."""
        lines, counts, buckets = report["lines"], report["counts"], report["buckets"]
        self.assertEqual(lines["in"], lines["out"])
        self.assertEqual(
            sum(bucket["lines"] for bucket in buckets),
            lines["in"] - lines["empty"] - lines["skipped"],
        )
        for field, total in (
            ("source_tokens", "source_tokens"),
            ("target_tokens", "target_tokens"),
            ("row_steps", "decoding_rows_useful"),
        ):
            self.assertEqual(sum(bucket[field] for bucket in buckets), counts[total], field)
        self.assertLessEqual(counts["decoding_rows_useful"], counts["decoding_rows"])
        self.assertAlmostEqual(
            report["shares"]["rows_idle"],
            1 - counts["decoding_rows_useful"] / max(1, counts["decoding_rows"]),
            places=9,
        )
        self.assertLessEqual(counts["decoding_rows_useful"] / search.beam, counts["decoding_rows"])
        if search.beam == 1:
            # Each row makes one token.
            self.assertEqual(counts["decoding_rows_useful"], counts["target_tokens"])
        else:
            # The search may go on after its best hypothesis has ended.
            self.assertGreaterEqual(
                counts["decoding_rows_useful"], search.beam * counts["target_tokens"]
            )
        ended = counts["target_tokens"] - counts["target_tokens_without_end"]
        self.assertTrue(
            lines["in"] - lines["empty"] - lines["skipped"] - lines["hit_length_limit"]
            <= ended
            <= lines["in"],
            report,
        )


class Invariance(InvarianceCase):
    @classmethod
    def setUpClass(cls):
        cls.lines = thousand(source_lines())

    def test_greedy_in_any_budget_with_any_threads(self):
        self.check_settings(
            self.lines,
            GREEDY,
            [
                ["--batch-tokens", budget, "--threads", threads]
                for budget in BUDGETS
                for threads in THREADS
            ],
        )

    def test_beam_in_any_budget_with_any_threads(self):
        self.check_settings(
            self.lines,
            BEAM4,
            [
                ["--batch-tokens", budget, "--threads", threads]
                for budget in BUDGETS
                for threads in THREADS
            ],
        )

    def test_separate_vocabularies_in_any_budget(self):
        self.check_settings(
            self.lines,
            BEAM4,
            [["--batch-tokens", 64, "--threads", 1], ["--batch-tokens", 4096]],
            model=SEPARATE,
        )

    def test_other_precisions_in_any_budget_with_any_threads(self):
        for precision in ("bf16", "int8"):
            for search in (GREEDY, BEAM4):
                with self.subTest(precision, beam=search.beam):
                    always = ["--precision", precision]
                    tried = program.xlate(*always, input=self.lines[0] + "\n")
                    if "does not compute with bfloat16" in tried.errors:
                        continue
                    self.check_settings(
                        self.lines[:400],
                        search,
                        [
                            ["--batch-tokens", budget, "--threads", threads]
                            for budget, threads in ((64, 3), (300, 1), (4096, 4))
                        ],
                        always=always,
                    )

    def test_in_any_window(self):
        self.check_settings(
            self.lines[:400], BEAM4, [["--window", window] for window in (1, 37, 100)]
        )

    def test_shuffled(self):
        for search in (GREEDY, BEAM4):
            self.check_shuffled(self.lines[:500], search, "--batch-tokens", 256)

    def test_line_buffered(self):
        for search in (GREEDY, BEAM4):
            self.check_settings(
                self.lines[:250], search, [["--line-buffered"], ["--line-buffered", "--threads", 1]]
            )

    def test_alone_in_a_process(self):
        lines = source_lines()[::8]
        wanted, _ = self.translate(source_lines(), BEAM4)
        for line in lines:
            alone, _ = self.translate([line], BEAM4)
            self.check_same([wanted[source_lines().index(line)]], alone, "alone")

    def test_text_is_as_invariant_as_ids(self):
        input = "".join(line + "\n" for line in self.lines)
        options = ["-b", 4, "--length-penalty", 1, "--max-length", 60]
        wanted = self.ok(*options, input=input, lines=1000).lines
        for others in (
            ["--batch-tokens", 64, "--threads", 1],
            ["--batch-tokens", 4096, "--window", 100],
        ):
            self.same(wanted, self.ok(*options, *others, input=input, lines=1000).lines)

    def test_one_beam_is_greedy(self):
        """Options that only concern beam search change nothing."""
        input = "".join(line + "\n" for line in source_lines())
        common = ["-b", 1, "--max-length", 60, "--max-length-factor", 50, "--output-format", "ids"]
        for others in (
            [],
            ["--length-penalty", 0, "--early-stopping", "true"],
            ["--length-penalty", 2, "--early-stopping", "never"],
            ["--early-stopping", "false", "--batch-tokens", 100],
        ):
            with self.subTest(others):
                self.same(
                    best("shared", "greedy"),
                    self.ok(*common, *others, input=input, lines=200).lines,
                    allowed=2,
                )
        rows = [
            line.split(" ||| ")
            for line in self.ok(
                *common, "--n-best", 1, "--length-penalty", 1, input=input, lines=200
            ).lines
        ]
        self.same(best("shared", "greedy"), [row[1] for row in rows], allowed=2)
        for row in rows:
            self.assertAlmostEqual(
                float(row[2][len("F0= ") :]) / (len(row[1].split()) + 1),
                float(row[3]),
                delta=SCORES_APART,
                msg=row,
            )

    def test_the_shipped_model(self):
        lines = source_lines()[100:130]
        for search in (Search(forced_end=False), Search(beam=4, stop="true", forced_end=False)):
            self.check_settings(
                lines,
                search,
                [
                    ["--batch-tokens", 64],
                    ["--batch-tokens", 4096, "--threads", 1],
                    ["--line-buffered"],
                ],
                model=EN_DE,
            )


@unittest.skipUnless(os.environ.get("XLATE_REFERENCE") == "1", "XLATE_REFERENCE is not 1")
class Reference(InvarianceCase):
    SEARCHES = {
        "greedy": Search(limit=200, forced_end=False),
        "beam4": Search(beam=4, stop="true", limit=200, forced_end=False),
    }
    TIMEOUT = 1200

    @classmethod
    def setUpClass(cls):
        reference_test.setUpModule()
        cls.lines, cls.model = (
            reference_test.lines_of(reference_test.NEWS, 1000),
            reference_test.converted("ende-small"),
        )

    def settings(self, search):
        self.check_settings(
            self.lines,
            search,
            [
                ["--batch-tokens", budget, "--threads", threads]
                for budget in BUDGETS
                for threads in THREADS
            ],
            model=self.model,
            timeout=self.TIMEOUT,
        )

    def test_greedy(self):
        self.settings(self.SEARCHES["greedy"])

    def test_beam(self):
        self.settings(self.SEARCHES["beam4"])

    def test_shuffled(self):
        for search in self.SEARCHES.values():
            self.check_shuffled(
                self.lines, search, "--window", 300, model=self.model, timeout=self.TIMEOUT
            )

    def test_line_buffered(self):
        for search in self.SEARCHES.values():
            self.check_settings(
                self.lines, search, [["--line-buffered"]], model=self.model, timeout=self.TIMEOUT
            )


@unittest.skipUnless("XLATE_TEST_DEVICE" in os.environ, "XLATE_TEST_DEVICE names no device")
class ByteForByte(Case):
    """Compares three orders and three budgets, the default one among them, and one sentence at a
    time."""

    LINES, SINGLE_LINES, TIMEOUT = int(os.environ.get("XLATE_TEST_LINES", 2000)), 200, 600

    @classmethod
    def setUpClass(cls):
        news = os.path.join(reference_test.REFERENCE, "data", "bench", "news.en")
        if not os.path.isfile(news):
            raise unittest.SkipTest(
                "XLATE_REFERENCE_DIR (%s) holds no data/bench/news.en" % reference_test.REFERENCE
            )
        cls.lines, cls.model = (
            reference_test.lines_of(news, cls.LINES),
            reference_test.converted("ende-base"),
        )

    def rows(self, lines, beam, *options):
        """Returns (score, text) of each line as printed."""
        search = [
            "-b",
            beam,
            "--length-penalty",
            1,
            "--early-stopping",
            "true",
            "--max-length",
            200,
            "--scores",
        ]
        result = self.ok(
            *search,
            *options,
            model=self.model,
            input="\n".join(lines) + "\n",
            lines=len(lines),
            timeout=self.TIMEOUT,
        )
        return [line.split(" ||| ", 1) for line in result.lines]

    def check_beam(self, beam):
        count = len(self.lines)
        shuffled = random.Random(3).sample(range(count), count)
        wanted, scores, wrong = None, set(), {}
        for name, order in (
            ("as they come", range(count)),
            ("backwards", range(count - 1, -1, -1)),
            ("shuffled", shuffled),
        ):
            for budget in (512, 4096, None):
                rows = self.rows(
                    [self.lines[i] for i in order],
                    beam,
                    *(["--batch-tokens", budget] if budget else []),
                )
                got = [None] * count
                for i, row in zip(order, rows):
                    got[i] = row
                wanted = wanted or got
                scores.update(i for i in range(count) if got[i][0] != wanted[i][0])
                different = [i for i in range(count) if got[i][1] != wanted[i][1]]
                if different:
                    wrong["%s, budget %s" % (name, budget or "auto")] = [i + 1 for i in different]
        program.figure(
            "%s beam %d: 9 runs of %d lines, %d with another text, %d lines with another printed "
            "score" % (program.PRECISION, beam, count, len(wrong), len(scores))
        )
        if wrong:
            self.fail(
                "the text changes with order and budget:\n"
                + "\n".join("%s: lines %s" % (what, lines[:20]) for what, lines in wrong.items())
            )

    def check_single(self, beam):
        lines = self.lines[: self.SINGLE_LINES]
        single, wanted = self.rows(lines, beam, "--line-buffered"), self.rows(lines, beam)
        equal = sum(a == b for a, b in zip(single, wanted))
        program.figure(
            "%s beam %d: one sentence at a time %d of %d lines and scores equal"
            % (program.PRECISION, beam, equal, len(lines))
        )
        self.assertEqual(equal, len(lines))

    def test_single_greedy(self):
        self.check_single(1)

    def test_single_beam4(self):
        self.check_single(4)

    def test_greedy(self):
        self.check_beam(1)

    def test_beam4(self):
        self.check_beam(4)


if __name__ == "__main__":
    program.main()
