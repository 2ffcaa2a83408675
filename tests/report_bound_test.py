"""Tests what the report says bounded a run, with runs that are slow for each reason, and the
histogram of latencies."""

import fcntl
import os
import subprocess
import time

import program
from program import GREEDY, command, source_lines, text
from report_case import ReportCase

setUpModule = program.require
F_SETPIPE_SZ = 1031
STAGES = ("load", "input", "tokenize", "device", "output")


class Bound(ReportCase):
    def check_bound(self, report, stage):
        self.assertEqual(set(report["stages"]), set(STAGES))
        for share in report["stages"].values():
            self.assertTrue(0 <= share <= 1, report["stages"])
        story = "%s %s" % (report["stages"], report["seconds"])
        self.assertEqual(report["bound"], stage, story)
        self.assertEqual(report["stages"][stage], max(report["stages"].values()))

    def slow(self, *options, writer=None, reader=None):
        """Runs xlate between a writer and a reader of its pipes, and returns the report."""
        path = self.path("report.json")
        with subprocess.Popen(
            command([*GREEDY, "-q", *options, "--report", path]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            fcntl.fcntl(process.stdout, F_SETPIPE_SZ, 4096)
            writer(process.stdin)
            process.stdin.close()
            if reader:
                reader(process.stdout)
            process.stdout.read()
            errors = process.stderr.read().decode()
        self.assertEqual(process.returncode, 0, errors)
        return self.load_report(path, errors)

    def test_the_device(self):
        _, report = self.report("-b", "12", "--threads", "1", input=text(source_lines() * 4))
        self.check_bound(report, "device")

    def test_the_input(self):
        def writer(stream):
            for _ in range(4):
                time.sleep(1)
                stream.write(b"Yes.\n")
                stream.flush()

        report = self.slow("--line-buffered", writer=writer)
        self.check_bound(report, "input")
        self.assertLess(report["seconds"]["waiting"], 4, "the wait for the first line is none")
        self.assertGreater(report["stages"]["input"] * report["seconds"]["process"], 3)

    def test_a_late_first_line_is_waiting_for_input(self):
        def writer(stream):
            time.sleep(4)
            stream.write(b"Yes.\n")

        self.check_bound(self.slow(writer=writer), "input")

    def test_no_line_at_all(self):
        self.check_bound(self.slow(writer=lambda stream: time.sleep(4)), "input")

    def test_the_tokenizer(self):
        # Almost all tokens of a line are cut off again.
        lines = text([("It was really cheap, 42 of them? " * 3000)[:100000]] * 40)
        _, report = self.report(
            *GREEDY, "--max-source-length", "4", "--max-length", "2", "--threads", "1", input=lines
        )
        self.check_bound(report, "tokenize")

    def test_the_reader_of_the_output(self):
        def writer(stream):
            stream.write(text(source_lines()).encode())

        # The pipe takes 4096 bytes, and the rest waits. With sanitizers, decoding takes long, too.
        wait = 60 if os.environ.get("XLATE_TEST_SANITIZED") else 8
        report = self.slow(writer=writer, reader=lambda stream: time.sleep(wait))
        self.check_bound(report, "output")
        self.assertGreater(report["seconds"]["write"], 1)

    def test_loading(self):
        # The only line is empty, and lies in a file, so that nothing waits for it.
        source = self.path("empty.txt", "\n")
        _, report = self.report(*GREEDY, "-i", source, model=program.EN_DE, lines=1)
        self.check_bound(report, "load")

    def test_a_run_that_reaches_no_stage(self):
        path = self.path("report.json")
        program.xlate("-i", self.path("missing.txt"), "--report", path)
        report = self.load_report(path, None)
        self.assertIsNone(report["bound"])
        self.assertEqual(report["stages"], dict.fromkeys(STAGES, 0))


class Latency(ReportCase):
    def test_the_histogram_counts_each_line_once(self):
        _, report = self.report(*GREEDY, "--line-buffered", input=text(source_lines()[:40]))
        latency = report["latency_ms"]
        bars = latency["histogram"]
        self.assertEqual(sum(bar["lines"] for bar in bars), 40)
        for bar in bars:
            self.assertAlmostEqual(bar["to"] / bar["from"], 1.01**7, places=6)
        for one, two in zip(bars, bars[1:]):
            self.assertLessEqual(one["to"], two["from"] * (1 + 1e-9))
        self.assertTrue(bars[-1]["from"] <= latency["max"] <= bars[-1]["to"], latency)
        # A percentile lies in the bar that reaches its share of the lines.
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
            count = 0
            for bar in bars:
                count += bar["lines"]
                if count >= share * 40:
                    break
            self.assertTrue(
                bar["from"] * 0.999 <= latency[name] <= bar["to"] * 1.001, (name, latency)
            )

    def test_no_lines_have_no_bars(self):
        _, report = self.report(*GREEDY, "--line-buffered", input="")
        self.assertEqual(report["latency_ms"]["histogram"], [])


if __name__ == "__main__":
    program.main()
