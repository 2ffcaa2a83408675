"""Tests what each option means. The expected ids come from tests/data/opus-shape."""

import os
import re

import program
from program import (
    BEAM4,
    EN_DE,
    GREEDY,
    IDS,
    IDS_OUT,
    REFERENCE_LIMITS,
    SEPARATE,
    Case,
    best,
    source_ids,
    source_lines,
    text,
    text_of,
    xlate,
)

setUpModule = program.require


class Limits(Case):
    def limited(self, *options):
        return self.report(*GREEDY, *options, *IDS, input=text(source_ids()), lines=200)

    def check_limits(self, options, limit):
        """With a forced end token, greedy decoding gives the tokens of the unlimited run, but the
        last token that the limit allows is the end token."""
        result, report = self.limited(*options)
        expected, cut, natural = [], 0, 0
        for source, ids in zip(source_ids(), best("shared", "greedy")):
            ids, most = ids.split(), limit(len(source.split()))
            # The references were cut at 60 tokens, so no limit here may be larger.
            assert most <= 60
            expected.append(" ".join(ids[: most - 1]))
            cut, natural = cut + (len(ids) + 1 > most), natural + (len(ids) + 1 == most)
        self.same(expected, result.lines, result)
        self.assertTrue(
            cut <= report["lines"]["hit_length_limit"] <= cut + natural,
            "hit_length_limit is %d, expected %d to %d"
            % (report["lines"]["hit_length_limit"], cut, cut + natural),
        )

    def test_max_length_counts_the_end_token(self):
        self.check_limits(["--max-length", "12", "--max-length-factor", "50"], lambda source: 12)

    def test_max_length_1_leaves_room_for_the_end_token_only(self):
        self.check_limits(["--max-length", "1"], lambda source: 1)

    def test_the_factor_is_per_sentence_and_adds_ten(self):
        self.check_limits(
            ["--max-length", "60", "--max-length-factor", "0.5"],
            lambda source: min(60, source // 2 + 10),
        )
        self.check_limits(
            ["--max-length", "60", "--max-length-factor", "0.25"],
            lambda source: min(60, source // 4 + 10),
        )
        self.check_limits(
            ["--max-length", "60", "--max-length-factor", "1.5"],
            lambda source: min(60, source * 3 // 2 + 10),
        )

    def test_the_default_factor_is_three(self):
        self.check_limits(["--max-length", "60"], lambda source: min(60, 3 * source + 10))

    def test_a_model_without_forced_end_is_cut_at_the_limit(self):
        result, report = self.report(
            *GREEDY,
            "--max-length",
            "3",
            "--output-format",
            "ids",
            model=EN_DE,
            input="The quick brown fox jumps over the lazy dog again and again.\n",
            lines=1,
        )
        self.assertEqual(len(result.lines[0].split()), 3, result.story())
        self.assertEqual(
            (report["lines"]["hit_length_limit"], report["counts"]["target_tokens_without_end"]),
            (1, 3),
        )


class LongLines(Case):
    LIMIT = 20

    def setUp(self):
        super().setUp()
        self.long = [i for i, ids in enumerate(source_ids()) if len(ids.split()) > self.LIMIT]
        assert 12 < len(self.long) < 190

    def run_with(self, policy, *options):
        return self.report(
            *GREEDY,
            *REFERENCE_LIMITS,
            *IDS,
            "--max-source-length",
            self.LIMIT,
            *(["--long-lines", policy] if policy else []),
            *options,
            input=text(source_ids()),
            lines=200,
        )

    def test_truncate_keeps_the_end_token(self):
        cut = [
            " ".join(ids.split()[: self.LIMIT - 1] + ["0"]) if i in self.long else ids
            for i, ids in enumerate(source_ids())
        ]
        expected = self.ok(*GREEDY, *REFERENCE_LIMITS, *IDS, input=text(cut), lines=200).lines
        for policy in ("truncate", None):
            with self.subTest(policy):
                result, report = self.run_with(policy)
                self.same(expected, result.lines, result)
                self.assertEqual(
                    (report["lines"]["truncated"], report["lines"]["skipped"]), (len(self.long), 0)
                )
                self.assertEqual(
                    report["counts"]["source_tokens"], sum(len(ids.split()) for ids in cut)
                )

    def test_truncate_works_on_text_as_on_ids(self):
        common = [*GREEDY, *REFERENCE_LIMITS, *IDS_OUT, "--max-source-length", str(self.LIMIT)]
        by_ids = self.ok(*common, "--input-format", "ids", input=text(source_ids()), lines=200)
        by_text = self.ok(*common, input=text(source_lines()), lines=200)
        self.same(by_ids.lines, by_text.lines, by_text)

    def test_skip_gives_an_empty_line_and_leaves_the_others_alone(self):
        result, report = self.run_with("skip")
        self.same(
            ["" if i in self.long else ids for i, ids in enumerate(best("shared", "greedy"))],
            result.lines,
            result,
        )
        self.assertEqual(
            (report["lines"]["skipped"], report["lines"]["truncated"], report["lines"]["empty"]),
            (len(self.long), 0, 0),
        )

    def test_a_skipped_line_with_scores(self):
        result, _ = self.run_with("skip", "--scores")
        self.assertEqual({result.lines[i] for i in self.long}, {"0 ||| "}, result.story())

    def test_a_skipped_line_with_n_best_gives_one_empty_row(self):
        result = self.ok(
            "-b",
            "2",
            "--n-best",
            "2",
            *IDS,
            "--max-source-length",
            self.LIMIT,
            "--long-lines",
            "skip",
            input=text(source_ids()),
        )
        rows = [row for row in result.lines if int(row.split(" ||| ")[0]) in self.long]
        self.same(["%d |||  ||| F0= 0 ||| 0" % i for i in self.long], rows, result)

    def test_error_names_the_line_and_both_lengths(self):
        first = self.long[0]
        self.fails(
            *GREEDY,
            *IDS,
            "--max-source-length",
            self.LIMIT,
            "--long-lines",
            "error",
            input=text(source_ids()),
            names=["line %d" % (first + 1), str(len(source_ids()[first].split())), str(self.LIMIT)],
        )

    def test_error_says_nothing_where_no_line_is_long(self):
        self.ok(
            *GREEDY,
            *IDS,
            "--max-source-length",
            "395",
            "--long-lines",
            "error",
            input=text(source_ids()),
            lines=200,
        )

    def test_the_limit_itself_is_allowed(self):
        longest = max(len(ids.split()) for ids in source_ids())
        for limit, truncated in ((longest, 0), (longest - 1, 1)):
            _, report = self.report(
                *GREEDY, *IDS, "--max-source-length", limit, input=text(source_ids()), lines=200
            )
            self.assertEqual(report["lines"]["truncated"], truncated)

    def test_the_default_limit_is_the_models_512(self):
        _, report = self.report(
            *GREEDY,
            "--max-length",
            "3",
            *IDS,
            input=text(["193 " * 511 + "0", "193 " * 512 + "0"]),
            lines=2,
        )
        self.assertEqual(report["lines"]["truncated"], 1)

    def test_more_than_the_models_limit_may_be_asked_for(self):
        _, report = self.report(
            *GREEDY,
            "--max-length",
            "3",
            *IDS,
            "--max-source-length",
            "700",
            input=text(["193 " * 650 + "0"]),
            lines=1,
        )
        self.assertEqual(
            (report["lines"]["truncated"], report["counts"]["source_tokens"]), (0, 651)
        )

    def test_the_first_ten_are_named_on_stderr(self):
        lines = [""] * 7000 + ["193 " * 30 + "0"] * 15
        for policy in ("truncate", "skip"):
            with self.subTest(policy):
                result = self.ok(
                    *GREEDY,
                    *IDS,
                    "--max-length",
                    "3",
                    "--max-source-length",
                    "20",
                    "--long-lines",
                    policy,
                    input=text(lines),
                    lines=7015,
                )
                numbers = {int(number) for number in re.findall(r"\b70\d\d\b", result.errors)}
                self.assertEqual(numbers - {7015}, set(range(7001, 7011)), result.story())


class Scheduling(Case):
    """Budgets change speed and not text, except for near-ties on the CPU."""

    ORDERS = (
        [],
        ["--window", "1"],
        ["--window", "7"],
        ["--window", "100000"],
        ["--batch-tokens", "1"],
        ["--batch-tokens", "64"],
        ["--batch-tokens", "1000"],
        ["--batch-tokens", "1000000"],
        ["--threads", "1"],
        ["--threads", "2"],
        ["--threads", "3", "--batch-tokens", "200", "--window", "33"],
        ["--line-buffered"],
    )

    def test_budgets_do_not_change_text_or_order(self):
        lines = [source_lines()[i * 37 % 200] if i % 23 else "" for i in range(260)]
        wanted = [best("shared", "beam4")[i * 37 % 200] if i % 23 else "" for i in range(260)]
        for options in self.ORDERS:
            with self.subTest(options):
                result = self.ok(
                    *BEAM4, *REFERENCE_LIMITS, *IDS_OUT, *options, input=text(lines), lines=260
                )
                self.same(wanted, result.lines, result, allowed=1)

    def test_budgets_do_not_change_greedy_text(self):
        wanted = [text_of("separate", ids) for ids in best("separate", "greedy")]
        for options in self.ORDERS:
            with self.subTest(options):
                result = self.ok(
                    *GREEDY,
                    *REFERENCE_LIMITS,
                    *options,
                    model=SEPARATE,
                    input=text(source_lines()),
                    lines=200,
                )
                self.same(wanted, result.lines, result, allowed=1)

    def test_equal_lines_give_equal_text_wherever_they_stand(self):
        lines = (source_lines()[:30] + ["Yes."]) * 20
        result = self.ok(
            *GREEDY,
            *IDS_OUT,
            "--window",
            "50",
            "--batch-tokens",
            "300",
            input=text(lines),
            lines=620,
        )
        self.same(result.lines[:31] * 20, result.lines, result, allowed=2)

    def test_effective_values_are_reported(self):
        _, report = self.report(
            *GREEDY,
            "--window",
            "77",
            "--batch-tokens",
            "333",
            "--threads",
            "1",
            input="Yes.\n",
            lines=1,
        )
        options = {key.replace("-", "_"): value for key, value in report["options"].items()}
        self.assertEqual(
            (
                options["window"],
                options["batch_tokens"],
                options["threads"],
                report["device"]["threads"],
            ),
            (77, 333, 1, 1),
        )

    def test_threads_default_to_those_the_process_may_run_on(self):
        if not hasattr(os, "sched_setaffinity"):
            self.skipTest("no affinity here")
        # The container in which the tests run may have a quota.
        no_quota = dict(os.environ, XLATE_TEST_SYSTEM_ROOT=self.folder)
        _, report = self.report(*GREEDY, input="Yes.\n", lines=1, env=no_quota)
        self.assertEqual(report["device"]["threads"], len(os.sched_getaffinity(0)))
        one = min(os.sched_getaffinity(0))
        _, report = self.report(
            *GREEDY,
            input="Yes.\n",
            lines=1,
            env=no_quota,
            preexec_fn=lambda: os.sched_setaffinity(0, {one}),
        )
        self.assertEqual(report["device"]["threads"], 1)

    def test_far_more_threads_than_processors_are_noted(self):
        one = min(os.sched_getaffinity(0))

        def run(threads):
            return self.ok(
                "--threads",
                threads,
                input="Yes.\n",
                preexec_fn=lambda: os.sched_setaffinity(0, {one}),
            )

        self.assertNotIn("processor", run("8").errors)
        result = run("9")
        self.says(result, "--threads 9: this process has 1 processor,")
        self.assertEqual(result.errors.count("--threads"), 1)


class Devices(Case):
    NO_GPU = dict(os.environ, CUDA_VISIBLE_DEVICES="-1")

    def test_auto_without_a_gpu_takes_the_cpu_and_says_so_in_one_line(self):
        on_cpu = self.ok(*GREEDY, input="Yes.\n", lines=1)
        for device in (None, "auto"):
            with self.subTest(device):
                result = self.ok(*GREEDY, input="Yes.\n", device=device, env=self.NO_GPU, lines=1)
                self.assertEqual(result.out, on_cpu.out)
                self.assertEqual(
                    len([line for line in result.error_lines if "cpu" in line.lower()]),
                    1,
                    result.story(),
                )

    def test_asked_for_the_cpu_it_says_nothing(self):
        self.assertEqual(self.ok(*GREEDY, input="Yes.\n").err, b"")

    def test_an_unknown_device_is_a_usage_error(self):
        for device in ("tpu", "cpu:1", "", "cudax", "cpu,cpu", "CUDA:"):
            with self.subTest(device):
                self.usage_error(*GREEDY, device=device, names="--device")

    def test_a_gpu_that_is_not_there_is_an_error_in_one_line(self):
        result = xlate("-q", *GREEDY, device="cuda", input="Yes.\n", env=self.NO_GPU)
        self.assertIn(result.code, (1, 2), result.story())
        self.assertEqual((result.out, len(result.error_lines)), (b"", 1), result.story())

    def test_precision_on_the_cpu(self):
        a, b, c = (
            self.ok(*GREEDY, "--precision", precision, input="Yes.\n", lines=1).out
            for precision in ("auto", "fp32", "fp32")
        )
        self.assertEqual(a, b)
        for precision in ("fp16", "fp8", "double", ""):
            with self.subTest(precision):
                self.usage_error("--precision", precision, names="--precision")

    def test_eight_and_sixteen_bits_on_the_cpu(self):
        """The model is small, so that only a part of its lines keep their text."""
        lines = source_lines()[:60]
        options, rows = [*GREEDY, *REFERENCE_LIMITS, "--scores"], {}
        for precision in ("fp32", "bf16", "int8"):
            result = program.xlate(*options, "--precision", precision, input=text(lines))
            if precision == "bf16" and "does not compute with bfloat16" in result.errors:
                self.check(result, 1)
                continue
            self.check(result, 0)
            rows[precision] = [line.split(" ||| ") for line in result.lines]
            self.assertEqual(len(result.lines), 60)
        for precision in set(rows) - {"fp32"}:
            same = sum(a[1] == b[1] for a, b in zip(rows["fp32"], rows[precision]))
            self.assertGreater(same, 20, precision)
            # Other numbers are computed.
            self.assertNotEqual(rows[precision], rows["fp32"])
        _, report = self.report(*GREEDY, "--precision", "int8", input="Yes.\n", lines=1)
        self.assertEqual(report["precision"], "int8")


if __name__ == "__main__":
    program.main()
