"""Tests the progress line and the messages on a pseudo-terminal, as a person sees them."""

import fcntl
import os
import pty
import random
import re
import struct
import subprocess
import termios
import threading
import time

import program
from program import GREEDY, Case, command, source_lines, text

setUpModule = program.require

CLEAR = "\x1b[K"


def screen_of(shown):
    """Returns the rows that are on the terminal after it was sent this text, with those that
    scrolled off it. It knows what xlate and a terminal driver send, and no more."""
    rows, column = [""], 0
    for part in re.findall(r"\x1b\[K|\r|\n|[^\x1b\r\n]+|\x1b", shown):
        if part == CLEAR:
            rows[-1] = rows[-1][:column]
        elif part == "\r":
            column = 0
        elif part == "\n":
            rows.append("")
        else:
            rows[-1] = rows[-1][:column] + part + rows[-1][column + len(part) :]
            column += len(part)
    return rows


class Terminal(Case):
    def on_terminal(self, *options, streams=("stderr",), columns=80, term="xterm", lines=None):
        """Runs xlate with these streams on a terminal, and gives it lines for more than a second.
        Returns the result and what the terminal was sent."""
        try:
            master, slave = pty.openpty()
        except OSError as error:
            self.skipTest("no terminals here: %s" % error)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        shown = []
        reader = threading.Thread(target=self.collect, args=(master, shown))
        reader.start()
        process = subprocess.Popen(
            command([*GREEDY, *options]),
            stdin=subprocess.PIPE,
            stdout=slave if "stdout" in streams else subprocess.PIPE,
            stderr=slave,
            env=os.environ | {"TERM": term},
        )
        os.close(slave)
        for line in lines or source_lines()[:15]:
            process.stdin.write(text([line]).encode())
            process.stdin.flush()
            time.sleep(0.1)
        out, _ = process.communicate(timeout=program.TIMEOUT)
        reader.join(20)
        os.close(master)
        self.assertEqual(process.returncode, 0, shown)
        return (out or b"").decode(), b"".join(shown).decode()

    @staticmethod
    def collect(master, shown):
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:  # The last process has closed the terminal.
                return
            if not data:
                return
            shown.append(data)

    def test_one_line_is_rewritten_and_removed_at_the_end(self):
        _, shown = self.on_terminal()
        self.assertRegex(shown, r"\r\d+ lines, \d+ tokens/s" + re.escape(CLEAR))
        self.assertNotIn("\n", shown)
        self.assertEqual(screen_of(shown), [""])

    def test_a_file_has_a_share_and_the_time_that_is_left(self):
        # The line is shown once a second, so that a fast machine needs more lines for it.
        for count in (4_000, 16_000, 64_000, 256_000):
            path = self.path("in.txt", text((source_lines() * count)[:count]))
            _, shown = self.on_terminal("-i", path, "-o", self.path("out.txt"), lines=[""])
            rows = re.findall(r"(\d+) lines, (\d+) %(?:, (\d+) s left)?, \d+ tokens/s", shown)
            self.assertEqual(len(rows), shown.count(" lines, "), shown)
            if rows:
                break
        self.assertTrue(rows, shown)
        for lines, share, _ in rows:
            self.assertLess(int(lines), count + 1)
            # Lines that are done wait for longer ones before them.
            self.assertGreaterEqual(int(share), 100 * int(lines) // count - 10)
        shares = [int(row[1]) for row in rows]
        self.assertEqual(shares, sorted(shares))
        self.assertLessEqual(shares[-1], 100)

    def test_the_time_that_is_left_counts_lines_that_wait(self):
        """Within a window the longest sentences come first, and no line is written for long."""
        chance = random.Random(6)
        words = ["the", "house", "and", "some", "other", "people", "are", "coming", "here", "."]
        lines = [" ".join(chance.choices(words, k=chance.randint(2, 40))) for _ in range(200)]
        for count in (800, 3200, 12800):
            path = self.path("in.txt", text((lines * (count // 200 + 1))[:count]))
            running = self.start(
                *GREEDY,
                *("--progress", "always", "--window", "100000"),
                *("-i", path, "-o", self.path("out.txt")),
                model=program.EN_DE,
                env={**os.environ, "XLATE_TEST_PROGRESS_MILLISECONDS": "100"},
            )
            begun, shown = time.monotonic(), []
            while running.process.poll() is None:
                now = time.monotonic() - begun
                for row in running.err.decode().split("\n")[len(shown) : -1]:
                    shown.append((now, row))
                time.sleep(0.01)
            if time.monotonic() - begun > 3:
                break
        found = [
            (now, *map(int, match.groups()))
            for now, row in shown
            if (match := re.search(r"(\d+) lines?, (\d+) %, (\d+) s left, ", row))
        ]
        self.assertGreater(len(found), 10, shown)
        self.assertNotIn("-", "".join(row for _, row in shown))
        # Half of the work is done when few of the lines are written.
        half = [lines for _, lines, share, _ in found if 40 <= share <= 60]
        self.assertTrue(half and min(half) < count / 10, shown)
        for now, _, share, left in found:
            if share >= 20:
                # Shares are rounded, and a busy machine reads a line some time after it is shown.
                least, most = ((100 - s) / s for s in (share + 0.5, share - 0.5))
                self.assertGreaterEqual(left, now * 0.8 * max(0, least) - 1, shown)
                self.assertLessEqual(left, now * most + 1, shown)

    def test_it_is_not_wider_than_the_terminal(self):
        _, shown = self.on_terminal(columns=12)
        rows = [part.strip("\r") for part in shown.split(CLEAR)]
        self.assertEqual(max(map(len, rows)), 11)
        _, shown = self.on_terminal("--progress", "always", columns=0)
        self.assertIn("tokens/s", shown)

    def test_messages_have_rows_of_their_own(self):
        lines = source_lines()[:15]
        lines[9] = "word " * 100
        _, shown = self.on_terminal("--max-source-length", "90", lines=lines)
        self.assertIn(" lines, ", shown)
        rows = screen_of(shown)
        self.assertEqual(rows[-1], "")
        for row in rows[:-1]:
            self.assertTrue(row.startswith("xlate: "), rows)
        self.assertIn("line 10", "".join(rows))

    def test_the_output_on_the_same_terminal_has_rows_of_its_own(self):
        expected, _ = self.on_terminal("-q")
        _, shown = self.on_terminal(streams=("stdout", "stderr"))
        self.assertIn(" lines, ", shown)
        self.assertEqual(screen_of(shown), expected.split("\n"))

    def test_never_and_quiet_show_nothing(self):
        for options in (["-q"], ["--progress", "never"], ["-q", "--progress", "always"]):
            self.assertEqual(self.on_terminal(*options)[1], "", options)

    def test_a_dumb_terminal_gets_no_escapes(self):
        self.assertEqual(self.on_terminal(term="dumb")[1], "")
        _, shown = self.on_terminal("--progress", "always", term="dumb")
        self.assertRegex(shown, r"^xlate: 15 lines, \d+ tokens/s\r\n$")

    def test_closing_the_terminal_ends_the_run(self):
        """The kernel sends SIGHUP to the leader of the session, and the terminal takes no text any
        more."""
        for options in ([], ["-q"], ["--progress", "always"]):
            try:
                master, slave = pty.openpty()
            except OSError as error:
                self.skipTest("no terminals here: %s" % error)
            path = self.path("out.txt", "")
            with open(path, "wb") as out:
                process = subprocess.Popen(
                    command([*GREEDY, "--line-buffered", *options]),
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=slave,
                    start_new_session=True,
                    preexec_fn=lambda: fcntl.ioctl(2, termios.TIOCSCTTY, 0),
                )
            os.close(slave)
            process.stdin.write(text(source_lines()[:3]).encode())
            process.stdin.flush()
            deadline = time.monotonic() + 60
            wanted = self.ok(*GREEDY, input=text(source_lines()[:3])).out
            while os.path.getsize(path) < len(wanted):
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.05)
            os.close(master)
            self.assertEqual(process.wait(20), 129, options)
            process.stdin.close()
            with open(path, "rb") as out:
                self.assertEqual(out.read(), wanted, options)

    def test_lines_that_are_typed_are_not_overwritten(self):
        try:
            master, slave = pty.openpty()
        except OSError as error:
            self.skipTest("no terminals here: %s" % error)
        process = subprocess.Popen(command(GREEDY), stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        os.write(master, b"Yes.\n")
        time.sleep(1.5)
        os.write(master, b"\x04")
        shown = []
        self.collect(master, shown)
        os.close(master)
        self.assertEqual(process.wait(20), 0)
        self.assertNotIn(b"tokens/s", b"".join(shown))


if __name__ == "__main__":
    program.main()
