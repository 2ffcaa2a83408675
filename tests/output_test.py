"""Tests the output file before it gets its final name: who else may write it, who may read it, and
what an earlier run left."""

import errno
import gzip
import os
import signal
import stat
import struct
import zlib

import program
from program import GREEDY, Case, xlate

setUpModule = program.require


def read(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
        return file.read().decode()


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


class Output(Case):
    def setUp(self):
        super().setUp()
        self.yes, self.cheap = self.ok(*GREEDY, input="Yes.\nIt was really cheap.\n", lines=2).lines

    def begun(self, *options, **more):
        """Starts a run that has begun to write its output and waits for input."""
        running = self.start(*GREEDY, "--line-buffered", *options, **more)
        running.send(b"Yes.\n")
        self.assertTrue(
            running.until(
                lambda: any(
                    self.has_line(name)
                    for name in os.listdir(self.folder)
                    if ".partial" in name and "journal" not in name
                )
            ),
            running.result(0).story(),
        )
        return running

    def has_line(self, name):
        with open(self.path(name), "rb") as file:
            data = file.read()
        if data.startswith(b"\x1f\x8b"):
            data = zlib.decompressobj(31).decompress(data)
        return data.decode() == self.yes + "\n"

    def ended(self, running):
        running.close()
        self.check(running.wait(30), 0)


class TwoRuns(Output):
    def test_the_second_with_the_same_output_is_refused_and_spoils_nothing(self):
        os.symlink("out.txt", self.path("link.txt"))
        os.symlink("link.txt", self.path("link-to-link.txt"))
        for first, second in (
            ("link-to-link.txt", "link.txt"),
            ("out.txt", "out.txt"),
            ("out.txt", "link.txt"),
            ("link.txt", "out.txt"),
            ("out.gz", "out.gz"),
        ):
            with self.subTest((first, second)):
                running = self.begun("-o", self.path(first))
                self.fails(
                    *GREEDY,
                    "-o",
                    self.path(second),
                    input="It was really cheap.\n",
                    names=[self.path(second) + ": another run is writing it"],
                )
                running.send(b"Yes.\n")
                self.ended(running)
                self.assertEqual(read(self.path(first)), 2 * (self.yes + "\n"))
        self.assertEqual(
            sorted(os.listdir(self.folder)), ["link-to-link.txt", "link.txt", "out.gz", "out.txt"]
        )

    def test_the_second_is_refused_before_any_work(self):
        running = self.begun("-o", self.path("out.txt"))
        # Its stdin stays open and silent.
        waiting = self.start(*GREEDY, "-o", self.path("out.txt"))
        self.check(waiting.wait(20), 1)
        self.ended(running)

    def test_what_another_run_is_writing_is_not_replaced(self):
        running = self.begun("-o", self.path("out.txt"))
        self.fails(
            *GREEDY,
            "-o",
            self.path("out.txt.partial"),
            input="It was really cheap.\n",
            names=["out.txt.partial", "another run"],
        )
        self.ended(running)
        self.assertEqual(os.listdir(self.folder), ["out.txt"])

    def test_one_after_another_is_fine(self):
        for line, text in (("Yes.", self.yes), ("It was really cheap.", self.cheap)):
            self.ok(*GREEDY, "-o", self.path("out.txt"), input=line + "\n")
            self.assertEqual(read(self.path("out.txt")), text + "\n")

    def test_what_a_killed_run_left_does_not_hinder(self):
        running = self.begun("-o", self.path("out.txt"))
        running.process.send_signal(signal.SIGKILL)
        running.wait(20)
        self.assertTrue(os.path.exists(self.path("out.txt.partial")))
        self.ok(*GREEDY, "-o", self.path("out.txt"), input="It was really cheap.\n")
        self.assertEqual(
            (read(self.path("out.txt")), os.listdir(self.folder)), (self.cheap + "\n", ["out.txt"])
        )

    def test_many_at_once_leave_one_whole_output(self):
        lines = self.path("lines.txt", "Yes.\nIt was really cheap.\n")
        many = [self.start(*GREEDY, "-i", lines, "-o", self.path("out.txt")) for _ in range(6)]
        results = [running.wait(60) for running in many]
        self.assertTrue(
            all(result.code == 0 or "another run" in result.errors for result in results),
            "\n".join(result.story() for result in results),
        )
        self.assertIn(0, [result.code for result in results])
        self.assertEqual(
            (read(self.path("out.txt")), sorted(os.listdir(self.folder))),
            ("%s\n%s\n" % (self.yes, self.cheap), ["lines.txt", "out.txt"]),
        )

    def test_an_output_whose_unfinished_file_was_replaced_is_not_given_its_name(self):
        running = self.begun("-o", self.path("out.txt"))
        os.unlink(self.path("out.txt.partial"))
        self.path("out.txt.partial", "of another run\n")
        running.close()
        result = running.wait(20)
        self.check(result, 1)
        self.says(result, "out.txt.partial")
        self.assertFalse(os.path.exists(self.path("out.txt")))

    def test_an_output_whose_unfinished_file_was_cut_is_not_given_its_name(self):
        for more in (b"", b"It was really cheap.\n"):
            with self.subTest(more):
                running = self.begun("-o", self.path("out.txt"))
                with open(self.path("out.txt.partial"), "r+b") as file:
                    file.truncate(1)
                if more:
                    running.send(more)
                running.close()
                result = running.wait(20)
                self.check(result, 1)
                self.says(result, "out.txt.partial")
                self.says(result, "has 1 bytes")
                self.assertFalse(os.path.exists(self.path("out.txt")))

    def test_where_files_cannot_be_locked_each_run_has_a_name_of_its_own(self):
        no_locks = {"env": {**os.environ, "XLATE_TEST_NO_LOCKS": "1"}}
        stale = self.path("out.txt.partial", "of an earlier run\n")
        running = self.begun("-o", self.path("out.txt"), **no_locks)
        self.ok(*GREEDY, "-o", self.path("out.txt"), input="It was really cheap.\n", **no_locks)
        self.assertEqual(read(self.path("out.txt")), self.cheap + "\n")
        self.ended(running)
        self.assertEqual(
            (read(self.path("out.txt")), read(stale)), (self.yes + "\n", "of an earlier run\n")
        )
        self.assertEqual(sorted(os.listdir(self.folder)), ["out.txt", "out.txt.partial"])

    def test_a_run_that_fails_before_it_writes_leaves_nothing(self):
        broken = self.path("broken.bin", "XLATEMDL")
        before = os.listdir(self.folder)
        for options, model in (
            (["--input-format", "ids"], broken),
            (["--max-length", "1" * 9, "--n-best", "9"], program.SHARED),
            (["--target-lang", "de"], program.SHARED),
            (["-i", self.path("none.txt")], program.SHARED),
            (["--long-lines", "error", "--max-source-length", "1"], program.SHARED),
        ):
            for name in ("out.txt", "out.gz"):
                path = self.path(name)
                result = xlate("-q", *options, "-o", path, input="Yes.\n", model=model)
                self.assertIn(result.code, (1, 2), result.story())
                self.assertEqual(os.listdir(self.folder), before, result.story())
        old = self.path("old.txt", "old\n")
        self.usage_error("--target-lang", "de", "-o", old, names="--target-lang")
        self.assertEqual((read(old), os.path.exists(old + ".partial")), ("old\n", False))

    def test_messages_name_the_output_as_it_was_given(self):
        missing = self.path(os.path.join("none", "out.txt"))
        result = self.fails("-o", missing, input="Yes.\n", names=missing + ": cannot be written")
        self.assertNotIn(".partial", result.errors)

    def test_an_unfinished_output_that_is_no_file_is_refused(self):
        os.mkfifo(self.path("out.txt.partial"))
        self.fails(*GREEDY, "-o", self.path("out.txt"), input="Yes.\n", names="out.txt.partial")
        os.unlink(self.path("out.txt.partial"))
        other = self.path("other.txt", "precious\n")
        os.symlink(other, self.path("out.txt.partial"))
        self.fails(*GREEDY, "-o", self.path("out.txt"), input="Yes.\n", names="out.txt.partial")
        self.assertEqual(read(other), "precious\n")


class Access(Output):
    def test_the_mode_of_the_replaced_file_is_kept(self):
        for mode in (0o600, 0o640, 0o664, 0o644, 0o666):
            with self.subTest(oct(mode)):
                path = self.path("out.txt", "old\n")
                os.chmod(path, mode)
                self.ok(*GREEDY, "-o", path, input="Yes.\n")
                self.assertEqual((oct(mode_of(path)), read(path)), (oct(mode), self.yes + "\n"))

    def test_a_new_file_has_the_mode_that_the_umask_leaves(self):
        for mask in (0o022, 0o077, 0o002):
            with self.subTest(oct(mask)):
                path = self.path("out-%o.txt" % mask)
                self.path("out-%o.txt.partial" % mask, "of an earlier run, that had another mode\n")
                self.ok(*GREEDY, "-o", path, input="Yes.\n", preexec_fn=lambda: os.umask(mask))
                self.assertEqual(oct(mode_of(path)), oct(0o666 & ~mask))

    def test_the_mode_is_kept_through_a_link_and_packed(self):
        for name in ("target.txt", "target.gz"):
            with self.subTest(name):
                target = self.path(name, "old\n")
                os.chmod(target, 0o600)
                link = self.path("link" + name[6:])
                os.symlink(target, link)
                self.ok(*GREEDY, "-o", link, input="Yes.\n")
                self.assertEqual(oct(mode_of(target)), oct(0o600))

    def test_what_is_unfinished_is_as_secret_as_what_it_becomes(self):
        path = self.path("out.txt", "old\n")
        os.chmod(path, 0o600)
        partial = self.path("out.txt.partial", "of an earlier run, open to all\n")
        os.chmod(partial, 0o666)
        with open(partial, "rb") as opened_before:
            running = self.begun("-o", path)
            self.assertEqual(oct(mode_of(partial)), oct(0o600))
            self.assertEqual(opened_before.read(), b"of an earlier run, open to all\n")
            self.ended(running)
        self.assertEqual(oct(mode_of(path)), oct(0o600))

    def test_owner_and_group_are_kept_where_the_system_lets(self):
        if os.geteuid() != 0:
            self.skipTest("only root may give files away")
        path = self.path("out.txt", "old\n")
        os.chown(path, 12345, 23456)
        os.chmod(path, 0o640)
        self.ok(*GREEDY, "-o", path, input="Yes.\n")
        status = os.stat(path)
        self.assertEqual(
            (status.st_uid, status.st_gid, oct(mode_of(path))), (12345, 23456, oct(0o640))
        )

    def test_where_the_group_cannot_be_kept_the_new_one_may_do_no_more_than_anybody(self):
        if os.geteuid() != 0:
            self.skipTest("only root may become somebody else")
        os.chmod(self.folder, 0o777)
        path = self.path("out.txt", "old\n")
        os.chown(path, 12345, 23456)
        os.chmod(path, 0o664)

        def somebody():
            os.setgroups([])
            os.setgid(34567)
            os.setuid(12345)

        self.ok(*GREEDY, "-o", path, input="Yes.\n", preexec_fn=somebody)
        status = os.stat(path)
        self.assertEqual(
            (status.st_uid, status.st_gid, oct(mode_of(path))), (12345, 34567, oct(0o644))
        )

    def test_access_lists_are_kept(self):
        # This is version 2, with tag, permissions and id for each entry: the owner may read and
        # write, a user may read, the group has nothing, the mask allows reading, and others have
        # nothing.
        rights = struct.pack("<I", 2) + b"".join(
            struct.pack("<HHI", *entry)
            for entry in (
                (1, 6, 2**32 - 1),
                (2, 4, 12345),
                (4, 0, 2**32 - 1),
                (16, 4, 2**32 - 1),
                (32, 0, 2**32 - 1),
            )
        )
        path = self.path("out.txt", "old\n")
        try:
            os.setxattr(path, "system.posix_acl_access", rights)
        except OSError as error:
            self.assertIn(error.errno, (errno.EOPNOTSUPP, errno.ENOSYS))
            self.skipTest("this file system has no access lists")
        self.ok(*GREEDY, "-o", path, input="Yes.\n")
        self.assertEqual(os.getxattr(path, "system.posix_acl_access"), rights)


if __name__ == "__main__":
    program.main()
