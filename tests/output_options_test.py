"""Tests the options of what is written: formats, scores and n-best lists."""

import program
from program import (
    BEAM4,
    BOTH_MODELS,
    GREEDY,
    IDS,
    IDS_OUT,
    NUMBER,
    N_BEST_ROW,
    REFERENCE_LIMITS,
    SEPARATE,
    SHARED,
    Case,
    best,
    pieces,
    source_ids,
    source_lines,
    text,
    text_of,
)

setUpModule = program.require


class Formats(Case):
    def test_pieces_out_are_those_of_the_target_vocabulary(self):
        for name, model in BOTH_MODELS:
            with self.subTest(name):
                table = pieces(name)
                result = self.ok(
                    *GREEDY,
                    *REFERENCE_LIMITS,
                    "--output-format",
                    "pieces",
                    model=model,
                    input=text(source_lines()),
                    lines=200,
                )
                self.same(
                    [
                        " ".join(table[int(id)] for id in ids.split())
                        for ids in best(name, "greedy")
                    ],
                    result.lines,
                    result,
                )

    def test_pieces_in_are_looked_up_and_the_end_token_is_added(self):
        for name, model in BOTH_MODELS:
            with self.subTest(name):
                table = pieces(name, "source")
                lines = [
                    " ".join(table[int(id)] for id in ids.split()[:-1]) for ids in source_ids(name)
                ]
                result, report = self.report(
                    *GREEDY,
                    *REFERENCE_LIMITS,
                    "--input-format",
                    "pieces",
                    *IDS_OUT,
                    model=model,
                    input=text(lines),
                    lines=200,
                )
                self.same(best(name, "greedy"), result.lines, result)
                self.assertEqual(
                    report["counts"]["source_tokens"],
                    sum(len(ids.split()) for ids in source_ids(name)),
                )

    def test_a_piece_that_the_vocabulary_lacks_is_the_unknown_token(self):
        known = self.ok(*GREEDY, *IDS, input="1 2437 2482 0\n").lines
        table = pieces("shared", "source")
        self.same(
            known,
            self.ok(
                *GREEDY,
                "--input-format",
                "pieces",
                *IDS_OUT,
                input="qqqzzz\u2581 %s %s\n" % (table[2437], table[2482]),
            ).lines,
        )

    def test_pieces_in_are_not_normalised(self):
        _, report = self.report(
            *GREEDY,
            "--input-format",
            "pieces",
            *IDS_OUT,
            input="\u2581Yes \uff26\uff35\uff2c\uff2c\n",
            lines=1,
        )
        self.assertEqual(report["counts"]["source_tokens"], 3)

    def test_spaces_around_tokens_do_not_matter(self):
        expected = self.ok(*GREEDY, *IDS, input="1013 2371 0\n").lines
        self.same(
            expected * 3,
            self.ok(
                *GREEDY, *IDS, input="  1013   2371 0\n1013 2371 0  \n1013 2371 0\r\n", lines=3
            ).lines,
        )

    def test_ids_in_give_text_out(self):
        result = self.ok(
            *GREEDY, *REFERENCE_LIMITS, "--input-format", "ids", input=text(source_ids()), lines=200
        )
        self.same(
            [text_of("shared", ids) for ids in best("shared", "greedy")], result.lines, result
        )

    def test_empty_lines_of_ids_and_pieces_are_empty(self):
        for format in ("ids", "pieces"):
            with self.subTest(format):
                result, report = self.report(
                    *GREEDY, "--input-format", format, input="\n  \n\r\n", lines=3
                )
                self.assertEqual((result.out, report["lines"]["empty"]), (b"\n\n\n", 3))

    def test_a_bad_id_ends_the_run_naming_line_and_value(self):
        for bad in (
            "2571",
            "99999",
            "-1",
            "abc",
            "12x",
            "1.5",
            "0x10",
            "99999999999999999999999999",
            "+",
            "\u0663",
            "1e3",
            "4294967297",
            "-0.0",
        ):
            with self.subTest(bad):
                lines = ["1013 2371 0"] * 40 + ["1013 %s 0" % bad] + ["1013 0"] * 5
                self.fails(*GREEDY, *IDS, input=text(lines), names=["line 41", bad])

    def test_the_range_of_ids_is_the_source_vocabularys(self):
        self.ok(*GREEDY, *IDS, input="2569 0\n", lines=1)
        self.fails(*GREEDY, *IDS, input="1474 0\n", model=SEPARATE, names=["line 1", "1474"])
        self.ok(*GREEDY, *IDS, input="1474 0\n", lines=1)

    def test_unknown_formats_are_usage_errors(self):
        for option in ("--input-format", "--output-format"):
            self.usage_error(option, "words", names=[option])


class Scores(Case):
    def test_the_format_of_scores(self):
        for options in (GREEDY, BEAM4):
            with self.subTest(options):
                plain = self.ok(
                    *options,
                    *REFERENCE_LIMITS,
                    input=text(source_lines()[:50] + ["", "a"]),
                    lines=52,
                )
                scored = self.ok(
                    *options,
                    *REFERENCE_LIMITS,
                    "--scores",
                    input=text(source_lines()[:50] + ["", "a"]),
                    lines=52,
                )
                for line, wanted in zip(scored.lines, plain.lines):
                    score, separator, got = line.partition(" ||| ")
                    self.assertEqual((separator, got), (" ||| ", wanted), scored.story())
                    self.assertRegex(score, "^%s$" % NUMBER, scored.story())
                    self.assertEqual("%.6g" % float(score), score)
                    self.assertLessEqual(float(score), 0)

    def test_empty_lines_have_score_0(self):
        for options in (GREEDY, BEAM4):
            self.assertEqual(self.ok(*options, "--scores", input="\n  \n\n").out, b"0 ||| \n" * 3)

    def test_the_greedy_score_is_divided_by_the_length_too(self):
        input = text(source_ids()[:60])
        sums = self.ok(
            *GREEDY, *REFERENCE_LIMITS, *IDS, "--scores", "--length-penalty", "0", input=input
        ).lines
        for penalty in (1, 0.6, 2):
            for a, b in zip(
                sums,
                self.ok(
                    *GREEDY,
                    *REFERENCE_LIMITS,
                    *IDS,
                    "--scores",
                    "--length-penalty",
                    penalty,
                    input=input,
                ).lines,
            ):
                total, ids = a.split(" ||| ")
                score, same = b.split(" ||| ")
                self.assertEqual(ids, same, "the penalty changed a greedy line")
                n = len(ids.split()) + 1
                self.assertAlmostEqual(
                    float(score), float(total) / n**penalty, delta=1e-5 * max(1, abs(float(score)))
                )

    def test_a_single_beam_scores_like_greedy(self):
        a, b = (
            self.ok(
                "-b", "1", "--early-stopping", stopping, "--scores", input=text(source_lines()[:30])
            ).out
            for stopping in ("true", "never")
        )
        self.assertEqual(a, b)


class NBest(Case):
    def rows(self, *options, lines, model=SHARED):
        result = self.ok(*options, input=text(lines), model=model)
        parsed = []
        for line in result.lines:
            match = N_BEST_ROW.match(line)
            if not match:
                self.fail("not an n-best row: %r\n%s" % (line, result.story()))
            for number in match.groups()[2:]:
                self.assertEqual("%.6g" % float(number), number, line)
            parsed.append((int(match[1]), match[2], float(match[3]), float(match[4])))
        return result, parsed

    def test_rows_are_in_the_order_of_lines_and_best_first(self):
        lines = source_lines()[:40] + ["", "Yes."]
        result, rows = self.rows("-b", "5", "--n-best", "3", lines=lines)
        self.assertEqual(
            sorted({row[0] for row in rows}), list(range(42)), "lines are counted from 0"
        )
        self.assertEqual([row[0] for row in rows], sorted(row[0] for row in rows))
        for i in range(42):
            scores = [score for line, _, _, score in rows if line == i]
            self.assertLessEqual(len(scores), 3)
            self.assertEqual(scores, sorted(scores, reverse=True))
        self.assertGreater(len(rows), 100, result.story())

    def test_the_first_row_is_what_the_run_without_gives(self):
        lines = source_lines()[:60]
        plain = self.ok(*BEAM4, "--scores", input=text(lines), lines=60)
        _, rows = self.rows(*BEAM4, "--n-best", "4", lines=lines)
        first = {}
        for line, got, _, score in rows:
            first.setdefault(line, "%.6g ||| %s" % (score, got))
        self.same(plain.lines, [first[i] for i in range(60)], plain)

    def test_the_sum_is_the_score_times_length_to_the_penalty(self):
        for penalty in (0, 0.6, 1, 2):
            _, rows = self.rows(
                "-b",
                "4",
                "--n-best",
                "4",
                "--length-penalty",
                penalty,
                *IDS,
                *REFERENCE_LIMITS,
                lines=source_ids()[:30],
            )
            for _, ids, total, score in rows:
                n = len(ids.split()) + 1
                self.assertAlmostEqual(total, score * n**penalty, delta=1e-4 * max(1, abs(total)))

    def test_hypotheses_of_a_line_are_distinct(self):
        _, rows = self.rows("-b", "6", "--n-best", "6", *IDS, lines=source_ids()[:60])
        self.assertEqual(len({row[:2] for row in rows}), len(rows))

    def test_an_empty_line_gives_one_empty_row(self):
        self.assertEqual(
            self.ok("-b", "4", "--n-best", "4", input="\n \n").out,
            b"0 |||  ||| F0= 0 ||| 0\n1 |||  ||| F0= 0 ||| 0\n",
        )

    def test_it_implies_the_scores(self):
        a, b = (
            self.ok("-b", "2", "--n-best", "2", *more, input=text(source_lines()[:10])).out
            for more in ([], ["--scores"])
        )
        self.assertEqual(a, b)

    def test_n_best_1_has_the_format_too(self):
        _, rows = self.rows("-b", "4", "--n-best", "1", lines=source_lines()[:10])
        self.assertEqual([row[0] for row in rows], list(range(10)))
        _, rows = self.rows("-b", "1", "--n-best", "1", lines=source_lines()[:10])
        self.assertEqual([row[0] for row in rows], list(range(10)))

    def test_lines_are_counted_through_all_files(self):
        a, b = self.path("a", "Yes.\nYes."), self.path("b", "Yes.\n")
        result = self.ok("-b", "2", "--n-best", "1", "-i", a, b, "-", input="Yes.\n")
        self.assertEqual([line.split(" ||| ")[0] for line in result.lines], ["0", "1", "2", "3"])

    def test_more_than_the_beam_is_a_usage_error(self):
        self.usage_error("-b", "4", "--n-best", "5", names=["--n-best", "5", "4"])
        self.usage_error("-b", "1", "--n-best", "2", names=["--n-best"])
        self.ok("-b", "4", "--n-best", "4", input="Yes.\n")

    def test_more_than_the_models_own_beam_is_a_usage_error(self):
        self.usage_error("--n-best", "7", names=["--n-best", "7", "6"])
        self.ok("--n-best", "6", input="Yes.\n")


if __name__ == "__main__":
    program.main()
