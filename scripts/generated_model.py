"""Writes a model.bin of any shape with random weights. scripts/sweep measures the speed of such
models, and nobody reads their translations."""

import os

import numpy as np

from checkpoint_reader import Settings
from families import SUBLAYERS, describe_network, family_of
from family_tensors import list_layers
from model_writer import Stored, Writer, lay_out, list_entries

SENTENCEPIECE = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
    "tests",
    "data",
    "opus-shape",
    "shared",
    "source.spm",
)
NO_PIECE = b"\xff\xff\xff\xff"
# This many numbers are made at a time.
BLOCK = 1 << 22


class Random:
    """The numbers of this tensor are made while they are written."""

    dtype, path = "float16", "generated"

    def __init__(self, name, shape, spread, mean=0.0):
        self.name, self.shape, self.spread, self.mean = name, list(shape), spread, mean

    def blocks(self):
        random, left = np.random.default_rng(sum(self.name.encode())), int(np.prod(self.shape))
        while left:
            count = min(left, BLOCK)
            yield (
                (
                    random.standard_normal(count, np.float32) * np.float32(self.spread)
                    + np.float32(self.mean)
                )
                .astype("<f2")
                .view("<u2")
            )
            left -= count


class RandomCheckpoint:
    """Has every tensor that somebody asks for. Products keep the magnitude of their inputs."""

    def take(self, name, shape):
        if len(shape) == 2:
            return Random(name, shape, shape[1] ** -0.5)
        return Random(name, shape, 0.05, 1.0 if name.endswith("layer_norm.weight") else 0.0)


def tensors_of(settings, network, d, vocabulary):
    """Yields (name, parts) in the order of the file. The logits have a standard deviation of about
    2."""
    embedding = Random("embedding", (vocabulary, d), 2 * d**-0.5)
    yield from (
        (name, [embedding])
        for name in (
            "encoder.embedding.weight",
            "decoder.embedding.weight",
            "decoder.projection.weight",
        )
    )
    yield "decoder.projection.bias", [Random("bias", (vocabulary,), 0.1)]
    yield from list_layers(RandomCheckpoint(), family_of(settings), network)


def write_model(path, d=512, heads=8, layers=6, ffn=2048, vocabulary=32000, longest=1024):
    """Writes a model whose stacks both have that many layers and heads. The end token is id 0, and
    the last id is the start token and the pad."""
    with open(SENTENCEPIECE, "rb") as file:
        pieces = file.read()
    files = [
        Stored("source.spm", pieces),
        Stored("target.spm", pieces),
        *(Stored(name, NO_PIECE * vocabulary) for name in ("source.pieces", "target.pieces")),
    ]
    settings = Settings.of(
        {
            "model_type": "marian",
            "d_model": d,
            "activation_function": "relu",
            "scale_embedding": True,
            **{
                "%s_%s" % (stack, what): value
                for what, value in (
                    ("layers", layers),
                    ("attention_heads", heads),
                    ("ffn_dim", ffn),
                )
                for stack in SUBLAYERS
            },
        }
    )
    network = describe_network(settings)
    for stack in SUBLAYERS:
        network[stack]["embedding"]["vocabulary"] = vocabulary
    entries = list_entries(list(tensors_of(settings, network, d, vocabulary)), None)
    data_bytes = lay_out(entries, files)
    header = {
        "network": network,
        "tokens": {"start": vocabulary - 1, "end": 0, "pad": vocabulary - 1, "unknown": 1},
        "generation": {
            "max_source_length": longest,
            "beam_size": 4,
            "max_length": longest,
            "never_chosen": [vocabulary - 1],
        },
        "tensors": [entry.header() for entry in entries],
        "files": [file.header() for file in files],
        "provenance": {"converter": "scripts/generated_model.py", "source": "random"},
    }
    with open(path, "wb") as file:
        Writer(file).write_model(header, entries, files, data_bytes)
