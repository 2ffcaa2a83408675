"""Tests the limits that a shell, a grid engine or a container sets on memory, threads, file sizes
and time. A run works within them, or says in one line what it lacks."""

import os
import resource
import signal
import unittest

import program
from model_bytes import ModelFile
from program import GREEDY, Case, best, source_lines, xlate

IDS = GREEDY + ["--output-format", "ids", "--max-length", "60", "--max-length-factor", "50"]
BLOCK = "".join(line + "\n" for line in source_lines()[:40]).encode("utf-8")
setUpModule = program.require


def limit(*limits):
    """Returns a function for preexec_fn that sets each limit, soft and hard, given as (which,
    value)."""

    def set_them():
        for which, value in limits:
            resource.setrlimit(which, (value, value))

    return set_them


@unittest.skipIf(program.is_sanitized(), "the sanitizers need address space")
class Memory(Case):
    def outcome(self, which, kilobytes, threads):
        """Checks that a run either succeeds or reports its failure in one line. Returns its exit
        code."""
        result = xlate(
            "-q",
            *IDS,
            "--threads",
            threads,
            input=BLOCK,
            timeout=30,
            device="cpu",
            preexec_fn=limit((which, kilobytes * 1024)),
        )
        if result.code == 0:
            self.same(best("shared", "greedy")[:40], result.lines, result, allowed=1)
        else:
            self.check(result, 1)
            self.assertEqual(len(result.error_lines), 1, result.story())
            self.says(result, "ulimit", "%d kB" % kilobytes)
            # Machine code for products is made when they are first needed, after lines may have
            # been written.
            written = result.lines
            self.same(best("shared", "greedy")[: len(written)], written, result, allowed=1)
        return result.code

    def test_a_limit_on_address_space_is_kept_or_told_at_any_size(self):
        for threads in (1, 2, 8):
            codes = set()
            for kilobytes in [*range(100000, 700001, 50000), 2000000]:
                with self.subTest((threads, kilobytes)):
                    codes.add(self.outcome(resource.RLIMIT_AS, kilobytes, threads))
            self.assertEqual(codes, {0, 1}, "%d threads" % threads)

    def test_batches_are_halved_until_they_fit(self):
        """The budget is far too large for most of these limits. Where oneDNN lacks memory for a
        product that is first needed in the middle of a run, sentences begin again."""
        pairs = "".join("%s\t%s\n" % (line, line) for line in source_lines()[:40])
        report = self.path("report.json")
        for options, text in ((IDS, BLOCK), (["--score-pairs"], pairs)):
            wanted, halved, begun_again, enough, too_little = None, set(), 0, [], []
            for kilobytes in (4000000, *range(400000, 100000, -5000)):
                result = xlate(
                    *("-q", *options, "--threads", 2, "--batch-tokens", 400000, "--report", report),
                    input=text,
                    device="cpu",
                    preexec_fn=limit((resource.RLIMIT_AS, kilobytes * 1024)),
                )
                retries = self.load_report(report, result)["retries"]
                if result.code:
                    self.check(result, 1)
                    self.assertEqual(len(result.error_lines), 1, result.story())
                    self.says(result, "ulimit -v: %d kB" % kilobytes)
                    too_little.append(kilobytes)
                    continue
                wanted = wanted or result.out
                self.assertEqual(result.out, wanted, result.story())
                halved.add(retries["halved_budgets"])
                begun_again += retries["memory"]
                enough.append(kilobytes)
            # Where a limit is enough, a larger one is enough, but for the chance of addresses.
            self.assertLess(max(too_little), min(enough) + 20000, options)
            self.assertIn(0, halved)
            self.assertGreater(max(halved), 1, options)
            self.assertGreater(begun_again, 0, options)

    def test_parts_that_have_no_room_begin_again(self):
        """Four threads compute parts of a batch, for each of which they need memory."""
        report, wanted, begun_again, codes = self.path("report.json"), None, 0, set()
        for kilobytes in (4000000, *range(300000, 180000, -5000)):
            result = xlate(
                *("-q", "-b", 4, "--max-length", 12, "--no-repeat-ngram", 3, "--threads", 4),
                *("--report", report),
                input=program.text(source_lines()),
                device="cpu",
                preexec_fn=limit((resource.RLIMIT_AS, kilobytes * 1024)),
            )
            codes.add(result.code)
            if result.code:
                self.check(result, 1)
                self.assertEqual(len(result.error_lines), 1, result.story())
                continue
            wanted = wanted or result.out
            self.assertEqual(result.out, wanted, result.story())
            described = self.load_report(report, result)
            if "in parts" in described["paths"]["step"]:
                begun_again += described["retries"]["memory"]
        self.assertEqual(codes, {0, 1})
        self.assertGreater(begun_again, 0)

    def test_sources_of_a_model_that_have_no_room_are_its_own(self):
        model = ModelFile(program.SHARED)
        model.header["generation"]["max_source_length"] = 1 << 24
        path = self.path("long.bin", model.bytes())
        pair = "Yes.\tYes.\n"
        for options, given, source in (
            ([], [], "16777216 (that of the model)"),
            ([], ["--max-source-length", 16000000], "16000000,"),
            (["--score-pairs"], [], "16777216 (that of the model)"),
        ):
            self.fails(
                *(*options, *given),
                model=path,
                input=pair if options else "Yes.\n",
                device="cpu",
                preexec_fn=limit((resource.RLIMIT_AS, 2000000 * 1024)),
                names=["no room for", "--max-source-length " + source, "ulimit -v: 2000000 kB"],
            )

    def test_a_limit_on_data_is_kept_or_told(self):
        codes = set()
        for kilobytes in (30000, 50000, 70000, 100000, 250000, 1000000):
            with self.subTest(kilobytes):
                codes.add(self.outcome(resource.RLIMIT_DATA, kilobytes, 2))
        self.assertEqual(codes, {0, 1})

    def test_too_little_for_the_products_is_told(self):
        """oneDNN makes machine code while the program runs, for which there must be room."""
        told = set()
        for kilobytes in range(110000, 170000, 2000):
            result = program.xlate(
                *IDS,
                *("--threads", "1"),
                input=BLOCK,
                device="cpu",
                preexec_fn=limit((resource.RLIMIT_AS, kilobytes * 1024)),
            )
            self.assertIn(result.code, (0, 1), (kilobytes, result.story()))
            if result.code == 1:
                self.assertEqual(len(result.error_lines), 1, result.story())
                self.says(result, "ulimit -v: %d kB" % kilobytes)
                told.add("oneDNN" in result.errors)
        self.assertIn(True, told)

    def test_a_thread_that_is_not_to_be_had_is_named(self):
        # The stack of a thread is larger than the address space that is allowed.
        limits = limit(
            (resource.RLIMIT_STACK, 2000000 * 1024), (resource.RLIMIT_AS, 1000000 * 1024)
        )
        self.fails(
            *IDS,
            "--threads",
            "1",
            input=BLOCK,
            device="cpu",
            preexec_fn=limits,
            names=[
                "thread for writing the output",
                "unavailable",
                "ulimit -v: 1000000 kB",
                "fewer --threads",
            ],
        )
        self.fails(
            *IDS,
            "--threads",
            "3",
            input=BLOCK,
            device="cpu",
            preexec_fn=limits,
            names=["--threads 3: the system gave 1", "ulimit -v: 1000000 kB"],
        )


class FileSize(Case):
    """SIGXFSZ would kill the run without a message. It is meant for programs that do not check
    their writes."""

    LIMIT = 8192
    LIMITED = {"preexec_fn": limit((resource.RLIMIT_FSIZE, LIMIT))}

    def is_told(self, result, name):
        self.check(result, 1)
        self.says(result, name, "file too large", "ulimit -f: %d bytes" % self.LIMIT)
        self.assertEqual(len(result.error_lines), 1, result.story())
        report = self.load_report(self.path("report.json"), result)
        self.assertEqual(report["status"], "error")
        self.assertIn("ulimit -f", report["error"])

    def test_an_output_above_it_is_told_and_reported(self):
        for name in ("out.txt", "out.gz"):
            with self.subTest(name):
                lines = "".join(
                    "%x %s\n" % (i * 2654435761, line)
                    for i in range(60)
                    for line in source_lines()[:30]
                )
                result = xlate(
                    "-q",
                    *IDS,
                    "--scores",
                    "-o",
                    self.path(name),
                    "--report",
                    self.path("report.json"),
                    input=lines,
                    **self.LIMITED,
                )
                self.is_told(result, name)
                self.assertFalse(os.path.exists(self.path(name)))

    def test_stdout_in_a_file_above_it_is_told_and_reported(self):
        with open(self.path("stdout.txt"), "wb") as out:
            result = xlate(
                "-q",
                *IDS,
                "--report",
                self.path("report.json"),
                input=BLOCK * 20,
                stdout=out,
                **self.LIMITED,
            )
        self.is_told(result, "stdout")
        self.assertEqual(os.path.getsize(self.path("stdout.txt")), self.LIMIT)

    def test_a_report_above_it_is_told(self):
        result = xlate(
            "-q",
            *IDS,
            "-o",
            self.path("out.txt"),
            "--report",
            self.path("report.json"),
            input="Yes.\n",
            preexec_fn=limit((resource.RLIMIT_FSIZE, 1000)),
        )
        self.check(result, 1)
        self.says(result, "report.json", "ulimit -f: 1000 bytes")
        self.assertTrue(os.path.exists(self.path("out.txt")))

    def test_help_above_it_is_told(self):
        with open(self.path("help.txt"), "wb") as out:
            result = xlate(
                "--help",
                model=None,
                device=None,
                stdout=out,
                preexec_fn=limit((resource.RLIMIT_FSIZE, 100)),
            )
        self.check(result, 1)
        self.says(result, "stdout", "ulimit -f: 100 bytes")


class Time(Case):
    def test_a_run_that_has_used_up_its_time_ends_as_one_that_is_interrupted(self):
        wanted = self.ok(
            *GREEDY, "--max-length", "10", "--output-format", "ids", input=BLOCK, lines=40
        ).lines
        # The first pair is what ulimit -S -t sets. The second is what ulimit -t sets, which sets
        # both limits.
        for soft, hard in ((1, 60), (2, 2)):
            with self.subTest((soft, hard)):
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
                    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (soft, hard)),
                )
                running.pump(BLOCK)
                result = running.wait(60)
                self.check(result, 128 + signal.SIGXCPU)
                self.says(result, "ulimit -t")
                self.same(
                    [wanted[i % 40] for i in range(len(result.lines))],
                    result.lines,
                    result,
                    allowed=len(result.lines) // 200,
                )
                report = self.load_report(self.path("report.json"), result)
                self.assertEqual(
                    (report["status"], report["lines"]["out"]), ("interrupted", len(result.lines))
                )
                self.assertGreater(len(result.lines), 0)

    def test_one_that_is_ignored_stays_so(self):
        def ignore():
            signal.signal(signal.SIGXCPU, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_CPU, (0, 60))

        self.ok(*IDS, input="Yes.\n" * 2000, lines=2000, preexec_fn=ignore)


class Quota(Case):
    """A folder that stands for / says how much a container may use."""

    def system(self, **files):
        root = self.path("system")
        for name, text in {
            "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n",
            "proc/self/cgroup": "0::/job/task\n",
            **files,
        }.items():
            os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
            with open(os.path.join(root, name), "w") as file:
                file.write(text)
        return {"env": {**os.environ, "XLATE_TEST_SYSTEM_ROOT": root}}

    def test_it_bounds_the_threads_that_are_not_asked_for(self):
        if len(os.sched_getaffinity(0)) < 2:
            self.skipTest("one processor")
        one = self.system(
            **{
                "sys/fs/cgroup/job/cpu.max": "80000 100000\n",
                "sys/fs/cgroup/job/task/cpu.max": "max 100000\n",
            }
        )
        _, report = self.report(*GREEDY, input="Yes.\n", device="cpu", **one)
        self.assertEqual((report["device"]["threads"], report["options"]["threads"]), (1, 1))
        self.assertIn(
            "quota: 1]",
            " ".join(xlate("--help", model=None, device=None, **one).out.decode().split()),
        )
        _, report = self.report(*GREEDY, "--threads", "2", input="Yes.\n", device="cpu", **one)
        self.assertEqual(report["device"]["threads"], 2)

    def test_a_limit_on_memory_bounds_the_caches(self):
        lines = source_lines()
        plain, wide = self.report(*GREEDY, input=program.text(lines), device="cpu")
        small = self.system(**{"sys/fs/cgroup/job/memory.max": "%d\n" % (64 << 20)})
        result, report = self.report(*GREEDY, input=program.text(lines), device="cpu", **small)
        self.assertEqual(result.lines, plain.lines)
        self.assertLess(report["options"]["batch_tokens"], wide["options"]["batch_tokens"])

    def test_a_quota_above_the_processors_changes_nothing(self):
        many = self.system(**{"sys/fs/cgroup/cpu.max": "100000000 100000\n"})
        _, report = self.report(*GREEDY, input="Yes.\n", device="cpu", **many)
        self.assertEqual(report["device"]["threads"], len(os.sched_getaffinity(0)))


if __name__ == "__main__":
    program.main()
