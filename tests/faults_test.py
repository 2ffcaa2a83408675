"""Tests faults of the system around a run: a signal or a leaving reader at any moment, full disks,
inputs that fail in the middle, reports that nobody takes, and a model file that is cut short."""

import gzip
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import time

import program
from program import GREEDY, SHARED, Case, command, source_lines, text, xlate

setUpModule = program.require
LONG = bool(os.environ.get("XLATE_LONG"))
SEED = int(os.environ.get("XLATE_TEST_SEED", 21))
LINES = source_lines()[:40]
IDS = [*GREEDY, "--max-length", "10", "--output-format", "ids", "--window", "200"]
N_BEST = ["-b", "2", "--n-best", "2", *IDS[2:]]
JSONL = ["--input-format", "jsonl", "--output-format", "jsonl", *GREEDY, "--max-length", "4"]
OBJECTS = [json.dumps({"n": i, "text": line}) for i, line in enumerate(LINES)]


class Moments(Case):
    """A run is ended at random moments, before its first line, between two lines and at its end.
    Each kind of run has its expected whole output, of which only a prefix may be there."""

    KINDS = (
        ("ids", IDS, LINES),
        ("n-best", N_BEST, LINES),
        ("jsonl", JSONL, OBJECTS),
        ("line-buffered", [*IDS, "--line-buffered"], LINES),
    )
    ROUNDS = 240 if LONG else 36
    REPEATS = 25  # The input has the 40 lines so many times.

    @classmethod
    def setUpClass(cls):
        cls.wanted, cls.seconds = {}, {}
        for name, options, lines in cls.KINDS:
            result = xlate(*options, input=text(lines * cls.REPEATS))
            assert result.code == 0, result.story()
            cls.wanted[name], cls.seconds[name] = result.lines, result.seconds

    def check_prefix(self, name, data, result):
        """Checks that the data is a prefix of the whole output and ends between two lines."""
        self.assertTrue(not data or data.endswith(b"\n"), "half a line\n" + result.story())
        found = data.decode("utf-8").split("\n")[:-1]
        wanted = self.wanted[name][: len(found)]
        # The last digits of a score depend on the batch, and so do near-ties.
        plain = lambda line: re.sub(r"( \|\|\| F0=|, \"score\").*", "", line)
        expected = list(map(plain, wanted))
        self.same(expected, list(map(plain, found)), result, allowed=len(found) // 50)

    def test_signals(self):
        chance = random.Random(SEED)
        codes = {}
        for number in range(self.ROUNDS):
            name, options, lines = chance.choice(self.KINDS)
            sent = chance.choice((signal.SIGINT, signal.SIGTERM, signal.SIGPIPE))
            moment = chance.random() * self.seconds[name]
            target = chance.choice((None, "out.txt", "out.gz"))
            with self.subTest(seed=SEED, round=number, moment=round(moment, 3), signal=sent.name):
                code = self.interrupt(name, options, lines, sent, moment, target)
                codes[code] = codes.get(code, 0) + 1
        print("\nexit codes of signals with seed %d: %s" % (SEED, codes))
        self.assertTrue({130, 143} & set(codes), codes)

    def interrupt(self, name, options, lines, sent, moment, target):
        report, path = self.path("report.json"), target and self.path(target)
        for old in (report, path, path and path + ".partial"):
            if old and os.path.exists(old):
                os.remove(old)
        source = self.path("input", text(lines * self.REPEATS))
        more = ["-o", path] if target else []
        running = self.start(*options, "-i", source, "--report", report, *more)
        time.sleep(moment)
        running.process.send_signal(sent)
        result = running.wait(60)
        # SIGPIPE ends only a program that does not yet ignore it.
        self.assertIn(result.code, {0, 141} if sent == signal.SIGPIPE else {0, 128 + sent})
        self.assertLess(len(result.error_lines), 3, result.story())
        data = result.out
        if target:
            place = path if result.code == 0 else path + ".partial"
            opened = gzip.open if target.endswith(".gz") else open
            data = b""
            # A signal can come before the program handles it. It then leaves what it has begun.
            if os.path.exists(place) and os.path.getsize(place) > 0:
                with opened(place, "rb") as file:
                    data = file.read()
        self.check_prefix(name, data, result)
        if result.code == 0:
            self.assertEqual(data.count(b"\n"), len(self.wanted[name]), result.story())
        if data:
            written = self.load_report(report, result)
            self.assertEqual(written["status"], "ok" if result.code == 0 else "interrupted")
        return result.code

    def test_readers_that_leave(self):
        chance = random.Random(SEED + 1)
        for number in range(self.ROUNDS // 2):
            name, options, lines = chance.choice(self.KINDS)
            taken = chance.choice((0, 1, chance.randrange(1, 20000)))
            with self.subTest(seed=SEED + 1, round=number, kind=name, taken=taken):
                source = self.path("input", text(lines * self.REPEATS))
                read, write = os.pipe()
                running = self.start("-q", *options, "-i", source, stdout=write)
                os.close(write)
                with open(read, "rb") as out:
                    out.read(taken)
                result = running.wait(60)
                # A small rest of the output fits into the pipe before the reader leaves.
                self.assertIn(result.code, (0, 141), result.story())
                self.assertEqual(result.err, b"", result.story())


class FullDisk(Case):
    """The files of a run are on a file system of 16 KiB, which is full before the run ends."""

    def setUp(self):
        super().setUp()
        self.disk = self.path("disk")
        os.mkdir(self.disk)
        mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", self.disk]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            self.skipTest("file systems cannot be mounted here")
        self.addCleanup(subprocess.run, ["umount", "-l", self.disk], check=True)

    def fill(self, left):
        """Leaves so many bytes, in whole pages of 4 KiB."""
        with open(os.path.join(self.disk, "rest"), "wb") as file:
            file.write(bytes((16 << 10) - left))

    def test_output(self):
        wanted = self.ok(*IDS, input=text(LINES)).lines
        # Packed, the outputs of these lines are larger than the disk.
        numbered = ["%d. %s" % (i, line) for i, line in enumerate(LINES * 200)]
        for name, options, lines in (
            ("out.txt", [], LINES * 100),
            ("out.gz", ["--scores"], numbered),
        ):
            with self.subTest(name):
                path = os.path.join(self.disk, name)
                result = self.fails(
                    *IDS, *options, "-o", path, input=text(lines), names=[name, "no space left"]
                )
                left = [name + ".partial"] + [name + ".partial.journal"] * (name == "out.txt")
                self.assertEqual(sorted(os.listdir(self.disk)), left, result.story())
                if name == "out.txt":
                    with open(path + ".partial") as file:
                        found = file.read().split("\n")[:-1]
                    self.assertGreater(len(found), 200)
                    expected = [wanted[i % 40] for i in range(len(found))]
                    self.same(expected, found, result, len(found) // 50)
                for name in left:
                    os.remove(os.path.join(self.disk, name))

    def test_a_disk_that_was_full_before_leaves_no_empty_file(self):
        self.fill(left=0)
        for name in ("out.txt", "out.gz"):
            with self.subTest(name):
                path = os.path.join(self.disk, name)
                result = self.fails(
                    *IDS, "-o", path, input=text(LINES), names=[name, "no space left"]
                )
                self.assertEqual(os.listdir(self.disk), ["rest"], result.story())

    def test_stdout(self):
        with open(os.path.join(self.disk, "out.txt"), "wb") as out:
            result = xlate("-q", *IDS, "--scores", input=text(LINES * 100), stdout=out)
        self.check(result, 1)
        self.says(result, "stdout", "no space left")
        self.assertEqual(len(result.error_lines), 1, result.story())

    def test_report(self):
        self.fill(left=0)
        result = xlate(
            "-q", *IDS, "--report", os.path.join(self.disk, "report.json"), input=text(LINES)
        )
        self.check(result, 1)
        self.says(result, "report.json", "no space left")
        self.assertEqual((len(result.lines), len(result.error_lines)), (40, 1), result.story())


class Messages(Case):
    """A stderr that takes nothing does not change the result of a run."""

    def test_stderr_that_takes_nothing(self):
        long_line = "word " * 600 + "\n"
        for redirect in ("2>&-", "2>/dev/full", "2>/dev/null"):
            for options, code in (([], 0), (["--long-lines", "error"], 1), (["--no-such"], 2)):
                with self.subTest(redirect=redirect, options=options):
                    words = command([*GREEDY, "--max-length", "3", *options])
                    shell = ["bash", "-c", 'exec "$@" ' + redirect, "bash", *words]
                    result = xlate(arguments=shell, input="Yes.\n" + long_line, timeout=30)
                    self.check(result, code)
                    self.assertEqual(result.out.count(b"\n"), 2 - code, result.story())


class Inputs(Case):
    """An input fails while it is read. Every line before that is translated."""

    def setUp(self):
        super().setUp()
        self.wanted = self.ok(*IDS, input=text(LINES)).lines

    def test_a_file_that_cannot_be_read(self):
        # The beginning of a process's memory is not mapped, so that reading it fails.
        good = self.path("good.txt", text(LINES))
        result = self.fails(
            *IDS, "-i", good, "/proc/self/mem", good, names=["/proc/self/mem", "cannot be read"]
        )
        self.same(self.wanted, result.lines, result)

    def test_a_connection_that_is_reset(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
        with theirs:
            running = self.start("-q", *IDS, stdin=theirs)
        with ours:
            ours.sendall((text(LINES) + "half a line").encode())
            self.assertTrue(running.until(lambda: running.count() == 40), running.result(0).story())
            # Closing without lingering resets the connection.
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        result = running.wait(30)
        self.check(result, 1)
        self.says(result, "stdin", "cannot be read", "reset")
        self.assertEqual(len(result.error_lines), 1, result.story())
        self.same(self.wanted, result.lines, result)

    def test_a_writer_that_is_killed(self):
        writer = subprocess.Popen(
            ["bash", "-c", 'cat "$0"; printf "half a"; kill -9 $$', self.path("in", text(LINES))],
            stdout=subprocess.PIPE,
        )
        with writer, writer.stdout:
            result = self.ok(*IDS, input=writer.stdout, lines=41)
        self.same(self.wanted, result.lines[:40], result)


class Reports(Case):
    """Reports that go to pipes, or to stdout."""

    def test_stdout(self):
        path = "/dev/stdout"
        for options in ([], ["-o", self.path("out.txt")]):
            with self.subTest(options):
                result = self.ok(*IDS, "--report", path, *options, input=text(LINES))
                lines, brace, report = result.out.decode("utf-8").partition("{")
                self.assertEqual(lines.count("\n"), 0 if options else 40, result.story())
                self.assertEqual(json.loads(brace + report)["lines"]["out"], 40)

    def test_what_is_in_the_file_behind_a_descriptor_stays(self):
        for name, stream in (("/dev/stdout", "stdout"), ("/dev/stderr", "stderr")):
            with self.subTest(name):
                path = self.path("all.txt", "")
                file = os.open(path, os.O_WRONLY)
                os.write(file, b"head\n")
                options = [*IDS, "-o", self.path("out.txt"), "--report", name]
                self.ok("-q", *options, input=text(LINES), lines=0, **{stream: file})
                os.write(file, b"tail\n")
                os.close(file)
                with open(path) as written:
                    whole = re.fullmatch("head\n(.*)tail\n", written.read(), re.S)
                self.assertEqual(json.loads(whole.group(1))["lines"]["out"], 40)

    def test_a_reader_of_stdout_that_leaves_before_the_report(self):
        reader, writer = os.pipe()
        os.close(reader)
        out = self.path("out.txt")
        options = [*IDS, "-o", out, "--report", "/dev/stdout"]
        result = xlate("-q", *options, input=text(LINES), stdout=writer)
        os.close(writer)
        self.check(result, 141)
        self.assertEqual(result.error_lines, [], result.story())
        with open(out) as file:
            self.assertEqual(len(file.readlines()), 40)

    def test_a_pipe_without_a_reader(self):
        os.mkfifo(self.path("fifo"))
        begun = time.monotonic()
        result = self.fails(
            *IDS, "--report", self.path("fifo"), input=text(LINES), names=["fifo", "nobody reads"]
        )
        self.assertEqual(len(result.lines), 40)
        self.assertLess(time.monotonic() - begun, 60)

    def test_a_signal_ends_the_wait_for_a_reader(self):
        os.mkfifo(self.path("fifo"))
        running = self.start("-q", *IDS, "--report", self.path("fifo"))
        running.offer(text(LINES).encode())
        self.assertTrue(running.until(lambda: running.count() == 40), running.result(0).story())
        time.sleep(0.5)
        running.process.send_signal(signal.SIGINT)
        result = running.wait(10)
        self.check(result, 130)
        self.says(result, "fifo", "nobody reads")
        self.assertEqual((len(result.lines), len(result.error_lines)), (40, 1), result.story())

    def test_a_reader_that_comes_late(self):
        os.mkfifo(self.path("fifo"))
        running = self.start("-q", *IDS, "--report", self.path("fifo"))
        running.send(text(LINES).encode())
        running.close()
        self.assertTrue(running.until(lambda: running.count() == 40), running.result(0).story())
        with open(self.path("fifo")) as pipe:
            self.assertEqual(json.load(pipe)["status"], "ok")
        self.check(running.wait(20), 0)

    def test_a_reader_that_leaves(self):
        os.mkfifo(self.path("fifo"))
        reader = os.open(self.path("fifo"), os.O_RDONLY | os.O_NONBLOCK)
        running = self.start("-q", *IDS, "--report", self.path("fifo"))
        os.close(reader)
        running.send(text(LINES).encode())
        running.close()
        result = running.wait(30)
        self.check(result, 1)
        self.says(result, "fifo", "cannot be written")
        self.assertEqual((len(result.lines), len(result.error_lines)), (40, 1), result.story())


class Model(Case):
    """The model file is cut short while a run uses it."""

    def told(self, result, model):
        self.check(result, 1)
        self.assertEqual(len(result.error_lines), 1, result.story())
        self.says(result, model)

    def copy(self):
        with open(SHARED, "rb") as file:
            return self.path("model.bin", file.read())

    def test_while_lines_are_translated(self):
        """All that a run needs of its model has been read when the first line is written."""
        wanted = self.ok(*GREEDY, "--max-length", "10", input=text(LINES)).lines
        for left in (0, 5000):
            with self.subTest(left=left):
                model, report = self.copy(), self.path("report.json")
                running = self.start(
                    *("-q", *GREEDY, "--max-length", "10", "--line-buffered", "--report", report),
                    model=model,
                )
                running.send(text(LINES[:1]).encode())
                self.assertTrue(running.until(lambda: running.count() > 0), "no line")
                os.truncate(model, left)
                running.send(text(LINES[1:]).encode())
                running.close()
                result = running.wait(30)
                self.check(result, 0)
                self.same(wanted, result.lines, result)
                self.assertEqual(self.load_report(report, result)["status"], "ok")

    def test_before_the_weights_are_loaded(self):
        """strace keeps the process in the call that maps the model, until its pages are lost."""
        program.require_injection()
        model = self.copy()
        strace = ["strace", *program.TRACED, "-D", "-f", "-o", "/dev/null", "-e", "trace=mmap"]
        strace += ["-P", model, "-e", "inject=mmap:delay_exit=2000000"]
        running = self.start(arguments=strace + command(["-q", *IDS], model=model))
        maps, end = "/proc/%d/maps" % running.process.pid, time.monotonic() + 60
        while True:
            with open(maps) as file:
                if model in file.read():
                    break
            self.assertLess(time.monotonic(), end, "the model is not mapped")
            time.sleep(0.01)
        os.truncate(model, 0)
        running.offer(text(LINES).encode())
        result = running.wait(60)
        self.told(result, "model.bin: cannot be read any more")
        self.assertEqual(result.out, b"")

    def test_at_any_moment_of_loading(self):
        chance = random.Random(SEED)
        for number in range(120 if LONG else 24):
            # On the CPU everything is loaded within some hundredths of a second.
            moment = chance.uniform(0, chance.choice((0.02, 0.3)))
            left = chance.choice((0, 5000, 600000))
            with self.subTest(seed=SEED, round=number, moment=round(moment, 3), left=left):
                model = self.copy()
                running = self.start("-q", *IDS, model=model)
                time.sleep(moment)
                os.truncate(model, left)
                running.offer(text(LINES).encode())
                result = running.wait(30)
                # What is left of the file can be all that this run needs.
                if result.code != 0:
                    self.told(result, "model.bin")
                    self.assertTrue(not result.out or result.out.endswith(b"\n"))


if __name__ == "__main__":
    program.main()
