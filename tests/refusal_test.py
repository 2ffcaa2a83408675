"""Tests runs that end early, whatever their input and their reader are doing. Such a run says at
once why it ends, and what was translated before is written."""

import os
import signal
import subprocess
import tempfile
import time
import unittest

from program import BINARY, SHARED, Case, full_pipe, xlate

COMMAND = [BINARY, "-m", SHARED, "--device", "cpu", "-b", "1"]


def run(options, lines, close=True, stdout=subprocess.PIPE):
    """Sends the lines, leaves stdin open if asked to, and waits. Returns (exit code, stdout,
    stderr, seconds)."""
    start = time.monotonic()
    process = subprocess.Popen(
        COMMAND + options, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE
    )
    process.stdin.write(lines)
    process.stdin.flush()
    if close:
        process.stdin.close()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError("still running after 20 s")
    seconds = time.monotonic() - start
    out = process.stdout.read() if process.stdout else b""
    err = process.stderr.read().decode()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream and not stream.closed:
            stream.close()
    return process.returncode, out, err, seconds


class Refused(unittest.TestCase):
    def test_an_id_that_is_none_in_line_buffered_mode(self):
        code, out, err, _ = run(["--line-buffered", "--input-format", "ids"], b"1 2 0\nx y\n3 0\n")
        self.assertEqual((code, out.count(b"\n")), (1, 1), err)
        self.assertIn("line 2: 'x'", err)

    def test_a_long_line_in_line_buffered_mode(self):
        code, out, err, _ = run(
            ["--line-buffered", "--long-lines", "error", "--max-source-length", "3"],
            b"a\nb b b b b b b b\nc\n",
        )
        self.assertEqual((code, out.count(b"\n")), (1, 1), err)
        self.assertIn("line 2", err)

    def test_a_refused_line_is_told_while_the_input_stays_open(self):
        code, _, err, seconds = run(["--input-format", "ids"], b"x y\n", close=False)
        self.assertEqual(code, 1, err)
        self.assertLess(seconds, 10)

    def test_a_write_error_is_told_while_the_input_stays_open(self):
        with open("/dev/full", "wb") as full:
            code, _, err, seconds = run([], b"hello\n", close=False, stdout=full)
        self.assertEqual(code, 1, err)
        self.assertLess(seconds, 10)

    def test_a_report_that_cannot_be_written_is_told_once(self):
        code, _, err, _ = run(["--report", "/no/such/folder/r.json"], b"hello\n")
        self.assertEqual((code, err.count("\n")), (1, 1), err)

    @unittest.skipIf(
        os.environ.get("XLATE_TEST_SANITIZED"), "the address sanitizer gives any amount of memory"
    )
    def test_sizes_that_no_memory_holds_are_told_with_their_options(self):
        # 2^30 tokens of 256 beams are more than a process can address.
        sizes = [
            "--max-length",
            "1073741824",
            "--max-source-length",
            "1073741824",
            "--beam-size",
            "256",
        ]
        result = xlate(*sizes, input="hello\n")
        self.assertEqual(
            (result.code, result.out, len(result.error_lines)), (1, b"", 1), result.story()
        )
        for option, value in zip(sizes[::2], sizes[1::2]):
            self.assertIn("%s %s" % (option, value), result.errors)

    def test_sizes_that_are_merely_generous_cost_no_more_than_is_used(self):
        begun = time.monotonic()
        code, out, err, _ = run(
            [
                "--max-length",
                "1073741824",
                "--batch-tokens",
                "1073741824",
                "--window",
                "1073741824",
            ],
            b"hello\n" * 20,
        )
        self.assertEqual((code, out.count(b"\n")), (0, 20), err)
        self.assertLess(time.monotonic() - begun, 15)


class OldDriver(Case):
    """The driver is for an older CUDA. One line reports both versions; with `auto` xlate prints it
    and uses the CPU."""

    FOLDER = os.path.join(os.path.dirname(BINARY), "old_driver")

    def run_with_it(self, device):
        if not os.path.exists(os.path.join(self.FOLDER, "libcuda.so.1")):
            self.skipTest("built without CUDA")
        return xlate(
            "-b",
            1,
            input="Yes.\n",
            device=device,
            env={
                **os.environ,
                "LD_LIBRARY_PATH": self.FOLDER + ":" + os.environ.get("LD_LIBRARY_PATH", ""),
            },
        )

    def test_a_gpu_is_asked_for(self):
        result = self.run_with_it("cuda")
        self.assertEqual(
            (result.code, result.out, len(result.error_lines)), (1, b"", 1), result.story()
        )
        self.assertRegex(
            result.errors,
            r"the NVIDIA driver is for CUDA 12\.4, expected 13\.0 or newer \(release 580\), since "
            r"xlate was built with CUDA 13\.\d; .* cuda-compat-13-\d serves older drivers",
        )

    def test_whatever_there_is(self):
        result = self.run_with_it("auto")
        self.assertEqual(
            (result.code, len(result.lines), len(result.error_lines)), (0, 1, 1), result.story()
        )
        self.assertIn(
            "running on the CPU: the NVIDIA driver is for CUDA 12.4, expected 13.0 or newer",
            result.errors,
        )


class SecondSignal(unittest.TestCase):
    def test_it_kills_whichever_it_is(self):
        # Nobody reads from the pipe, which is full, so the run blocks when it writes.
        read, write = full_pipe()
        with tempfile.TemporaryFile() as lines:
            lines.write(b"hello there\n" * 60000)
            lines.seek(0)
            process = subprocess.Popen(
                COMMAND + ["--max-length", "3", "--output-format", "ids", "--scores"],
                stdin=lines,
                stdout=write,
                stderr=subprocess.DEVNULL,
            )
            begun = time.monotonic()
            # xlate and the test share the position in the file. Once it moves, xlate reads and
            # handles signals itself.
            while lines.tell() == 0 and time.monotonic() - begun < 20:
                time.sleep(0.1)
        os.close(write)
        try:
            time.sleep(3)
            for number in (signal.SIGINT, signal.SIGTERM):
                process.send_signal(number)
                time.sleep(0.5)
            self.assertEqual(process.wait(timeout=10), -signal.SIGTERM)
        finally:
            process.kill()
            os.close(read)


if __name__ == "__main__":
    unittest.main()
