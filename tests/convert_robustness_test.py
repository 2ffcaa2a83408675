#!/usr/bin/env python3
"""Tests that the converter answers altered and cut checkpoints in one line."""

import os
import random
import unittest
from unittest import mock

from checkpoint_fixture import (
    ConvertTest,
    Fixture,
    REFUSED_KEYS,
    hash64,
    read,
)
import model_writer
from model_bin_reader import ModelBin


class RobustnessTest(ConvertTest):
    def outcome(self, directory, case, *options):
        """Expects either a model that reads back, or one line on stderr and no file."""
        try:
            code, errors = self.run_main(directory, *options)
        except BaseException as error:
            raise AssertionError(f"{case}: {error!r}") from error
        lines = [
            line for line in errors.splitlines() if not line.startswith("convert.py: warning: ")
        ]
        if code == 0:
            self.assertEqual(lines, [], case)
            ModelBin(self.output, hash64)
            os.remove(self.output)
        else:
            self.assertEqual((code, len(lines)), (1, 1), (case, errors))
            self.assertTrue(lines[0].startswith("convert.py: "), (case, errors))
        self.assertEqual(os.listdir(self.folder), ["tiny"], case)
        return code

    def test_cut_files(self):
        for fixture in (Fixture(), Fixture(target=13)):
            fixture.write(self.checkpoint)
            for name in sorted(os.listdir(self.checkpoint)):
                path = os.path.join(self.checkpoint, name)
                whole = read(path)
                for percent in range(100):
                    with open(path, "wb") as file:
                        file.write(whole[: len(whole) * percent // 100])
                    code = self.outcome(self.checkpoint, (name, percent))
                    self.assertEqual(code, 1, (name, percent))
                with open(path, "wb") as file:
                    file.write(whole)
            self.assertEqual(self.outcome(self.checkpoint, "whole"), 0)

    def test_altered_bytes(self):
        rng, codes = random.Random(2024), []
        fixture = Fixture(target=13, layers=(1, 1))
        fixture.write(self.checkpoint)
        original = {
            name: read(self.checkpoint, name) for name in sorted(os.listdir(self.checkpoint))
        }
        interesting = b'{}[]",:\\0019-.eEtfn\x00\xff\x80 '
        for case in range(1500):
            name = rng.choice(list(original))
            data = bytearray(original[name])
            limit = len(data)
            # Mostly the header is altered, because altered weights are still weights.
            if name == "model.safetensors":
                limit = 8 + int.from_bytes(data[:8], "little") if case % 8 else len(data)
            for _ in range(rng.choice((1, 1, 2, 5))):
                at, change = rng.randrange(max(1, limit)), rng.random()
                if change < 0.5 and limit:
                    data[at] = rng.choice(interesting) if rng.random() < 0.6 else rng.randrange(256)
                elif change < 0.75:
                    del data[at : at + rng.randrange(1, 9)]
                else:
                    data[at:at] = rng.choice(
                        (
                            b"9" * 30,
                            b"-",
                            b"1e999",
                            b"NaN",
                            b"null",
                            b"[" * 50,
                            b'"\\ud800"',
                            rng.randbytes(4),
                        )
                    )
                limit = min(limit, len(data))
            with open(os.path.join(self.checkpoint, name), "wb") as file:
                file.write(data)
            codes.append(
                self.outcome(
                    self.checkpoint,
                    (case, name),
                    "--dtype",
                    rng.choice(("fp32", "fp16", "bf16", "int8")),
                )
            )
            with open(os.path.join(self.checkpoint, name), "wb") as file:
                file.write(original[name])
        self.assertEqual(set(codes), {0, 1})

    def test_values_of_every_type_under_every_key(self):
        values = (
            None,
            True,
            -1,
            0,
            1,
            2.5,
            1 << 40,
            10**30,
            "",
            "x",
            "never",
            [],
            [0],
            [[0]],
            [None],
            {},
            {"a": []},
            float("nan"),
        )
        for part in ("config", "generation", "tokenizer"):
            keys = {**getattr(Fixture(), part), **(REFUSED_KEYS if part == "generation" else {})}
            if part == "generation":
                keys.update(
                    dict.fromkeys(
                        (
                            "length_penalty",
                            "early_stopping",
                            "max_new_tokens",
                            "suppress_tokens",
                            "renormalize_logits",
                        )
                    )
                )
            for key in [*keys, "unk_token"]:
                for value in values:
                    fixture = Fixture(layers=(1, 1))
                    getattr(fixture, part)[key] = value
                    if part != "config" or key != "vocab_size":
                        self.outcome(fixture.write(self.checkpoint), (part, key, value))

    def test_failures_leave_the_old_output_and_no_partial(self):
        Fixture().write(self.checkpoint)
        for error in (
            OSError(28, "No space left on device"),
            KeyboardInterrupt(),
            SystemExit(143),
            MemoryError(),
        ):
            with open(self.output, "wb") as file:
                file.write(b"old")
            with mock.patch.object(model_writer.Writer, "write_tensor", side_effect=error):
                try:
                    code, errors = self.run_main(self.checkpoint)
                    self.assertEqual(
                        (code, errors), (1, f"convert.py: {self.output}: No space left on device\n")
                    )
                except (KeyboardInterrupt, SystemExit, MemoryError) as raised:
                    self.assertIs(raised, error)
            self.assertEqual(read(self.output), b"old")
            self.assertEqual(sorted(os.listdir(self.folder)), ["model.bin", "tiny"])


if __name__ == "__main__":
    unittest.main()
