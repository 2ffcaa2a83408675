"""Writes a model.bin of any family and shape with random weights. scripts/sweep and scripts/bench
shapes measure the speed of such models, and nobody reads their translations."""

import functools
import math
import zlib

import numpy as np

from checkpoint_reader import Settings, Tensor
from convert import list_tensors
from config_values import overflows_float16
from families import SUBLAYERS, describe_network, family_of, read_longest
from model_writer import Stored, Writer, from_float32, lay_out, list_entries

NO_PIECE = b"\xff\xff\xff\xff"
# All tensors take their numbers from one array of this many, each from another place of it. The
# number is prime, so that no two rows of a matrix are equal.
POOL = (1 << 22) + 15
# This many numbers are written at a time. Smaller blocks stay in the cache of a core.
BLOCK = 1 << 17
# The logits have this standard deviation.
LOGITS = 2.0
# A product whose inputs have a variance of 1 adds about this variance to the residual stream,
# because attention takes means and an activation sets numbers to 0.
ADDED = 0.3
# The last parts of the names of products in families.py: those that write to the residual stream,
# and those that make queries.
WRITERS, QUERIES = ("out_proj", "fc2", "o", "wo"), ("q_proj", "q")


@functools.lru_cache(maxsize=None)
def draw_pool():
    return np.random.default_rng(1).standard_normal(POOL, np.float32)


@functools.lru_cache(maxsize=None)
def pool_of(dtype, spread, mean):
    """Returns the numbers of every tensor with this dtype, standard deviation and mean, as unsigned
    words."""
    return from_float32(draw_pool() * np.float32(spread) + np.float32(mean), dtype)


class Random:
    """Is a tensor of random numbers. It has what the functions of family_tensors.py and
    model_writer.py need of a checkpoint_reader.Tensor."""

    path, keeps_dtype = "generated", False

    def __init__(self, name, dtype, shape, spread, mean=0.0):
        self.name, self.dtype, self.shape = name, dtype, list(shape)
        self.spread, self.mean = spread, mean

    def blocks(self):
        pool = pool_of(self.dtype, self.spread, self.mean)
        at, left = zlib.crc32(self.name.encode()) % POOL, math.prod(self.shape)
        while left:
            count = min(left, BLOCK, POOL - at)
            yield pool[at : at + count]
            at, left = (at + count) % POOL, left - count

    def rows_from(self, first):
        shape = [self.shape[0] - first, *self.shape[1:]]
        return Random(self.name, self.dtype, shape, self.spread, self.mean)

    def columns_of_rows(self, rows):
        words = np.concatenate(list(self.blocks())).reshape(self.shape)
        stored = Tensor(self.path, self.name, self.dtype, words.shape, words.data)
        return stored.columns_of_rows(rows)

    def equals(self, other):
        return self is other


class RandomCheckpoint:
    """Takes the place of a checkpoint.Checkpoint, and has every tensor that somebody asks for.
    Products keep the magnitude of their inputs."""

    path = Random.path

    def __init__(self, settings, family, network, dtype):
        decoder, self.dtype = network["decoder"], dtype
        width, rows = decoder["width"], settings.integer("vocab_size", 1, 1 << 30)
        embedding = LOGITS * width**-0.5 / network["output"]["scale"]
        names = [family.names["embeddings"] + "shared.weight"]
        if not settings.boolean("tie_word_embeddings", True):
            names.append("lm_head.weight")
        # These are the tensors whose presence makes a difference.
        self.tensors = {name: Random(name, dtype, (rows, width), embedding) for name in names}
        if family.output_bias:
            name = "final_logits_bias"
            self.tensors[name] = Random(name, dtype, (1, rows), 0.05 * LOGITS)
        # T5 does not scale its scores, so that its queries must be smaller.
        attention = decoder["attention"]
        self.query = attention["head"] ** -0.5 / attention["scale"]
        # Without a norm behind each sublayer, the residual stream keeps the row of the token that
        # was read. If the layers added little to it, its product with the same row of the tied
        # output matrix would make each token its own successor, and no beams would part. With this
        # factor that product is as large as any other logit.
        added = math.sqrt(ADDED * decoder["layers"] * len(SUBLAYERS["decoder"]))
        self.writer = max(1.0, LOGITS * math.sqrt(width) / added if family.place == "before" else 0)

    def take(self, name, shape):
        if name in self.tensors:
            return self.tensors[name]
        if len(shape) == 1:
            is_norm = "norm" in name and name.endswith(".weight")
            return Random(name, self.dtype, shape, 0.05, 1.0 if is_norm else 0.0)
        product, spread = name.split(".")[-2], shape[1] ** -0.5
        if product in QUERIES:
            spread *= self.query
        if product in WRITERS:
            spread *= self.writer
        return Random(name, self.dtype, shape, spread)

    def take_first(self, names, columns):
        return next(self.tensors[name] for name in names if name in self.tensors)

    def ignore(self, name):
        pass

    def check_all_taken(self):
        pass


def describe_model(config, dtype="float16"):
    """Returns the network of a configuration and its tensors, as (name, parts) in the order of the
    file."""
    settings = Settings.of(config)
    family, network = family_of(settings), describe_network(settings)
    checkpoint = RandomCheckpoint(settings, family, network, dtype)
    longest = read_longest(settings, family)
    tensors = list_tensors(checkpoint, family, network, settings, longest)
    if overflows_float16(settings, family, tensors):
        network["overflows_float16"] = True
    return network, tensors


def write_model(path, config, dtype="float16"):
    """Writes the model of a configuration, which has what config.json would have
    (model_shapes.config_of). The model reads and writes ids."""
    network, tensors = describe_model(config, dtype)
    settings, vocabulary = Settings.of(config), config["vocab_size"]
    longest = read_longest(settings, family_of(settings))
    files = [Stored(name, NO_PIECE * vocabulary) for name in ("source.pieces", "target.pieces")]
    entries = list_entries(tensors, None)
    data_bytes = lay_out(entries, files)
    start, end, pad = (
        settings.token(key, vocabulary)
        for key in ("decoder_start_token_id", "eos_token_id", "pad_token_id")
    )
    header = {
        "network": network,
        "tokens": {"start": start, "end": end, "pad": pad, "unknown": end},
        "generation": {
            "max_source_length": longest,
            "beam_size": 4,
            "max_length": longest,
            "never_chosen": [pad],
        },
        "tensors": [entry.header() for entry in entries],
        "files": [file.header() for file in files],
        "provenance": {"converter": "scripts/generated_model.py", "source": "random"},
    }
    with open(path, "wb") as file:
        Writer(file).write_model(header, entries, files, data_bytes)
