"""Tests pipes, signals, full disks and memory: when lines are written, how a run ends early, and
what it leaves behind."""

import os
import random
import resource
import shlex
import signal
import subprocess
import tempfile
import time
import unittest

import program
from program import BEAM4, GREEDY, REFERENCE_LIMITS, Case, best, command, source_lines, xlate

IDS = GREEDY + ["--output-format", "ids"] + REFERENCE_LIMITS
setUpModule = program.require
LINES = source_lines()[:40]
BLOCK = "".join(line + "\n" for line in LINES).encode("utf-8")


class Latency(Case):
    def test_line_buffered_answers_each_line_before_the_next_is_sent(self):
        running = self.start(*IDS, "--line-buffered")
        for i, wanted in enumerate(best("shared", "greedy")[:12]):
            running.send((source_lines()[i] + "\n").encode())
            if not running.until(lambda: running.count() > i):
                self.fail("no answer to line %d\n%s" % (i + 1, running.result(0).story()))
            self.assertEqual(bytes(running.out).decode().split("\n")[i], wanted)
        running.close()
        self.check(running.wait(20), 0)

    def test_line_buffered_answers_empty_and_odd_lines_at_once_too(self):
        running = self.start(*IDS, "--line-buffered")
        for i, line in enumerate(
            (b"\n", b"   \n", b"Yes.\r\n", b"\xff\n", b">>fra<<\n", b"\xef\xbb\xbf\n", b"Yes.\n")
        ):
            running.send(line)
            self.assertTrue(
                running.until(lambda: running.count() > i),
                "no answer to %r\n%s" % (line, running.result(0).story()),
            )
            self.assertEqual(running.count(), i + 1)
        running.close()
        self.check(running.wait(20), 0)

    def test_line_buffered_with_beams_and_n_best(self):
        running = self.start("-b", "3", "--n-best", "3", "--line-buffered")
        for i in range(4):
            running.send(b"It was really cheap.\n")
            self.assertTrue(
                running.until(lambda: b"\n%d ||| " % i in b"\n" + running.out),
                running.result(0).story(),
            )
        running.close()
        self.check(running.wait(20), 0)

    def test_line_buffered_into_a_file(self):
        running = self.start(*IDS, "--line-buffered", "-o", self.path("out.txt"))
        partial = self.path("out.txt.partial")

        def written():
            if not os.path.exists(partial):
                return 0
            with open(partial, "rb") as file:
                return file.read().count(b"\n")

        for i in range(3):
            running.send(b"Yes.\n")
            self.assertTrue(
                running.until(lambda: written() > i),
                "line %d is not in FILE.partial\n%s" % (i + 1, running.result(0).story()),
            )
        running.close()
        self.check(running.wait(20), 0)

    def test_line_buffered_gives_the_same_text(self):
        result = self.ok(*IDS, "--line-buffered", input=BLOCK, lines=40)
        self.same(best("shared", "greedy")[:40], result.lines, result, allowed=1)

    def test_a_window_closes_when_no_input_comes_for_a_while(self):
        for options in (
            IDS,
            BEAM4,
            [*GREEDY, "--window", "100000"],
            [*GREEDY, "--batch-tokens", "100000"],
        ):
            with self.subTest(options):
                running = self.start(*options)
                for round in range(3):
                    sent = time.monotonic()
                    running.send(b"".join(BLOCK.splitlines(True)[:5]))
                    self.assertTrue(
                        running.until(lambda: running.count() == 5 * (round + 1), 10),
                        "round %d: no output while the pipe stays open\n%s"
                        % (round, running.result(0).story()),
                    )
                    waited = time.monotonic() - sent
                    self.assertLess(waited, 5)
                running.close()
                self.check(running.wait(20), 0)

    def test_a_line_that_is_not_finished_is_waited_for(self):
        running = self.start(*IDS)
        running.send(b"Yes.\nIt was really")
        self.assertTrue(running.until(running.count), running.result(0).story())
        time.sleep(0.5)
        self.assertEqual(running.count(), 1)
        running.send(b" cheap.\n")
        self.assertTrue(running.until(lambda: running.count() == 2), running.result(0).story())
        running.close()
        result = running.wait(20)
        self.same(self.ok(*IDS, input="Yes.\nIt was really cheap.\n").lines, result.lines, result)

    def test_bytes_may_come_one_at_a_time(self):
        running = self.start(*IDS)
        for byte in "Yes.\r\nSnow 雪 and ☃ and 🙂, done.\n".encode():
            running.send(bytes([byte]))
            time.sleep(0.002)
        running.close()
        result = running.wait(20)
        self.check(result, 0)
        self.same(
            self.ok(*IDS, input="Yes.\nSnow 雪 and ☃ and 🙂, done.\n").lines, result.lines, result
        )

    def test_output_comes_before_the_end_of_a_long_input(self):
        running = self.start(*GREEDY, "--max-length", "10")
        running.pump(BLOCK)
        self.assertTrue(
            running.until(lambda: running.count() > 100, 30),
            "nothing comes out of an endless input\n" + running.result(0).story(),
        )
        running.kill()

    def test_order_is_kept_over_many_windows(self):
        chance = random.Random(3)
        order = [chance.randrange(200) for _ in range(3000)]
        data = "".join(source_lines()[i] + "\n" for i in order)
        for options in (
            [],
            ["--window", "100", "--batch-tokens", "500"],
            ["--threads", "1", "--window", "999"],
        ):
            with self.subTest(options):
                result = self.ok(
                    *GREEDY,
                    "--max-length",
                    "12",
                    "--max-length-factor",
                    "50",
                    "--output-format",
                    "ids",
                    *options,
                    input=data,
                    lines=3000,
                )
                self.same(
                    [best("shared", "greedy.limit12")[i] for i in order],
                    result.lines,
                    result,
                    allowed=10,
                )


class ClosedPipe(Case):
    def test_a_reader_that_leaves_ends_the_run_quietly_with_141(self):
        # A parent that ignores SIGPIPE, as Python does, passes this on to its children.
        for ignored in (
            False,
            True,
        ):
            with self.subTest(sigpipe_ignored=ignored):
                read, write = os.pipe()
                running = self.start(
                    *GREEDY,
                    "--max-length",
                    "10",
                    "--window",
                    "100",
                    stdout=write,
                    restore_signals=not ignored,
                )
                os.close(write)
                running.pump(BLOCK)
                self.assertTrue(os.read(read, 1))
                os.close(read)
                result = running.wait(30)
                self.check(result, 141)
                self.assertEqual(result.err, b"", result.story())

    def head(self, shell):
        """Runs a shell pipeline that ends in head. Returns the exit code of xlate, its stderr, the
        output and the time."""
        with tempfile.TemporaryFile() as err:
            begun = time.monotonic()
            process = subprocess.run(
                [
                    "bash",
                    "-c",
                    shell + '; echo "exit ${PIPESTATUS[%d]}"' % (shell.count(" | ") - 1),
                ],
                stdout=subprocess.PIPE,
                stderr=err,
                timeout=60,
            )
            err.seek(0)
            return process.stdout.decode().split("\n"), err.read(), time.monotonic() - begun

    def test_head_1_of_a_million_lines_is_quiet_and_ends_soon_after_its_first_window(self):
        options = [*GREEDY, "--max-length", "10"]
        xlate_command = " ".join(map(shlex.quote, command(options)))
        first_window = "".join("%d\n" % i for i in range(1, 2001))
        # Other work on the machine can make a measurement worse but not better.
        for _ in range(3):
            (first, code, _), err, seconds = self.head("seq 1000000 | %s | head -1" % xlate_command)
            self.assertEqual((code, err), ("exit 141", b""))
            window = self.ok(*options, input=first_window, lines=2000)
            self.assertEqual(first, window.lines[0])
            if seconds < 2 * window.seconds:
                return
        self.fail("it took %.2f s, its first window alone %.2f s" % (seconds, window.seconds))

    def test_head_of_a_beam_search_in_line_buffered_mode(self):
        xlate_command = " ".join(map(shlex.quote, command([*BEAM4, "--line-buffered"])))
        output, err, seconds = self.head("seq 100000 | %s | head -3" % xlate_command)
        self.assertEqual((output[3], err), ("exit 141", b""))
        self.assertLess(seconds, 30)

    def test_a_closed_pipe_with_sigpipe_ignored_is_quiet_too(self):
        xlate_command = " ".join(map(shlex.quote, command([*GREEDY, "--max-length", "10"])))
        output, err, _ = self.head("seq 100000 | (trap '' PIPE; exec %s) | head -1" % xlate_command)
        self.assertEqual((output[1], err), ("exit 141", b""))

    def test_a_pipe_closed_before_the_first_line(self):
        read, write = os.pipe()
        os.close(read)
        result = xlate(*GREEDY, input=BLOCK, stdout=write)
        os.close(write)
        self.check(result, 141)
        self.assertEqual(result.err, b"")

    def test_a_report_is_written_all_the_same(self):
        read, write = os.pipe()
        os.close(read)
        result = xlate(*GREEDY, "--report", self.path("report.json"), input=BLOCK, stdout=write)
        os.close(write)
        self.check(result, 141)
        self.assertIn(
            self.load_report(self.path("report.json"), result)["status"], ("interrupted", "error")
        )


class Writing(Case):
    def waits_for_nothing(self, *options, names, **more):
        """Checks that xlate fails before any work, although stdin stays open and silent."""
        running = self.start("-q", *GREEDY, *options, **more)
        result = running.wait(20)
        self.check(result, 1)
        self.says(result, names)
        self.assertEqual(len(result.error_lines), 1, result.story())

    def test_a_missing_output_folder_is_noticed_before_any_work(self):
        self.waits_for_nothing("-o", self.path("no/such/out.txt"), names="out.txt")
        self.waits_for_nothing("-o", self.path("no/such/out.gz"), names="out.gz")

    def test_an_output_below_a_file_is_noticed_before_any_work(self):
        self.path("plain", "x")
        self.waits_for_nothing("-o", self.path("plain/out.txt"), names="out.txt")

    def test_a_folder_as_output_is_noticed_before_any_work(self):
        os.mkdir(self.path("target"))
        self.waits_for_nothing("-o", self.path("target"), names="target")

    def test_a_folder_that_may_not_be_written_is_noticed_before_any_work(self):
        if os.geteuid() == 0:
            self.skipTest("root may write everywhere")
        os.mkdir(self.path("locked"))
        os.chmod(self.path("locked"), 0o555)
        self.waits_for_nothing("-o", self.path("locked/out.txt"), names="out.txt")

    def test_a_missing_input_is_noticed_before_any_work(self):
        self.waits_for_nothing("-i", "-", self.path("missing.txt"), names="missing.txt")

    def test_a_full_disk_under_stdout_is_an_error(self):
        for data, options in (
            (BLOCK, []),
            (b"Yes.\n", []),
            (b"\n", []),
            (BLOCK * 20, ["--max-length", "5"]),
            (b"Yes.\n", ["--line-buffered"]),
        ):
            with self.subTest((len(data), options)), open("/dev/full", "wb") as full:
                result = xlate("-q", *GREEDY, *options, input=data, stdout=full)
                self.check(result, 1)
                self.assertEqual(len(result.error_lines), 1, result.story())
                self.assertRegex(result.errors.lower(), "space|full|write")

    def test_a_write_error_under_a_file_is_an_error_and_nothing_is_renamed(self):
        for name in ("out.txt", "out.gz"):
            with self.subTest(name):
                target = self.path(name)
                result = xlate(
                    "-q",
                    *GREEDY,
                    "--scores",
                    "-o",
                    target,
                    input=BLOCK * 60,
                    restore_signals=False,
                    preexec_fn=lambda: (
                        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
                        resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512)),
                    ),
                )
                self.check(result, 1)
                self.says(result, name)
                self.assertFalse(os.path.exists(target), "a file that is not whole was renamed")

    def test_stdout_that_is_closed_or_read_only_is_an_error(self):
        xlate_command = " ".join(map(shlex.quote, command(["-q", *GREEDY])))
        for redirect in (">&-", "1</dev/null"):
            with self.subTest(redirect):
                result = xlate(
                    arguments=["bash", "-c", "exec %s %s" % (xlate_command, redirect)], input=BLOCK
                )
                self.check(result, 1)
                self.assertTrue(result.err.strip())

    def test_output_is_written_beside_and_renamed_at_the_end(self):
        target = self.path("out.txt", "old\n")
        running = self.start(*IDS, "-o", target)
        running.send(BLOCK)
        self.assertTrue(
            running.until(lambda: os.path.exists(target + ".partial")),
            "no FILE.partial\n" + running.result(0).story(),
        )
        with open(target) as file:
            self.assertEqual(file.read(), "old\n", "FILE was touched before the end")
        running.close()
        self.check(running.wait(30), 0)
        with open(target) as file:
            self.same(best("shared", "greedy")[:40], file.read().split("\n")[:-1])
        self.assertFalse(os.path.exists(target + ".partial"))

    def test_a_partial_file_of_an_earlier_run_is_replaced(self):
        target = self.path("out.txt")
        self.path("out.txt.partial", "something much longer than what comes now\n" * 1000)
        self.ok(*IDS, "-o", target, input="Yes.\n")
        with open(target) as file:
            self.assertEqual(file.read(), best("shared", "greedy")[193] + "\n")

    def test_a_failed_run_leaves_the_old_output_alone(self):
        target = self.path("out.txt", "old\n")
        self.fails(*GREEDY, "-i", self.path("a", "Yes.\n"), self.path("missing"), "-o", target)
        self.fails(
            *GREEDY, "--input-format", "ids", "-o", target, input="1013 0\nbad 0\n", names="bad"
        )
        with open(target) as file:
            self.assertEqual(file.read(), "old\n")

    def test_what_was_done_before_a_bad_line_is_a_prefix(self):
        ids = "1013 2371 0\n"
        result = xlate(
            *GREEDY,
            "--input-format",
            "ids",
            "--output-format",
            "ids",
            input=ids * 3000 + "bad 0\n" + ids,
        )
        self.check(result, 1)
        wanted = self.ok(
            *GREEDY, "--input-format", "ids", "--output-format", "ids", input=ids
        ).lines[0]
        self.assertEqual(set(result.lines) - {wanted}, set(), result.story())
        self.assertLessEqual(len(result.lines), 3000)

    def test_output_into_the_current_folder(self):
        self.ok(*IDS, "-o", "out.txt", input="Yes.\n", cwd=self.folder)
        self.assertEqual(os.listdir(self.folder), ["out.txt"])


class Memory(Case):
    def lines(self, count):
        path = self.path("lines-%d" % count)
        chance = random.Random(1)
        with open(path, "w", encoding="utf-8") as file:
            words = "one two three four five six seven eight nine ten".split()
            for i in range(count):
                file.write(
                    "%d %s\n" % (i, " ".join(chance.choices(words, k=chance.randrange(1, 8))))
                )
        return path

    def peak(self, count, *options, timeout):
        path = self.path("report.json")
        result, seen = program.peak_memory(
            *GREEDY,
            "--max-length",
            "4",
            "--report",
            path,
            *options,
            input_path=self.lines(count),
            timeout=timeout,
        )
        self.check(result, 0)
        self.assertEqual(result.out.count(b"\n"), count, result.story()[:500])
        report = self.load_report(path, result)
        self.assertEqual((report["lines"]["in"], report["lines"]["out"]), (count, count))
        return max(seen, report["memory"]["host_peak_bytes"])

    @unittest.skipUnless(os.environ.get("XLATE_LONG"), "XLATE_LONG=1 runs it")
    def test_a_million_lines_take_no_more_memory_than_a_hundred_thousand(self):
        less, more = self.peak(100000, timeout=900), self.peak(1000000, timeout=3600)
        self.assertLessEqual(
            more,
            less * 1.1,
            "peak: %d MiB for 100,000 lines, %d MiB for 1,000,000" % (less >> 20, more >> 20),
        )

    @unittest.skipUnless(os.environ.get("XLATE_LONG"), "XLATE_LONG=1 runs it")
    def test_ten_million_lines_take_no_more_memory_than_a_million(self):
        """The model is so small that a line takes some microseconds. What grows with the number of
        lines would show all the more."""
        model = os.path.join(program.ROOT, "tests/data/fuzz/model_file/pipeline_bpe")
        block = b"".join(b"a b ab %d\n" % i for i in range(1000)) + b"\n" * 10
        peaks = []
        for count in (1010000, 10100000):
            path, report = self.path("lines"), self.path("report.json")
            with open(path, "wb") as file:
                for _ in range(count // 1010):
                    file.write(block)
            options = [*GREEDY, "--max-length", "3", "--report", report, "-o", self.path("out")]
            result = xlate(*options, "-i", path, model=model, timeout=1800)
            self.check(result, 0)
            with open(self.path("out"), "rb") as file:
                self.assertEqual(sum(1 for _ in file), count)
            figures = self.load_report(report, result)
            self.assertEqual(figures["lines"]["empty"], count // 101)
            peaks.append(figures["memory"])
        kinds = ["host_peak_bytes"] + ["device_peak_bytes"] * (program.DEVICE != "cpu")
        for kind in kinds:
            less, more = (peak[kind] for peak in peaks)
            program.figure(
                "%s of 1 and of 10 million lines: %d, %d kB" % (kind, less >> 10, more >> 10)
            )
            self.assertLessEqual(more, less * 1.1)

    def test_forty_thousand_lines_take_little_more_memory_than_eight_thousand(self):
        less, more = self.peak(8000, timeout=60), self.peak(40000, timeout=120)
        self.assertLessEqual(
            more,
            less * 1.1 + (8 << 20),
            "peak: %d MiB for 8,000 lines, %d MiB for 40,000" % (less >> 20, more >> 20),
        )

    def test_input_is_not_read_far_ahead_of_a_reader_that_stands_still(self):
        # What a pipe holds depends on the system, so it is full from the start.
        read, write = program.full_pipe()
        running = self.start(
            "-q",
            *GREEDY,
            "--scores",
            "--max-length",
            "4",
            "--max-source-length",
            "16",
            "--window",
            "2000",
            stdout=write,
        )
        line = b"x" * 2000 + b"\n"
        # Each round sends 200 kB.
        running.pump(line * 100)
        last, still = -1, 0
        end = time.monotonic() + 25
        while still < 8 and time.monotonic() < end:
            time.sleep(0.25)
            still, last = (still + 1 if running.sent == last else 0), running.sent
        running.kill()
        os.close(read)
        os.close(write)
        # Three windows are read and not yet written, and the reader reads blocks of the file ahead.
        most = 3 * 2000 * len(line) * 1e-6 + 20
        self.assertLess(
            running.sent * 0.2,
            most,
            "it read %.0f MB although nobody takes its output" % (running.sent * 0.2),
        )

    @unittest.skipUnless(os.environ.get("XLATE_LONG"), "XLATE_LONG=1 runs it")
    def test_a_window_of_very_long_lines_is_bounded(self):
        # 64 MiB of text close a window. 200 lines of 1 MB are therefore never held at once, and 400
        # lines need no more memory.
        paths = {}
        for count in (80, 200, 400):
            paths[count] = self.path("long-%d" % count)
            with open(paths[count], "wb") as file:
                for _ in range(count):
                    file.write(b"word " * 200000 + b"\n")
        peaks = {}
        for count, path in paths.items():
            result, peaks[count] = program.peak_memory(
                "-q",
                *GREEDY,
                "--max-length",
                "3",
                "--max-source-length",
                "16",
                "--window",
                "100000",
                input_path=path,
            )
            self.check(result, 0)
            self.assertEqual(result.out.count(b"\n"), count)
        self.assertLess(peaks[200], peaks[80] * 1.5 + (32 << 20), peaks)
        self.assertLess(peaks[400], peaks[200] * 1.25 + (32 << 20), peaks)
        self.assertLess(peaks[400], 400 << 20, peaks)


if __name__ == "__main__":
    program.main()
