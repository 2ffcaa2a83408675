#!/usr/bin/env python3
"""Runs the acceptance of a GPU in one command: operations against double-precision loops, goldens,
byte-for-byte invariance, sanitizers, a fault in the middle of a run, memory over a long run. It
prints a line for each check with its figure, and writes all of them as JSON.

  scripts/test --gpu [--binaries DIR] [--only REGEX] [--json FILE]

Without --binaries everything is built first. DIR has what was built elsewhere: xlate and
xlate_tests (or bin/ with them), shared.bin and separate.bin (or test_models/), and lib/ with the
libraries that these need. Missing models are converted here, with numpy. Reference data come from
XLATE_REFERENCE_DIR (default ../shared). Checks that need it are left out where it is missing.
XLATE_ENDE_BASE names the converted ende-base, if there is one.
"""

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

TESTS = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(TESTS)
PRECISIONS = ("fp32", "fp16", "bf16")
# compute-sanitizer makes every launch slow, so it runs a few small cases of every operation and a
# few sentences.
SANITIZED = (
    "Backend*.*/cuda_{0}*:SearchTest.EarlyStopping/cuda_{0}:SearchTest.BeamSizes/cuda_{0}:"
    "SearchStateTest.*/cuda_{0}-*_solo*"
)
SANITIZED_LINES = 6
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
# compute-sanitizer exits with this code where it found something.
FOUND = 9
CANNOT = (
    "Device not supported",
    "terminated before first instrumented API call",
    "Unable to attach",
)
# The entries are (name, seconds at most, whether it runs alone on the GPU, function). The function
# takes (Place, seconds) and returns (whether it passed or None where it was left out, figure, log).
CHECKS = []


def check(name, seconds, alone=False):
    def enter(function):
        CHECKS.append((name, seconds, alone, function))
        return function

    return enter


class Place:
    """Knows where the programs and the models are, and the environment of every test."""

    def __init__(self, given, folder):
        self.folder, self.device = folder, given.device
        binaries = given.binaries or os.path.join(ROOT, "build")
        self.xlate, self.tests = (
            self.find(binaries, ("", "bin"), name) for name in ("xlate", "xlate_tests")
        )
        self.models = os.path.join(folder, "models")
        os.mkdir(self.models)
        for name in ("shared", "separate"):
            self.provide(binaries, name)
        self.reference = os.path.abspath(
            os.environ.get("XLATE_REFERENCE_DIR") or os.path.join(ROOT, "..", "shared")
        )
        self.environment = {
            **os.environ,
            "XLATE_BINARY": self.xlate,
            "XLATE_TEST_MODELS": self.models,
            "XLATE_SOURCE_DIR": ROOT,
            "XLATE_TEST_TIMEOUT": "400",
            "XLATE_REFERENCE_DIR": self.reference,
            "XLATE_TEST_DEVICE": self.device,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        libraries = os.path.abspath(os.path.join(binaries, "lib"))
        if given.binaries and os.path.isdir(libraries):
            self.environment["LD_LIBRARY_PATH"] = ":".join(
                filter(None, [libraries, os.environ.get("LD_LIBRARY_PATH")])
            )
        self.environment.pop("XLATE_LONG", None)

    @staticmethod
    def find(binaries, folders, name):
        paths = [os.path.abspath(os.path.join(binaries, folder, name)) for folder in folders]
        found = next((path for path in paths if os.path.isfile(path)), None)
        return found or sys.exit("gpu_acceptance: %s is not there" % " or ".join(paths))

    def provide(self, binaries, name):
        wanted = os.path.join(self.models, name + ".bin")
        for folder in ("", "test_models"):
            path = os.path.abspath(os.path.join(binaries, folder, name + ".bin"))
            if os.path.isfile(path):
                return os.symlink(path, wanted)
        subprocess.run(
            [
                sys.executable,
                os.path.join(ROOT, "scripts", "convert.py"),
                os.path.join(TESTS, "data", "opus-shape", name),
                "-o",
                wanted,
            ],
            check=True,
        )

    def prepare(self):
        """Converts the models that several checks would otherwise convert at once."""
        if self.environment.get("XLATE_ENDE_BASE") or not os.path.isdir(
            os.path.join(self.reference, "models", "ende-base")
        ):
            return
        script = 'import reference_test; print(reference_test.converted("ende-base"))'
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=TESTS,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            sys.exit("gpu_acceptance: ende-base could not be converted")
        self.environment["XLATE_ENDE_BASE"] = done.stdout.strip().split("\n")[-1]

    def lacks(self, *needs):
        """Returns the name of a missing file of the reference data, or says that there is no
        ende-base."""
        missing = [
            path
            for path in needs
            if not os.path.isfile(os.path.join(self.reference, *path.split("/")))
        ]
        return (
            "no %s in XLATE_REFERENCE_DIR" % missing[0]
            if missing
            else None
            if self.environment.get("XLATE_ENDE_BASE")
            else "no ende-base (XLATE_ENDE_BASE)"
        )

    def run(self, command, seconds, **environment):
        """Returns (exit code or None where it took too long, output)."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output = process.communicate(timeout=seconds)[0]
            code = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, code = process.communicate()[0], None
        return code, output.decode("utf-8", "replace")

    def suite(self, file, seconds, *arguments, precision="fp32"):
        """Runs a Python suite. Returns its own figures, or what unittest says."""
        code, output = self.run(
            [sys.executable, os.path.join(TESTS, file), "-v", *arguments],
            seconds,
            XLATE_TEST_PRECISION=precision,
        )
        if code is None:
            return False, too_long(seconds), output
        figures, said = (
            re.findall(r"^figure: (.*)$", output, re.M),
            re.findall(r"^(?:Ran .*|FAILED.*)$", output, re.M),
        )
        ran, skipped = (
            re.search(r"^Ran (\d+) test", output, re.M),
            re.search(r"^(?:OK|NO TESTS RAN) \(skipped=(\d+)\)", output, re.M),
        )
        if ran and skipped and int(ran[1]) <= int(skipped[1]):
            return (
                None,
                "; ".join(re.findall(r'skipped [\'"](.*?)[\'"]$', output, re.M)) or skipped[0],
                output,
            )
        return code == 0, "; ".join(figures or said), output


def too_long(seconds):
    return "still running after %.0f s" % seconds


# These functions are the checks.


@check("memory over a long run", 120, alone=True)
def memory(place, seconds):
    return place.suite("gpu_test.py", seconds, "Memory", precision="fp16")


# Processes that share a GPU wait for each other. Two of them keep it busy.
@check("operations", 300, alone=True)
def operations(place, seconds, shards=2):
    pattern = "*cuda_*" if place.device != "cpu" else "Backend*.*/cpu2*"

    def shard(i):
        report = os.path.join(place.folder, "operations-%d.json" % i)
        code, output = place.run(
            [
                place.tests,
                "--gtest_filter=" + pattern,
                "--gtest_output=json:" + report,
                "--gtest_brief=1",
            ],
            seconds,
            GTEST_TOTAL_SHARDS=str(shards),
            GTEST_SHARD_INDEX=str(i),
        )
        if not os.path.isfile(report):
            return code, [], "process %d of %d: exit %s\n%s" % (i + 1, shards, code, output)
        with open(report) as file:
            tests = [test for suite in json.load(file)["testsuites"] for test in suite["testsuite"]]
        return code, tests, output

    with concurrent.futures.ThreadPoolExecutor(shards) as pool:
        results = list(pool.map(shard, range(shards)))
    tests = [test for _, found, _ in results for test in found]
    failed = sorted(
        "%s.%s" % (test["classname"], test["name"]) for test in tests if test.get("failures")
    )
    skipped = sum(test["result"] == "SKIPPED" for test in tests)
    figure = "%d of %d tests pass, %d skipped" % (
        len(tests) - len(failed) - skipped,
        len(tests),
        skipped,
    )
    for number, (code, found, _) in enumerate(results):
        if code is None or not found:
            figure += "; process %d of %d %s" % (
                number + 1,
                shards,
                too_long(seconds) if code is None else "ended with %d" % code,
            )
    log = "\n".join(output for _, _, output in sorted(results, key=lambda result: not result[1]))
    if tests and skipped == len(tests):
        return None, figure, log
    return (
        all(code == 0 for code, _, _ in results),
        figure + (": " + ", ".join(failed) if failed else ""),
        log,
    )


for name in ("shared", "separate"):

    @check("goldens, opus-shape %s, fp32" % name, 200)
    def goldens(place, seconds, name=name):
        return place.suite("golden_test.py", seconds, "-k", "*_%s_*threads_1" % name)


def reference_checks():
    settings = ("greedy", "beam4_stop_true", "beam4_stop_false", "beam4_stop_never", "beam6_n_best")
    for precision, names in (("fp32", settings), ("fp16", settings[:2]), ("bf16", settings[:2])):
        for setting in names:

            @check("goldens, ende-base %s, %s" % (setting, precision), 200)
            def goldens(place, seconds, setting=setting, precision=precision):
                file = {"greedy": "greedy.ids", "beam6_n_best": "beam6.nbest"}.get(
                    setting, setting.replace("_stop_true", "").replace("_stop_", ".stop-") + ".ids"
                )
                if lacking := place.lacks(
                    "data/wmt/newstest2014.en", "models/ende-base/newstest2014.first1000." + file
                ):
                    return None, lacking, ""
                return place.suite(
                    "reference_test.py", seconds, "Base.test_" + setting, precision=precision
                )


reference_checks()

for precision in ("fp32", "fp16"):
    for search in ("greedy", "beam4"):

        @check("the same bytes, %s, %s" % (search, precision), 400)
        def invariance(place, seconds, search=search, precision=precision):
            if lacking := place.lacks("data/bench/news.en"):
                return None, lacking, ""
            return place.suite(
                "invariance_test.py", seconds, "ByteForByte.test_" + search, precision=precision
            )

        @check("one sentence at a time, %s, %s" % (search, precision), 240)
        def single(place, seconds, search=search, precision=precision):
            if lacking := place.lacks("data/bench/news.en"):
                return None, lacking, ""
            return place.suite(
                "invariance_test.py",
                seconds,
                "ByteForByte.test_single_" + search,
                precision=precision,
            )


@check("an error of the device", 100)
def fault(place, seconds):
    return place.suite("gpu_test.py", seconds, "Fault", precision="fp16")


@check("special kernels run where they can", 150)
def special_kernels(place, seconds):
    return place.suite("gpu_test.py", seconds, "SpecialKernels", precision="fp16")


@check("checkpoints as people have them, fp32", 150)
def checkpoints(place, seconds):
    return place.suite("checkpoints_test.py", seconds)


@check("families, fp32", 240)
def families(place, seconds):
    return place.suite("families_test.py", seconds, "Families", "RandomNetworks")


@check("cuBLASLt that is not found", 60)
def no_cublas(place, seconds):
    return place.suite("gpu_test.py", seconds, "NoCublas", precision="fp16")


def sanitize(place, seconds, tool, command, options=(), **environment):
    sanitizer = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin"
    )
    if not sanitizer:
        return None, "no compute-sanitizer", ""
    code, output = place.run(
        [
            sanitizer,
            "--tool",
            tool,
            "--error-exitcode",
            str(FOUND),
            "--print-limit",
            "20",
            *options,
            *command,
        ],
        seconds,
        **environment,
    )
    summary = " ".join(re.findall(r"((?:ERROR|RACECHECK|INITCHECK|LEAK) SUMMARY: .*)", output)) or (
        "exit %s" % code
    )
    if code is None:
        return False, too_long(seconds), output
    if any(text in output for text in CANNOT) and "SUMMARY: 0" not in summary:
        return (
            None,
            "compute-sanitizer cannot work here: "
            + next(text for text in CANNOT if text in output),
            output,
        )
    if ran := re.findall(r"\[  PASSED  \] (\d+) tests?", output):
        summary += ", %s tests" % ran[-1]
    return code == 0, summary, output


def sanitizer_checks():
    for tool in TOOLS:
        for precision in PRECISIONS:

            @check("%s, operations, %s" % (tool, precision), 400)
            def operations(place, seconds, tool=tool, precision=precision):
                return sanitize(
                    place,
                    seconds,
                    tool,
                    [place.tests, "--gtest_filter=" + SANITIZED.format(precision)],
                    XLATE_TEST_FEW="1",
                )

        # Only the kernel for a single sentence is checked, because the library's kernels beside it
        # are not part of xlate. Racecheck itself fails on a kernel whose blocks write into one
        # another's shared memory ("failed to handle a hardware exception").
        for precision in ("fp16", "bf16") if tool != "racecheck" else ():

            @check("%s, a lone sentence, %s" % (tool, precision), 200)
            def lone(place, seconds, tool=tool, precision=precision):
                return sanitize(
                    place,
                    seconds,
                    tool,
                    [place.tests, "--gtest_filter=SoloStepTest.*/cuda_%s_solo" % precision],
                    ("--kernel-name", "kns=solo_step"),
                    XLATE_TEST_FEW="1",
                )

        for precision, beam in (("fp16", "4"), ("fp16", "1"), ("fp32", "4")):

            @check("%s, a run, %s, beam %s" % (tool, precision, beam), 400)
            def run(place, seconds, tool=tool, precision=precision, beam=beam):
                text = os.path.join(place.folder, "few.txt")
                return sanitize(
                    place,
                    seconds,
                    tool,
                    [
                        place.xlate,
                        "-q",
                        "-m",
                        os.path.join(place.models, "shared.bin"),
                        "--device",
                        place.device,
                        "--precision",
                        precision,
                        "--gpu-memory",
                        "4GiB",
                        "-b",
                        beam,
                        "--max-length",
                        "12",
                        "--batch-tokens",
                        "64",
                        "-i",
                        text,
                        "-o",
                        os.devnull,
                    ],
                )


sanitizer_checks()


# This part runs the checks.


class Acceptance:
    def __init__(self, given, place):
        self.given, self.place, self.begun, self.results, self.lock = (
            given,
            place,
            time.monotonic(),
            [],
            threading.Lock(),
        )

    def left(self):
        return self.given.minutes * 60 - (time.monotonic() - self.begun)

    def run(self, entry):
        name, seconds, _, function = entry
        begun, seconds = time.monotonic(), min(seconds, self.left())
        try:
            passed, figure, log = (
                function(self.place, seconds) if seconds > 5 else (False, "no time was left", "")
            )
        # A check that cannot run reports its error, and the others go on.
        except Exception as error:
            passed, figure, log = False, "%s: %s" % (type(error).__name__, error), ""
        result = {
            "check": name,
            "passed": passed,
            "figure": figure,
            "seconds": round(time.monotonic() - begun, 1),
            "log": log[-6000:],
        }
        with self.lock:
            self.results.append(result)
            word = {True: "pass", False: "FAIL", None: "left out"}[passed]
            print("%-8s  %-42s %6.1f s  %s" % (word, name, result["seconds"], figure), flush=True)
            if self.given.logs:
                os.makedirs(self.given.logs, exist_ok=True)
                with open(
                    os.path.join(self.given.logs, re.sub(r"\W+", "-", name) + ".log"), "w"
                ) as file:
                    file.write(log)

    def all(self):
        chosen = [entry for entry in CHECKS if re.search(self.given.only, entry[0])]
        if not chosen:
            sys.exit("gpu_acceptance: no check matches %r" % self.given.only)
        for entry in chosen:
            if entry[2]:
                self.run(entry)
        # Two queues run at the same time, so that the slow sanitizers do not delay the other
        # checks.
        slow = [entry for entry in chosen if entry[0].startswith(TOOLS)]
        others = [entry for entry in chosen if entry not in slow and not entry[2]]
        with (
            concurrent.futures.ThreadPoolExecutor(max(1, self.given.jobs // 3)) as few,
            concurrent.futures.ThreadPoolExecutor(max(1, self.given.jobs * 2 // 3)) as many,
        ):
            for future in [few.submit(self.run, entry) for entry in others] + [
                many.submit(self.run, entry) for entry in slow
            ]:
                future.result()

    def finish(self):
        for result in self.results:
            if result["passed"] is False and result["log"]:
                print(
                    "\n--- %s\n%s" % (result["check"], result["log"][-2500:].rstrip()),
                    file=sys.stderr,
                )
        count = {
            value: sum(result["passed"] is value for result in self.results)
            for value in (True, False, None)
        }
        seconds = time.monotonic() - self.begun
        print(
            "\n%d checks pass, %d fail, %d left out, in %.0f s"
            % (count[True], count[False], count[None], seconds)
        )
        if self.given.json:
            with open(self.given.json, "w") as file:
                json.dump(
                    {
                        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                        "device": self.given.device,
                        "seconds": round(seconds, 1),
                        "passed": count[True],
                        "failed": count[False],
                        "left_out": count[None],
                        "checks": self.results,
                    },
                    file,
                    indent=1,
                )
                file.write("\n")
        return 1 if count[False] or not count[True] else 0


def options():
    parser = argparse.ArgumentParser(
        prog="scripts/test --gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--binaries", metavar="DIR", help="what was built elsewhere [the build in build/]"
    )
    parser.add_argument("--device", default="cuda", help="xlate's --device [cuda]")
    parser.add_argument("--only", default="", metavar="REGEX", help="the checks whose names match")
    parser.add_argument("--json", metavar="FILE", help="all checks with their figures")
    parser.add_argument("--logs", metavar="DIR", help="each check's output")
    parser.add_argument(
        "--minutes",
        type=float,
        default=9.5,
        help="for all of it; what is still running then fails [9.5]",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=max(2, min(12, len(os.sched_getaffinity(0)) * 3 // 4)),
        help="checks at once [%(default)s]",
    )
    parser.add_argument("--list", action="store_true", help="names the checks")
    return parser.parse_args()


def main():
    given = options()
    if given.list:
        print("\n".join(entry[0] for entry in CHECKS))
        return 0
    with tempfile.TemporaryDirectory(prefix="xlate-gpu-") as folder:
        place = Place(given, folder)
        with (
            open(
                os.path.join(TESTS, "data", "opus-shape", "input.txt"),
                encoding="utf-8",
                newline="\n",
            ) as file,
            open(os.path.join(folder, "few.txt"), "w", encoding="utf-8", newline="\n") as few,
        ):
            few.writelines(
                line + "\n"
                for line in sorted(file.read().split("\n")[:-1], key=len)[60 : 60 + SANITIZED_LINES]
            )
        acceptance = Acceptance(given, place)
        place.prepare()
        acceptance.all()
        return acceptance.finish()


if __name__ == "__main__":
    sys.exit(main())
