"""Writes a model.bin of any family and shape with random weights. scripts/sweep, scripts/bench
shapes and scripts/bench prompts measure the speed of such models, and nobody reads their texts."""

import collections
import concurrent.futures
import functools
import math
import os
import zlib
from dataclasses import replace

import numpy as np

from checkpoint_reader import Settings, Tensor
from convert import list_tensors
from config_values import overflows_float16
from decoder_families import DecoderFamily
from decoder_network import describe_decoder, settings_of_network
from decoder_tensors import DecoderTensors
from families import SUBLAYERS, describe_network, family_of, read_longest
from generation_settings import read_generation
from model_writer import Stored, Writer, from_float32, lay_out, list_entries
from special_tokens import read_decoder_tokens

NO_PIECE = b"\xff\xff\xff\xff"
# All tensors take their numbers from one array of this many, each from another place of it. The
# number is prime, so that no two rows of a matrix are equal.
POOL = (1 << 22) + 15
# This many numbers are written at a time. Smaller blocks stay in the cache of a core.
BLOCK = 1 << 17
# So many threads write, and so many blocks may wait for them.
THREADS, WAITING = 4, 64
# The logits have this standard deviation.
LOGITS = 2.0
# Logits like those of text have this one. On average they fall with the id, by this factor times
# the logarithm of 1 + id, because the ids of a vocabulary are sorted by frequency. With these
# numbers a position has about as many distinct keys as with ende-base on news.en (1.69 at beam 4),
# and half of the ids of the outputs are below some hundred, as they are there (287).
TEXT_LOGITS, TEXT_SLOPE = 3.0, 1.0
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


class Frequencies(Random):
    """Is the bias of logits that fall with the id. The logits are multiplied by `scale`
    afterwards."""

    def __init__(self, name, size, scale):
        super().__init__(name, "float32", [size], 0)
        self.scale = scale

    def blocks(self):
        bias = -TEXT_SLOPE / self.scale * np.log(np.arange(1, self.shape[0] + 1))
        yield from_float32(bias.astype(np.float32), self.dtype)


class RandomCheckpoint:
    """Takes the place of a checkpoint.Checkpoint, and has every tensor that somebody asks for.
    Products keep the magnitude of their inputs. `sublayers` is the number of those of a layer,
    `writers` has the last parts of the names of products that write to the residual stream, and
    `logits` is the standard deviation of the logits."""

    path = Random.path

    def __init__(self, network, dtype, sublayers, writers, logits=LOGITS):
        decoder, self.dtype, self.writers = network["decoder"], dtype, writers
        # These are the tensors whose presence makes a difference.
        self.tensors = {}
        width, attention = decoder["width"], decoder["attention"]
        self.embedding = logits * width**-0.5 / network["output"]["scale"]
        # T5 does not scale its scores, so that its queries must be smaller.
        self.query = attention["head"] ** -0.5 / attention["scale"]
        # Without a norm behind each sublayer, the residual stream keeps the row of the token that
        # was read. If the layers added little to it, its product with the same row of the tied
        # output matrix would make each token its own successor, and no beams would part. With this
        # factor that product is as large as any other logit.
        added = math.sqrt(ADDED * decoder["layers"] * sublayers)
        only_before = decoder["norm"]["places"] == ["before"]
        self.writer = max(1.0, logits * math.sqrt(width) / added if only_before else 0)

    def have(self, name, shape, spread):
        self.tensors[name] = Random(name, self.dtype, shape, spread)

    def take(self, name, shape):
        if name in self.tensors:
            return self.tensors[name]
        if len(shape) == 1:
            # The only vectors with such names are the gains of norms.
            return Random(name, self.dtype, shape, 0.05, 1.0 if name.endswith(".weight") else 0.0)
        product, spread = name.split(".")[-2], shape[1] ** -0.5
        if product in QUERIES:
            spread *= self.query
        if product in self.writers:
            spread *= self.writer
        return Random(name, self.dtype, shape, spread)

    def take_first(self, names, columns):
        return next(self.tensors[name] for name in names if name in self.tensors)

    def ignore(self, name):
        pass

    def check_all_taken(self):
        pass


def describe_encoder_decoder(settings, family, dtype, like_text):
    """Returns the network of an encoder-decoder model, its tensors, and the number of source tokens
    that it was made for."""
    network, longest = describe_network(settings), read_longest(settings, family)
    logits = TEXT_LOGITS if like_text else LOGITS
    checkpoint = RandomCheckpoint(network, dtype, len(SUBLAYERS["decoder"]), WRITERS, logits)
    rows = settings.integer("vocab_size", 1, 1 << 30)
    shape = rows, network["decoder"]["width"]
    checkpoint.have(family.names["embeddings"] + "shared.weight", shape, checkpoint.embedding)
    if not settings.boolean("tie_word_embeddings", True):
        checkpoint.have("lm_head.weight", shape, checkpoint.embedding)
    if family.output_bias and not like_text:
        checkpoint.have("final_logits_bias", (1, rows), 0.05 * LOGITS)
    tensors = list_tensors(checkpoint, family, network, settings, longest)
    if like_text:
        bias = "decoder.projection.bias"
        tensors.append((bias, [Frequencies(bias, rows, network["output"]["scale"])]))
    return network, tensors, longest


def describe_alone(settings, family, dtype):
    """Returns the network of a model that is a decoder alone, its tensors, and the number of tokens
    of its context."""
    # The converter moves or changes numbers of these families. Random ones may stay as they are.
    family = replace(family, swapped=False, interleaved=False, neighbours=False, gains_less_1=False)
    settings = settings_of_network(settings, family)
    network, names = describe_decoder(settings, family), family.names
    writers = [names[name].split(".")[-1] for name in ("out", "down")]
    checkpoint = RandomCheckpoint(network.header, dtype, len(SUBLAYERS["encoder"]), writers)
    shape = settings.integer("vocab_size", 1, 1 << 30), network.header["decoder"]["width"]
    checkpoint.have(names["prefixes"][0] + names["embedding"], shape, checkpoint.embedding)
    if not settings.boolean("tie_word_embeddings", family.tied):
        checkpoint.have(names["output"][0], shape, checkpoint.embedding)
    tensors = list(DecoderTensors(checkpoint, family, network, settings).list())
    return network.header, tensors, network.context


def describe_model(config, dtype="float16", like_text=False):
    """Returns the network of a configuration, its tensors, as (name, parts) in the order of the
    file, and the number of tokens that it was made for. `like_text` gives a model with an encoder
    logits like those of text."""
    settings = Settings.of(config)
    family = family_of(settings)
    if isinstance(family, DecoderFamily):
        network, tensors, longest = describe_alone(settings, family, dtype)
    else:
        network, tensors, longest = describe_encoder_decoder(settings, family, dtype, like_text)
    if overflows_float16(settings, family, tensors):
        network["overflows_float16"] = True
    return network, tensors, longest


def describe_tokens(settings, network, longest):
    """Returns the special tokens and the settings of search."""
    vocabulary = network["decoder"]["embedding"]["vocabulary"]
    if "encoder" not in network:
        tokens = read_decoder_tokens(settings, None, vocabulary)
        search = read_generation(settings, vocabulary, tokens, has_encoder=False)
        return tokens, {"max_source_length": longest, **search}
    start, end, pad = (
        settings.token(key, vocabulary)
        for key in ("decoder_start_token_id", "eos_token_id", "pad_token_id")
    )
    return {"start": start, "end": end, "pad": pad, "unknown": end}, {
        "max_source_length": longest,
        "beam_size": 4,
        "max_length": longest,
        "never_chosen": [pad],
    }


class ThreadedFile:
    """Is a new file that threads write, while the Writer hashes the next blocks. A model may have
    16 GB."""

    def __init__(self, path):
        self.file, self.at = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), 0
        self.threads = concurrent.futures.ThreadPoolExecutor(THREADS)
        self.waiting = collections.deque()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.finish_writes()
        finally:
            self.threads.shutdown(cancel_futures=True)
            os.close(self.file)

    def write(self, data):
        """Takes data that nobody changes afterwards."""
        if len(self.waiting) == WAITING:
            self.waiting.popleft().result()
        self.waiting.append(self.threads.submit(self.write_at, memoryview(data), self.at))
        self.at += len(data)

    def write_at(self, data, at):
        while data:
            count = os.pwrite(self.file, data, at)
            data, at = data[count:], at + count

    def finish_writes(self):
        while self.waiting:
            self.waiting.popleft().result()

    def seek(self, at):
        # What comes next can be for bytes that a thread has yet to write for the first time.
        self.finish_writes()
        self.at = at


def write_model(path, config, dtype="float16", like_text=False):
    """Writes the model of a configuration, which has what config.json would have
    (model_shapes.config_of and prompt_config_of). The model reads and writes ids. describe_model()
    says what `like_text` means."""
    network, tensors, longest = describe_model(config, dtype, like_text)
    tokens, generation = describe_tokens(Settings.of(config), network, longest)
    pieces = NO_PIECE * config["vocab_size"]
    files = [Stored(name, pieces) for name in ("source.pieces", "target.pieces")]
    entries = list_entries(tensors, None)
    data_bytes = lay_out(entries, files)
    header = {
        "network": network,
        "tokens": tokens,
        "generation": generation,
        "tensors": [entry.header() for entry in entries],
        "files": [file.header() for file in files],
        "provenance": {"converter": "scripts/generated_model.py", "source": "random"},
    }
    with ThreadedFile(path) as file:
        Writer(file).write_model(header, entries, files, data_bytes)
