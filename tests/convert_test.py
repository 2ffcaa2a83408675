#!/usr/bin/env python3
"""Tests what scripts/convert.py makes of everything in which checkpoints vary."""

import json
import os
import sys
import unittest
from itertools import combinations
from unittest import mock

import numpy as np

from checkpoint_fixture import (
    ConvertTest,
    DECODER,
    ENCODER,
    Fixture,
    HEAD,
    LOAD,
    OPUS_SHAPE,
    SHARED,
    STORE,
    TIED,
    decode_safetensors,
    encode_safetensors,
    expected_tensors,
    hash64,
    read,
)
import model_writer
from model_bin_reader import ModelBin


class WeightsTest(ConvertTest):
    def test_own_dtype_is_copied(self):
        for dtype, ours in (("F32", "float32"), ("F16", "float16"), ("BF16", "bfloat16")):
            fixture = Fixture(dtype=dtype)
            model = self.convert(fixture)
            stored = {
                name: LOAD[dtype](STORE[dtype](v).tobytes()).reshape(v.shape)
                for name, v in fixture.tensors.items()
            }
            self.assert_tensors(model, expected_tensors(stored, fixture.config))
            self.assertEqual({e["dtype"] for e in model.header["tensors"]}, {ours})

    def test_every_dtype_from_every_dtype(self):
        for dtype in STORE:
            fixture = Fixture(dtype=dtype)
            fixture.tensors["model.encoder.layers.0.fc1.weight"][0, :8] = [
                1.00390625,
                1.01171875,
                -1.00390625,
                3e-6,
                1e-7,
                0,
                -0.0,
                65000,
            ]
            stored = {
                name: LOAD[dtype](STORE[dtype](v).tobytes()).reshape(v.shape)
                for name, v in fixture.tensors.items()
            }
            expected = expected_tensors(stored, fixture.config)
            for option, target in (("fp32", "F32"), ("fp16", "F16"), ("bf16", "BF16")):
                rounded = {
                    k: LOAD[target](STORE[target](v).tobytes()).reshape(v.shape)
                    for k, v in expected.items()
                }
                self.assert_tensors(self.convert(fixture, "--dtype", option), rounded)

    def test_blocks_and_whole_tensors_give_the_same(self):
        fixture = Fixture(source=70)
        whole = {
            option: self.convert(fixture, "--dtype", option).data
            for option in ("fp16", "bf16", "int8")
        }
        with mock.patch.object(sys.modules["checkpoint_reader"], "BLOCK", 48):
            for option, data in whole.items():
                self.assertEqual(self.convert(fixture, "--dtype", option).data, data)

    def test_every_half(self):
        words = np.arange(1 << 16, dtype="<u2").reshape(-1, 1024)
        # Some rows have infinities or NaN, and others have none.
        for block in (words, *words):
            expected = block.view("<f2").astype("<f4")
            values = model_writer.to_float32(
                block, "float16", finite=bool(np.isfinite(expected).all())
            )
            np.testing.assert_array_equal(values.view("<u4"), expected.view("<u4"))

    def test_subnormal_scales(self):
        fixture = Fixture(dtype="F32")
        for row, magnitude in enumerate(
            (1e-45, 1e-44, 1e-43, 3e-43, 1e-42, 1e-41, 1e-40, 1e-39, 1e-38, 1e-37, 1)
        ):
            fixture.tensors[SHARED][row] *= np.float32(magnitude)
        model = self.convert(fixture, "--dtype", "int8")
        self.assertLessEqual(
            np.abs(model.stored["encoder.embedding.weight"].astype(int)).max(), 127
        )

    def test_int8(self):
        fixture = Fixture(dtype="F16")
        fixture.tensors[SHARED][2] = 0
        # This row is subnormal in float16.
        fixture.tensors[SHARED][3] *= 1e-6
        stored = {name: v.astype("<f2").astype("<f4") for name, v in fixture.tensors.items()}
        model, expected = (
            self.convert(fixture, "--dtype", "int8"),
            expected_tensors(stored, fixture.config),
        )
        for entry in model.header["tensors"]:
            name, values = entry["name"], expected.get(entry["name"])
            if name.endswith(".scale"):
                self.assertEqual(entry["dtype"], "float32")
            elif values.ndim == 1:
                self.assertEqual(entry["dtype"], "float16")
                np.testing.assert_array_equal(model.tensors[name], values)
            else:
                largest, scale = np.abs(values).max(axis=1), model.stored[name + ".scale"]
                np.testing.assert_array_equal(
                    scale, np.where(largest == 0, 1, largest / np.float32(127)).astype("<f4")
                )
                self.assertTrue(
                    (np.abs(model.tensors[name] - values) <= scale[:, None] * 0.5001).all(), name
                )
                np.testing.assert_array_equal(
                    np.abs(model.stored[name]).max(axis=1), np.where(largest == 0, 0, 127)
                )
        for name in ("encoder.embedding.weight", "decoder.projection.weight"):
            self.assertEqual(
                model.offset(name + ".scale"), model.offset("decoder.embedding.weight.scale")
            )

    def test_mixed_dtypes(self):
        fixture = Fixture(dtype=lambda name: "F32" if "k_proj" in name or "norm" in name else "F16")
        dtypes = {e["name"]: e["dtype"] for e in self.convert(fixture).header["tensors"]}
        self.assertEqual(
            [
                dtypes[f"encoder.0.{name}"]
                for name in ("self.qkv.weight", "self.norm_after.bias", "feed_forward.up.weight")
            ],
            ["float32", "float32", "float16"],
        )

    def test_overflow_is_refused(self):
        for dtype, option, value in (
            ("F32", "fp16", 70000.0),
            ("BF16", "fp16", -1e6),
            ("F32", "bf16", 3.4e38),
        ):
            fixture = Fixture(dtype=dtype)
            fixture.tensors["model.decoder.layers.1.fc2.weight"][3, 2] = value
            self.refuse(
                fixture,
                "model.safetensors",
                "model.decoder.layers.1.fc2.weight",
                "can hold",
                *(["--dtype fp32 and bf16 hold them"] if option == "fp16" else []),
                options=("--dtype", option),
            )

    def test_nan_and_infinity_are_kept_with_a_warning(self):
        for dtype in STORE:
            fixture = Fixture(dtype="F32")
            fixture.tensors["model.encoder.layers.0.fc1.bias"][:3] = np.nan, np.inf, -np.inf
            words = fixture.tensors["model.encoder.layers.0.fc1.bias"].view("<u4")
            # Rounding this NaN to bfloat16 would make it a zero.
            words[3] = 0x7FFFFFFF
            fixture.write(self.checkpoint)
            code, errors = self.run_main(
                self.checkpoint, "--dtype", {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}[dtype]
            )
            self.assertEqual((code, errors.count("\n")), (0, 1))
            self.assertIn("model.encoder.layers.0.fc1.bias: holds NaN or infinity", errors)
            bias = ModelBin(self.output, hash64).tensors["encoder.0.feed_forward.up.bias"][:4]
            np.testing.assert_array_equal(bias, np.float32([np.nan, np.inf, -np.inf, np.nan]))
        os.remove(self.output)
        fixture.tensors["model.encoder.layers.0.fc1.weight"][0, 0] = np.nan
        self.refuse(
            fixture,
            "model.safetensors",
            "model.encoder.layers.0.fc1.weight",
            options=("--dtype", "int8"),
        )

    def test_any_tied_name_may_be_stored(self):
        for count in range(1, 5):
            for names in combinations(TIED, count):
                fixture = Fixture()
                fixture.tie(*names)
                model = self.convert(fixture)
                self.assertEqual(
                    len(
                        {
                            model.offset(f"{n}.weight")
                            for n in (
                                "encoder.embedding",
                                "decoder.embedding",
                                "decoder.projection",
                            )
                        }
                    ),
                    1,
                )
                stored = {
                    name: v.astype("<f2").astype("<f4") for name, v in fixture.tensors.items()
                }
                self.assert_tensors(model, expected_tensors(stored, fixture.config))

    def test_presence_decides_which_matrix_is_used(self):
        """Checks which matrices the converter uses, against what transformers 5.17 used for
        encoder, decoder and output where S, E, D and H were stored with different values."""
        names = dict(zip("SEDH", TIED))
        tied = (
            "S:SSS E:EEE D:DDD H:HHH SE:ESS SD:SDS SH:SSH ED:EDD EH:EHH DH:HDH "
            "SED:EDS SEH:ESH SDH:SDH EDH:EDH SEDH:EDH"
        )
        separate = "ED:EDD EH:EHH EDH:EDH SED:EDD SEH:EHH SEDH:EDH"
        # In these cases transformers 5 has all three matrices stored or fills them with random
        # numbers. Version 4 shared one matrix between encoder and decoder.
        untied = "SH:SSH SEH:ESH SDH:SDH EDH:EDH SEDH:EDH"
        cases = [(shares, ties, tied) for shares in (None, True) for ties in (None, True)] + [
            (False, None, separate),
            (False, True, separate),
        ]
        cases += [(None, False, untied), (True, False, untied), (False, False, "EDH:EDH SEDH:EDH")]
        for shares, ties, rows in cases:
            for stored, used in (row.split(":") for row in rows.split()):
                fixture = Fixture()
                base = fixture.tensors.pop(SHARED)
                fixture.tensors.update(
                    {names[letter]: base + n for n, letter in enumerate("SEDH") if letter in stored}
                )
                for key, value in (
                    ("share_encoder_decoder_embeddings", shares),
                    ("tie_word_embeddings", ties),
                ):
                    fixture.config.pop(key)
                    if value is not None:
                        fixture.config[key] = value
                code, errors = self.run_main(fixture.write(self.checkpoint))
                filled = shares is not False and ties is False and not {"E", "D"} <= set(stored)
                self.assertEqual(
                    (
                        code,
                        errors.count("transformers 4 (5 fills it with random numbers)"),
                        errors.count("\n"),
                    ),
                    (0, filled, filled),
                    errors,
                )
                tensors = ModelBin(self.output, hash64).tensors
                for letter, ours in zip(
                    used, ("encoder.embedding", "decoder.embedding", "decoder.projection")
                ):
                    np.testing.assert_array_equal(
                        tensors[ours + ".weight"],
                        fixture.tensors[names[letter]].astype("<f2"),
                        (shares, ties, stored, ours),
                    )

    def test_separate_vocabularies(self):
        for stored in ((DECODER,), (HEAD,), (DECODER, HEAD)):
            fixture = Fixture(source=11, target=17)
            matrix = fixture.tensors.pop(DECODER)
            fixture.tensors.update({name: matrix for name in stored})
            model = self.convert(fixture)
            values = {name: v.astype("<f2").astype("<f4") for name, v in fixture.tensors.items()}
            self.assert_tensors(model, expected_tensors(values, fixture.config))
            self.assertEqual(
                model.offset("decoder.embedding.weight"), model.offset("decoder.projection.weight")
            )
            self.assertEqual((model.pieces("source")[3], model.pieces("target")[3]), ("▁s3", "▁t3"))
            self.assertEqual((model.pieces("source")[2], model.pieces("target")[2]), (None, None))
            self.assertEqual(
                model.header["tokens"], {"start": 16, "end": 0, "pad": 16, "unknown": 1}
            )

    def test_separate_embeddings_of_one_vocabulary(self):
        fixture = Fixture(source=11, target=11)
        fixture.target_vocab, fixture.tokenizer = None, None
        model = self.convert(fixture)
        self.assertEqual(model.offset("source.pieces"), model.offset("target.pieces"))
        self.assertNotEqual(
            model.offset("encoder.embedding.weight"), model.offset("decoder.embedding.weight")
        )
        # The matrices are equal by chance and still stored once.
        fixture.tensors[DECODER] = fixture.tensors[ENCODER]
        model = self.convert(fixture)
        self.assertEqual(
            model.offset("encoder.embedding.weight"), model.offset("decoder.embedding.weight")
        )

    def test_untied_projection(self):
        fixture = Fixture()
        fixture.config["tie_word_embeddings"] = False
        fixture.tensors[HEAD] = fixture.values(11, 8)
        self.assertEqual(self.run_main(fixture.write(self.checkpoint))[0], 0)
        model = ModelBin(self.output, hash64)
        np.testing.assert_array_equal(
            model.tensors["decoder.projection.weight"], fixture.tensors[HEAD].astype("<f2")
        )
        np.testing.assert_array_equal(
            model.tensors["decoder.embedding.weight"], fixture.tensors[SHARED].astype("<f2")
        )
        del fixture.tensors[HEAD]
        os.remove(self.output)
        self.refuse(fixture, "model.safetensors", HEAD, "found none")

    def test_no_bias(self):
        fixture = Fixture()
        del fixture.tensors["final_logits_bias"]
        self.assertNotIn("decoder.projection.bias", self.convert(fixture).tensors)

    def test_stored_positions_keep_their_type(self):
        for stacks in (("encoder",), ("decoder",), ("encoder", "decoder")):
            for dtype, ours in (("F32", "float32"), ("F16", "float16")):
                for wanted in ("fp32", "fp16", "bf16", "int8", None):
                    fixture = Fixture(
                        dtype=lambda name: dtype if "embed_positions" in name else "F16",
                        layers=(1, 1),
                    )
                    fixture.config["max_position_embeddings"] = 16
                    for stack in stacks:
                        fixture.tensors[f"model.{stack}.embed_positions.weight"] = fixture.values(
                            16, 8
                        )
                    model = self.convert(fixture, *(["--dtype", wanted] if wanted else []))
                    for stack in ("encoder", "decoder"):
                        embedding = model.header["network"][stack]["embedding"]
                        self.assertEqual(
                            (embedding["positions"], embedding.get("rows")),
                            ("learned", 16) if stack in stacks else ("sinusoidal", None),
                        )
                        if stack in stacks:
                            values = fixture.tensors[f"model.{stack}.embed_positions.weight"]
                            np.testing.assert_array_equal(
                                model.tensors[f"{stack}.positions.weight"],
                                values if dtype == "F32" else values.astype("<f2"),
                            )
                            self.assertEqual(
                                next(
                                    e["dtype"]
                                    for e in model.header["tensors"]
                                    if e["name"] == f"{stack}.positions.weight"
                                ),
                                ours,
                            )

    def test_shapes_that_differ_between_the_stacks(self):
        for layers, ffn, heads in (((1, 3), (8, 24), (8, 1)), ((4, 1), (32, 4), (1, 2))):
            network = self.convert(Fixture(layers=layers, ffn=ffn, heads=heads)).header["network"]
            for i, stack in enumerate(("encoder", "decoder")):
                found = network[stack]
                self.assertEqual(
                    [
                        found["layers"],
                        found["feed_forward"]["width"],
                        found["attention"]["heads"],
                        found["attention"]["head"],
                    ],
                    [layers[i], ffn[i], heads[i], 8 // heads[i]],
                )

    def test_shards(self):
        fixture = Fixture()
        plain = self.convert(fixture).data
        os.remove(os.path.join(self.checkpoint, "model.safetensors"))
        names, files = sorted(fixture.tensors), {}
        for i in range(3):
            files[f"model-0000{i}-of-00003.safetensors"] = {
                name: fixture.tensors[name] for name in names[i::3]
            }
        index = {
            "metadata": {},
            "weight_map": {name: shard for shard, tensors in files.items() for name in tensors},
        }
        for shard, tensors in files.items():
            with open(os.path.join(self.checkpoint, shard), "wb") as file:
                file.write(encode_safetensors(tensors, lambda name: "F16"))

        def write_index():
            with open(os.path.join(self.checkpoint, "model.safetensors.index.json"), "w") as file:
                json.dump(index, file)

        write_index()
        self.assertEqual(self.convert(self.checkpoint).data, plain)
        os.remove(self.output)
        for change in (
            "../x",
            "\ud800",
            "a\0b",
            3,
            None,
            "missing.safetensors",
            "model-00001-of-00003.safetensors",
        ):
            good = index["weight_map"][names[0]]
            index["weight_map"][names[0]] = change
            write_index()
            code, errors = self.run_main(self.checkpoint)
            self.assertEqual((code, errors.count("\n")), (1, 1), errors)
            index["weight_map"][names[0]] = good


class OpusShapeTest(ConvertTest):
    def test_both(self):
        for name, special in (("shared", 2570), ("separate", 1473)):
            directory = os.path.join(OPUS_SHAPE, name)
            model = self.convert(directory)
            stored = decode_safetensors(read(directory, "model.safetensors"))
            self.assert_tensors(
                model,
                expected_tensors(
                    {k: v for k, (v, _) in stored.items()},
                    json.loads(read(directory, "config.json")),
                ),
            )
            self.assertEqual({e["dtype"] for e in model.header["tensors"]}, {"float16"})
            network = model.header["network"]
            self.assertEqual(
                [
                    [network[stack][key] for key in ("layers", "width")]
                    + [
                        network[stack]["attention"]["heads"],
                        network[stack]["feed_forward"]["width"],
                        network[stack]["feed_forward"]["activation"],
                        network[stack]["embedding"]["scale"],
                    ]
                    for stack in ("encoder", "decoder")
                ],
                [[3, 64, 4, 160, "swish", 8.0], [2, 64, 8, 96, "swish", 8.0]],
            )
            self.assertEqual(
                model.header["tokens"], {"start": special, "end": 0, "unknown": 1, "pad": special}
            )
            self.assertEqual(
                self.generation_of(model),
                {"beam_size": 6, "max_length": 511, "forced_end": 0, "never_chosen": [special]},
            )
            for side, file in (
                ("source", "vocab.json"),
                ("target", "vocab.json" if name == "shared" else "target_vocab.json"),
            ):
                vocabulary, pieces = json.loads(read(directory, file)), model.pieces(side)
                self.assertEqual({p: i for i, p in enumerate(pieces) if p is not None}, vocabulary)
                self.assertEqual(model.files[side + ".spm"], read(directory, side + ".spm"))
            self.assertEqual(model.pieces("target").count(None), 0 if name == "shared" else 3)


if __name__ == "__main__":
    unittest.main()
