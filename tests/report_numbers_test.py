"""Tests that the numbers of the report agree with each other and with the text."""

import time

import program
from program import (
    BEAM4,
    GREEDY,
    REFERENCE_LIMITS,
    best,
    source_ids,
    source_lines,
    text,
)
from report_case import ReportCase

IDS = ["--input-format", "ids", "--output-format", "ids"]
setUpModule = program.require


def words(lines):
    return sum(len(line.split()) for line in lines)


class Numbers(ReportCase):
    def check_sums(self, report, lines_in):
        lines, counts, seconds, rates = (
            report["lines"],
            report["counts"],
            report["seconds"],
            report["rates"],
        )
        self.assertEqual((lines["in"], lines["out"]), (lines_in, lines_in))
        self.assertEqual((lines["split"], lines["retried"]), (0, 0))
        self.assertGreaterEqual(counts["target_tokens"], counts["target_tokens_without_end"])
        self.assertGreaterEqual(counts["decoding_rows"], counts["decoding_rows_useful"])
        self.assertGreaterEqual(counts["decoding_rows_useful"], counts["target_tokens"])
        self.assertGreaterEqual(counts["decoding_rows"], counts["decoding_steps"])
        for rate, count, clock in (
            ("target_tokens_per_second", counts["target_tokens"], "translate"),
            ("target_tokens_per_second_process", counts["target_tokens"], "process"),
            ("source_words_per_second", counts["source_words"], "process"),
            ("sentences_per_second", lines["in"], "process"),
        ):
            low, high = count / (seconds[clock] + 0.001), count / max(seconds[clock] - 0.001, 1e-6)
            self.assertTrue(
                low * 0.995 - 0.5 <= rates[rate] <= high * 1.005 + 0.5,
                "%s is %s: %d in seconds.%s = %s"
                % (rate, rates[rate], count, clock, seconds[clock]),
            )
        self.assertLessEqual(seconds["translate"], seconds["process"] + 0.002)
        self.assertLessEqual(seconds["load"], seconds["process"] + 0.002)
        self.assertLessEqual(seconds["first_output"], seconds["process"] + 0.002)
        for share in ("padding", "rows_idle"):
            self.assertTrue(0 <= report["shares"][share] <= 1, report["shares"])
        if counts["decoding_rows"]:
            self.assertAlmostEqual(
                report["shares"]["rows_idle"],
                1 - counts["decoding_rows_useful"] / counts["decoding_rows"],
                delta=0.001,
            )
        buckets = self.buckets(report)
        for bucket in buckets:
            self.assertEqual(
                {"lines", "source_tokens", "target_tokens", "row_steps"} - set(bucket),
                set(),
                bucket,
            )
        total = lambda name: sum(bucket[name] for bucket in buckets)
        self.assertEqual(total("lines"), lines_in - lines["empty"] - lines["skipped"])
        self.assertEqual(
            (total("source_tokens"), total("target_tokens")),
            (counts["source_tokens"], counts["target_tokens"]),
        )
        self.assertIn(total("row_steps"), (counts["decoding_rows"], counts["decoding_rows_useful"]))

    def test_greedy_counts_are_those_of_the_references(self):
        result, report = self.report(
            *GREEDY, *REFERENCE_LIMITS, input=text(source_lines()), lines=200
        )
        self.check_sums(report, 200)
        counts, targets = report["counts"], [ids.split() for ids in best("shared", "greedy")]
        self.assertEqual(counts["source_tokens"], sum(len(ids.split()) for ids in source_ids()))
        self.assertEqual(counts["target_tokens"], sum(len(ids) + 1 for ids in targets))
        self.assertEqual(counts["target_tokens_without_end"], sum(len(ids) for ids in targets))
        self.assertEqual(
            counts["decoding_rows_useful"], counts["target_tokens"], "one row per token: greedy"
        )
        self.assertGreaterEqual(counts["decoding_steps"], max(len(ids) + 1 for ids in targets))
        self.assertEqual(counts["source_words"], words(source_lines()))
        at_limit = sum(len(ids) == 59 for ids in targets)
        self.assertLessEqual(report["lines"]["hit_length_limit"], at_limit)
        self.assertGreater(report["batches"], 0)

    def test_beam_counts_fit_each_other(self):
        for options in (
            BEAM4,
            ["-b", "6", "--n-best", "6"],
            ["-b", "2", "--batch-tokens", "100"],
            ["-b", "4", "--window", "10", "--early-stopping", "never"],
        ):
            with self.subTest(options):
                _, report = self.report(*options, *REFERENCE_LIMITS, input=text(source_lines()))
                self.check_sums(report, 200)
                self.assertEqual(
                    report["counts"]["source_tokens"], sum(len(ids.split()) for ids in source_ids())
                )

    def test_beam_target_tokens_are_those_of_what_was_printed(self):
        _, report = self.report(
            *BEAM4, *REFERENCE_LIMITS, *IDS, input=text(source_ids()), lines=200
        )
        self.assertEqual(
            report["counts"]["target_tokens_without_end"],
            sum(len(ids.split()) for ids in best("shared", "beam4")),
        )
        self.assertEqual(
            report["counts"]["target_tokens"], report["counts"]["target_tokens_without_end"] + 200
        )

    def test_smaller_budgets_make_more_batches(self):
        few, many = (
            self.report(*GREEDY, "--batch-tokens", budget, input=text(source_lines()))[1]
            for budget in (100000, 100)
        )
        self.assertGreater(many["batches"], few["batches"])
        self.check_sums(few, 200)
        self.check_sums(many, 200)

    def test_mixed_lines_are_counted(self):
        lines = ["", "   ", "Yes.", "\ufffd", "Yes. " * 300, "It was really cheap."]
        data = text(lines).encode() + b"caf\xe9\n\xff\r\n"
        _, report = self.report(*GREEDY, input=data, lines=8)
        self.assertEqual(
            [
                report["lines"][name]
                for name in ("in", "out", "empty", "truncated", "skipped", "invalid_utf8")
            ],
            [8, 8, 4, 1, 0, 2],
        )
        self.check_sums(report, 8)

    def test_words_are_split_at_blanks(self):
        _, report = self.report(*GREEDY, input="one two  three\n\n four\tfive \nsix", lines=4)
        self.assertEqual(report["counts"]["source_words"], 6)

    def test_n_best_rows_are_not_lines(self):
        _, report = self.report(*BEAM4, "--n-best", "4", input=text(source_lines()[:20]))
        self.assertEqual((report["lines"]["in"], report["lines"]["out"]), (20, 20))

    def test_an_empty_input_gives_zeros(self):
        for options in ([], ["--line-buffered"], ["--n-best", "2", "-b", "2"]):
            with self.subTest(options):
                result, report = self.report(*options, input="", lines=0)
                self.check_fields(report, result, zeros=True)
                zero = {
                    (section, name): value
                    for section in ("lines", "counts", "rates", "shares")
                    for name, value in report[section].items()
                }
                self.assertEqual(
                    {key: value for key, value in zero.items() if value not in (0, None)}, {}
                )
                self.assertEqual(
                    (
                        report["batches"],
                        sum(bucket["lines"] for bucket in self.buckets(report)),
                        report["status"],
                    ),
                    (0, 0, "ok"),
                )

    def test_only_empty_lines_give_zeros_but_for_the_lines(self):
        result, report = self.report(*GREEDY, input="\n" * 10, lines=10)
        self.check_fields(report, result)
        self.assertEqual({name: value for name, value in report["counts"].items() if value}, {})
        self.assertEqual(
            (
                report["lines"]["in"],
                report["lines"]["out"],
                report["lines"]["empty"],
                report["rates"]["target_tokens_per_second"],
            ),
            (10, 10, 10, 0),
        )

    def test_times_are_those_of_a_clock(self):
        running = self.start(*GREEDY, "--report", self.path("report.json"))
        time.sleep(0.5)
        running.send(b"Yes.\n")
        self.assertTrue(running.until(running.count), "no output")
        answered = time.monotonic() - running.begun
        time.sleep(1.5)
        running.send(b"Yes.\n")
        running.close()
        result = running.wait(30)
        seconds = self.load_report(self.path("report.json"), result)["seconds"]
        self.assertTrue(2.0 <= seconds["process"] <= result.seconds + 0.05, seconds)
        self.assertTrue(1.2 <= seconds["waiting"] <= seconds["process"], seconds)
        self.assertTrue(
            1.4 <= seconds["translate"] <= seconds["process"] - 0.3,
            "translate begins with the first line: %s" % seconds,
        )
        # The time is taken when the write has returned, which on a busy machine may be some time
        # after the test saw the output.
        self.assertTrue(0.4 <= seconds["first_output"] <= answered + 0.5, seconds)
        self.assertTrue(0 < seconds["load"] < 2, seconds)
        self.assertLess(seconds["encode"] + seconds["decode"], seconds["process"])

    def test_work_takes_time(self):
        _, report = self.report(*BEAM4, "--threads", "1", input=text(source_lines() * 3), lines=600)
        seconds = report["seconds"]
        for name in (
            "load",
            "first_output",
            "tokenize",
            "detokenize",
            "encode",
            "decode",
            "translate",
            "process",
        ):
            self.assertGreater(seconds[name], 0, name)
        self.assertGreater(seconds["decode"], seconds["process"] / 20)
        self.assertLessEqual(
            seconds["encode"] + seconds["decode"], seconds["translate"] * 1.05 + 0.02
        )

    def test_host_peak_is_what_the_kernel_says(self):
        source = self.path("input.txt", text(source_lines() * 5))
        result, seen = program.peak_memory(
            *BEAM4, "--report", self.path("report.json"), input_path=source
        )
        self.check(result, 0)
        told = self.load_report(self.path("report.json"), result)["memory"]["host_peak_bytes"]
        self.assertTrue(
            0.7 * seen <= told <= 1.3 * seen + (4 << 20),
            "the report says %d, the kernel %d" % (told, seen),
        )


if __name__ == "__main__":
    program.main()
