"""Tests inputs and outputs as files, pipes and descriptors, compressed or not: what is read, where
it goes, and what is refused."""

import fcntl
import gzip
import os
import resource
import shlex
import threading
import time

import program
from program import GREEDY, SHARED, Case, command, xlate

setUpModule = program.require


class Files(Case):
    def setUp(self):
        super().setUp()
        self.yes, self.cheap = self.ok(*GREEDY, input="Yes.\nIt was really cheap.\n", lines=2).lines

    def test_several_inputs_are_read_one_after_another(self):
        a, b, c = (
            self.path("a", "Yes.\n"),
            self.path("b", "It was really cheap.\nYes.\n"),
            self.path("c", ""),
        )
        self.same(
            [self.yes, self.cheap, self.yes, self.yes], self.ok(*GREEDY, "-i", a, b, c, a).lines
        )
        self.same([self.cheap, self.yes, self.yes], self.ok(*GREEDY, "--input", b, a).lines)

    def test_a_dash_among_the_inputs_is_stdin(self):
        a, b = self.path("a", "Yes.\n"), self.path("b", "It was really cheap.\n")
        self.same(
            [self.yes, self.yes, self.yes, self.cheap],
            self.ok(*GREEDY, "-i", a, "-", b, input="Yes.\nYes.\n").lines,
        )
        self.same([self.cheap], self.ok(*GREEDY, "-i", "-", input="It was really cheap.\n").lines)

    def test_a_file_without_final_newline_does_not_run_into_the_next(self):
        a, b, c = (
            self.path("a", "Yes."),
            self.path("b", "It was really cheap."),
            self.path("c.gz", "Yes."),
        )
        self.same(
            [self.yes, self.cheap, self.yes, self.yes], self.ok(*GREEDY, "-i", a, b, c, a).lines
        )

    def test_without_inputs_named_stdin_is_read_and_with_them_it_is_not(self):
        self.same(
            [self.yes],
            self.ok(*GREEDY, "-i", self.path("a", "Yes.\n"), input="It was really cheap.\n").lines,
        )

    def test_a_missing_input_fails_naming_it(self):
        for names in (["missing.txt"], ["there.txt", "missing.txt"], ["missing.txt.gz"]):
            with self.subTest(names):
                self.path("there.txt", "Yes.\n")
                self.fails(*GREEDY, "-i", *[self.path(name) for name in names], names="missing.txt")

    def test_a_folder_as_input_fails_naming_it(self):
        self.fails(*GREEDY, "-i", self.folder, names=self.folder)

    def test_an_input_that_may_not_be_read_fails_naming_it(self):
        if os.geteuid() == 0:
            self.skipTest("root may read everything")
        path = self.path("locked.txt", "Yes.\n")
        os.chmod(path, 0)
        self.fails(*GREEDY, "-i", path, names="locked.txt")

    def test_a_named_pipe_is_an_input(self):
        path = self.path("fifo")
        os.mkfifo(path)
        running = self.start(*GREEDY, "-i", path)
        writer = []

        # Without a reader, opening would block for ever.
        def opened():
            try:
                writer.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                return False
            return True

        self.assertTrue(
            running.until(opened), "the pipe was not opened\n" + running.result(0).story()
        )
        os.write(writer[0], b"Yes.\nIt was really cheap.\n")
        os.close(writer[0])
        result = running.wait(30)
        self.check(result, 0)
        self.same([self.yes, self.cheap], result.lines, result)

    def test_named_pipes_may_be_written_one_after_another(self):
        for name in ("first", "second"):
            os.mkfifo(self.path(name))
        running = self.start(*GREEDY, "-i", self.path("first"), self.path("second"))

        def write():
            for name, text in (("first", b"Yes.\n"), ("second", b"It was really cheap.\n")):
                with open(self.path(name), "wb") as pipe:
                    pipe.write(text)

        threading.Thread(target=write, daemon=True).start()
        result = running.wait(30)
        self.check(result, 0)
        self.same([self.yes, self.cheap], result.lines, result)

    def test_a_named_pipe_is_no_model(self):
        os.mkfifo(self.path("model.bin"))
        self.fails(*GREEDY, model=self.path("model.bin"), names="not a regular file")

    def test_output_goes_to_the_file_and_not_to_stdout(self):
        path = self.path("out.txt", "something old\n")
        result = self.ok(*GREEDY, "-o", path, input="Yes.\nIt was really cheap.\n")
        self.assertEqual(result.out, b"")
        with open(path, encoding="utf-8") as file:
            self.assertEqual(file.read(), "%s\n%s\n" % (self.yes, self.cheap))
        self.assertEqual(sorted(os.listdir(self.folder)), ["out.txt"])

    def test_output_is_gzipped_by_extension(self):
        path = self.path("out.gz")
        self.ok(*GREEDY, "-o", path, input="Yes.\nIt was really cheap.")
        with gzip.open(path, "rb") as file:
            self.assertEqual(file.read().decode(), "%s\n%s\n" % (self.yes, self.cheap))
        self.assertEqual(os.listdir(self.folder), ["out.gz"])

    def test_an_empty_input_gives_an_empty_output_file(self):
        self.ok(*GREEDY, "-o", self.path("out.txt"))
        self.assertEqual(os.path.getsize(self.path("out.txt")), 0)
        self.ok(*GREEDY, "-o", self.path("out.gz"))
        with gzip.open(self.path("out.gz"), "rb") as file:
            self.assertEqual(file.read(), b"")

    def test_names_with_spaces_and_other_scripts(self):
        source, target = self.path("ein gabe 雪.txt", "Yes.\n"), self.path("aus gabe é.txt")
        self.ok(*GREEDY, "-i", source, "-o", target)
        with open(target, encoding="utf-8") as file:
            self.assertEqual(file.read(), self.yes + "\n")

    def test_a_dash_as_output_is_stdout(self):
        result = self.ok(*GREEDY, "-o", "-", input="Yes.\n", cwd=self.folder)
        self.same([self.yes], result.lines, result)
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_link_as_output_stays_a_link(self):
        target = self.path("target.txt", "old\n")
        os.symlink(target, self.path("link.txt"))
        self.ok(*GREEDY, "-o", self.path("link.txt"), input="Yes.\n")
        self.assertTrue(os.path.islink(self.path("link.txt")))
        with open(target) as file:
            self.assertEqual(file.read(), self.yes + "\n")
        self.assertEqual(sorted(os.listdir(self.folder)), ["link.txt", "target.txt"])

    def test_a_link_to_nothing_as_output_gets_its_target(self):
        os.symlink(self.path("target.txt"), self.path("link.txt"))
        self.ok(*GREEDY, "-o", self.path("link.txt"), input="Yes.\n")
        with open(self.path("target.txt")) as file:
            self.assertEqual(file.read(), self.yes + "\n")

    def test_a_link_in_the_place_of_the_partial_file_is_refused(self):
        target, out = self.path("target.txt", "old\n"), self.path("out.txt")
        os.symlink(target, out + ".partial")
        self.fails(*GREEDY, "-o", out, input="Yes.\n", names=["out.txt.partial", "symbolic link"])
        with open(target) as file:
            self.assertEqual(file.read(), "old\n")
        self.assertFalse(os.path.exists(out))

    def test_a_link_to_stdout_as_output(self):
        # /dev/stdout is such a link.
        link = self.path("stdout")
        os.symlink("/proc/self/fd/1", link)
        result = self.ok(*GREEDY, "-o", link, input="Yes.\n")
        self.same([self.yes], result.lines, result)
        with open(self.path("out.txt"), "wb") as out:
            self.ok(*GREEDY, "-o", link, input="Yes.\n", stdout=out)
        with open(self.path("out.txt")) as file:
            self.assertEqual(file.read(), self.yes + "\n")
        self.assertTrue(os.path.islink(link))

    def test_what_is_in_the_file_behind_a_descriptor_stays(self):
        # The shell does this for (echo head; xlate -o /dev/stdout; echo tail) > file, and for >>.
        for flags in (os.O_TRUNC, os.O_APPEND):
            for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
                with self.subTest(flags=flags, name=name):
                    path = self.path("all.txt", "")
                    file = os.open(path, os.O_WRONLY | os.O_CREAT | flags)
                    os.write(file, b"head\n")
                    self.ok(*GREEDY, "-o", name, input="Yes.\n", stdout=file)
                    os.write(file, b"tail\n")
                    os.close(file)
                    with open(path) as written:
                        self.assertEqual(written.read(), "head\n" + self.yes + "\ntail\n")
        self.assertEqual(os.listdir(self.folder), ["all.txt"])

    def test_another_descriptor_as_output(self):
        path = self.path("all.txt", "")
        file = os.open(path, os.O_WRONLY)
        os.write(file, b"head\n")
        name = "/dev/fd/%d" % file
        self.ok(*GREEDY, "-o", name, input="Yes.\n", pass_fds=[file], lines=0)
        os.close(file)
        with open(path) as written:
            self.assertEqual(written.read(), "head\n" + self.yes + "\n")

    def test_more_inputs_than_a_program_may_open_unasked(self):
        paths = [self.path("in-%d" % i, "Yes.\n") for i in range(200)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        result = self.ok(
            *GREEDY,
            "-i",
            *paths,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard)),
            lines=200,
        )
        self.same([self.yes] * 200, result.lines, result)

    def test_stdin_named_twice_is_read_once(self):
        self.same([self.yes], self.ok(*GREEDY, "-i", "-", "-", input="Yes.\n").lines)

    def test_too_few_open_files_leave_no_empty_output(self):
        failed = 0
        for limit in range(4, 16):
            result = xlate(
                *("-q", *GREEDY, "-o", self.path("out.txt")),
                input="Yes.\n",
                preexec_fn=lambda limit=limit: resource.setrlimit(
                    resource.RLIMIT_NOFILE, (limit, limit)
                ),
            )
            if not result.code:
                os.remove(self.path("out.txt"))
            else:
                failed += 1
                self.check(result, 1)
                self.assertEqual(len(result.errors.splitlines()), 1, result.story())
                self.assertEqual(os.listdir(self.folder), [], result.story())
        self.assertGreater(failed, 3)


class Clashes(Case):
    """A run that would overwrite one of its own files is refused before it touches anything."""

    def untouched(self, path, *options, names, **more):
        with open(path, "rb") as file:
            before = file.read()
        self.usage_error(*GREEDY, *options, names=names, **more)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), before)

    def test_a_report_over_the_output(self):
        self.usage_error(
            "-o",
            self.path("same.txt"),
            "--report",
            self.path("same.txt"),
            names=["--report", "same.txt"],
        )
        self.usage_error(
            "-o",
            "same.txt",
            "--report",
            self.path("same.txt"),
            names=["--report", "same.txt"],
            cwd=self.folder,
        )
        self.usage_error(
            "-o",
            self.path("same.txt"),
            "--report",
            self.path("same.txt.partial"),
            names=["--report", "same.txt.partial"],
        )
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_report_over_an_input_or_the_model(self):
        lines, model = self.path("lines.txt", "Yes.\n"), self.path("model.bin")
        os.symlink(SHARED, model)
        self.untouched(lines, "-i", lines, "--report", lines, names=["--report", "lines.txt"])
        os.symlink(lines, self.path("link"))
        self.untouched(
            lines, "-i", lines, "--report", self.path("link"), names=["--report", "link"]
        )
        with open(lines, "rb") as stdin:
            self.untouched(lines, "--report", lines, names=["--report", "stdin"], input=stdin)
        self.untouched(SHARED, "--report", model, names=["--report", "model"])
        self.untouched(SHARED, "-o", model, names=["--output", "model"])

    def test_an_output_over_the_file_of_an_option(self):
        prefixes, template = self.path("prefixes.txt", "a\n"), self.path("t.txt", "a {line}\n")
        for file, option in ((prefixes, "--target-prefix"), (template, "--template-file")):
            with self.subTest(option):
                name = os.path.basename(file)
                self.untouched(file, option, file, "--report", file, names=["--report", name])
                os.rename(file, file + ".partial")
                self.untouched(
                    file + ".partial",
                    *(option, file + ".partial", "-o", file),
                    names=["--output", name + ".partial"],
                )

    def test_the_unfinished_output_over_an_input(self):
        # It might be left from an earlier run.
        for ending in (".partial", ".partial.journal", ".partial.journal.new"):
            with self.subTest(ending):
                partial = self.path("out.txt" + ending, "Yes.\n")
                output = self.path("out.txt")
                self.untouched(
                    partial,
                    *("-i", partial, "-o", output),
                    names=["--output", "out.txt" + ending],
                )
                os.remove(partial)
                self.usage_error(
                    *("-o", output, "--report", partial), names=["--report", "out.txt" + ending]
                )

    def test_stdout_into_an_input_would_never_end(self):
        lines = self.path("lines.txt", "Yes.\n")
        with open(lines, "ab") as out:
            self.untouched(lines, "-i", lines, names="stdout", stdout=out)

    def test_an_output_may_be_an_input(self):
        lines = self.path("lines.txt", "Yes.\nYes.\n")
        self.ok(*GREEDY, "-i", lines, "-o", lines)
        with open(lines) as file:
            self.assertEqual(len(set(file.read().split("\n")[:-1])), 1)

    def test_what_is_no_file_may_serve_for_several(self):
        self.ok(*GREEDY, "-i", "/dev/null", "-o", "/dev/null", "--report", "/dev/null")


class Descriptors(Case):
    def shell(self, redirect, *options, input=b"Yes.\n"):
        return xlate(
            arguments=[
                "bash",
                "-c",
                "exec %s %s"
                % (" ".join(map(shlex.quote, command(["-q", *GREEDY, *options]))), redirect),
            ],
            input=input,
            timeout=20,
        )

    def test_a_closed_standard_stream_is_not_taken_for_another_file(self):
        path = self.path("lines.txt", "Yes.\n")
        for redirect, options, names in (
            ("<&-", (), "stdin"),
            (">&-", (), "stdout"),
            ("<&- >&-", (), "std"),
            ("<&- >&- 2>&-", (), ""),
            ("<&-", ("-i", path, "-"), "stdin"),
        ):
            with self.subTest(redirect=redirect, options=options):
                result = self.shell(redirect, *options)
                self.check(result, 1)
                self.assertIn(names, result.errors)

    def test_a_closed_stream_that_is_not_used_does_not_matter(self):
        path = self.path("lines.txt", "Yes.\n")
        self.check(self.shell("<&- >&- 2>&-", "-i", path, "-o", self.path("out.txt")), 0)
        with open(self.path("out.txt")) as file:
            self.assertEqual(file.read().count("\n"), 1)

    def test_a_pipe_that_does_not_block_is_waited_for(self):
        read, write = os.pipe()
        fcntl.fcntl(write, fcntl.F_SETFL, os.O_NONBLOCK)
        running = self.start(
            *GREEDY, "--max-length", "4", "--output-format", "ids", "--scores", stdout=write
        )
        os.close(write)
        running.send(b"Yes.\n" * 6000)
        running.close()
        # By now the pipe is full.
        time.sleep(1)
        data = b""
        while True:
            part = os.read(read, 1 << 16)
            if not part:
                break
            data += part
        os.close(read)
        self.check(running.wait(20), 0)
        self.assertEqual(data.count(b"\n"), 6000)

    def test_an_input_pipe_that_does_not_block_is_waited_for(self):
        read, write = os.pipe()
        fcntl.fcntl(read, fcntl.F_SETFL, os.O_NONBLOCK)
        running = self.start(*GREEDY, stdin=read)
        time.sleep(0.3)
        os.write(write, b"Yes.\n")
        time.sleep(0.3)
        os.write(write, b"Yes.")
        os.close(write)
        os.close(read)
        result = running.wait(20)
        self.check(result, 0)
        self.assertEqual(len(result.lines), 2)

    def test_a_folder_as_stdin_is_named(self):
        result = self.shell("<" + shlex.quote(self.folder))
        self.check(result, 1)
        self.says(result, "stdin", "folder")

    def test_help_and_version_onto_a_full_disk_are_an_error(self):
        for option in ("--help", "--version"):
            with self.subTest(option), open("/dev/full", "wb") as full:
                result = xlate(option, model=None, device=None, stdout=full)
                self.check(result, 1)
                self.says(result, "stdout")


if __name__ == "__main__":
    program.main()
