"""Tests --resume: a run that was killed goes on where it was, and the output is that of a run that
was never disturbed. What a power failure can leave is tested in power_failure_test.py."""

import glob
import json
import os
import random
import resource
import signal
import time
from unittest import mock

import program
from program import GREEDY, SEPARATE, Case, source_lines, text, xlate

setUpModule = program.require
# On the CPU the numbers of a sentence depend on the sentences that are computed with it, so that
# bytes can be compared only if each is computed by itself.
ALONE = [*GREEDY, "--batch-tokens", "1", "--scores"]
LINES = source_lines()
KILLS = 50


def read(path):
    with open(path, "rb") as file:
        return file.read()


def environment(milliseconds=1):
    """The journal is synced so often."""
    return {**os.environ, "XLATE_TEST_SYNC_MILLISECONDS": str(milliseconds)}


class Resume(Case):
    def setUp(self):
        super().setUp()
        self.out, self.partial, self.journal = (
            self.path(name) for name in ("out.txt", "out.txt.partial", "out.txt.partial.journal")
        )

    def left(self):
        """Returns the names of the outputs and what belongs to them."""
        return sorted(os.path.basename(path) for path in glob.glob(self.out + "*"))

    def killed(self, options, lines, kept):
        """Kills a run of all lines after it has written the output of the first `kept`."""
        running = self.start("--line-buffered", *options, "-o", self.out, env=environment())
        running.send(text(lines[:kept]).encode())
        rows = self.rows(options, lines[:kept]) if kept else b""
        self.assertTrue(
            running.until(lambda: os.path.exists(self.partial) and read(self.partial) == rows),
            running.result(0).story(),
        )
        running.process.send_signal(signal.SIGKILL)
        running.wait(20)

    def rows(self, options, lines):
        """Returns the output of an undisturbed run."""
        return self.ok("--line-buffered", *options, input=text(lines)).out


class Kills(Resume):
    def test_killed_at_random_moments_the_output_is_that_of_an_undisturbed_run(self):
        source, whole = self.path("in.txt", text(LINES * 2)), self.path("whole.txt")
        # With small windows the output grows all the time.
        options = [*ALONE, "--window", "5", "-i", source]
        begun = time.monotonic()
        self.ok(*options, "-o", whole)
        seconds, wanted = time.monotonic() - begun, read(whole)
        seed = random.randrange(1 << 30)
        moments = random.Random(seed)
        kills = resumed = 0
        while kills < KILLS:
            running = self.start(*options, "-o", self.out, "--resume", env=environment(20))
            time.sleep(moments.uniform(0, seconds))
            running.process.send_signal(signal.SIGKILL)
            result = running.wait(20)
            resumed += b"goes on after line" in result.err and b"line 0" not in result.err
            if result.code != 128 + signal.SIGKILL:
                self.check(result, 0)
                self.assertEqual((read(self.out), self.left()), (wanted, ["out.txt"]), seed)
                os.unlink(self.out)
                continue
            kills += 1
            if os.path.exists(self.partial):
                self.assertTrue(wanted.startswith(read(self.partial)), seed)
        if not os.path.exists(self.out):
            self.ok(*options, "-o", self.out, "--resume")
        self.assertEqual((read(self.out), self.left()), (wanted, ["out.txt"]), seed)
        self.assertGreater(resumed, KILLS // 5)

    def test_rows_numbers_and_formats_are_those_of_an_undisturbed_run(self):
        lines, kept = LINES[:9], 4
        objects = ['{"id": %d, "text": "%s"}' % (i, "Yes." * (i + 1)) for i in range(9)]
        pairs = ["%s\t%s" % (line, line) for line in lines]
        prefixes = self.path("prefixes.txt", text(line.split()[0] for line in lines))
        sample = ["--sample", "--seed", "3"]
        for name, options, source in (
            ("n-best", ["-b", "4", "--n-best", "3"], lines),
            ("draws", [*sample, "--num-samples", "3"], lines),
            ("a draw", sample, lines),
            ("objects", [*GREEDY, "--input-format", "jsonl", "--output-format", "jsonl"], objects),
            ("pairs", ["--score-pairs"], pairs),
            ("prefixes", [*GREEDY, "--target-prefix", prefixes], lines),
            ("annotations", [*GREEDY, "--alignments", "--token-scores"], lines),
            ("empty lines", [*GREEDY, "--scores"], ["", "Yes.", "", "", "Yes.", "", "Yes.", ""]),
        ):
            with self.subTest(name):
                # A complete run of the first lines alone would have too many prefixes.
                kill = self.killed_with_prefixes if name == "prefixes" else self.killed
                kill(options, source, kept)
                report = self.path("report.json")
                result = self.ok(
                    "--line-buffered",
                    *options,
                    *("-o", self.out, "--resume", "--report", report),
                    input=text(source),
                )
                self.assertEqual(read(self.out), self.rows(options, source), result.story())
                counted = self.load_report(report, result)["lines"]
                self.assertEqual(
                    (counted["resumed"], counted["in"], counted["out"]),
                    (kept, len(source) - kept, len(source) - kept),
                )

    def killed_with_prefixes(self, options, lines, kept):
        running = self.start("--line-buffered", *options, "-o", self.out)
        running.send(text(lines[:kept]).encode())
        self.assertTrue(
            running.until(
                lambda: os.path.exists(self.partial) and read(self.partial).count(b"\n") == kept
            ),
            running.result(0).story(),
        )
        running.process.send_signal(signal.SIGKILL)
        running.wait(20)

    def test_messages_count_lines_from_the_beginning_of_the_input(self):
        options = [*GREEDY, "--max-source-length", "20"]
        self.killed(options, ["Yes.", "Yes."], 2)
        result = self.ok(
            "--line-buffered",
            *(*options, "-o", self.out, "--resume"),
            input=text(["Yes.", "Yes.", "Yes. " * 30]),
        )
        self.says(result, "goes on after line 2", "line 3: ")

    def test_a_run_that_was_interrupted_goes_on_and_what_is_half_written_is_cut(self):
        for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
            for rest in (b"", b"half a line", b"whole\nlines\n", bytes(5000)):
                with self.subTest((number.name, rest[:12])):
                    running = self.start(*ALONE, "--line-buffered", "-o", self.out)
                    running.send(text(LINES[:3]).encode())
                    self.assertTrue(
                        running.until(
                            lambda: os.path.exists(self.partial)
                            and read(self.partial).count(b"\n") == 3
                        )
                    )
                    running.process.send_signal(number)
                    self.check(running.wait(20), code)
                    with open(self.partial, "ab") as partial:
                        partial.write(rest)
                    options = (*ALONE, "--line-buffered", "-o", self.out, "--resume")
                    self.says(self.ok(*options, input=text(LINES[:9])), "after line 3")
                    self.assertEqual(
                        (read(self.out), self.left()), (self.rows(ALONE, LINES[:9]), ["out.txt"])
                    )

    def test_a_text_that_something_has_changed_is_written_anew(self):
        self.killed(ALONE, LINES[:9], 3)
        changed = bytearray(read(self.partial))
        changed[2] ^= 1
        with open(self.partial, "wb") as partial:
            partial.write(changed)
        # Depending on how often the journal was synced, it still has the mark of the first line.
        options = ("--line-buffered", *ALONE, "-o", self.out, "--resume")
        result = xlate(*options, input=text(LINES[:9]))
        if result.code == 0:
            self.assertEqual(read(self.out), self.rows(ALONE, LINES[:9]))
        else:
            self.says(result, "out.txt.partial has changed")
            self.assertEqual(read(self.partial), changed)


class Refusals(Resume):
    """A run ends with an error at a line that is too long, so that its output can be continued."""

    OPTIONS = [*GREEDY, "--long-lines", "error", "--max-source-length", "60"]

    def setUp(self):
        super().setUp()
        self.source = self.path("in.txt", text(["Yes.", "It was really cheap.", "Yes. " * 99]))
        result = xlate(*self.OPTIONS, "-i", self.source, "-o", self.out)
        self.check(result, 1)
        self.assertEqual(self.left(), ["out.txt.partial", "out.txt.partial.journal"])
        self.assertEqual(read(self.partial).count(b"\n"), 2)

    def resumed(self, *options, source=None, **more):
        return xlate(
            *("-q", *self.OPTIONS, *options),
            *("-i", source or self.source, "-o", self.out, "--resume"),
            **more,
        )

    def refused(self, *options, names, **more):
        before = [read(self.partial), read(self.journal)]
        result = self.resumed(*options, **more)
        self.check(result, 1)
        self.says(result, "--resume: ", "without --resume", *names)
        self.assertEqual(len(result.error_lines), 1, result.story())
        self.assertEqual([read(self.partial), read(self.journal)], before, result.story())

    def test_the_same_run_is_not_refused(self):
        linked = self.path("linked.txt")
        os.link(self.source, linked)
        for options in (
            [],
            ["--threads", "1"],
            ["--window", "7", "--batch-tokens", "9"],
            ["--progress", "never", "--report", self.path("report.json")],
        ):
            for source in (self.source, linked):
                with self.subTest((options, source)):
                    result = self.resumed(*options, source=source)
                    self.check(result, 1)
                    self.says(result, "line 3: ")
                    self.assertEqual(read(self.partial).count(b"\n"), 2)

    def test_another_model(self):
        self.refused(model=SEPARATE, names=["the hash of the model is ", "but it was "])

    def test_another_processor(self):
        """The library of the products stands for a processor with other instructions."""
        if program.DEVICE != "cpu":
            self.skipTest("the run is on a GPU")
        older = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2"}
        report = self.path("report.json")
        self.ok("--report", report, *GREEDY, input="Yes.\n", env=older, device="cpu")
        with open(report) as file:
            if "(avx2)" not in json.load(file)["device"]["cpu"]:
                self.skipTest("the library cannot be held to AVX2 here")
        self.ok("--report", report, *GREEDY, input="Yes.\n", device="cpu")
        with open(report) as file:
            if "(avx2)" in json.load(file)["device"]["cpu"]:
                self.skipTest("the processor has no more than AVX2")
        self.refused(env=older, names=["the device is cpu with ", "(avx2), but it was cpu with "])

    def test_other_options(self):
        for options, names in (
            (["--beam-size", "2"], ["--beam-size is 2, but it was 1 when "]),
            (["--scores"], ["--scores is true, but it was false"]),
            (["--max-length", "7"], ["--max-length is 7, but it was "]),
            (["--max-source-length", "50"], ["--max-source-length is 50, but it was 60"]),
            (["--long-lines", "truncate"], ["--long-lines is truncate, but it was error"]),
            (["--output-format", "ids"], ["--output-format is ids, but it was text"]),
            (["--suppress", "a"], ['--suppress is ["a"], but it was []']),
            (["--line-buffered"], ["--line-buffered is true, but it was false"]),
        ):
            with self.subTest(options):
                # The last one of an option that is given twice counts for none of them.
                kept = list(self.OPTIONS)
                for option in ("--long-lines", "--max-source-length"):
                    if option in options:
                        at = kept.index(option)
                        del kept[at : at + 2]
                if "--beam-size" in options:
                    kept = kept[len(GREEDY) :]
                with self.replaced(kept):
                    self.refused(*options, names=names)

    def replaced(self, options):
        return mock.patch.object(self, "OPTIONS", options)

    def test_another_input(self):
        status = os.stat(self.source)
        longer = self.path("longer.txt", read(self.source) + b"Yes.\n")
        self.refused(
            source=longer,
            names=[
                "the size of %s is %d bytes, but it was %d bytes"
                % (longer, status.st_size + 5, status.st_size)
            ],
        )
        self.refused("-i", longer, names=["the number of inputs is 2, but it was 1"])
        os.utime(self.source, ns=(0, 0))
        self.refused(names=["the last change of " + self.source, "1970-01-01 00:00:00.000000000"])
        changed = self.path("changed.txt", read(self.source).replace(b"Yes.", b"No!.", 1))
        os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
        self.refused(
            source=changed, names=["the hash of its first 2 lines is ", "but it was ", "out.txt"]
        )

    def test_a_pipe_with_other_or_fewer_lines(self):
        for lines, names in (
            (["Yes.", "No."], ["the hash of its first 2 lines"]),
            (["Yes."], ["the input has 1 lines", "is the output of 2"]),
        ):
            with self.subTest(lines):
                self.killed(ALONE, ["Yes.", "Yes."], 2)
                with self.replaced([*ALONE, "--line-buffered"]):
                    self.refused(source="-", input=text(lines), names=names)

    def test_a_pipe_in_place_of_a_file(self):
        result = self.resumed(source="-", input=read(self.source))
        self.check(result, 1)
        self.says(result, "line 3: ")

    def test_no_journal_or_a_damaged_one(self):
        journal = read(self.journal)
        for data in (b"", b"something else\n", journal[:-9], journal.replace(b"error", b"split")):
            with self.subTest(data[:9]), open(self.journal, "wb") as file:
                file.write(data)
                file.flush()
                self.refused(names=["out.txt.partial has no journal"])
        os.unlink(self.journal)
        before = read(self.partial)
        result = self.resumed()
        self.check(result, 1)
        self.says(result, "out.txt.partial has no journal", "out.txt.partial.journal is missing")
        self.assertEqual(read(self.partial), before)

    def test_without_the_option_the_run_begins_anew(self):
        self.ok(*GREEDY, "-o", self.out, input="Yes.\n")
        self.assertEqual((read(self.out).count(b"\n"), self.left()), (1, ["out.txt"]))

    def test_two_runs_at_once(self):
        os.unlink(self.partial)
        running = self.start(*GREEDY, "--line-buffered", "-o", self.out, "--resume")
        running.send(b"Yes.\n")
        self.assertTrue(
            running.until(lambda: os.path.exists(self.partial) and read(self.partial) != b"")
        )
        result = self.resumed()
        self.check(result, 1)
        self.says(result, "out.txt: another run is writing it")
        running.close()
        self.check(running.wait(20), 0)
        self.assertEqual(self.left(), ["out.txt"])

    def test_where_files_cannot_be_locked(self):
        result = self.resumed(env={**os.environ, "XLATE_TEST_NO_LOCKS": "1"})
        self.check(result, 1)
        self.says(result, "--resume: ", "cannot be locked")


class NothingToResume(Resume):
    def test_usage_errors(self):
        for options, names in (
            ([], "--output FILE"),
            (["-o", "-"], "--output FILE"),
            (["-o", self.path("out.gz")], ["out.gz", "gzip"]),
            (["-o", "/dev/null"], ["/dev/null", "regular file"]),
        ):
            with self.subTest(options):
                self.usage_error("--resume", *options, names=names)
        self.assertEqual(os.listdir(self.folder), [])
        for option in ("--report", "-o"):
            with self.subTest(option):
                other = self.path(
                    "input.txt" if option == "--report" else "out.txt.partial.journal", ""
                )
                given = (
                    ("-o", self.out, "--report", self.journal)
                    if option == "--report"
                    else ("-o", self.out, "-i", other)
                )
                self.usage_error(*given, names="out.txt.partial.journal")

    def test_a_run_without_an_output_to_go_on_with_is_a_first_run(self):
        for _ in range(2):
            result = self.ok(*GREEDY, "-o", self.out, "--resume", input="Yes.\n")
            self.says(result, "begins from the first line")
            self.assertEqual((read(self.out).count(b"\n"), self.left()), (1, ["out.txt"]))

    def test_an_empty_output_is_begun_whatever_the_run_was(self):
        self.killed(GREEDY, ["Yes."], 0)
        self.assertEqual(read(self.partial), b"")
        self.ok(*GREEDY, "--scores", "-o", self.out, "--resume", input="Yes.\n")
        self.assertEqual(self.left(), ["out.txt"])

    def test_a_new_journal_that_a_kill_left_is_removed(self):
        """A journal is written under another name before it takes its own."""
        for options in ([], ["--resume"]):
            with self.subTest(options=options):
                self.killed(GREEDY, ["Yes.", "No."], 1)
                with open(self.journal + ".new", "w") as file:
                    file.write("left")
                more = ["--line-buffered", "-o", self.out, *options]
                self.ok(*GREEDY, *more, input="Yes.\nNo.\n")
                self.assertEqual(self.left(), ["out.txt"])
                self.assertEqual(read(self.out).count(b"\n"), 2)
                os.unlink(self.out)

    def test_a_run_that_writes_nothing_leaves_nothing(self):
        for options in ([], ["--resume"]):
            result = xlate(
                *("--long-lines", "error", "--max-source-length", "1", "-o", self.out, *options),
                input="Yes. Yes.\n",
            )
            self.check(result, 1)
            self.assertEqual(self.left(), [])

    def test_a_journal_that_cannot_be_written(self):
        def limited():
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

        def folder(path):
            return lambda: os.makedirs(path, exist_ok=True)

        for name, prepare, more in (
            ("full", lambda: None, {"preexec_fn": limited}),
            ("folder", folder(self.journal + ".new"), {}),
        ):
            with self.subTest(name):
                prepare()
                result = self.ok(*GREEDY, "-o", self.out, input="Yes.\n", **more)
                self.says(result, "out.txt.partial.journal: cannot be written", "--resume")
                options = (*GREEDY, "-o", self.out, "--resume")
                self.fails(*options, input="Yes.\n", names="out.txt.partial.journal", **more)
        os.rmdir(self.journal + ".new")
        folder(self.journal)()
        result = self.ok(*GREEDY, "-o", self.out, input="Yes.\n")
        self.says(result, "out.txt.partial.journal: cannot be written", "--resume")
        self.assertEqual(read(self.out).count(b"\n"), 1)


if __name__ == "__main__":
    program.main()
