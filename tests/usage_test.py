"""Tests the help, and what xlate says about wrong and unknown options."""

import os
import re

import program
from program import GREEDY, SEPARATE, SHARED, Case, source_lines, xlate

setUpModule = program.require


class Help(Case):
    MAIN = (
        "--model",
        "--input",
        "--output",
        "--device",
        "--input-format",
        "--output-format",
        "--precision",
        "--beam-size",
        "--length-penalty",
        "--early-stopping",
        "--min-length",
        "--no-repeat-ngram",
        "--repetition-penalty",
        "--suppress",
        "--suppress-unk",
        "--max-length",
        "--max-length-factor",
        "--max-new-tokens",
        "--max-source-length",
        "--long-lines",
        "--source-lang",
        "--target-lang",
        "--template",
        "--template-file",
        "--echo",
        "--score-pairs",
        "--score-text",
        "--stop",
        "--newline",
        "--scores",
        "--n-best",
        "--alignments",
        "--alignment-layer",
        "--alignment-heads",
        "--alignment-words",
        "--token-scores",
        "--batch-tokens",
        "--window",
        "--threads",
        "--line-buffered",
        "--report",
        "--progress",
        "--quiet",
        "--version",
        "--help",
    )

    def test_help_lists_every_option_in_groups_with_defaults(self):
        result = xlate("--help", model=None, device=None)
        self.check(result, 0)
        help = result.out.decode("utf-8")
        for name in (*self.MAIN, "-m", "-i", "-o", "-b", "-q"):
            self.assertRegex(help, r"(?<![\w-])%s(?![\w-])" % name)
        groups = [line for line in help.split("\n") if re.match(r"^[^\s-]", line)]
        self.assertGreaterEqual(len(groups), 3, "no groups\n" + help)
        for default in ("auto", "512", "truncate", "2000", "text", "stdin", "stdout", "3"):
            self.assertIn(default, help)

    def test_help_does_not_offer_what_is_not_there(self):
        help = xlate("--help", model=None, device=None).out.decode("utf-8")
        for option, _ in NotThere.OPTIONS:
            self.assertNotRegex(help, r"(?<![\w-])%s(?![\w-])" % option)

    def test_version_is_one_line(self):
        result = xlate("--version", model=None, device=None)
        self.check(result, 0)
        self.assertRegex(result.out.decode(), r"^[^\n]*xlate[^\n]*\d+\.\d+[^\n]*\n$")

    def test_the_version_is_the_reports(self):
        _, report = self.report(*GREEDY, input="Yes.\n")
        self.assertIn(report["version"], xlate("--version", model=None, device=None).out.decode())

    def test_help_among_short_options(self):
        self.assertEqual(
            xlate("-qh", model=SHARED).out, xlate("--help", model=None, device=None).out
        )

    def test_help_needs_no_other_option_right(self):
        self.check(xlate("--help", model="/nowhere/model.bin", device="cpu"), 0)


class NotThere(Case):
    """Options that xlate does not have are refused. They are never accepted and ignored."""

    OPTIONS = [
        ("--shortlist", "table"),
        ("--range", "0-5"),
    ]

    def test_an_option_that_is_not_there_yet_is_a_usage_error_naming_it(self):
        for option, value in self.OPTIONS:
            with self.subTest(option):
                self.usage_error(option, *([value] if value else []), names=option)
            if value:
                with self.subTest(option + "="):
                    self.usage_error("%s=%s" % (option, value), names=option)

    def test_values_that_are_not_there_yet_are_usage_errors(self):
        for device in ("cuda:0,1", "cuda:all"):
            self.usage_error(device=device, names="--device")

    def test_nothing_is_written_by_a_run_that_was_refused(self):
        self.usage_error(
            "-o",
            self.path("out.txt"),
            "--report",
            self.path("report.json"),
            "--shortlist",
            "table",
            names="--shortlist",
        )
        self.assertNotIn("out.txt", os.listdir(self.folder))
        self.assertNotIn("out.txt.partial", os.listdir(self.folder))

    def test_a_refused_run_does_not_wait_for_input(self):
        # stdin stays open and silent.
        running = self.start("--range", "0-5")
        self.check(running.wait(20), 2)


class Mistakes(Case):
    INTEGERS = (
        "-b",
        "--beam-size",
        "--max-length",
        "--max-source-length",
        "--n-best",
        "--batch-tokens",
        "--window",
        "--threads",
    )

    def test_gpu_memory_is_a_share_or_a_size(self):
        for value in ("0.9", "1", "8GiB", "512MiB", "1.5GiB"):
            with self.subTest(value):
                self.ok(*GREEDY, "--gpu-memory", value, input="Yes.\n", lines=1, device="auto")
        for value in ("0", "1.1", "-1", "8", "8GB", "GiB", "all", "", "0GiB", "nan"):
            with self.subTest(value):
                self.usage_error("--gpu-memory", value, names="--gpu-memory")

    def test_no_model_is_a_usage_error_naming_the_option(self):
        self.usage_error(model=None, names="--model")
        self.usage_error(model=None, device=None, names="--model")

    def test_whole_numbers_above_zero(self):
        for option in self.INTEGERS:
            for value in (
                "0",
                "-1",
                "four",
                "1.5",
                "",
                "4x",
                "99999999999999999999",
                "nan",
                "0x4",
                "1e2",
            ):
                with self.subTest((option, value)):
                    self.usage_error(
                        option, value, names="--beam-size" if option == "-b" else option
                    )

    def test_real_numbers(self):
        for option in ("--length-penalty", "--max-length-factor"):
            for value in ("x", "nan", "inf", "", "1,5", "1.5.2", "--"):
                with self.subTest((option, value)):
                    self.usage_error("%s=%s" % (option, value), names=option)
        self.usage_error("--max-length-factor=-1", names="--max-length-factor")

    def test_choices(self):
        for option, values in (
            ("--early-stopping", ("maybe", "1", "", "TRUE!")),
            ("--long-lines", ("cut", "")),
            ("--progress", ("sometimes", "")),
            ("--input-format", ("txt",)),
            ("--output-format", ("json",)),
        ):
            for value in values:
                with self.subTest((option, value)):
                    self.usage_error("%s=%s" % (option, value), names=option)

    def test_the_choices_are_listed(self):
        for option, choices in (
            ("--early-stopping", ("true", "false", "never")),
            ("--long-lines", ("truncate", "skip", "error")),
            ("--progress", ("auto", "always", "never")),
            ("--input-format", ("text", "pieces", "ids")),
        ):
            with self.subTest(option):
                self.usage_error(option, "wrong", names=[option, "wrong", *choices])

    def test_missing_values(self):
        for option in (
            "-b",
            "--beam-size",
            "--length-penalty",
            "--output",
            "-o",
            "--report",
            "--threads",
            "--input",
            "-i",
            "--long-lines",
        ):
            with self.subTest(option):
                result = xlate(option, input="")
                self.check(result, 2)
                self.assertTrue(result.err.strip())

    def test_mistyped_options_are_named(self):
        for wrong in (
            "--beam-sise",
            "--beamsize",
            "--lenght-penalty",
            "--frobnicate",
            "-Z",
            "--maxlength",
            "--beam_size",
            "--nbest",
            "-x",
            "--threadss",
        ):
            with self.subTest(wrong):
                self.usage_error(wrong, "4", names=wrong + ": there is no such option")
                self.usage_error(wrong + "=4", names=wrong + ": there is no such option")

    def test_options_are_not_abbreviated(self):
        for wrong in ("--beam", "--thr", "--max-len", "--quie", "--score"):
            with self.subTest(wrong):
                self.usage_error(wrong, names=wrong)

    def test_a_stray_argument_is_named(self):
        for arguments in (["stray.txt"], ["--", "stray.txt"], ["stray.txt", "-q", "--no-such"]):
            self.usage_error(*arguments, names="'stray.txt' belongs to no option; an input file is")
        self.usage_error("stray.txt", names="--input stray.txt (")
        self.usage_error("-", names="--input - (")
        self.usage_error("stray\ntext", names="'stray text' belongs to no option")

    def test_a_usage_error_points_to_help(self):
        self.usage_error("--frobnicate", names="--help")

    def test_the_message_is_short(self):
        result = self.usage_error("--beam-sise", "4", names="--beam-sise")
        self.assertLessEqual(len(result.error_lines), 3, result.story())

    def test_an_option_given_twice_is_a_usage_error(self):
        for option in (
            ["-b", "2"],
            ["--beam-size", "3"],
            ["--max-length", "7"],
            ["--threads", "1"],
            ["--length-penalty", "1"],
            ["-o", "somewhere"],
            ["--report", "-"],
            ["--output-format", "ids"],
        ):
            with self.subTest(option):
                self.usage_error(
                    *option,
                    *option,
                    names=option[0]
                    if option[0].startswith("--")
                    else {"-b": "--beam-size", "-o": "--output"}[option[0]],
                )
        self.usage_error("-m", SEPARATE, names="--model")
        self.usage_error("-b", "2", "--beam-size", "2", names="--beam-size")

    def test_contradictions(self):
        self.usage_error("-b", "2", "--n-best", "3", names="--n-best")
        result = xlate(*GREEDY, "-q", "--progress", "always", input="Yes.\n")
        self.assertIn(result.code, (0, 2), result.story())
        if result.code == 0:
            self.assertEqual(
                result.err, b"", "quiet wins, or it is a usage error\n" + result.story()
            )

    def test_equals_signs_and_short_forms_work(self):
        expected = self.ok("--beam-size", "2", "--length-penalty", "0.5", input="Yes.\n").out
        for options in (
            ["--beam-size=2", "--length-penalty=0.5"],
            ["-b2", "--length-penalty", ".5"],
            ["-b", "2", "--length-penalty", "5e-1"],
        ):
            with self.subTest(options):
                self.assertEqual(self.ok(*options, input="Yes.\n").out, expected)

    def test_large_values_are_taken_as_they_are(self):
        self.ok(
            *GREEDY,
            "--max-length",
            "1000000",
            "--window",
            "10000000",
            "--batch-tokens",
            "100000000",
            "--max-source-length",
            "1000000",
            input="Yes.\n",
            lines=1,
        )


class Quiet(Case):
    def test_a_clean_run_is_silent_when_stderr_is_no_terminal(self):
        for options in ([], ["--progress", "auto"], ["--progress", "never"], ["-q"], ["--quiet"]):
            with self.subTest(options):
                self.assertEqual(
                    self.ok(
                        *GREEDY, *options, input="".join(line + "\n" for line in source_lines())
                    ).err,
                    b"",
                )

    def test_quiet_does_not_hide_errors(self):
        self.fails(*GREEDY, "-i", self.path("missing"), names="missing")

    def test_errors_begin_with_the_programs_name(self):
        for result in (
            self.fails(*GREEDY, "-i", self.path("missing")),
            self.usage_error("--frobnicate", names="--frobnicate"),
        ):
            self.assertTrue(result.errors.startswith("xlate: "), result.story())


if __name__ == "__main__":
    program.main()
