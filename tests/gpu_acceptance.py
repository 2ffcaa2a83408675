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
import sys
import tempfile
import threading
import time

from gpu_checks import CHECKS
from gpu_place import TESTS, Place
from gpu_sanitizers import SANITIZED_LINES, TOOLS, sanitizer_checks

sanitizer_checks()


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


def write_few(source, target, length, first):
    """Writes SANITIZED_LINES lines of a file, in the order of length(line) from the first-th on."""
    with open(os.path.join(TESTS, "data", *source), encoding="utf-8", newline="\n") as file:
        lines = sorted(file.read().split("\n")[:-1], key=length)
    with open(target, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in lines[first : first + SANITIZED_LINES])


def main():
    given = options()
    if given.list:
        print("\n".join(entry[0] for entry in CHECKS))
        return 0
    with tempfile.TemporaryDirectory(prefix="xlate-gpu-") as folder:
        place = Place(given, folder)
        write_few(("opus-shape", "input.txt"), os.path.join(folder, "few.txt"), len, 60)
        tokens = lambda line: line.count(" ")
        write_few(("families", "t5", "source.ids"), os.path.join(folder, "few.ids"), tokens, 20)
        acceptance = Acceptance(given, place)
        place.prepare()
        acceptance.all()
        return acceptance.finish()


if __name__ == "__main__":
    sys.exit(main())
