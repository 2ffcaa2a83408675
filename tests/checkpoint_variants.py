#!/usr/bin/env python3
"""Makes checkpoints that differ from tests/data/opus-shape/shared in one way in which real
checkpoints differ.

Usage: checkpoint_variants.py VARIANT DIRECTORY

CMake calls it to write a checkpoint for the tests, tests/data/variants/make.py to make the
references.
"""

import json
import os
import sys

import numpy as np

from checkpoint_fixture import (
    OPUS_SHAPE,
    ROOT,
    SHARED,
    DECODER,
    ENCODER,
    HEAD,
    decode_safetensors,
    encode_safetensors,
    read,
)

DATA = os.path.join(ROOT, "tests", "data")
POSITIONS = [f"model.{stack}.embed_positions.weight" for stack in ("encoder", "decoder")]


class Checkpoint:
    """A checkpoint has the files of opus-shape/shared in memory. A function changes them and then
    writes them."""

    def __init__(self):
        directory = os.path.join(OPUS_SHAPE, "shared")
        self.json = {
            name: json.loads(read(directory, name))
            for name in (
                "config.json",
                "generation_config.json",
                "tokenizer_config.json",
                "vocab.json",
            )
        }
        self.files = {name: read(directory, name) for name in ("source.spm", "target.spm")}
        self.tensors = {
            name: values
            for name, (values, _) in decode_safetensors(
                read(directory, "model.safetensors")
            ).items()
        }
        self.dtypes = dict.fromkeys(self.tensors, "F16")
        self.drawn = 0

    def noise(self, *shape):
        """Returns numbers from -1 to 1 that look random and are the same with every numpy:
        SplitMix64 (Steele et al., 2014) of a counter."""
        count = int(np.prod(shape))
        state = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(self.drawn)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        self.drawn += count
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
        return ((state >> np.uint64(40)).astype(np.float64) / (1 << 23) - 1).reshape(shape)

    def put(self, name, values, dtype="F16"):
        self.tensors[name], self.dtypes[name] = values.astype(np.float32), dtype

    def resize(self, rows):
        """Resizes the embedding and the bias to `rows` tokens. Added embedding rows are random and
        added biases are 0."""
        matrix, bias = self.tensors[SHARED], self.tensors["final_logits_bias"]
        more = max(0, rows - len(matrix))
        self.put(
            SHARED,
            np.concatenate([matrix, self.noise(more, matrix.shape[1]) * 2 * matrix.std()])[:rows],
        )
        self.put("final_logits_bias", np.concatenate([bias, np.zeros((1, more))], axis=1)[:, :rows])
        self.json["config.json"].update(vocab_size=rows, decoder_vocab_size=rows)

    def write(self, directory):
        os.makedirs(directory, exist_ok=True)
        contents = {
            name: json.dumps(value, ensure_ascii=False).encode()
            for name, value in self.json.items()
        }
        contents["model.safetensors"] = encode_safetensors(self.tensors, self.dtypes.get)
        for name, data in dict(contents, **self.files).items():
            with open(os.path.join(directory, name), "wb") as file:
                file.write(data)
        return directory


def added_tokens():
    """Adds tokens of users with every flag. The model has rows for them."""
    checkpoint = Checkpoint()
    checkpoint.resize(2582)
    checkpoint.json["tokenizer_config.json"] = json.loads(
        read(DATA, "variants", "tokenizer_config.json")
    )
    return checkpoint


def own_matrices():
    """Gives the model three matrices that differ from the shared one. config.json says nothing of
    them."""
    checkpoint = Checkpoint()
    shared = checkpoint.tensors[SHARED]
    for name in (ENCODER, DECODER, HEAD):
        checkpoint.put(name, shared + checkpoint.noise(*shared.shape) * shared.std())
    for key in ("share_encoder_decoder_embeddings", "tie_word_embeddings"):
        checkpoint.json["config.json"].pop(key, None)
    return checkpoint


def stored_positions():
    """Adds position tables that differ from the computed ones, each in another type."""
    checkpoint = Checkpoint()
    angles = np.arange(64)[:, None] / 10000 ** (np.arange(32) / 32)
    computed = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    checkpoint.json["config.json"]["max_position_embeddings"] = 64
    for name, dtype in zip(POSITIONS, ("F16", "F32")):
        checkpoint.put(name, computed + checkpoint.noise(64, 64) * 0.4, dtype)
    return checkpoint


def two_languages():
    """Gives the model SentencePiece models for two languages and one vocabulary with the pieces of
    both. The decoder may choose any of them."""
    checkpoint = Checkpoint()
    pieces = {}
    for side, name in (("source", "en"), ("target", "de")):
        checkpoint.files[side + ".spm"] = read(DATA, "segmentation", name + ".spm")
        pieces[side] = pieces_of(checkpoint.files[side + ".spm"])
    vocabulary = {"</s>": 0, "<unk>": 1}
    for piece in pieces["source"] + pieces["target"]:
        vocabulary.setdefault(piece, len(vocabulary))
    vocabulary["<pad>"] = pad = len(vocabulary)
    checkpoint.json["vocab.json"] = vocabulary
    checkpoint.resize(pad + 1)
    checkpoint.put(SHARED, checkpoint.noise(pad + 1, 64) * 0.5)
    checkpoint.put("final_logits_bias", np.zeros((1, pad + 1)))
    checkpoint.json["config.json"].update(pad_token_id=pad, decoder_start_token_id=pad)
    checkpoint.json["generation_config.json"].update(
        pad_token_id=pad, decoder_start_token_id=pad, bad_words_ids=[[pad]]
    )
    return checkpoint


def all_pieces_of(model):
    """Returns the pieces of a SentencePiece model by id. Each is a short message at the beginning
    of the model (sentencepiece_model.proto)."""
    found, at = [], 0
    while model[at] == 0x0A:
        found.append(model[at + 4 : at + 4 + model[at + 3]].decode())
        at += 2 + model[at + 1]
    return found


def pieces_of(model):
    """Returns the pieces without <unk>, <s> and </s>."""
    return all_pieces_of(model)[3:]


VARIANTS = {
    function.__name__: function
    for function in (added_tokens, own_matrices, stored_positions, two_languages)
}

if __name__ == "__main__":
    VARIANTS[sys.argv[1]]().write(sys.argv[2])
