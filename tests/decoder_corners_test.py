#!/usr/bin/env python3
"""Tests models without an encoder at the ends of what is supported, with random weights: prompts
that nearly fill the context beside short ones, and a wide network. gpu_test runs these tests at
full size on a GPU. The CPU takes smaller sizes, and leaves the wide network out.

XLATE_TEST_DEVICE and XLATE_TEST_PRECISION say where the prompts are continued (tests/program.py).
"""

import os
import random
import sys

import program
from invariance_case import InvarianceCase

sys.path.insert(0, os.path.join(program.ROOT, "scripts"))
sys.dont_write_bytecode = True

from generated_model import write_model
from model_shapes import prompt_config_of

# The tokens of a continuation, where the context has room for them.
TOKENS = 6
# So many lines may be near-ties between a GPU and the CPU.
NEAR_TIES = 1
SHORT = [1, 2, 3, 5, 8, 13, 17, 21, 29, 40]
setUpModule = program.require


def draw_prompts(lengths, vocabulary):
    numbers = random.Random(3)
    return [[numbers.randrange(3, vocabulary) for _ in range(length)] for length in lengths]


def line_of(ids):
    return " ".join(map(str, ids)).encode()


class LongPrompts(InvarianceCase):
    """The network has rotated positions, and fewer heads for keys than for queries. A prompt fills
    the context but for one token, and another one half of it."""

    def setUp(self):
        super().setUp()
        self.context = 8192 if self.is_on_gpu else 2048
        d, vocabulary = 256 if self.is_on_gpu else 64, 1000
        config = prompt_config_of("llama", d, 4, 4, 3 * d, vocabulary, self.context, kv_heads=2)
        self.model = self.path("long.bin")
        write_model(self.model, config, "bfloat16")
        half, full = self.context // 2, self.context - 1
        self.prompts = draw_prompts([*SHORT[:4], full, half, *SHORT[4:]], vocabulary)
        self.long = [4, 5]
        self.lines = [line_of(ids) for ids in self.prompts]

    def continued(self, lines, *options):
        """Returns (score, ids) of each line as printed, and checks what the report counts."""
        limit = ["--max-new-tokens", TOKENS]
        rows, report = self.rows_of(self.model, lines, *limit, *options)
        given = sum(len(line.split()) for line in lines)
        self.assertEqual(report["counts"]["source_tokens"], given)
        self.assertEqual(report["shares"]["padding"], 0)
        self.assertEqual(report["lines"]["truncated"], 0)
        return rows

    def test_any_order_and_budget(self):
        """A budget is less than the long prompts, which are then read in several passes. Each pass
        has at least 512 tokens."""
        count = len(self.lines)
        shuffled = random.Random(5).sample(range(count), count)
        for beam in ("1", "4"):
            wanted = self.continued(self.lines, "-b", beam)
            lengths = [min(TOKENS, self.context - len(ids)) for ids in self.prompts]
            self.assertEqual([len(ids.split()) for _, ids in wanted], lengths)
            self.assertEqual(lengths[self.long[0]], 1)
            for order, budget in (
                (range(count - 1, -1, -1), 3000),
                (shuffled, 600),
                (shuffled[::-1], 1),
            ):
                options = ["-b", beam, "--batch-tokens", budget]
                rows = self.continued([self.lines[i] for i in order], *options)
                self.check_order(wanted, order, rows, "beam %s, budget %d" % (beam, budget))

    def test_alone(self):
        for beam in ("1", "4"):
            wanted = self.continued(self.lines, "-b", beam)
            rows = self.continued(self.lines, "-b", beam, "--line-buffered")
            self.check_same(wanted, rows, "one prompt at a time, beam %s" % beam)
            for i in (0, *self.long):
                rows = self.continued([self.lines[i]], "-b", beam)
                self.check_same([wanted[i]], rows, "line %d by itself, beam %s" % (i + 1, beam))

    def test_the_beginning_of_a_long_prompt_matters(self):
        """Otherwise the tests above would show nothing about the first of several passes."""
        for i in self.long:
            ids = self.prompts[i]
            others = draw_prompts([400], 900)[0] + ids[400:]
            rows = self.continued([line_of(ids), line_of(others)], "-b", "1", "--batch-tokens", 600)
            self.assertNotEqual(rows[0][0], rows[1][0])


class WideNetwork(InvarianceCase):
    """The network has two layers of GPT-3's width, whose weights take 7 GB. The CPU and the GPU
    compute it in float32."""

    WIDTH, HEADS, VOCABULARY, RELATIVE = 12288, 96, 1000, 1e-3

    def compute(self, device, precision):
        where = ["--device", device, "--precision", precision, "--max-new-tokens", TOKENS, "-b", 1]
        where += ["--gpu-memory", "24GiB"] if device != "cpu" else []
        result = self.ok(
            *program.IDS,
            "--scores",
            *where,
            input=b"".join(line_of(ids) + b"\n" for ids in self.prompts),
            lines=len(self.prompts),
            model=self.model,
            device=None,
            timeout=600,
        )
        rows = [line.split(" ||| ", 1) for line in result.lines]
        return [(float(score), ids.split()) for score, ids in rows]

    def test_float32_is_that_of_the_cpu(self):
        if not self.is_on_gpu:
            self.skipTest("the CPU would be compared with itself")
        sizes = {"d": self.WIDTH, "layers": 2, "heads": self.HEADS, "ffn": 4 * self.WIDTH}
        sizes |= {"vocabulary": self.VOCABULARY, "context": 1024}
        self.model = self.path("wide.bin")
        write_model(self.model, prompt_config_of("gpt2", **sizes), "float16")
        self.prompts = draw_prompts(SHORT, self.VOCABULARY)
        wanted = self.compute("cpu", "fp32")
        found = self.compute(self.device, "fp32")
        pairs = list(zip(wanted, found))
        differ = [i + 1 for i, (a, b) in enumerate(pairs) if a[1] != b[1]]
        self.assertLessEqual(len(differ), NEAR_TIES, "lines %s differ" % differ)
        apart = max(abs(a[0] - b[0]) / abs(a[0]) for a, b in pairs if a[1] == b[1])
        program.figure("width %d, scores apart by %.1e of their size" % (self.WIDTH, apart))
        self.assertLessEqual(apart, self.RELATIVE)
        rounded = self.compute(self.device, "bf16")
        self.assertEqual([len(ids) for _, ids in rounded], [TOKENS] * len(self.prompts))
        # bfloat16 changes a token only where two logits are nearly equal.
        first = sum(a[1][0] == b[1][0] for a, b in zip(wanted, rounded))
        self.assertGreaterEqual(first, len(self.prompts) // 2)


if __name__ == "__main__":
    program.main()
