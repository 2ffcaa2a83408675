"""Makes tiny checkpoints to convert, knows what model.bin must hold then, and has the base class of
the tests of scripts/convert.py."""

import contextlib
import io
import json
import os
import shutil
import struct
import sys
import tempfile
import unittest

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "scripts"), os.path.join(ROOT, "tests")]
sys.dont_write_bytecode = True

import convert
import xxh64
from model_bin_reader import ModelBin

SCRIPT = os.path.join(ROOT, "scripts", "convert.py")
OPUS_SHAPE = os.path.join(ROOT, "tests", "data", "opus-shape")
SHARED, ENCODER, DECODER, HEAD = TIED = (
    "model.shared.weight",
    "model.encoder.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
    "lm_head.weight",
)
REFUSED_KEYS = {
    "num_beam_groups": 2,
    "begin_suppress_tokens": [3],
    "encoder_no_repeat_ngram_size": 2,
    "encoder_repetition_penalty": 1.5,
    "num_return_sequences": 4,
    "diversity_penalty": 0.5,
    "sequence_bias": {"3": 1.0},
    "exponential_decay_length_penalty": [5, 1.1],
    "force_words_ids": [[3]],
    "forced_decoder_ids": [[1, 3]],
    "stop_strings": ["."],
    "penalty_alpha": 0.6,
}


def read(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()


def hash64(data):
    state = xxh64.start()
    state.update(data)
    return state.intdigest()


def to_bf16(values):
    """Rounds float32 to the nearest bfloat16, ties to even, and returns words. It compares both
    neighbours of each number."""
    words = np.ascontiguousarray(values, "<f4").view("<u4").astype(np.uint64)
    low, high = words >> 16, (words >> 16) + 1
    below, above = words - (low << 16), (high << 16) - words
    return np.where((above < below) | ((above == below) & (low % 2 == 1)), high, low).astype("<u2")


STORE = {"F32": lambda v: v.astype("<f4"), "F16": lambda v: v.astype("<f2"), "BF16": to_bf16}
LOAD = {
    "F32": lambda b: np.frombuffer(b, "<f4"),
    "F16": lambda b: np.frombuffer(b, "<f2").astype("<f4"),
    "BF16": lambda b: (np.frombuffer(b, "<u2").astype("<u4") << 16).view("<f4"),
}


def encode_safetensors(tensors, dtypes):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name in sorted(tensors):
        raw = STORE[dtypes(name)](tensors[name]).tobytes()
        header[name] = {
            "dtype": dtypes(name),
            "shape": list(tensors[name].shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def decode_safetensors(data):
    """Returns values in float32 and dtypes by name, read from a file that is known to be good."""
    start = 8 + int.from_bytes(data[:8], "little")
    header, result = json.loads(data[8:start]), {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            result[name] = (
                LOAD[entry["dtype"]](data[start + begin : start + end]).reshape(entry["shape"]),
                entry["dtype"],
            )
    return result


def sentencepiece_model(*pieces):
    """Returns a SentencePiece model with these pieces and behind them one for what is unknown."""
    field = lambda number, data: bytes([number << 3 | 2, len(data)]) + data
    scored = lambda piece: field(1, field(1, piece.encode()) + b"\x15" + struct.pack("<f", -1))
    return b"".join(map(scored, pieces)) + field(1, field(1, b"<unk>") + b"\x18\x02")


class Fixture:
    """A fixture is a tiny random checkpoint. A test changes its parts and then writes it."""

    def __init__(
        self,
        seed=1,
        dtype="F16",
        source=11,
        target=None,
        d=8,
        layers=(3, 2),
        ffn=(12, 20),
        heads=(2, 4),
    ):
        self.random, self.dtype, self.target = np.random.default_rng(seed), dtype, target
        rows = target or source
        self.config = {
            "model_type": "marian",
            "d_model": d,
            "encoder_layers": layers[0],
            "decoder_layers": layers[1],
            "encoder_attention_heads": heads[0],
            "decoder_attention_heads": heads[1],
            "encoder_ffn_dim": ffn[0],
            "decoder_ffn_dim": ffn[1],
            "activation_function": "swish",
            "vocab_size": source,
            "decoder_vocab_size": rows,
            "pad_token_id": rows - 1,
            "eos_token_id": 0,
            "bos_token_id": 0,
            "decoder_start_token_id": rows - 1,
            "max_position_embeddings": 512,
            "scale_embedding": True,
            "share_encoder_decoder_embeddings": target is None,
            "tie_word_embeddings": True,
            "normalize_before": False,
            "normalize_embedding": False,
            "add_final_layer_norm": False,
            "static_position_embeddings": True,
            "forced_eos_token_id": 0,
        }
        self.generation = {
            "decoder_start_token_id": rows - 1,
            "eos_token_id": 0,
            "pad_token_id": rows - 1,
            "num_beams": 6,
            "max_length": 512,
            "bad_words_ids": [[rows - 1]],
            "forced_eos_token_id": 0,
        }
        self.tokenizer = {"separate_vocabs": target is not None, "source_lang": "eng"}
        self.vocab = self.vocabulary(source, "s")
        self.target_vocab = self.vocabulary(target, "t") if target else None
        self.files = {f"{side}.spm": sentencepiece_model(side) for side in ("source", "target")}
        self.tensors = {"final_logits_bias": self.values(1, rows)}
        self.tensors.update(
            {ENCODER: self.values(source, d), DECODER: self.values(rows, d)}
            if target
            else {SHARED: self.values(source, d)}
        )
        for stack, count, width in zip(("encoder", "decoder"), layers, ffn):
            for n in range(count):
                self.add_layer(
                    f"model.{stack}.layers.{n}.",
                    d,
                    width,
                    ["self_attn", "encoder_attn"][: 1 + (stack == "decoder")],
                )

    def values(self, *shape):
        return self.random.standard_normal(shape).astype(np.float32)

    def vocabulary(self, rows, prefix):
        """Returns a vocabulary with fewer entries than rows, so that one id has no piece."""
        return dict(
            {"</s>": 0, "<unk>": 1, "<pad>": rows - 1},
            **{f"▁{prefix}{i}": i for i in range(3, rows - 1)},
        )

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
        objects = {
            "config.json": self.config,
            "generation_config.json": self.generation,
            "vocab.json": self.vocab,
            "tokenizer_config.json": self.tokenizer,
            "target_vocab.json": self.target_vocab,
        }
        contents = {
            name: json.dumps(value, ensure_ascii=False).encode()
            for name, value in objects.items()
            if value is not None
        }
        dtypes = self.dtype if callable(self.dtype) else lambda name: self.dtype
        contents["model.safetensors"] = encode_safetensors(self.tensors, dtypes)
        for name, data in dict(contents, **self.files).items():
            if data is not None:
                with open(os.path.join(directory, name), "wb") as file:
                    file.write(data)
        return directory


def expected_tensors(t, config):
    """Returns the tensors of model.bin, put together from those of a checkpoint."""
    rows = lambda *names: np.concatenate([t[name] for name in names])
    encoder = t[ENCODER] if ENCODER in t else t[next(n for n in TIED if n in t)]
    decoder = t[next(n for n in (DECODER, HEAD, SHARED, ENCODER) if n in t)]
    head = t[HEAD] if HEAD in t else decoder
    result = {
        "encoder.embedding.weight": encoder,
        "decoder.embedding.weight": decoder,
        "decoder.projection.weight": head,
        "decoder.projection.bias": t["final_logits_bias"][0]
        if "final_logits_bias" in t
        else np.zeros(len(decoder)),
    }
    for stack in ("encoder", "decoder"):
        if f"model.{stack}.embed_positions.weight" in t:
            result[f"{stack}.positions.weight"] = t[f"model.{stack}.embed_positions.weight"]
    for kind in ("weight", "bias"):
        for stack in ("encoder", "decoder"):
            for n in range(config[f"{stack}_layers"]):
                p, q = f"model.{stack}.layers.{n}.", f"{stack}.{n}."
                result[f"{q}self.qkv.{kind}"] = rows(
                    *(f"{p}self_attn.{x}_proj.{kind}" for x in "qkv")
                )
                for ours, theirs in (
                    ("self.out", "self_attn.out_proj"),
                    ("self.norm_after", "self_attn_layer_norm"),
                    ("feed_forward.up", "fc1"),
                    ("feed_forward.down", "fc2"),
                    ("feed_forward.norm_after", "final_layer_norm"),
                    ("cross.query", "encoder_attn.q_proj"),
                    ("cross.out", "encoder_attn.out_proj"),
                    ("cross.norm_after", "encoder_attn_layer_norm"),
                ):
                    if stack == "decoder" or not ours.startswith("cross"):
                        result[f"{q}{ours}.{kind}"] = t[f"{p}{theirs}.{kind}"]
        result[f"decoder.cross.keys_values.{kind}"] = rows(
            *(
                f"model.decoder.layers.{n}.encoder_attn.{x}_proj.{kind}"
                for n in range(config["decoder_layers"])
                for x in "kv"
            )
        )
    return result


class ConvertTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="xlate-convert-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.checkpoint, self.output = (
            os.path.join(self.folder, "tiny"),
            os.path.join(self.folder, "model.bin"),
        )

    def run_main(self, directory, *options, quiet="-q"):
        """Runs the converter in this process and returns its exit code and stderr. It says what it
        understood of the checkpoint if `quiet` is None."""
        options = [*options, quiet] if quiet else options
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            code = convert.main([directory, "-o", self.output, *options])
        return code, errors.getvalue()

    def convert(self, checkpoint, *options):
        """Converts a Fixture or a directory, which must print nothing, and returns the model."""
        directory = (
            checkpoint.write(self.checkpoint) if isinstance(checkpoint, Fixture) else checkpoint
        )
        self.assertEqual(self.run_main(directory, *options), (0, ""))
        self.assertFalse(os.path.exists(self.output + ".partial"))
        return ModelBin(self.output, hash64)

    def refuse(self, checkpoint, file, what, *found, options=()):
        """Checks that the converter prints one line with the file, the fault and each of `found`,
        and leaves no file behind."""
        directory = (
            checkpoint.write(self.checkpoint) if isinstance(checkpoint, Fixture) else checkpoint
        )
        code, errors = self.run_main(directory, *options)
        self.assertEqual((code, errors.count("\n")), (1, 1), errors)
        path = os.path.join(directory, file) if file else directory
        self.assertTrue(errors.startswith(f"convert.py: {path}: {what}: expected "), errors)
        for text in (", found ", *found):
            self.assertIn(text, errors)
        self.assertFalse(os.path.exists(self.output) or os.path.exists(self.output + ".partial"))
        shutil.rmtree(directory, ignore_errors=True)

    @staticmethod
    def generation_of(model):
        """Returns what a model says of search."""
        return {
            key: value
            for key, value in model.header["generation"].items()
            if key != "max_source_length"
        }

    def assert_tensors(self, model, expected):
        self.assertEqual(set(model.tensors), set(expected))
        for name, values in expected.items():
            np.testing.assert_array_equal(model.tensors[name], values, name)
