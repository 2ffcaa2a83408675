"""Tests that every system call on an output is checked. strace makes one call after another fail:
the run ends with one message, or the output is complete."""

import os

import program
from program import GREEDY, Case, command, text

OPTIONS = [*GREEDY, "--line-buffered", "--scores"]
LINES = ["Yes.", "It was really cheap.", "Yes."]
# The journal is created and its marks are written, but the output is complete without one.
OF_THE_OUTPUT = ("write", "fsync", "close", "rename", "openat")
OF_THE_JOURNAL = ("pwrite64", "fsync", "rename", "openat", "unlink")
ERRORS = {"EIO": "Input/output error", "ENOSPC": "no space left", "EDQUOT": "quota exceeded"}
MOST = 12  # A thread makes no call so often on these paths.


def setUpModule():
    program.require()
    program.require_injection()


def read(path):
    with open(path, "rb") as file:
        return file.read()


class FailedCalls(Case):
    def setUp(self):
        super().setUp()
        self.outputs = self.path("outputs")
        os.mkdir(self.outputs)
        self.out = os.path.join(self.outputs, "out.txt")
        self.partial, self.journal = self.out + ".partial", self.out + ".partial.journal"
        self.source = self.path("in.txt", text(LINES))
        self.wanted = self.ok(*OPTIONS, "-i", self.source).out

    def run_failing(self, call, error, number, paths):
        """Runs while the call fails which a thread makes for this time on one of the paths. Returns
        the result and whether there was such a call."""
        for name in os.listdir(self.outputs):
            os.remove(os.path.join(self.outputs, name))
        trace = self.path("trace")
        strace = ["strace", *program.TRACED, "-f", "-o", trace, "-e", "trace=" + call]
        strace += ["-e", "inject=%s:error=%s:when=%d" % (call, error, number)]
        strace += [word for path in paths for word in ("-P", path)]
        arguments = command(["-q", *OPTIONS, "-i", self.source, "-o", self.out])
        result = program.xlate(arguments=strace + arguments)
        return result, b"INJECTED" in read(trace)

    def check_call(self, call, error, paths, needed):
        """Makes each of these calls fail in turn. Returns how many there are. `needed` says whether
        a run without the call has no output."""
        for number in range(1, MOST):
            with self.subTest(call=call, error=error, number=number):
                result, failed = self.run_failing(call, error, number, paths)
                if not failed:
                    self.check(result, 0)
                    return number - 1
                if result.code == 0:
                    # A journal that cannot be removed is of no more use, and does no harm.
                    left = set(os.listdir(self.outputs)) - {"out.txt"}
                    self.assertLessEqual(left, self.not_removed(call), result.story())
                    self.assertTrue(os.path.exists(self.out), result.story())
                else:
                    self.check(result, 1)
                    self.assertTrue(needed, result.story())
                    self.says(result, "out.txt", ERRORS[error])
                    self.assertEqual(len(result.error_lines), 1, result.story())
                    # Nothing but the journal's own name belongs to an unfinished output.
                    names = {"out.txt", "out.txt.partial", "out.txt.partial.journal"}
                    self.assertLessEqual(set(os.listdir(self.outputs)), names, result.story())
                if os.path.exists(self.out):
                    self.assertEqual(read(self.out), self.wanted, result.story())
        self.fail("%s: no end of calls" % call)

    def not_removed(self, call):
        return {os.path.basename(self.journal)} if call == "unlink" else set()

    def test_of_the_output(self):
        for call in OF_THE_OUTPUT:
            for error in ("EIO",) if call != "write" else ERRORS:
                count = self.check_call(call, error, [self.partial, self.outputs], needed=True)
                self.assertGreater(count, 0, call)

    def test_of_the_journal(self):
        for call in OF_THE_JOURNAL:
            paths = [self.journal, self.journal + ".new"]
            # Without -q a note would say that the run cannot be resumed.
            self.assertGreater(self.check_call(call, "EIO", paths, needed=False), 0, call)

    def test_a_failed_call_is_not_passed_over(self):
        for call in ("write", "fsync", "close", "rename"):
            result, failed = self.run_failing(call, "EIO", 1, [self.partial])
            self.assertTrue(failed, call)
            self.check(result, 1)
            self.assertFalse(os.path.exists(self.out), call)


if __name__ == "__main__":
    program.main()
