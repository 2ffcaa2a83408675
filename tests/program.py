"""Runs the program under test and says clearly what went wrong. It uses only the command line, the
streams and the report.

XLATE_BINARY names the program (default build/bin/xlate). XLATE_TEST_MODELS is the folder with
shared.bin and separate.bin, which scripts/convert.py makes from tests/data/opus-shape (default
build/test_models). data/en-de.bin is the model that the project ships. XLATE_TEST_DEVICE and
XLATE_TEST_PRECISION say where a run that names no device computes (default: the CPU, in float32).
"""

import contextlib
import gzip
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARY = os.path.abspath(
    os.environ.get("XLATE_BINARY") or os.path.join(ROOT, "build", "bin", "xlate")
)
MODELS = os.path.abspath(
    os.environ.get("XLATE_TEST_MODELS") or os.path.join(ROOT, "build", "test_models")
)
DATA = os.path.join(ROOT, "tests", "data", "opus-shape")
SHARED = os.path.join(MODELS, "shared.bin")
SEPARATE = os.path.join(MODELS, "separate.bin")
EN_DE = os.path.join(ROOT, "data", "en-de.bin")
# In a build with the address sanitizer, leaks cannot be looked for while strace traces the program.
TRACED = ["-E", "ASAN_OPTIONS=detect_leaks=0"]
TIMEOUT = float(os.environ.get("XLATE_TEST_TIMEOUT", 120))
DEVICE, PRECISION = (
    os.environ.get("XLATE_TEST_DEVICE", "cpu"),
    os.environ.get("XLATE_TEST_PRECISION", "fp32"),
)
if DEVICE == "cpu" and PRECISION == "fp16":
    raise SystemExit("XLATE_TEST_PRECISION=fp16: needs XLATE_TEST_DEVICE=cuda")
ON_DEVICE = ["--precision", PRECISION] if (DEVICE, PRECISION) != ("cpu", "fp32") else []
if DEVICE != "cpu":
    # Several tests share a GPU, so none may take a fraction of the free memory.
    ON_DEVICE += ["--gpu-memory", "8GiB"]

# A shell starts background jobs with SIGINT ignored, and child processes inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Every reference file in tests/data/opus-shape was made with these limits. Its name gives the other
# settings.
REFERENCE_LIMITS = ["--max-length", "60", "--max-length-factor", "50"]
GREEDY = ["-b", "1"]
BEAM4 = ["-b", "4", "--length-penalty", "1", "--early-stopping", "true"]
IDS_OUT = ["--output-format", "ids"]
IDS = ["--input-format", "ids", *IDS_OUT]
BOTH_MODELS = (("shared", SHARED), ("separate", SEPARATE))
# A row of an n-best list is: line ||| text ||| F0= sum ||| score.
NUMBER = r"-?(?:\d+(?:\.\d+)?(?:e[-+]\d+)?)"
N_BEST_ROW = re.compile(r"^(\d+) \|\|\| (.*) \|\|\| F0= (%s) \|\|\| (%s)$" % (NUMBER, NUMBER))


def text(lines):
    """Returns the input that has these lines."""
    return "".join(line + "\n" for line in lines)


class Result:
    """This is a finished run. `code` is the exit code that a shell would see: 128 + N for a process
    that signal N ended."""

    def __init__(self, arguments, code, out, err, seconds):
        self.arguments, self.code, self.out, self.err, self.seconds = (
            arguments,
            code if code >= 0 else 128 - code,
            out,
            err,
            seconds,
        )

    @property
    def errors(self):
        return self.err.decode("utf-8", "replace")

    @property
    def error_lines(self):
        return [line for line in self.errors.split("\n") if line.strip()]

    @property
    def lines(self):
        """Returns the output lines as text. Only LF ends a line, and an unfinished last line is an
        error of the program."""
        if self.out and not self.out.endswith(b"\n"):
            raise AssertionError("the output does not end in a newline\n" + self.story())
        try:
            return self.out.decode("utf-8").split("\n")[:-1]
        except UnicodeDecodeError as error:
            raise AssertionError("the output is not UTF-8: %s\n%s" % (error, self.story()))

    def story(self):
        def cut(data):
            text = data.decode("utf-8", "backslashreplace")
            return (
                text
                if len(text) < 1500
                else text[:900] + " […%d characters…] " % (len(text) - 1500) + text[-600:]
            )

        return "\n".join(
            [
                "  command: " + " ".join(map(shlex.quote, self.arguments)),
                "  exit:    %d after %.2f s" % (self.code, self.seconds),
                "  stderr:  " + cut(self.err).rstrip("\n").replace("\n", "\n           "),
                "  stdout:  " + repr(cut(self.out)),
            ]
        )


def command(options, model=SHARED, device=DEVICE):
    where = [] if device is None else ["--device", device] + (ON_DEVICE if device == DEVICE else [])
    return (
        [BINARY]
        + (["-m", model] if model is not None else [])
        + where
        + [str(option) for option in options]
    )


def figure(text):
    """Prints a line with a figure for programs that read figures from the output of tests
    (tests/gpu_acceptance.py)."""
    print("\nfigure: " + text, file=sys.stderr)


def require():
    """A test module calls this function as setUpModule. It fails clearly where there is nothing to
    test. It does not skip, because a skipped suite looks successful."""
    for path, what in (
        (BINARY, "XLATE_BINARY"),
        (SHARED, "XLATE_TEST_MODELS"),
        (SEPARATE, "XLATE_TEST_MODELS"),
        (EN_DE, "data/en-de.bin"),
    ):
        if not os.path.isfile(path):
            raise RuntimeError("%s is not there (see %s in tests/program.py)" % (path, what))
    if (DEVICE, PRECISION) == ("cpu", "bf16"):
        with open("/proc/cpuinfo") as file:
            if "avx512_bf16" not in file.read():
                raise unittest.SkipTest("the processor has no instructions for bfloat16")


def full_pipe():
    """Returns (read, write), the descriptors of a pipe that takes no more bytes."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, bytes(4096))
    os.set_blocking(write, True)
    return read, write


def require_injection():
    """Skips what needs strace to change how system calls end."""
    probe = ["strace", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"]
    try:
        subprocess.run(probe, check=True, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        raise unittest.SkipTest("strace cannot change system calls here")


class Running:
    """The test holds the streams of this process. Threads collect stdout and stderr, so that
    nothing blocks."""

    def __init__(
        self,
        options,
        model=SHARED,
        device=DEVICE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        arguments=None,
        **popen,
    ):
        self.arguments, self.begun = arguments or command(options, model, device), time.monotonic()
        self.out, self.err, self.sent = bytearray(), bytearray(), 0
        self.process = subprocess.Popen(
            self.arguments, stdin=stdin, stdout=stdout, stderr=stderr, **popen
        )
        self.threads = []
        for stream, store in ((self.process.stdout, self.out), (self.process.stderr, self.err)):
            if stream:
                self.threads.append(
                    threading.Thread(target=self._collect, args=(stream, store), daemon=True)
                )
                self.threads[-1].start()

    @staticmethod
    def _collect(stream, store):
        while True:
            data = os.read(stream.fileno(), 1 << 16)
            if not data:
                return
            store += data

    def send(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def offer(self, data):
        """Sends all input there is, `data`, to a program that may have ended by now."""
        try:
            self.send(data)
        except BrokenPipeError:
            pass
        self.close()

    def pump(self, data):
        """Sends `data` repeatedly from a thread until the program stops reading."""

        def work():
            try:
                while True:
                    self.send(data)
                    self.sent += 1
            except (BrokenPipeError, ValueError, OSError):
                pass

        threading.Thread(target=work, daemon=True).start()

    def close(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass

    def until(self, true, seconds=20):
        """Waits until `true()` holds or the time is over. Returns whether it holds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if true():
                return True
            if self.process.poll() is not None:
                for thread in self.threads:
                    thread.join(5)
                return bool(true())
            time.sleep(0.005)
        return bool(true())

    def count(self):
        return self.out.count(b"\n")

    def wait(self, seconds=TIMEOUT):
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                "still running after %.0f s\n%s" % (seconds, self.result(-9).story())
            )
        for thread in self.threads:
            thread.join(10)
        return self.result(code)

    def result(self, code):
        return Result(
            self.arguments, code, bytes(self.out), bytes(self.err), time.monotonic() - self.begun
        )

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for thread in self.threads:
            thread.join(5)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream and not stream.closed:
                try:
                    stream.close()
                except OSError:
                    pass


def xlate(
    *options, input=b"", model=SHARED, device=DEVICE, timeout=TIMEOUT, arguments=None, **popen
):
    """Runs the program to its end. `input` is bytes, text or an open file."""
    arguments, begun = arguments or command(options, model, device), time.monotonic()
    given = {"stdin": input} if hasattr(input, "fileno") else {"stdin": subprocess.PIPE}
    data = (
        None
        if hasattr(input, "fileno")
        else input.encode("utf-8")
        if isinstance(input, str)
        else input
    )
    process = subprocess.Popen(
        arguments,
        stdout=popen.pop("stdout", subprocess.PIPE),
        stderr=popen.pop("stderr", subprocess.PIPE),
        **given,
        **popen,
    )
    try:
        out, err = process.communicate(data, timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(
            "still running after %.0f s\n%s"
            % (timeout, Result(arguments, -9, out or b"", err, timeout).story())
        )
    return Result(arguments, process.returncode, out or b"", err or b"", time.monotonic() - begun)


def is_sanitized():
    """Returns whether the program reserves terabytes for its shadow memory and therefore cannot
    start under a limit on memory."""
    with open(BINARY, "rb") as file:
        return b"__asan_init" in file.read()


def peak_memory(*options, input_path, model=SHARED, timeout=TIMEOUT):
    """Returns (result, largest resident size in bytes as the kernel measured it) of a run that
    reads stdin from a file and writes its output to a file."""
    # The sanitizer keeps up to 256 MB of freed memory by default.
    asan = "quarantine_size_mb=16:" + os.environ.get("ASAN_OPTIONS", "")
    with open(input_path, "rb") as source, tempfile.TemporaryFile() as out:
        running = Running(
            options, model, stdin=source, stdout=out, env={**os.environ, "ASAN_OPTIONS": asan}
        )
        peak = 0
        end = time.monotonic() + timeout
        while running.process.poll() is None and time.monotonic() < end:
            try:
                with open("/proc/%d/status" % running.process.pid) as status:
                    peak = max(
                        [peak]
                        + [
                            int(line.split()[1]) * 1024
                            for line in status
                            if line.startswith("VmHWM:")
                        ]
                    )
            except (OSError, ValueError):
                pass
            time.sleep(0.01)
        result = running.wait(1)
        out.seek(0)
        result.out = out.read()
        running.kill()
        return result, peak


# These functions read the reference data.


def source_lines():
    with open(os.path.join(DATA, "input.txt"), encoding="utf-8", newline="\n") as file:
        return file.read().split("\n")[:-1]


def source_ids(name="shared"):
    with open(os.path.join(DATA, name, "source.ids")) as file:
        return file.read().split("\n")[:-1]


def reference(name, setting):
    """Returns the hypotheses of each line, best first, as (ids as text, score)."""
    rows = []
    with open(os.path.join(DATA, name, setting + ".txt")) as file:
        for row in file:
            line, ids, _, score = row.rstrip("\n").split(" ||| ")
            while len(rows) <= int(line):
                rows.append([])
            rows[int(line)].append((ids, float(score)))
    return rows


def best(name, setting):
    return [hypotheses[0][0] for hypotheses in reference(name, setting)]


def pieces(name, side="target"):
    """Returns pieces by id."""
    path = os.path.join(DATA, name, "target_vocab.json")
    if side == "source" or not os.path.exists(path):
        path = os.path.join(DATA, name, "vocab.json")
    with open(path, encoding="utf-8") as file:
        return {id: piece for piece, id in json.load(file).items()}


def text_of(name, ids):
    """Returns the text that xlate makes of target ids. It has no white space at its ends except
    that of an unknown token."""
    table = pieces(name)
    text = "".join(
        " \u2047 " if id == "1" else table[int(id)].replace("\u2581", " ") for id in ids.split()
    )
    trimmed = text.strip()
    if trimmed.startswith("\u2047") and not text.startswith("\u2047"):
        trimmed = " " + trimmed
    return trimmed + " " if trimmed.endswith("\u2047") and not text.endswith("\u2047") else trimmed


# This class is the base of the test cases.


class Case(unittest.TestCase):
    maxDiff = 2000

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="xlate-test-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, name, content=None):
        path = os.path.join(self.folder, name)
        if content is not None:
            with (gzip.open if name.endswith(".gz") else open)(path, "wb") as file:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
        return path

    def start(self, *options, **more):
        running = Running(options, **more)
        self.addCleanup(running.kill)
        return running

    def ok(self, *options, lines=None, **more):
        """Runs the program, expects exit code 0 and, if given, that number of lines. Returns the
        result."""
        result = xlate(*options, **more)
        self.check(result, 0)
        if lines is not None and len(result.lines) != lines:
            self.fail(
                "%d lines came out, expected %d\n%s" % (len(result.lines), lines, result.story())
            )
        return result

    def check(self, result, code):
        if result.code != code:
            self.fail("exit %d, expected %d\n%s" % (result.code, code, result.story()))

    def report(self, *options, lines=None, **more):
        """Returns (result, report) of a run that must succeed."""
        path = self.path("report.json")
        result = self.ok(*options, "--report", path, lines=lines, **more)
        return result, self.load_report(path, result)

    def load_report(self, path, result):
        def refuse(name):
            self.fail("the report holds %s, which is not JSON\n%s" % (name, result.story()))

        if not os.path.exists(path):
            self.fail("no report was written\n" + result.story())
        with open(path, encoding="utf-8") as file:
            text = file.read()
        try:
            return json.loads(text, parse_constant=refuse)
        except ValueError as error:
            self.fail("the report is not JSON: %s\n%s\n%s" % (error, text[:2000], result.story()))

    def usage_error(self, *options, names, **more):
        """Expects exit code 2, nothing on stdout, and a message about `names` on stderr."""
        result = xlate(*options, **{"input": "Yes.\n", "timeout": 20, **more})
        self.check(result, 2)
        self.says(result, *([names] if isinstance(names, str) else names))
        if result.out:
            self.fail("a usage error wrote to stdout\n" + result.story())
        return result

    def fails(self, *options, names=(), one_line=True, **more):
        """Expects exit code 1 and a message that contains `names`. With -q the message is one line
        and nothing else is printed."""
        result = xlate("-q", *options, **more)
        self.check(result, 1)
        self.says(result, *([names] if isinstance(names, str) else names))
        if one_line and len(result.error_lines) != 1:
            self.fail("expected one line on stderr\n" + result.story())
        return result

    def says(self, result, *words):
        missing = [word for word in words if word.lower() not in result.errors.lower()]
        if missing or not result.err.strip():
            self.fail(
                "stderr does not mention %s\n%s"
                % (", ".join(map(repr, missing)) or "anything", result.story())
            )

    def same(self, expected, actual, result=None, allowed=0):
        """Expects equal lists of lines except for `allowed` of them (near-ties). Shows the first
        line that differs."""
        story = "\n" + result.story() if result else ""
        if len(expected) != len(actual):
            at = next(
                (i for i, (a, b) in enumerate(zip(expected, actual)) if a != b),
                min(len(expected), len(actual)),
            )
            self.fail(
                "%d lines, expected %d; the first to differ is line %d:\n  expected %r\n"
                "  got      %r%s"
                % (
                    len(actual),
                    len(expected),
                    at + 1,
                    expected[at : at + 1],
                    actual[at : at + 1],
                    story,
                )
            )
        wrong = [i for i, (a, b) in enumerate(zip(expected, actual)) if a != b]
        if len(wrong) > allowed:
            self.fail(
                "%d of %d lines differ, the first is line %d:\n  expected %r\n  got      %r%s"
                % (
                    len(wrong),
                    len(expected),
                    wrong[0] + 1,
                    expected[wrong[0]],
                    actual[wrong[0]],
                    story,
                )
            )


def main():
    unittest.main(verbosity=1)
