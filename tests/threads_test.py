"""Tests runs with more threads than the machine has, for errors of the threads' order. scripts/test
--threads runs this test with a program that the thread sanitizer has instrumented: it ends with
exit code 66 if two threads use the same memory without an order."""

import gzip
import json
import os
import random
import signal
import unittest

import program
from program import GREEDY, Case, source_lines, text

SANITIZED = os.environ.get("XLATE_TEST_SANITIZED_THREADS")
LINES = source_lines()
THREADS = ["-q", "--threads", "4", "--max-length", "8", "--max-source-length", "40"]
SMALL = ["--window", "64", "--batch-tokens", "256"]
BEAMS = ["-b", "2"]
setUpModule = program.require


def is_sanitized():
    with open(program.BINARY, "rb") as file:
        return b"__tsan_init" in file.read()


class Threads(Case):
    def setUp(self):
        super().setUp()
        self.where = {"env": {**os.environ, "TSAN_OPTIONS": "exitcode=66"}}

    @unittest.skipUnless(SANITIZED, "scripts/test --threads runs it")
    def test_the_program_is_instrumented(self):
        self.assertTrue(is_sanitized(), program.BINARY)

    def run_all(self, *options, lines=LINES, rows=None, **more):
        result = self.ok(*THREADS, *options, input=text(lines), **self.where, **more)
        self.assertEqual(len(result.lines), rows or len(lines), result.story())
        self.assertNotIn(b"ThreadSanitizer", result.err, result.story())
        return result

    def test_text(self):
        self.run_all(*GREEDY, *SMALL)
        self.run_all(*BEAMS, "--progress", "always", "--report", self.path("report.json"))
        self.run_all(*GREEDY, *SMALL, "-i", self.path("in.gz", text(LINES)), "-o", "/dev/stdout")

    def test_parts(self):
        """With the default budget each thread computes the programs for parts of the lines."""
        rules = ["--min-length", "3", "--no-repeat-ngram", "2"]
        for options in (GREEDY, ["--precision", "int8"], rules, ["--sample"]):
            report = self.path("report.json")
            self.run_all(*options, "--report", report)
            paths = self.load_report(report, None)["paths"]
            self.assertTrue(all("in parts" in way for way in paths.values()), paths)

    def test_rows(self):
        result = self.ok(*THREADS, *BEAMS, "--n-best", "2", input=text(LINES), **self.where)
        numbers = [int(row.split(" ||| ")[0]) for row in result.lines]
        self.assertEqual(sorted(set(numbers)), list(range(len(LINES))))
        self.assertEqual(numbers, sorted(numbers))
        self.run_all("--sample", "--num-samples", "3", *SMALL, rows=3 * len(LINES))

    def test_sentences(self):
        joined = [" ".join(LINES[i : i + 3]) for i in range(0, 150, 3)]
        self.run_all(*GREEDY, *SMALL, "--split-sentences", lines=joined)
        self.run_all(*GREEDY, *SMALL, "--long-lines", "split", lines=joined)

    def test_annotations(self):
        self.run_all(*GREEDY, *SMALL, "--alignments", "--alignment-words", "--token-scores")
        pairs = ["%s\t%s" % (line, line) for line in LINES]
        self.ok(
            *("-q", "--threads", "4", "--score-pairs", "--max-source-length", "40"),
            input=text(pairs),
            **self.where,
        )

    def test_objects(self):
        objects = [json.dumps({"n": i, "text": line}) for i, line in enumerate(LINES)]
        formats = ["--input-format", "jsonl", "--output-format", "jsonl"]
        result = self.run_all(*GREEDY, *SMALL, *formats, lines=objects)
        self.assertEqual([json.loads(x)["n"] for x in result.lines], list(range(len(LINES))))

    def test_line_buffered(self):
        running = self.start(*THREADS, *GREEDY, "--line-buffered", **self.where)
        for i, line in enumerate(LINES[:20]):
            running.send((line + "\n").encode())
            self.assertTrue(running.until(lambda: running.count() > i, 60), i)
        running.close()
        self.check(running.wait(60), 0)

    def test_files(self):
        """A journal is written beside a file, and kept up to date by a thread of its own."""
        self.where["env"]["XLATE_TEST_SYNC_MILLISECONDS"] = "1"
        options = [*THREADS, *GREEDY, *SMALL, "-i", self.path("in.txt", text(LINES))]
        wanted = self.ok(*options, **self.where).out
        out = self.path("out.txt")
        running = self.start(*options, "-o", out, **self.where)
        self.assertTrue(
            running.until(
                lambda: os.path.exists(out + ".partial") and os.path.getsize(out + ".partial"), 60
            )
        )
        running.process.send_signal(signal.SIGKILL)
        running.wait(60)
        self.ok(*options, "-o", out, "--resume", **self.where)
        with open(out, "rb") as file:
            self.assertEqual(file.read(), wanted)
        self.ok(*options, "-o", self.path("out.gz"), **self.where)
        with gzip.open(self.path("out.gz")) as file:
            self.assertEqual(file.read(), wanted)

    def test_precisions(self):
        for precision in ("int8", "bf16"):
            options = [*GREEDY, *SMALL, "--precision", precision]
            if program.xlate("-q", *options, input="Yes.\n").code == 0:
                self.run_all(*options)

    def test_signals(self):
        chance = random.Random(24)
        for number in range(8):
            sent = chance.choice((signal.SIGINT, signal.SIGTERM))
            lines = chance.randrange(0, 300)
            with self.subTest(round=number, signal=sent.name, lines=lines):
                report = self.path("report.json")
                running = self.start(*THREADS, *GREEDY, *SMALL, "--report", report, **self.where)
                running.pump(text(LINES).encode())
                self.assertTrue(running.until(lambda: running.count() > lines, 60))
                running.process.send_signal(sent)
                result = running.wait(60)
                self.check(result, 128 + sent)
                self.assertNotIn(b"ThreadSanitizer", result.err, result.story())
                self.assertEqual(self.load_report(report, result)["status"], "interrupted")

    def test_errors(self):
        """Each stage of the run ends it once."""
        ids = ["--input-format", "ids", *THREADS, *GREEDY, *SMALL]
        lines = ["1013 2371 0"] * 200 + ["x"] + ["1013 2371 0"] * 200
        result = program.xlate(*ids, input=text(lines), **self.where)
        self.check(result, 1)
        self.assertEqual(len(result.lines), 200, result.story())
        self.assertEqual(len(result.error_lines), 1, result.story())
        with open("/dev/full", "wb") as full:
            result = program.xlate(
                *THREADS, *GREEDY, *SMALL, input=text(LINES), stdout=full, **self.where
            )
        self.check(result, 1)
        self.assertEqual(len(result.error_lines), 1, result.story())


if __name__ == "__main__":
    program.main()
