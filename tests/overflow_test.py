#!/usr/bin/env python3
"""Tests what a run says where numbers of the network overflow the type that it computes in.

T5's feed-forward layers have relu between two products. Where the first one is multiplied by a
power of two and the second one divided by it, the network computes the same, as long as what is
between them does not overflow.
"""

import os
import re
import shutil

import numpy as np

import families_test
from checkpoint_fixture import convert, decode_safetensors, encode_safetensors, read
from families_test import FAMILIES, search_options
from program import Case, main, require

# In float32 the values between the products of this layer overflow for every line of source.ids
# from a factor of 2^126 on. In float16 they do from 2^14 on, and the weights from 2^17 on.
UP = "encoder.block.2.layer.1.DenseReluDense.wi.weight"
DOWN = "encoder.block.2.layer.1.DenseReluDense.wo.weight"
IDS = ["--input-format", "ids", "--output-format", "ids", "--scores"]
# Some lines of bart have more tokens than this, but none of the first lines has.
LONG = 45


def setUpModule():
    require()


class OverflowCase(Case):
    def changed_model(self, family, change, name):
        """Converts a family's checkpoint in float32 into NAME.bin. `change` is given the tensors by
        name."""
        checkpoint = families_test.copy_of(
            os.path.join(FAMILIES, family), self.path("checkpoint-" + name)
        )
        self.addCleanup(shutil.rmtree, checkpoint, ignore_errors=True)
        path = os.path.join(checkpoint, "model.safetensors")
        tensors = {name: value for name, (value, _) in decode_safetensors(read(path)).items()}
        change(tensors)
        os.chmod(path, 0o644)
        with open(path, "wb") as file:
            file.write(encode_safetensors(tensors, lambda name: "F32"))
        model = self.path(name + ".bin")
        convert.convert(checkpoint, model)
        shutil.rmtree(checkpoint)
        return model

    def scaled_t5(self, power):
        """Returns a model that computes what t5 does, with larger values in one layer."""

        def scale(tensors):
            tensors[UP] = np.ldexp(tensors[UP], power)
            tensors[DOWN] = np.ldexp(tensors[DOWN], -power)

        return self.changed_model("t5", scale, "t5-%d" % power)

    def t5_with_large_stream(self, power):
        """Returns a model whose residual streams are those of t5 times a power of two, which the
        norms take out again. The matrix of the logits is stored apart, as it was."""

        def scale(tensors):
            tensors["lm_head.weight"] = tensors["shared.weight"]
            for name in tensors:
                if name == "shared.weight" or re.search(r"\.(o|wo)\.weight$", name):
                    tensors[name] = np.ldexp(tensors[name], power)

        return self.changed_model("t5", scale, "t5-stream-%d" % power)

    def lines(self, family, count=40):
        return b"".join(read(FAMILIES, family, "source.ids").splitlines(keepends=True)[:count])

    def options(self, setting="greedy", **changes):
        options = {**search_options(setting), **changes}
        return [word for option in options.items() for word in option] + IDS


class OnTheCpu(OverflowCase):
    def test_large_values_that_fit_change_nothing(self):
        found = [
            self.ok(*self.options(), input=self.lines("t5"), model=self.scaled_t5(power)).lines
            for power in (0, 100)
        ]
        self.assertEqual(len(found[0]), 40)
        self.same(*found)

    def test_a_large_residual_stream_changes_nothing(self):
        found = [
            self.ok(*self.options(), input=self.lines("t5"), model=model).lines
            for model in (self.scaled_t5(0), self.t5_with_large_stream(13))
        ]
        ids = [[line.split(" ||| ")[1] for line in lines] for lines in found]
        self.same(*ids, allowed=1)

    def test_an_overflow_is_one_clear_error(self):
        model = self.scaled_t5(126)
        rules = {"--min-length": "8", "--no-repeat-ngram": "3", "--repetition-penalty": "1.3"}
        for setting in ("greedy", "beam4.stop-false"):
            for changes in ({}, rules):
                with self.subTest(setting=setting, changes=changes):
                    result = self.fails(
                        *self.options(setting, **changes),
                        names=["line 1: ", "float32", "infinite or not a number", "itself"],
                        input=self.lines("t5", 1),
                        model=model,
                    )
                    self.assertEqual(result.out, b"")
                    self.assertNotIn("--precision", result.errors)
                    self.assertNotIn("rules of search", result.errors)

    def test_the_error_names_its_line_and_keeps_those_before(self):
        """Only long lines reach a position with an infinity."""

        def spoil(tensors):
            tensors["model.encoder.embed_positions.weight"][2 + LONG] = np.inf

        model, text = self.changed_model("bart", spoil, "bart"), self.lines("bart", 120)
        lengths = [len(line.split()) for line in text.splitlines()]
        first = next(n for n, length in enumerate(lengths) if length > LONG)
        self.assertGreater(first, 3)
        options = self.options("beam4.stop-false", **{"--window": "1", "--batch-tokens": "1"})
        result = self.fails(
            *options, names=["line %d: " % (first + 1), "not a number"], input=text, model=model
        )
        short = b"".join(text.splitlines(keepends=True)[:first])
        self.same(self.ok(*options, input=short, model=model).lines, result.lines)

    def test_a_line_whose_tokens_are_all_forbidden(self):
        """Every token is forbidden once it has occurred, and there are only 131 of them."""
        changes = {"--no-repeat-ngram": "1", "--min-length": "300", "--max-length": "300"}
        changes["--max-length-factor"] = "1000"
        for beams in ("1", "4"):
            result = self.fails(
                *self.options(**{"-b": beams, **changes}),
                names=["line 1: ", "the rules of search forbid every token"],
                input=self.lines("random-t5", 1),
                model=families_test.model_of(os.path.join(FAMILIES, "random-t5")),
            )
            self.assertNotIn("itself", result.errors)


if __name__ == "__main__":
    main()
