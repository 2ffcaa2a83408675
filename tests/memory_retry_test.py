#!/usr/bin/env python3
"""Tests runs whose memory runs out. XLATE_TEST_FAILED_ALLOCATION is the number of an allocation
that fails, from 1.

XLATE_TEST_DEVICE says where the lines are decoded (tests/program.py).
"""

import concurrent.futures
import json
import os

from program import DEVICE, IDS, PRECISION, Case, figure, main, require, source_ids, text, xlate

setUpModule = require
# A run has this many allocations at most.
MOST = 400
# So many runs in turn that notice nothing show that there is no allocation left to fail.
UNNOTICED = 12
AT_ONCE = min(UNNOTICED, len(os.sched_getaffinity(0)))


class MemoryRetry(Case):
    OPTIONS = ["-q", "-b", 3, "--batch-tokens", 64, "--window", 20, "--max-length", 20, *IDS]

    def run_with(self, failed, options, lines):
        """Returns (result, report) of a run in which this allocation fails."""
        path = self.path("report-%d.json" % failed)
        result = xlate(
            *options,
            *("--report", path),
            input=text(lines),
            env={**os.environ, "XLATE_TEST_FAILED_ALLOCATION": str(failed)},
        )
        with open(path) as file:
            return result, json.load(file)

    def check_every_allocation(self, *more):
        options, lines = [*self.OPTIONS, *more], source_ids()[:40]
        whole, report = self.run_with(0, options, lines)
        self.check(whole, 0)
        self.assertEqual(report["options"]["batch_tokens"], 64)
        self.assertEqual(set(report["retries"].values()), {0})
        errors = smaller = unnoticed = begun_again = 0
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            for first in range(1, MOST, UNNOTICED):
                numbers = range(first, first + UNNOTICED)
                unnoticed = 0
                for failed, (result, report) in zip(
                    numbers, pool.map(lambda number: self.run_with(number, options, lines), numbers)
                ):
                    self.assertIn(result.code, (0, 1), result.story())
                    if result.code:
                        errors += 1
                        self.assertEqual(len(result.error_lines), 1, result.story())
                        self.says(result, "memory")
                        self.assertTrue(whole.out.startswith(result.out), result.story())
                        continue
                    self.assertEqual(result.out, whole.out, "allocation %d" % failed)
                    self.assertEqual(report["lines"]["retried"], report["retries"]["memory"])
                    begun_again += report["retries"]["memory"]
                    halved = report["retries"]["halved_budgets"]
                    self.assertEqual(report["options"]["batch_tokens"], 64 >> halved)
                    if halved == 0:
                        unnoticed += 1
                    else:
                        smaller += 1
                        self.assertEqual(halved, 1)
                if unnoticed == UNNOTICED:
                    break
        self.assertEqual(unnoticed, UNNOTICED, "allocations without an end")
        # The weights must have room, and nothing else.
        self.assertGreater(errors, 5)
        self.assertGreater(smaller, 5)
        # On the CPU nothing is allocated while sentences are decoded.
        self.assertEqual(begun_again > 0, DEVICE != "cpu")
        figure(
            "%d allocations that are needed, %d after which the budget was halved, and %d "
            "sentences begun again" % (errors, smaller, begun_again)
        )

    def test_every_allocation(self):
        self.check_every_allocation()

    def test_every_allocation_of_annotated_lines(self):
        self.check_every_allocation("--alignments", "--token-scores")

    def test_every_allocation_of_lines_that_are_scored(self):
        options = ["-q", "--score-pairs", "--batch-tokens", 1024, "--input-format", "ids"]
        lines = ["%s\t%s" % (ids, ids) for ids in source_ids()[:40]]
        whole, _ = self.run_with(0, options, lines)
        self.check(whole, 0)
        errors = smaller = unnoticed = 0
        for failed in range(1, MOST):
            result, report = self.run_with(failed, options, lines)
            if result.code:
                self.assertEqual(len(result.error_lines), 1, result.story())
                self.says(result, "memory")
                errors += 1
                continue
            self.assertEqual(result.out, whole.out, "allocation %d" % failed)
            halved = report["retries"]["halved_budgets"]
            self.assertIn(halved, (0, 1))
            self.assertEqual(report["options"]["batch_tokens"], 1024 >> halved)
            smaller += halved
            unnoticed = 0 if halved else unnoticed + 1
            if unnoticed == UNNOTICED:
                break
        self.assertEqual(unnoticed, UNNOTICED, "allocations without an end")
        self.assertGreater(errors, 5)
        self.assertGreater(smaller, 1)

    def test_one_sentence_at_a_time(self):
        """A smaller batch than one sentence is not possible."""
        options = [*self.OPTIONS, "--line-buffered"]
        whole, _ = self.run_with(0, options, source_ids()[:5])
        first_error = None
        for failed in range(1, MOST):
            result, _ = self.run_with(failed, options, source_ids()[:5])
            if result.code == 0:
                self.assertEqual(result.out, whole.out)
                break
            self.assertEqual(len(result.error_lines), 1, result.story())
            first_error = first_error or result
        # The first allocation of a GPU is the backend's own.
        self.says(first_error, "no room for the weights of" if DEVICE == "cpu" else "out of memory")


if DEVICE != "cpu":

    class OnAGpu(Case):
        def test_a_small_gpu_memory_gives_the_same_lines(self):
            lines = source_ids()[:120]
            options = ["-b", 6, "--max-length", 60, *IDS]
            whole = self.ok(*options, input=text(lines)).lines
            # The tests' own options give a GPU's memory already.
            options += ["--device", DEVICE, "--precision", PRECISION]
            codes = []
            for size in (1, 24, 40, 64, 128, 1024):
                result = xlate(
                    *options, "--gpu-memory", "%dMiB" % size, input=text(lines), device=None
                )
                codes.append(result.code)
                if result.code == 0:
                    self.same(whole, result.lines)
                else:
                    self.check(result, 1)
                    self.assertEqual(len(result.error_lines), 1, result.story())
                    self.says(result, "memory")
            # The model has some megabytes, and sentences of this size need no gigabyte.
            self.assertEqual((codes[0], codes[-1]), (1, 0))
            self.assertEqual(codes, sorted(codes, reverse=True))


if __name__ == "__main__":
    main()
