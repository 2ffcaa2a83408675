#!/usr/bin/env python3
"""Tests of scripts/convert.py: everything that checkpoints vary in, every kind of wrong input, and bytes altered at random.

XLATE_LONG=1 adds the conversion of a 1 GB checkpoint, with its time and memory.
"""
import contextlib
import copy
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from itertools import combinations
from unittest import mock

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "scripts"), os.path.join(ROOT, "tests")]
sys.dont_write_bytecode = True

import convert
import model_writer
import xxh64
from model_bin_reader import ModelBin

SCRIPT = os.path.join(ROOT, "scripts", "convert.py")
OPUS_SHAPE = os.path.join(ROOT, "tests", "data", "opus-shape")
SHARED, ENCODER, DECODER, HEAD = TIED = ("model.shared.weight", "model.encoder.embed_tokens.weight",
                                         "model.decoder.embed_tokens.weight", "lm_head.weight")
REFUSED_KEYS = {"no_repeat_ngram_size": 3, "repetition_penalty": 1.2, "min_length": 5, "min_new_tokens": 2, "do_sample": True,
                "num_beam_groups": 2, "begin_suppress_tokens": [3], "encoder_no_repeat_ngram_size": 2, "num_return_sequences": 4,
                "diversity_penalty": 0.5, "sequence_bias": {"3": 1.0}, "exponential_decay_length_penalty": [5, 1.1],
                "force_words_ids": [[3]], "forced_decoder_ids": [[1, 3]], "stop_strings": ["."], "penalty_alpha": 0.6}


def read(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()


def hash64(data):
    state = xxh64.start()
    state.update(data)
    return state.intdigest()


def to_bf16(values):
    """float32 to the nearest bfloat16, ties to even, as words: by looking at both neighbours."""
    words = np.ascontiguousarray(values, "<f4").view("<u4").astype(np.uint64)
    low, high = words >> 16, (words >> 16) + 1
    below, above = words - (low << 16), (high << 16) - words
    return np.where((above < below) | ((above == below) & (low % 2 == 1)), high, low).astype("<u2")


STORE = {"F32": lambda v: v.astype("<f4"), "F16": lambda v: v.astype("<f2"), "BF16": to_bf16}
LOAD = {"F32": lambda b: np.frombuffer(b, "<f4"), "F16": lambda b: np.frombuffer(b, "<f2").astype("<f4"),
        "BF16": lambda b: (np.frombuffer(b, "<u2").astype("<u4") << 16).view("<f4")}


def encode_safetensors(tensors, dtypes):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name in sorted(tensors):
        raw = STORE[dtypes(name)](tensors[name]).tobytes()
        header[name] = {"dtype": dtypes(name), "shape": list(tensors[name].shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def decode_safetensors(data):
    """Values in float32 and dtype by name, of a file known to be good."""
    start = 8 + int.from_bytes(data[:8], "little")
    header, result = json.loads(data[8:start]), {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            result[name] = LOAD[entry["dtype"]](data[start + begin : start + end]).reshape(entry["shape"]), entry["dtype"]
    return result


class Fixture:
    """A tiny random checkpoint: change its parts, then write it."""

    def __init__(self, seed=1, dtype="F16", source=11, target=None, d=8, layers=(3, 2), ffn=(12, 20), heads=(2, 4)):
        self.random, self.dtype, self.target = np.random.default_rng(seed), dtype, target
        rows = target or source
        self.config = {
            "model_type": "marian", "d_model": d, "encoder_layers": layers[0], "decoder_layers": layers[1],
            "encoder_attention_heads": heads[0], "decoder_attention_heads": heads[1], "encoder_ffn_dim": ffn[0],
            "decoder_ffn_dim": ffn[1], "activation_function": "swish", "vocab_size": source, "decoder_vocab_size": rows,
            "pad_token_id": rows - 1, "eos_token_id": 0, "bos_token_id": 0, "decoder_start_token_id": rows - 1,
            "max_position_embeddings": 512, "scale_embedding": True, "share_encoder_decoder_embeddings": target is None,
            "tie_word_embeddings": True, "normalize_before": False, "normalize_embedding": False,
            "add_final_layer_norm": False, "static_position_embeddings": True, "forced_eos_token_id": 0}
        self.generation = {"decoder_start_token_id": rows - 1, "eos_token_id": 0, "pad_token_id": rows - 1, "num_beams": 6,
                           "max_length": 512, "bad_words_ids": [[rows - 1]], "forced_eos_token_id": 0}
        self.tokenizer = {"separate_vocabs": target is not None, "source_lang": "eng"}
        self.vocab = self.vocabulary(source, "s")
        self.target_vocab = self.vocabulary(target, "t") if target else None
        self.files = {"source.spm": b"\n\x05\n\x03abc", "target.spm": b"\n\x05\n\x03xyz"}
        self.tensors = {"final_logits_bias": self.values(1, rows)}
        self.tensors.update({ENCODER: self.values(source, d), DECODER: self.values(rows, d)} if target
                            else {SHARED: self.values(source, d)})
        for stack, count, width in zip(("encoder", "decoder"), layers, ffn):
            for n in range(count):
                self.add_layer(f"model.{stack}.layers.{n}.", d, width, ["self_attn", "encoder_attn"][: 1 + (stack == "decoder")])

    def values(self, *shape):
        return self.random.standard_normal(shape).astype(np.float32)

    def vocabulary(self, rows, prefix):
        """Fewer entries than rows: one id has no piece."""
        return dict({"</s>": 0, "<unk>": 1, "<pad>": rows - 1}, **{f"▁{prefix}{i}": i for i in range(3, rows - 1)})

    def add_layer(self, prefix, d, ffn, attentions):
        shapes = {"fc1": (ffn, d), "fc2": (d, ffn), "final_layer_norm": (d,)}
        for attention in attentions:
            shapes.update({f"{attention}.{part}_proj": (d, d) for part in ("q", "k", "v", "out")})
            shapes[f"{attention}_layer_norm"] = (d,)
        for name, shape in shapes.items():
            self.tensors[prefix + name + ".weight"] = self.values(*shape)
            self.tensors[prefix + name + ".bias"] = self.values(shape[0])

    def tie(self, *stored):
        matrix = self.tensors.pop(SHARED)
        self.tensors.update({name: matrix for name in stored})

    def write(self, directory):
        os.makedirs(directory, exist_ok=True)
        objects = {"config.json": self.config, "generation_config.json": self.generation, "vocab.json": self.vocab,
                   "tokenizer_config.json": self.tokenizer, "target_vocab.json": self.target_vocab}
        contents = {name: json.dumps(value, ensure_ascii=False).encode() for name, value in objects.items() if value is not None}
        dtypes = self.dtype if callable(self.dtype) else lambda name: self.dtype
        contents["model.safetensors"] = encode_safetensors(self.tensors, dtypes)
        for name, data in dict(contents, **self.files).items():
            if data is not None:
                with open(os.path.join(directory, name), "wb") as file:
                    file.write(data)
        return directory


def expected_tensors(t, config):
    """The tensors of model.bin, put together from a checkpoint's."""
    rows = lambda *names: np.concatenate([t[name] for name in names])
    encoder = t[ENCODER] if ENCODER in t else t[next(n for n in TIED if n in t)]
    decoder = t[next(n for n in (DECODER, HEAD, SHARED, ENCODER) if n in t)]
    head = t[HEAD] if HEAD in t else decoder
    result = {"encoder.embedding.weight": encoder, "decoder.embedding.weight": decoder, "decoder.projection.weight": head,
              "decoder.projection.bias": t["final_logits_bias"][0] if "final_logits_bias" in t else np.zeros(len(decoder))}
    for kind in ("weight", "bias"):
        for stack in ("encoder", "decoder"):
            for n in range(config[f"{stack}_layers"]):
                p, q = f"model.{stack}.layers.{n}.", f"{stack}.{n}."
                result[f"{q}self.qkv.{kind}"] = rows(*(f"{p}self_attn.{x}_proj.{kind}" for x in "qkv"))
                for ours, theirs in (("self.out", "self_attn.out_proj"), ("self.norm", "self_attn_layer_norm"),
                                     ("feed_forward.up", "fc1"), ("feed_forward.down", "fc2"),
                                     ("feed_forward.norm", "final_layer_norm"), ("cross.query", "encoder_attn.q_proj"),
                                     ("cross.out", "encoder_attn.out_proj"), ("cross.norm", "encoder_attn_layer_norm")):
                    if stack == "decoder" or not ours.startswith("cross"):
                        result[f"{q}{ours}.{kind}"] = t[f"{p}{theirs}.{kind}"]
        result[f"decoder.cross.keys_values.{kind}"] = rows(*(
            f"model.decoder.layers.{n}.encoder_attn.{x}_proj.{kind}" for n in range(config["decoder_layers"]) for x in "kv"))
    return result


class ConvertTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="xlate-convert-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.checkpoint, self.output = os.path.join(self.folder, "tiny"), os.path.join(self.folder, "model.bin")

    def run_main(self, directory, *options):
        """Exit code and stderr of the converter, run in this process."""
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            code = convert.main([directory, "-o", self.output, *options])
        return code, errors.getvalue()

    def convert(self, checkpoint, *options):
        """The model of a Fixture or directory that must convert without a word."""
        directory = checkpoint.write(self.checkpoint) if isinstance(checkpoint, Fixture) else checkpoint
        self.assertEqual(self.run_main(directory, *options), (0, ""))
        self.assertFalse(os.path.exists(self.output + ".partial"))
        return ModelBin(self.output, hash64)

    def refuse(self, checkpoint, file, what, *found, options=()):
        """The converter says one line about file and what, with all of found in it, and leaves nothing behind."""
        directory = checkpoint.write(self.checkpoint) if isinstance(checkpoint, Fixture) else checkpoint
        code, errors = self.run_main(directory, *options)
        self.assertEqual((code, errors.count("\n")), (1, 1), errors)
        path = os.path.join(directory, file) if file else directory
        self.assertTrue(errors.startswith(f"convert.py: {path}: {what}: expected "), errors)
        for text in (", found ", *found):
            self.assertIn(text, errors)
        self.assertFalse(os.path.exists(self.output) or os.path.exists(self.output + ".partial"))
        shutil.rmtree(directory, ignore_errors=True)

    def assert_tensors(self, model, expected):
        self.assertEqual(set(model.tensors), set(expected))
        for name, values in expected.items():
            np.testing.assert_array_equal(model.tensors[name], values, name)


class HashTest(unittest.TestCase):
    IMPLEMENTATIONS = [xxh64.PythonXXH64] + ([xxh64.LibraryXXH64] if xxh64.find_library() else [])

    def implementations(self):
        try:
            import xxhash
            return self.IMPLEMENTATIONS + [xxhash.xxh64]
        except ImportError:
            return self.IMPLEMENTATIONS

    def digest(self, make, *parts):
        state = make()
        for part in parts:
            state.update(part)
        return state.intdigest()

    def test_known_vectors(self):
        generator, sanity = 2654435761, bytearray()
        for _ in range(222):
            sanity.append(generator >> 56)
            generator = generator * 11400714785074694797 % (1 << 64)
        vectors = ((b"", 0xEF46DB3751D8E999), (b"a", 0xD24EC4F1A98C6E5B), (b"abc", 0x44BC2CF5AD770999),
                   (bytes(sanity[:1]), 0xE934A84ADB052768), (bytes(sanity[:4]), 0x9136A0DCA57457EE),
                   (bytes(sanity[:14]), 0x8282DCC4994E35C8), (bytes(sanity), 0xB641AE8CB691C174))
        for make in self.implementations():
            for data, digest in vectors:
                self.assertEqual(self.digest(make, data), digest, (make, data))

    def test_all_agree_however_the_data_is_cut(self):
        rng = random.Random(5)
        for size in [*range(0, 100), 1000, 4096, 100_003]:
            data = rng.randbytes(size)
            cuts = sorted(rng.randrange(size + 1) for _ in range(4))
            parts = [data[a:b] for a, b in zip([0] + cuts, cuts + [size])]
            digests = {self.digest(make, *p) for make in self.implementations() for p in ([data], parts, [memoryview(data)])}
            self.assertEqual(len(digests), 1, size)

    def test_falls_back(self):
        with mock.patch.dict(sys.modules, xxhash=None):
            self.assertIsInstance(xxh64.start(), xxh64.LibraryXXH64 if xxh64.find_library() else xxh64.PythonXXH64)
            with mock.patch.object(xxh64, "find_library", lambda: None):
                self.assertIsInstance(xxh64.start(), xxh64.PythonXXH64)


class WeightsTest(ConvertTest):
    def test_own_dtype_is_copied(self):
        for dtype, ours in (("F32", "float32"), ("F16", "float16"), ("BF16", "bfloat16")):
            fixture = Fixture(dtype=dtype)
            model = self.convert(fixture)
            stored = {name: LOAD[dtype](STORE[dtype](v).tobytes()).reshape(v.shape) for name, v in fixture.tensors.items()}
            self.assert_tensors(model, expected_tensors(stored, fixture.config))
            self.assertEqual({e["dtype"] for e in model.header["tensors"]}, {ours})

    def test_every_dtype_from_every_dtype(self):
        for dtype in STORE:
            fixture = Fixture(dtype=dtype)
            fixture.tensors["model.encoder.layers.0.fc1.weight"][0, :8] = [1.00390625, 1.01171875, -1.00390625, 3e-6, 1e-7, 0, -0.0, 65000]
            stored = {name: LOAD[dtype](STORE[dtype](v).tobytes()).reshape(v.shape) for name, v in fixture.tensors.items()}
            expected = expected_tensors(stored, fixture.config)
            for option, target in (("fp32", "F32"), ("fp16", "F16"), ("bf16", "BF16")):
                rounded = {k: LOAD[target](STORE[target](v).tobytes()).reshape(v.shape) for k, v in expected.items()}
                self.assert_tensors(self.convert(fixture, "--dtype", option), rounded)

    def test_blocks_and_whole_tensors_give_the_same(self):
        fixture = Fixture(source=70)
        whole = {option: self.convert(fixture, "--dtype", option).data for option in ("fp16", "bf16", "int8")}
        with mock.patch.object(sys.modules["checkpoint_reader"], "BLOCK", 48):
            for option, data in whole.items():
                self.assertEqual(self.convert(fixture, "--dtype", option).data, data)

    def test_every_half(self):
        words = np.arange(1 << 16, dtype="<u2").reshape(-1, 1024)
        for block in (words, *words):  # rows with infinities or NaN, and rows without
            expected = block.view("<f2").astype("<f4")
            values = model_writer.to_float32(block, "float16", finite=bool(np.isfinite(expected).all()))
            np.testing.assert_array_equal(values.view("<u4"), expected.view("<u4"))

    def test_subnormal_scales(self):
        fixture = Fixture(dtype="F32")
        for row, magnitude in enumerate((1e-45, 1e-44, 1e-43, 3e-43, 1e-42, 1e-41, 1e-40, 1e-39, 1e-38, 1e-37, 1)):
            fixture.tensors[SHARED][row] *= np.float32(magnitude)
        model = self.convert(fixture, "--dtype", "int8")
        self.assertLessEqual(np.abs(model.stored["encoder.embedding.weight"].astype(int)).max(), 127)

    def test_int8(self):
        fixture = Fixture(dtype="F16")
        fixture.tensors[SHARED][2] = 0
        fixture.tensors[SHARED][3] *= 1e-6  # subnormal in float16
        stored = {name: v.astype("<f2").astype("<f4") for name, v in fixture.tensors.items()}
        model, expected = self.convert(fixture, "--dtype", "int8"), expected_tensors(stored, fixture.config)
        for entry in model.header["tensors"]:
            name, values = entry["name"], expected.get(entry["name"])
            if name.endswith(".scale"):
                self.assertEqual(entry["dtype"], "float32")
            elif values.ndim == 1:
                self.assertEqual(entry["dtype"], "float16")
                np.testing.assert_array_equal(model.tensors[name], values)
            else:
                largest, scale = np.abs(values).max(axis=1), model.stored[name + ".scale"]
                np.testing.assert_array_equal(scale, np.where(largest == 0, 1, largest / np.float32(127)).astype("<f4"))
                self.assertTrue((np.abs(model.tensors[name] - values) <= scale[:, None] * 0.5001).all(), name)
                np.testing.assert_array_equal(np.abs(model.stored[name]).max(axis=1), np.where(largest == 0, 0, 127))
        for name in ("encoder.embedding.weight", "decoder.projection.weight"):
            self.assertEqual(model.offset(name + ".scale"), model.offset("decoder.embedding.weight.scale"))

    def test_mixed_dtypes(self):
        fixture = Fixture(dtype=lambda name: "F32" if "k_proj" in name or "norm" in name else "F16")
        dtypes = {e["name"]: e["dtype"] for e in self.convert(fixture).header["tensors"]}
        self.assertEqual([dtypes[f"encoder.0.{name}"] for name in ("self.qkv.weight", "self.norm.bias", "feed_forward.up.weight")],
                         ["float32", "float32", "float16"])

    def test_overflow_is_refused(self):
        for dtype, option, value in (("F32", "fp16", 70000.0), ("BF16", "fp16", -1e6), ("F32", "bf16", 3.4e38)):
            fixture = Fixture(dtype=dtype)
            fixture.tensors["model.decoder.layers.1.fc2.weight"][3, 2] = value
            self.refuse(fixture, "model.safetensors", "model.decoder.layers.1.fc2.weight", "can hold", options=("--dtype", option))

    def test_nan_and_infinity_are_kept_with_a_warning(self):
        for dtype in STORE:
            fixture = Fixture(dtype="F32")
            fixture.tensors["model.encoder.layers.0.fc1.bias"][:3] = np.nan, np.inf, -np.inf
            words = fixture.tensors["model.encoder.layers.0.fc1.bias"].view("<u4")
            words[3] = 0x7FFFFFFF  # a NaN that rounding to bfloat16 would make a zero
            fixture.write(self.checkpoint)
            code, errors = self.run_main(self.checkpoint, "--dtype", {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}[dtype])
            self.assertEqual((code, errors.count("\n")), (0, 1))
            self.assertIn("model.encoder.layers.0.fc1.bias: holds NaN or infinity", errors)
            bias = ModelBin(self.output, hash64).tensors["encoder.0.feed_forward.up.bias"][:4]
            np.testing.assert_array_equal(bias, np.float32([np.nan, np.inf, -np.inf, np.nan]))
        os.remove(self.output)
        fixture.tensors["model.encoder.layers.0.fc1.weight"][0, 0] = np.nan
        self.refuse(fixture, "model.safetensors", "model.encoder.layers.0.fc1.weight", options=("--dtype", "int8"))

    def test_any_tied_name_may_be_stored(self):
        for count in range(1, 5):
            for names in combinations(TIED, count):
                fixture = Fixture()
                fixture.tie(*names)
                model = self.convert(fixture)
                self.assertEqual(len({model.offset(f"{n}.weight") for n in (
                    "encoder.embedding", "decoder.embedding", "decoder.projection")}), 1)
                stored = {name: v.astype("<f2").astype("<f4") for name, v in fixture.tensors.items()}
                self.assert_tensors(model, expected_tensors(stored, fixture.config))

    def test_tied_names_with_other_values_are_refused(self):
        fixture = Fixture()
        fixture.tensors[DECODER] = fixture.tensors[SHARED] + 1
        self.refuse(fixture, "model.safetensors", DECODER, SHARED)

    def test_separate_vocabularies(self):
        for stored in ((DECODER,), (HEAD,), (DECODER, HEAD)):
            fixture = Fixture(source=11, target=17)
            matrix = fixture.tensors.pop(DECODER)
            fixture.tensors.update({name: matrix for name in stored})
            model = self.convert(fixture)
            values = {name: v.astype("<f2").astype("<f4") for name, v in fixture.tensors.items()}
            self.assert_tensors(model, expected_tensors(values, fixture.config))
            self.assertEqual(model.offset("decoder.embedding.weight"), model.offset("decoder.projection.weight"))
            self.assertEqual((model.pieces("source")[3], model.pieces("target")[3]), ("▁s3", "▁t3"))
            self.assertEqual((model.pieces("source")[2], model.pieces("target")[2]), (None, None))
            self.assertEqual(model.header["tokens"], {"start": 16, "end": 0, "pad": 16, "unknown": 1})

    def test_separate_embeddings_of_one_vocabulary(self):
        fixture = Fixture(source=11, target=11)
        fixture.target_vocab, fixture.tokenizer = None, None
        model = self.convert(fixture)
        self.assertEqual(model.offset("source.pieces"), model.offset("target.pieces"))
        self.assertNotEqual(model.offset("encoder.embedding.weight"), model.offset("decoder.embedding.weight"))
        fixture.tensors[DECODER] = fixture.tensors[ENCODER]  # equal by chance: still stored once
        model = self.convert(fixture)
        self.assertEqual(model.offset("encoder.embedding.weight"), model.offset("decoder.embedding.weight"))

    def test_untied_projection(self):
        fixture = Fixture()
        fixture.config["tie_word_embeddings"] = False
        fixture.tensors[HEAD] = fixture.values(11, 8)
        model = self.convert(fixture)
        np.testing.assert_array_equal(model.tensors["decoder.projection.weight"], fixture.tensors[HEAD].astype("<f2"))
        np.testing.assert_array_equal(model.tensors["decoder.embedding.weight"], fixture.tensors[SHARED].astype("<f2"))
        del fixture.tensors[HEAD]
        os.remove(self.output)
        self.refuse(fixture, "model.safetensors", HEAD, "found none")

    def test_no_bias_and_stored_positions(self):
        fixture = Fixture()
        del fixture.tensors["final_logits_bias"]
        for stack in ("encoder", "decoder"):
            fixture.tensors[f"model.{stack}.embed_positions.weight"] = fixture.values(16, 8)
        model = self.convert(fixture)
        np.testing.assert_array_equal(model.tensors["decoder.projection.bias"], np.zeros(11))

    def test_shapes_that_differ_between_the_stacks(self):
        for layers, ffn, heads in (((1, 3), (8, 24), (8, 1)), ((4, 1), (32, 4), (1, 2))):
            config = self.convert(Fixture(layers=layers, ffn=ffn, heads=heads)).header["config"]
            for i, stack in enumerate(("encoder", "decoder")):
                self.assertEqual([config[f"{stack}_{k}"] for k in ("layers", "ffn", "heads")], [layers[i], ffn[i], heads[i]])

    def test_shards(self):
        fixture = Fixture()
        plain = self.convert(fixture).data
        os.remove(os.path.join(self.checkpoint, "model.safetensors"))
        names, files = sorted(fixture.tensors), {}
        for i in range(3):
            files[f"model-0000{i}-of-00003.safetensors"] = {name: fixture.tensors[name] for name in names[i::3]}
        index = {"metadata": {}, "weight_map": {name: shard for shard, tensors in files.items() for name in tensors}}
        for shard, tensors in files.items():
            with open(os.path.join(self.checkpoint, shard), "wb") as file:
                file.write(encode_safetensors(tensors, lambda name: "F16"))

        def write_index():
            with open(os.path.join(self.checkpoint, "model.safetensors.index.json"), "w") as file:
                json.dump(index, file)

        write_index()
        self.assertEqual(self.convert(self.checkpoint).data, plain)
        os.remove(self.output)
        for change in ("../x", "\ud800", "a\0b", 3, None, "missing.safetensors", "model-00001-of-00003.safetensors"):
            good = index["weight_map"][names[0]]
            index["weight_map"][names[0]] = change
            write_index()
            code, errors = self.run_main(self.checkpoint)
            self.assertEqual((code, errors.count("\n")), (1, 1), errors)
            index["weight_map"][names[0]] = good

    def test_pytorch_file(self):
        try:
            import torch
        except ImportError:
            self.skipTest("no PyTorch")
        for dtype, kind in (("F32", torch.float32), ("F16", torch.float16), ("BF16", torch.bfloat16)):
            fixture = Fixture(dtype=dtype)
            plain = self.convert(fixture).data
            os.remove(os.path.join(self.checkpoint, "model.safetensors"))
            path = os.path.join(self.checkpoint, "pytorch_model.bin")
            torch.save({k: torch.tensor(v).to(kind) for k, v in fixture.tensors.items()}, path)
            self.assertEqual(self.convert(self.checkpoint).data, plain)
            os.remove(path)
        for stored in ({"a": torch.zeros(3, dtype=torch.int8)}, {"a": 3}, {4: torch.zeros(2)}, [torch.zeros(2)]):
            torch.save(stored, path)
            code, errors = self.run_main(self.checkpoint)
            self.assertEqual((code, errors.count("\n")), (1, 1), errors)
        for data in (b"", b"junk" * 50, read(path)[:-40]):
            with open(path, "wb") as file:
                file.write(data)
            code, errors = self.run_main(self.checkpoint)
            self.assertEqual((code, errors.count("\n")), (1, 1), errors)

    def test_safetensors_are_preferred_and_pytorch_may_be_missing(self):
        fixture = Fixture()
        fixture.files["pytorch_model.bin"] = b"junk"
        self.convert(fixture)
        os.remove(os.path.join(self.checkpoint, "model.safetensors"))
        os.remove(self.output)
        with mock.patch.dict(sys.modules, torch=None):
            self.refuse(self.checkpoint, "pytorch_model.bin", "file", "PyTorch")


class HeaderTest(ConvertTest):
    def test_config(self):
        fixture = Fixture()
        model = self.convert(fixture, "--license", "CC0; füße")
        self.assertEqual(model.header["config"], {
            "d_model": 8, "encoder_layers": 3, "decoder_layers": 2, "encoder_heads": 2, "decoder_heads": 4, "encoder_ffn": 12,
            "decoder_ffn": 20, "source_vocabulary": 11, "target_vocabulary": 11, "activation": "swish", "norm": "post",
            "norm_epsilon": 1e-5, "embedding_scale": 8 ** 0.5, "positions": "sinusoidal", "max_source_length": 512})
        self.assertEqual(model.header["architecture"], "transformer")
        self.assertEqual(model.header["provenance"],
                         {"converter": "scripts/convert.py", "source": "tiny", "license": "CC0; füße"})
        self.assertEqual(self.convert(self.checkpoint + "/", "--license", "CC0; füße").data, model.data)

    def test_activations_and_scale(self):
        for theirs, ours in (("relu", "relu"), ("swish", "swish"), ("silu", "swish"), ("gelu", "gelu"), ("gelu_new", "gelu_tanh"),
                             ("gelu_pytorch_tanh", "gelu_tanh"), ("gelu_fast", "gelu_tanh")):
            fixture = Fixture()
            fixture.config.update(activation_function=theirs, scale_embedding=False)
            config = self.convert(fixture).header["config"]
            self.assertEqual((config["activation"], config["embedding_scale"]), (ours, 1.0))
        del fixture.config["scale_embedding"]
        self.assertEqual(self.convert(fixture).header["config"]["embedding_scale"], 1.0)

    def test_generation(self):
        cases = (({"num_beams": None}, {"beam_size": None}), ({"num_beams": 1}, {"beam_size": 1}),
                 ({"length_penalty": 0.6}, {"length_penalty": 0.6}), ({"length_penalty": 2}, {"length_penalty": 2.0}),
                 ({"early_stopping": True}, {"early_stopping": "true"}), ({"early_stopping": False}, {"early_stopping": "false"}),
                 ({"early_stopping": "never"}, {"early_stopping": "never"}), ({"max_length": 200}, {"max_length": 199}),
                 ({"max_new_tokens": 77}, {"max_length": 77}), ({"max_length": None}, {"max_length": None}),
                 ({"forced_bos_token_id": 7}, {"forced_first": 7}), ({"forced_eos_token_id": None}, {"forced_end": None}),
                 ({"forced_eos_token_id": [0]}, {"forced_end": 0}), ({"renormalize_logits": True}, {"renormalize": True}),
                 ({"bad_words_ids": [[4], [3], [4]]}, {"never_chosen": [3, 4, 10]}),
                 ({"bad_words_ids": None, "suppress_tokens": [5, 2]}, {"never_chosen": [2, 5, 10]}),
                 ({"bad_words_ids": [[0], [3]]}, {"never_chosen": [3, 10]}),  # generate() keeps the end token possible
                 ({"no_repeat_ngram_size": 0, "repetition_penalty": 1.0, "do_sample": False, "min_length": 0}, {}),
                 ({"temperature": 0.7, "top_k": 50, "transformers_version": "4.0", "use_cache": True}, {}))
        defaults = {"beam_size": 6, "max_length": 511, "forced_end": 0, "never_chosen": [10]}
        for change, result in cases:
            fixture = Fixture()
            fixture.generation.update(change)
            expected = {key: value for key, value in dict(defaults, **result).items() if value is not None}
            self.assertEqual(self.convert(fixture).header["generation"], expected, change)

    def test_config_speaks_for_a_missing_generation_config_only(self):
        fixture = Fixture()
        fixture.config.update(num_beams=3, max_length=100, bad_words_ids=[[10]])
        self.assertEqual(self.convert(fixture).header["generation"]["beam_size"], 6)
        fixture.config["no_repeat_ngram_size"] = 3
        self.convert(fixture)
        fixture.generation = None
        os.remove(os.path.join(self.checkpoint, "generation_config.json"))
        os.remove(self.output)
        self.refuse(fixture, "config.json", "no_repeat_ngram_size", "found 3", "remove the key")
        del fixture.config["no_repeat_ngram_size"]
        self.assertEqual(self.convert(fixture).header["generation"],
                         {"beam_size": 3, "max_length": 99, "forced_end": 0, "never_chosen": [10]})

    def test_start_token_comes_from_the_generation_config_first(self):
        fixture = Fixture()
        fixture.generation["decoder_start_token_id"] = 4
        self.assertEqual(self.convert(fixture).header["tokens"]["start"], 4)
        del fixture.generation["decoder_start_token_id"]
        fixture.config["decoder_start_token_id"] = 5
        self.assertEqual(self.convert(fixture).header["tokens"]["start"], 5)

    def test_sentencepiece_models_are_kept(self):
        fixture = Fixture()
        model = self.convert(fixture)
        self.assertEqual([model.files[name] for name in fixture.files], list(fixture.files.values()))
        fixture.files["target.spm"] = fixture.files["source.spm"]
        model = self.convert(fixture)
        self.assertEqual(model.offset("source.spm"), model.offset("target.spm"))

    def test_one_vocabulary_although_another_lies_beside_it(self):
        fixture = Fixture(source=11, target=11)
        fixture.tokenizer["separate_vocabs"] = False
        self.assertEqual(self.convert(fixture).pieces("target")[3], "▁s3")
        fixture.tokenizer = None
        os.remove(os.path.join(self.checkpoint, "tokenizer_config.json"))
        self.assertEqual(self.convert(fixture).pieces("target")[3], "▁t3")

    def test_unknown_token(self):
        fixture = Fixture()
        fixture.vocab["?"] = fixture.vocab.pop("▁s4")
        fixture.tokenizer["unk_token"] = "?"
        self.assertEqual(self.convert(fixture).header["tokens"]["unknown"], 4)


class OpusShapeTest(ConvertTest):
    def test_both(self):
        for name, special in (("shared", 2570), ("separate", 1473)):
            directory = os.path.join(OPUS_SHAPE, name)
            model = self.convert(directory)
            stored = decode_safetensors(read(directory, "model.safetensors"))
            config = model.header["config"]
            self.assert_tensors(model, expected_tensors({k: v for k, (v, _) in stored.items()}, config))
            self.assertEqual({e["dtype"] for e in model.header["tensors"]}, {"float16"})
            self.assertEqual([config[k] for k in ("d_model", "encoder_layers", "decoder_layers", "encoder_heads", "decoder_heads",
                                                  "encoder_ffn", "decoder_ffn", "activation", "embedding_scale")],
                             [64, 3, 2, 4, 8, 160, 96, "swish", 8.0])
            self.assertEqual(model.header["tokens"], {"start": special, "end": 0, "unknown": 1, "pad": special})
            self.assertEqual(model.header["generation"],
                             {"beam_size": 6, "max_length": 511, "forced_end": 0, "never_chosen": [special]})
            for side, file in (("source", "vocab.json"), ("target", "vocab.json" if name == "shared" else "target_vocab.json")):
                vocabulary, pieces = json.loads(read(directory, file)), model.pieces(side)
                self.assertEqual({p: i for i, p in enumerate(pieces) if p is not None}, vocabulary)
                self.assertEqual(model.files[side + ".spm"], read(directory, side + ".spm"))
            self.assertEqual(model.pieces("target").count(None), 0 if name == "shared" else 3)


class WrongInputTest(ConvertTest):
    def changed(self, part, **changes):
        fixture = Fixture()
        for key, value in changes.items():
            getattr(fixture, part)[key] = value
        return fixture

    def test_config(self):
        for key, value in (("model_type", "bart"), ("model_type", None), ("normalize_before", True), ("add_final_layer_norm", True),
                           ("normalize_embedding", True), ("static_position_embeddings", False), ("activation_function", "tanh"),
                           ("activation_function", ["relu"]), ("d_model", 0), ("d_model", 7), ("d_model", "8"), ("d_model", True),
                           ("encoder_layers", 0), ("decoder_layers", 1.5), ("encoder_attention_heads", 3), ("decoder_ffn_dim", None),
                           ("eos_token_id", 11), ("eos_token_id", [0, 1]), ("pad_token_id", -1), ("pad_token_id", None),
                           ("scale_embedding", 1), ("share_encoder_decoder_embeddings", "yes"), ("max_position_embeddings", 0)):
            fixture = self.changed("config", **{key: value})
            self.refuse(fixture, "config.json", key, "nothing" if value is None else json.dumps(value))

    def test_sizes_against_tensors(self):
        fixture = self.changed("config", vocab_size=12)
        self.refuse(fixture, "model.safetensors", SHARED, "12 rows (vocab_size of config.json)", "found 11")
        self.refuse(self.changed("config", encoder_layers=4), "model.safetensors", "model.encoder.layers.3.self_attn.q_proj.weight",
                    "[8, 8]", "found none")
        self.refuse(self.changed("config", encoder_layers=2), "model.safetensors", "model.encoder.layers.2.fc1.bias", "no such")
        self.refuse(self.changed("config", decoder_ffn_dim=21), "model.safetensors", "model.decoder.layers.0.fc1.weight",
                    "[21, 8]", "[20, 8]")
        self.refuse(self.changed("config", d_model=16), "model.safetensors", SHARED, "[11, 16]", "[11, 8]")

    def test_tensors(self):
        name = "model.decoder.layers.1.encoder_attn.v_proj.bias"
        fixture = Fixture()
        values = fixture.tensors.pop(name)
        self.refuse(fixture, "model.safetensors", name, "[8]", "none")
        for other in (values[:7], values.reshape(1, 8), values.reshape(2, 2, 2), values[:0], values[0].reshape(())):
            fixture.tensors[name] = other
            self.refuse(fixture, "model.safetensors", name, "[8]", str(list(other.shape)))
        for extra in ("model.encoder.layer_norm.weight", "model.encoder.layernorm_embedding.weight", "junk", "a\nb\x1b[1m\ud800"):
            fixture = Fixture()
            fixture.tensors[extra] = fixture.values(8)
            shown = extra if extra.isprintable() else r"a\nb\x1b[1m\ud800"
            self.refuse(fixture, "model.safetensors", shown, "no such tensor")
        fixture = Fixture()
        fixture.tensors["final_logits_bias"] = fixture.values(1, 12)
        self.refuse(fixture, "model.safetensors", "final_logits_bias", "[1, 11]", "[1, 12]")
        fixture = Fixture()
        del fixture.tensors[SHARED]
        self.refuse(fixture, "model.safetensors", SHARED, "found none")
        fixture = Fixture(target=11)
        fixture.tensors[SHARED] = fixture.tensors[ENCODER]
        self.refuse(fixture, "model.safetensors", SHARED, "no such tensor")

    def test_safetensors(self):
        whole = encode_safetensors(Fixture().tensors, lambda name: "F16")
        start = 8 + int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8:start])
        name = "model.encoder.layers.0.fc1.weight"
        begin, end = header[name]["data_offsets"]

        def edited(**changes):
            other = copy.deepcopy(header)
            other[name].update(changes)
            text = json.dumps({k: v for k, v in other.items()}).encode()
            return struct.pack("<Q", len(text)) + text + whole[start:]

        for data, what in (
                (b"", "header"), (whole[:7], "header"), (struct.pack("<Q", 1 << 63) + whole[8:], "header"), (whole[:start - 1], "header"),
                (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "file"), (whole + b"\0\0", "data"),
                (struct.pack("<Q", 2) + b"[]", "JSON"), (struct.pack("<Q", 4) + b"\xff\xfe{}", "JSON"),
                (struct.pack("<Q", 200_000) + b"[" * 200_000, "JSON"), (edited(dtype="I8"), name), (edited(dtype=["F16"]), name),
                (edited(shape=[12, 9]), name), (edited(shape=[-12, -8]), name), (edited(shape="x"), name), (edited(shape=[1e1, 8]), name),
                (edited(data_offsets=[begin + 1, end]), name), (edited(data_offsets=[begin, 1 << 70]), name),
                (edited(data_offsets=[end, begin]), name), (edited(data_offsets=[begin]), name), (edited(data_offsets=None), name),
                (edited(data_offsets=[begin + 2, end + 2]), name), (edited(data_offsets=[-2, end - begin - 2]), name)):
            fixture = Fixture()
            fixture.files["model.safetensors"] = data
            self.refuse(fixture, "model.safetensors", what)
        fixture.files["model.safetensors"] = edited(data_offsets=[0, end - begin])  # over another tensor
        self.refuse(fixture, "model.safetensors", name, "data at offset", "found 0")
        fixture.files["model.safetensors"] = whole[:8] + whole[8:].replace(b'"model.encoder.layers.0.fc2.bias"', b'"model.encoder.layers.0.fc1.bias"', 1)
        self.refuse(fixture, "model.safetensors", "model.encoder.layers.0.fc1.bias", "several")

    def test_vocabularies(self):
        for key, value in (("▁s5", 11), ("▁s5", -1), ("▁s5", 3), ("▁s5", "5"), ("▁s5", 5.0), ("▁s5", True), ("▁s5", None)):
            self.refuse(self.changed("vocab", **{key: value}), "vocab.json", '"▁s5"')
        self.refuse(self.changed("vocab", **{"</s>": 2}), "vocab.json", "</s>", "eos_token_id", "found 2")
        for key in ("</s>", "<unk>"):
            fixture = Fixture()
            del fixture.vocab[key]
            self.refuse(fixture, "vocab.json", key, "found nothing")
        fixture = Fixture()
        fixture.files["vocab.json"] = b'{"</s>": 0, "<unk>": 1, "x": 3, "x": 4}'
        self.refuse(fixture, "vocab.json", "x", "several")
        fixture.files["vocab.json"] = b'{"</s>": 0, "<unk>": 1, "\\ud800": 3}'
        self.refuse(fixture, "vocab.json", r'"\ud800"', "surrogate")
        fixture = Fixture(target=13)
        fixture.target_vocab["▁more"] = 13
        self.refuse(fixture, "target_vocab.json", '"▁more"', "13 rows")
        fixture.target_vocab = None
        self.refuse(fixture, "target_vocab.json", "file", "No such file")

    def test_files(self):
        for name in ("config.json", "vocab.json", "source.spm", "target.spm"):
            Fixture().write(self.checkpoint)
            os.remove(os.path.join(self.checkpoint, name))
            self.refuse(self.checkpoint, name, "file", "No such file")
            fixture = Fixture()
            fixture.files[name] = b""
            self.refuse(fixture, name, "file" if name.endswith("spm") else "JSON")
            fixture.files[name] = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
            self.refuse(fixture, name, "file", "Git LFS")
            Fixture().write(self.checkpoint)
            os.remove(os.path.join(self.checkpoint, name))
            os.mkdir(os.path.join(self.checkpoint, name))
            self.refuse(self.checkpoint, name, "file", "directory")
        Fixture().write(self.checkpoint)
        os.remove(os.path.join(self.checkpoint, "model.safetensors"))
        self.refuse(self.checkpoint, "", "weights", "neither")
        self.refuse(os.path.join(self.folder, "nowhere"), "", "checkpoint", "nothing")
        for name in ("config.json", "generation_config.json", "vocab.json", "tokenizer_config.json"):
            for data in (b"[1]", b"{", b"\xff", b"1" * 5000, b'{"a": 1, "a": 2}', b"[" * 100_000, b"\x00"):
                fixture = Fixture()
                fixture.files[name] = data
                self.refuse(fixture, name, "a" if b"a" in data else "JSON")

    def test_generation(self):
        for key, value in dict(REFUSED_KEYS).items():
            self.refuse(self.changed("generation", **{key: value}), "generation_config.json", key, json.dumps(value), "remove the key")
        for key, value in (("bad_words_ids", [[3, 4]]), ("bad_words_ids", [[]]), ("bad_words_ids", [3]), ("bad_words_ids", 3),
                           ("bad_words_ids", [[11]]), ("bad_words_ids", [[[3]]]), ("suppress_tokens", [-1]), ("suppress_tokens", 3),
                           ("suppress_tokens", ["3"]), ("num_beams", 0), ("num_beams", 2.5), ("num_beams", True), ("length_penalty", "1"),
                           ("length_penalty", float("nan")), ("length_penalty", float("inf")), ("length_penalty", True),
                           ("early_stopping", "sometimes"), ("early_stopping", 1), ("max_length", 1), ("max_length", "x"),
                           ("max_new_tokens", 0), ("forced_bos_token_id", 11), ("forced_eos_token_id", [0, 1]), ("eos_token_id", [0, 1]),
                           ("eos_token_id", 2), ("pad_token_id", 9), ("decoder_start_token_id", 11), ("renormalize_logits", 1)):
            self.refuse(self.changed("generation", **{key: value}), "generation_config.json", key)


class RobustnessTest(ConvertTest):
    def outcome(self, directory, case, *options):
        """Either a model that reads back, or one line and nothing left."""
        try:
            code, errors = self.run_main(directory, *options)
        except BaseException as error:
            raise AssertionError(f"{case}: {error!r}") from error
        lines = [line for line in errors.splitlines() if not line.startswith("convert.py: warning: ")]
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
        original = {name: read(self.checkpoint, name) for name in sorted(os.listdir(self.checkpoint))}
        interesting = b'{}[]",:\\0019-.eEtfn\x00\xff\x80 '
        for case in range(1500):
            name = rng.choice(list(original))
            data = bytearray(original[name])
            limit = len(data)
            if name == "model.safetensors":  # mostly its header: altered weights are weights
                limit = 8 + int.from_bytes(data[:8], "little") if case % 8 else len(data)
            for _ in range(rng.choice((1, 1, 2, 5))):
                at, change = rng.randrange(max(1, limit)), rng.random()
                if change < 0.5 and limit:
                    data[at] = rng.choice(interesting) if rng.random() < 0.6 else rng.randrange(256)
                elif change < 0.75:
                    del data[at : at + rng.randrange(1, 9)]
                else:
                    data[at:at] = rng.choice((b"9" * 30, b"-", b"1e999", b"NaN", b"null", b"[" * 50, b'"\\ud800"', rng.randbytes(4)))
                limit = min(limit, len(data))
            with open(os.path.join(self.checkpoint, name), "wb") as file:
                file.write(data)
            codes.append(self.outcome(self.checkpoint, (case, name), "--dtype", rng.choice(("fp32", "fp16", "bf16", "int8"))))
            with open(os.path.join(self.checkpoint, name), "wb") as file:
                file.write(original[name])
        self.assertEqual(set(codes), {0, 1})

    def test_values_of_every_type_under_every_key(self):
        values = (None, True, -1, 0, 1, 2.5, 1 << 40, 10 ** 30, "", "x", "never", [], [0], [[0]], [None], {}, {"a": []}, float("nan"))
        for part in ("config", "generation", "tokenizer"):
            keys = {**getattr(Fixture(), part), **(REFUSED_KEYS if part == "generation" else {})}
            if part == "generation":
                keys.update(dict.fromkeys(("length_penalty", "early_stopping", "max_new_tokens", "suppress_tokens", "renormalize_logits")))
            for key in [*keys, "unk_token"]:
                for value in values:
                    fixture = Fixture(layers=(1, 1))
                    getattr(fixture, part)[key] = value
                    if part != "config" or key != "vocab_size":
                        self.outcome(fixture.write(self.checkpoint), (part, key, value))

    def test_failures_leave_the_old_output_and_no_partial(self):
        Fixture().write(self.checkpoint)
        for error in (OSError(28, "No space left on device"), KeyboardInterrupt(), SystemExit(143), MemoryError()):
            with open(self.output, "wb") as file:
                file.write(b"old")
            with mock.patch.object(model_writer.Writer, "write_tensor", side_effect=error):
                try:
                    code, errors = self.run_main(self.checkpoint)
                    self.assertEqual((code, errors), (1, f"convert.py: {self.output}: No space left on device\n"))
                except (KeyboardInterrupt, SystemExit, MemoryError) as raised:
                    self.assertIs(raised, error)
            self.assertEqual(read(self.output), b"old")
            self.assertEqual(sorted(os.listdir(self.folder)), ["model.bin", "tiny"])


class ProcessTest(ConvertTest):
    def execute(self, *arguments, **options):
        return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=60, **options)

    def failure(self, *arguments, **options):
        result = self.execute(*arguments, **options)
        self.assertEqual((result.returncode, result.stdout, result.stderr.count("\n")), (1, "", 1), result.stderr)
        return result.stderr

    def test_success_is_silent_and_repeatable(self):
        Fixture().write(self.checkpoint)
        result = self.execute(self.checkpoint, "-o", self.output)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))
        self.assertEqual(read(self.output), self.convert(self.checkpoint).data)

    def test_usage_errors(self):
        Fixture().write(self.checkpoint)
        for arguments in ([], [self.checkpoint], ["-o", self.output], [self.checkpoint, "-o", self.output, "--dtype", "fp8"],
                          [self.checkpoint, "-o", self.output, "--quantize"], [self.checkpoint, self.checkpoint, "-o", self.output]):
            self.assertEqual(self.execute(*arguments).returncode, 2, arguments)
        self.assertEqual(self.execute("--help").returncode, 0)

    def test_outputs_that_cannot_be(self):
        Fixture().write(self.checkpoint)
        missing = os.path.join(self.folder, "no", "model.bin")
        self.assertIn(f"{missing}.partial: No such file", self.failure(self.checkpoint, "-o", missing))
        self.assertIn("a directory", self.failure(self.checkpoint, "-o", self.folder))
        self.assertIn("a device", self.failure(self.checkpoint, "-o", "/dev/null"))
        self.assertIn("another file than the checkpoint's",
                      self.failure(self.checkpoint, "-o", os.path.join(self.checkpoint, "model.safetensors")))

    def test_a_full_disk(self):
        import resource
        Fixture(source=500).write(self.checkpoint)
        for size in (10, 8000):
            limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            self.assertIn(self.output, self.failure(self.checkpoint, "-o", self.output, preexec_fn=limit))
            self.assertEqual(os.listdir(self.folder), ["tiny"])

    def test_without_numpy(self):
        with open(os.path.join(self.folder, "numpy.py"), "w") as file:
            file.write("raise ImportError('none')\n")
        self.assertIn("convert.py: numpy: ", self.failure(self.folder, "-o", self.output, env=dict(os.environ, PYTHONPATH=self.folder)))

    def test_broken_input(self):
        Fixture().write(self.checkpoint)
        path = os.path.join(self.checkpoint, "model.safetensors")
        with open(path, "r+b") as file:
            file.truncate(os.path.getsize(path) // 2)
        self.assertIn(f"convert.py: {path}: ", self.failure(self.checkpoint, "-o", self.output))


@unittest.skipUnless(os.environ.get("XLATE_LONG") == "1", "XLATE_LONG is not 1")
class LargeTest(ConvertTest):
    """1 GB in at most twice the time of a copy plus 2 s, in at most three times the largest tensor plus 200 MB."""

    def write_large(self, d=1024, ffn=4096, vocabulary=65001, dtype="F16"):
        """As Fixture, but values go to the file in pieces, so that this process stays small: a child's peak begins with it."""
        layers = {"F16": (16, 16), "F32": (7, 7)}[dtype]
        with mock.patch.object(Fixture, "values", lambda self, *shape: np.broadcast_to(np.float32(0), shape)):
            fixture = Fixture(d=d, layers=layers, ffn=(ffn, ffn), heads=(16, 16), source=vocabulary)
        tensors, item = fixture.tensors, {"F16": 2, "F32": 4}[dtype]
        fixture.tensors = {}
        fixture.write(self.checkpoint)
        header, end = {}, 0
        for name in sorted(tensors):
            size = tensors[name].size * item
            header[name] = {"dtype": dtype, "shape": list(tensors[name].shape), "data_offsets": [end, end + size]}
            end += size
        text = json.dumps(header).encode()
        piece = STORE[dtype](np.random.default_rng(3).standard_normal(1 << 20).astype(np.float32)).tobytes()
        with open(os.path.join(self.checkpoint, "model.safetensors"), "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for at in range(0, end, len(piece)):
                file.write(piece[: end - at])
        return end, vocabulary * d * item

    def timed(self, *command):
        begun = time.monotonic()
        child = subprocess.Popen(command)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = 0
        self.assertEqual(status, 0)
        # Where others want the processors too, what it took of them says more than the clock.
        busy = os.getloadavg()[0] > len(os.sched_getaffinity(0)) / 2
        return usage.ru_utime + usage.ru_stime if busy else time.monotonic() - begun, usage.ru_maxrss * 1024

    def test_time_and_memory(self):
        for dtype in ("F16", "F32"):
            size, largest = self.write_large(dtype=dtype)
            self.assertGreater(size, 1e9)
            copy_to = os.path.join(self.folder, "copy")
            source = os.path.join(self.checkpoint, "model.safetensors")
            copied = {}
            for times in (1, 2):  # float32 from float16 writes twice as much
                for _ in range(2):  # the first copy brings the pages
                    copied[times], _ = self.timed("sh", "-c", 'cat $2 > "$1"', "sh", copy_to, " ".join([source] * times))
                    os.remove(copy_to)
            for options in ((), ("--dtype", "int8"), ("--dtype", "fp16"), ("--dtype", "bf16"), ("--dtype", "fp32")):
                for _ in range(3):  # other work on the machine can spoil a measurement, but not make one better
                    seconds, peak = self.timed(sys.executable, SCRIPT, self.checkpoint, "-o", self.output, *options)
                    written = os.path.getsize(self.output)
                    limit = 2 * copied[1 if written < 1.5 * size else 2] + 2
                    os.remove(self.output)
                    print(f"{dtype} {' '.join(options) or 'own dtype'}: {size / 1e9:.2f} GB to {written / 1e9:.2f} GB: {seconds:.2f} s "
                          f"(at most {limit:.2f}), peak {peak / 1e6:.0f} MB (largest tensor {largest / 1e6:.0f} MB)")
                    if seconds < limit:
                        break
                self.assertLess(seconds, limit)
                self.assertLess(peak, 3 * largest + 200e6)


if __name__ == "__main__":
    unittest.main()
