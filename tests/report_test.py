"""Tests the JSON report: every field, its type, and that the numbers agree with each other and with
the input."""

import json
import os
import pty
import re
import subprocess
import time

import program
from program import (
    BEAM4,
    GREEDY,
    SEPARATE,
    SHARED,
    Case,
    source_lines,
    text,
    xlate,
)
from report_case import ReportCase

IDS = ["--input-format", "ids", "--output-format", "ids"]
setUpModule = program.require

OPTIONS = (
    "beam_size",
    "length_penalty",
    "early_stopping",
    "min_length",
    "no_repeat_ngram",
    "repetition_penalty",
    "max_length",
    "max_length_factor",
    "max_source_length",
    "long_lines",
    "template",
    "template_file",
    "echo",
    "stop",
    "newline",
    "scores",
    "n_best",
    "batch_tokens",
    "window",
    "threads",
    "line_buffered",
    "input_format",
    "output_format",
    "text_key",
    "precision",
    "device",
)
# They say how the CPU's threads have computed something.
WAYS = ["in parts", "together", "in parts; together"]
# engine/policy.h gives a run with two threads on the CPU these values.
POLICY = {
    "most_rows": 16384,
    "batch_sentences": 256,
    "batch_rows": 512,
    "usual_source_tokens": 32,
    "tokens_per_slot": 8,
    "state_share": 8,
    "encoder_tokens": 16384,
    "least_pass_tokens": 512,
    "refill_share": 8,
    "steps_at_once": 32,
    "window": 2000,
    "page_tokens": 8,
    "expected_factor": 1.125,
    "expected_extra": 4,
    "expected_continuation": 128,
    "first_sentences": 170,
    "most_sentences": 11000,
    "expected_source": 24,
    "in_use": 0.6,
    "rows_share": 8,
}
DOCUMENT = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs", "report.md"
)


class Fields(ReportCase):
    def test_every_field_is_there_with_its_type(self):
        for options in (GREEDY, BEAM4, [*BEAM4, "--n-best", "4"], ["--line-buffered"]):
            with self.subTest(options):
                result, report = self.report(*options, input=text(source_lines()[:30]))
                self.check_fields(report, result)
                self.assertEqual(report["status"], "ok")
                self.assertFalse(report.get("error"))

    def test_every_options_effective_value_is_there(self):
        _, report = self.report(input="Yes.\n")
        options = self.options(report)
        self.assertEqual([name for name in OPTIONS if name not in options], [], report["options"])
        got = {
            name: options[name]
            for name in (
                "beam_size",
                "length_penalty",
                "min_length",
                "no_repeat_ngram",
                "repetition_penalty",
                "max_length",
                "max_length_factor",
                "max_source_length",
                "long_lines",
                "window",
                "input_format",
                "output_format",
            )
        }
        self.assertEqual(
            got,
            {
                "beam_size": 6,
                "length_penalty": 1,
                "min_length": 0,
                "no_repeat_ngram": 0,
                "repetition_penalty": 1,
                "max_length": 511,
                "max_length_factor": 3,
                "max_source_length": 512,
                "long_lines": "truncate",
                "window": 2000,
                "input_format": "text",
                "output_format": "text",
            },
        )
        self.assertIn(options["early_stopping"], ("false", False))
        self.assertIsInstance(options["batch_tokens"], int)
        self.assertGreater(options["batch_tokens"], 0)

    def test_options_that_were_given_are_reported(self):
        _, report = self.report(
            "-b",
            "3",
            "--length-penalty",
            "0.5",
            "--early-stopping",
            "never",
            "--max-length",
            "44",
            "--max-length-factor",
            "2.5",
            "--max-source-length",
            "99",
            "--long-lines",
            "skip",
            "--n-best",
            "2",
            input="Yes.\n",
        )
        options = self.options(report)
        self.assertEqual(
            [
                options[name]
                for name in (
                    "beam_size",
                    "length_penalty",
                    "early_stopping",
                    "max_length",
                    "max_length_factor",
                    "max_source_length",
                    "long_lines",
                    "n_best",
                )
            ],
            [3, 0.5, "never", 44, 2.5, 99, "skip", 2],
        )

    def test_the_policy_is_there_and_documented(self):
        with open(DOCUMENT, encoding="utf-8") as file:
            document = file.read()
        for options in (
            [],
            ["--window", "10", "--batch-tokens", "100"],
            ["-b", "256", "--line-buffered"],
        ):
            with self.subTest(options):
                _, report = self.report(*options, "--threads", 2, input="Yes.\n")
                self.assertEqual(
                    report["policy"], POLICY, "what the command line says is in options"
                )
                undocumented = [name for name in report["policy"] if "`%s`" % name not in document]
                self.assertEqual(undocumented, [])

    def test_the_default_budget_is_the_policys(self):
        for threads, beams, sentences in (
            (2, 1, 256),
            (2, 4, 128),
            (2, 256, 2),
            (16, 1, 1024),
            (16, 4, 512),
            (16, 256, 8),
        ):
            options = self.options(
                self.report("--threads", threads, "-b", beams, input="Yes.\n")[1]
            )
            budget = sentences * POLICY["usual_source_tokens"]
            self.assertEqual(
                (options["batch_tokens"], options["window"]), (budget, POLICY["window"])
            )

    def test_the_model_is_described(self):
        _, a = self.report(*GREEDY, input="Yes.\n")
        _, again = self.report(*GREEDY, input="Yes.\n")
        _, b = self.report(*GREEDY, input="Yes.\n", model=SEPARATE)
        self.assertEqual(a["model"], again["model"])
        self.assertNotEqual(a["model"]["hash"], b["model"]["hash"])
        self.assertEqual(os.path.basename(a["model"]["path"]), "shared.bin")
        self.assertEqual(a["model"]["architecture"], "transformer")
        self.assertTrue(100000 < a["model"]["parameters"] < os.path.getsize(SHARED), a["model"])
        self.assertTrue(
            a["model"]["parameters"] < a["model"]["bytes"] <= 8 * os.path.getsize(SHARED),
            a["model"],
        )

    def test_precision_is_the_effective_one(self):
        for options in ([], ["--precision", "auto"], ["--precision", "fp32"]):
            report = self.report(*GREEDY, *options, input="Yes.\n")[1]
            self.assertEqual(report["precision"], "fp32")

    def test_paths_say_what_the_threads_did(self):
        for threads, in_parts in ((1, []), (2, ["packed"]), (4, ["packed", "step"])):
            with self.subTest(threads=threads):
                report = self.report("--threads", threads, "-b", 4, input=text(source_lines()))[1]
                paths = report["paths"]
                self.assertEqual(set(paths), {"packed", "step"})
                self.assertLessEqual(set(paths.values()), set(WAYS))
                self.assertEqual([name for name in paths if "in parts" in paths[name]], in_parts)

    def test_latency_is_reported_for_line_buffered_only(self):
        _, report = self.report(*GREEDY, "--line-buffered", input=text(source_lines()[:20]))
        latency = report["latency_ms"]
        self.assertEqual(set(latency) & {"p50", "p90", "p99", "max"}, {"p50", "p90", "p99", "max"})
        self.assertTrue(
            0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"] < 20000,
            latency,
        )
        self.assertIsNone(self.report(*GREEDY, input="Yes.\n")[1].get("latency_ms"))

    def test_latency_of_nothing_is_no_error(self):
        self.report(*GREEDY, "--line-buffered", input="")
        self.report(*GREEDY, "--line-buffered", input="\n\n")


class Outcome(ReportCase):
    def failed(self, *options, **more):
        path = self.path("report.json")
        result = xlate(*options, "--report", path, **more)
        self.check(result, 1)
        report = self.load_report(path, result)
        self.assertEqual(report["status"], "error", result.story())
        self.assertIsInstance(report["error"], str)
        self.assertIn(report["error"].strip(), result.errors)
        return result, report

    def test_a_failure_while_reading_is_reported(self):
        result, report = self.failed(*GREEDY, "-i", self.path("missing.txt"))
        self.assertIn("missing.txt", report["error"])
        self.assertIsNone(report["policy"])
        self.assertIsInstance(report["version"], str)

    def test_a_bad_line_is_reported(self):
        _, report = self.failed(*GREEDY, *IDS, input="1013 0\n1013 0\n99999 0\n")
        self.assertIn("99999", report["error"])

    def test_a_broken_model_is_reported(self):
        _, report = self.failed(*GREEDY, model=self.path("broken.bin", b"nothing"), input="Yes.\n")
        self.assertIn("broken.bin", report["error"])

    def test_a_missing_output_folder_is_reported(self):
        _, report = self.failed(*GREEDY, "-o", self.path("no/such/out.txt"), input="Yes.\n")
        self.assertIn("out.txt", report["error"])

    def test_a_write_error_is_reported(self):
        with open("/dev/full", "wb") as full:
            self.failed(*GREEDY, input=text(source_lines()), stdout=full)

    def test_a_report_that_cannot_be_written_is_noticed_before_any_work(self):
        # stdin stays open and silent.
        running = self.start("-q", *GREEDY, "--report", self.path("no/such/report.json"))
        result = running.wait(20)
        self.check(result, 1)
        self.says(result, "report.json")

    def test_a_full_disk_under_the_report_is_an_error(self):
        os.symlink("/dev/full", self.path("full.json"))
        result = xlate(*GREEDY, "--report", self.path("full.json"), input="Yes.\n")
        self.check(result, 1)
        self.says(result, "full.json")
        self.assertEqual(len(result.lines), 1, "the translation was done all the same")

    def test_the_report_goes_to_stderr_with_a_dash(self):
        result = self.ok(*GREEDY, "-q", "--report", "-", input="Yes.\n", lines=1)
        try:
            report = json.loads(result.errors)
        except ValueError as error:
            self.fail("stderr is not one JSON object: %s\n%s" % (error, result.story()))
        self.check_fields(report, result)
        self.assertNotIn(b"{", result.out)

    def test_a_named_pipe_takes_the_report(self):
        os.mkfifo(self.path("fifo"))
        with (
            open(self.path("report.json"), "wb") as out,
            subprocess.Popen(["cat", self.path("fifo")], stdout=out) as reader,
        ):
            self.addCleanup(reader.kill)
            result = self.ok(
                *GREEDY, "--report", self.path("fifo"), input="Yes.\n", lines=1, timeout=20
            )
            reader.wait(10)
        self.assertEqual(self.load_report(self.path("report.json"), result)["status"], "ok")

    def test_an_old_report_is_replaced(self):
        self.path("report.json", '{"status": "old", "padding": "%s"}' % ("x" * 50000))
        self.report(*GREEDY, input="Yes.\n")

    def test_a_run_that_is_killed_leaves_no_report_of_an_earlier_run(self):
        path = self.path("report.json", '{"status": "ok"}')
        running = self.start("-q", *GREEDY, "--report", path)
        running.send(b"Yes.\n")
        self.assertTrue(running.until(running.count), running.result(0).story())
        running.kill()
        self.assertEqual(os.path.getsize(path), 0)


class Progress(Case):
    def test_always_shows_lines_and_a_rate_on_stderr_only(self):
        plain = self.ok(*BEAM4, input=text(source_lines()))
        result = self.ok(*BEAM4, "--progress", "always", input=text(source_lines()))
        self.assertEqual(result.out, plain.out)
        self.assertIn("200", result.errors, "no line count\n" + result.story())
        self.assertRegex(result.errors, r"tok(en)?s?\s*(/|per )\s*s")

    def test_a_percentage_is_shown_where_the_size_is_known(self):
        path = self.path("input.txt", text(source_lines() * 4))
        result = self.ok(
            "-b", "2", "--max-length", "30", "--progress", "always", "-i", path, lines=800
        )
        self.assertIn("%", result.errors, result.story())

    def test_never_and_quiet_show_nothing(self):
        self.assertEqual(
            self.ok(*GREEDY, "--progress", "never", input=text(source_lines())).err, b""
        )
        self.assertEqual(self.ok(*GREEDY, "-q", input=text(source_lines())).err, b"")

    def test_it_is_rate_limited(self):
        result = self.ok(
            *GREEDY, "--progress", "always", "--window", "10", input=text(source_lines() * 5)
        )
        updates = len(re.findall("[\r\n]", result.errors))
        self.assertLessEqual(updates, 20 + 20 * result.seconds, result.story())

    def on_terminal(self, *options):
        try:
            master, slave = pty.openpty()
        except OSError as error:
            self.skipTest("no terminals here: %s" % error)
        running = self.start(*GREEDY, *options, stderr=slave)
        os.close(slave)
        try:
            for _ in range(15):
                running.send(text(source_lines()[:20]).encode())
                time.sleep(0.1)
            running.close()
            result = running.wait(30)
            shown = b""
            while True:
                try:
                    data = os.read(master, 65536)
                except OSError:
                    break
                if not data:
                    break
                shown += data
        finally:
            os.close(master)
        self.check(result, 0)
        return shown

    def test_auto_shows_it_on_a_terminal(self):
        self.assertRegex(self.on_terminal().decode("utf-8", "replace"), r"\d")

    def test_quiet_and_never_are_silent_on_a_terminal_too(self):
        self.assertEqual(self.on_terminal("-q"), b"")
        self.assertEqual(self.on_terminal("--progress", "never"), b"")


if __name__ == "__main__":
    program.main()
