"""Tests what signals do to a run: the prefix that is written, the report and the exit code."""

import fcntl
import gzip
import os
import signal
import sys
import termios
import time

import program
from program import GREEDY, Case, source_lines

setUpModule = program.require
LINES = source_lines()[:40]
BLOCK = "".join(line + "\n" for line in LINES).encode("utf-8")


class Signals(Case):
    EXITS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}

    def complete_prefix(self, data, result):
        """Checks that `data` consists of whole lines and is the beginning of the whole output.
        Returns the number of lines."""
        self.assertTrue(
            not data or data.endswith(b"\n"), "an unfinished line at the end\n" + result.story()
        )
        lines = data.decode("utf-8").split("\n")[:-1]
        wanted = self.ok(
            *GREEDY, "--max-length", "10", "--output-format", "ids", input=BLOCK, lines=40
        ).lines
        self.same(
            [wanted[i % 40] for i in range(len(lines))], lines, result, allowed=len(lines) // 200
        )
        return len(lines)

    def interrupted(self, number, *options):
        running = self.start(
            *GREEDY,
            "--max-length",
            "10",
            "--output-format",
            "ids",
            "--window",
            "200",
            "--report",
            self.path("report.json"),
            *options,
        )
        running.pump(BLOCK)
        return running

    def test_an_interrupted_run_writes_the_complete_prefix_and_the_report(self):
        for number, code in self.EXITS.items():
            with self.subTest(number.name):
                running = self.interrupted(number)
                self.assertTrue(
                    running.until(lambda: running.count() > 50, 30), running.result(0).story()
                )
                running.process.send_signal(number)
                result = running.wait(30)
                self.check(result, code)
                count = self.complete_prefix(result.out, result)
                report = self.load_report(self.path("report.json"), result)
                self.assertEqual(
                    (report["status"], report["lines"]["out"]),
                    ("interrupted", count),
                    result.story(),
                )
                self.assertGreaterEqual(report["lines"]["in"], count)
                self.assertGreaterEqual(count, 50)
                self.assertLess(len(result.error_lines), 3, result.story())

    def test_an_interrupted_run_into_a_file_leaves_only_the_partial_one(self):
        for number, code in self.EXITS.items():
            with self.subTest(number.name):
                target = self.path("out-%d.txt" % number, "old\n")
                running = self.interrupted(number, "-o", target)
                self.assertTrue(
                    running.until(
                        lambda: os.path.exists(target + ".partial")
                        and os.path.getsize(target + ".partial") > 300,
                        30,
                    ),
                    running.result(0).story(),
                )
                running.process.send_signal(number)
                result = running.wait(30)
                self.check(result, code)
                with open(target, "rb") as old, open(target + ".partial", "rb") as partial:
                    self.assertEqual(old.read(), b"old\n", "FILE was touched")
                    self.assertGreater(self.complete_prefix(partial.read(), result), 0)

    def test_an_interrupted_gz_output_can_be_unpacked(self):
        target = self.path("out.gz")
        running = self.interrupted(signal.SIGTERM, "-o", target)
        self.assertTrue(running.until(lambda: running.sent > 100, 30), running.result(0).story())
        time.sleep(0.3)
        running.process.send_signal(signal.SIGTERM)
        result = running.wait(30)
        self.check(result, 143)
        self.assertFalse(os.path.exists(target))
        with gzip.open(target + ".partial", "rb") as partial:
            self.complete_prefix(partial.read(), result)

    def test_a_run_that_waits_for_input_ends_at_once(self):
        for number, code in self.EXITS.items():
            for options in ([], ["--line-buffered"]):
                with self.subTest((number.name, options)):
                    running = self.start(*GREEDY, *options, "--report", self.path("report.json"))
                    running.send(b"Yes.\n")
                    self.assertTrue(running.until(running.count), running.result(0).story())
                    running.process.send_signal(number)
                    result = running.wait(10)
                    self.check(result, code)
                    self.assertEqual(len(result.lines), 1)
                    report = self.load_report(self.path("report.json"), result)
                    self.assertEqual((report["status"], report["lines"]["out"]), ("interrupted", 1))

    def test_a_run_that_waits_for_a_named_pipe_ends_at_once(self):
        os.mkfifo(self.path("fifo"))
        running = self.start(*GREEDY, "-i", self.path("fifo"))
        time.sleep(1)
        running.process.send_signal(signal.SIGINT)
        self.check(running.wait(10), 130)

    @staticmethod
    def ignore(number):
        return lambda: signal.signal(number, signal.SIG_IGN)

    def test_a_signal_that_is_ignored_stays_so(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number.name):
                running = self.start(*GREEDY, preexec_fn=self.ignore(number))
                running.send(b"Yes.\n")
                self.assertTrue(running.until(running.count), running.result(0).story())
                running.process.send_signal(number)
                time.sleep(0.3)
                running.send(b"Yes.\n")
                running.close()
                result = running.wait(30)
                self.check(result, 0)
                self.assertEqual(len(result.lines), 2)

    def test_a_signal_that_is_ignored_does_not_kill_after_another_one(self):
        # stdout is a full pipe, so the run cannot end after SIGTERM before the pipe is read.
        read, write = os.pipe()
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
        running = self.start(
            *GREEDY, "--max-length", "10", stdout=write, preexec_fn=self.ignore(signal.SIGINT)
        )
        os.close(write)
        running.pump(BLOCK)
        # It is full when it gets no more in two seconds: a busy machine may stop the run for a
        # while.
        waiting = [0] * 5
        while waiting[-1] == 0 or waiting[-1] != waiting[-5]:
            time.sleep(0.5)
            held = fcntl.ioctl(read, termios.FIONREAD, b"\0\0\0\0")
            waiting.append(int.from_bytes(held, sys.byteorder))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            running.process.send_signal(number)
            time.sleep(0.3)
        self.assertIsNone(running.process.poll(), "SIGINT ended the run")
        with open(read, "rb") as out:
            out.read()
        self.check(running.wait(10), 143)

    def test_a_second_signal_kills(self):
        running = self.interrupted(signal.SIGINT)
        self.assertTrue(running.until(running.count, 30), running.result(0).story())
        running.process.send_signal(signal.SIGINT)
        time.sleep(0.01)
        running.process.send_signal(signal.SIGINT)
        self.check(running.wait(10), 130)

    def test_a_reader_that_stands_still_does_not_prevent_the_end(self):
        # stdout is a full pipe that nobody reads, so only the second signal ends the run.
        read, write = os.pipe()
        running = self.start(*GREEDY, "--max-length", "10", "--scores", stdout=write)
        running.pump(BLOCK)
        time.sleep(2)
        for _ in range(2):
            running.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        result = running.wait(10)
        os.close(read)
        os.close(write)
        self.check(result, 143)


if __name__ == "__main__":
    program.main()
