#!/usr/bin/env python3
"""Wraps a tokenizer in a tiny model.bin, so that its text can be tested without the network that it
belongs to, also where the converter does not know that network.

Usage: tests/tokenizer_model.py TOKENIZER_DIR OUT.bin

The network has random weights, and nobody reads its output. It has one layer in each stack, and as
many rows as the tokenizer has ids.
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "scripts"))
sys.dont_write_bytecode = True

from checkpoint_reader import InputError, Settings
from generated_model import describe_model
from model_shapes import config_of
from model_writer import Writer, lay_out, list_entries
from tokenizer_choice import read_tokenizer

WIDTH = 8


def describe_tokens(pipeline, ends):
    """Returns the header's `tokens`. `ends` has the ids that end a text where the tokenizer has no
    end token."""
    end = pipeline.end if pipeline.end is not None else (ends or [0])[0]
    tokens = {
        "start": end,
        "end": end,
        "unknown": end if pipeline.unknown is None else pipeline.unknown,
    }
    if pipeline.pad is not None:
        tokens["pad"] = pipeline.pad
    if pipeline.languages:
        tokens["languages"] = pipeline.languages
    if pipeline.added:
        tokens["added"] = pipeline.added
    if pipeline.cleans_up_spaces:
        tokens["clean_up_spaces"] = True
    return tokens


def write_tiny_model(path, rows, tokens, tokenizer, files, source):
    """Writes a model.bin around the header's `tokens` and `tokenizer` and the files of a tokenizer,
    and returns its header. `source` says where the tokenizer comes from."""
    network, tensors, _ = describe_model(config_of("marian", WIDTH, 1, 1, WIDTH, rows))
    entries = list_entries(tensors, None)
    data_bytes = lay_out(entries, files)
    header = {
        "network": network,
        "tokens": tokens,
        "tokenizer": tokenizer,
        "generation": {"max_source_length": 512, "beam_size": 1, "never_chosen": []},
        "tensors": [entry.header() for entry in entries],
        "files": [file.header() for file in files],
        "provenance": {"converter": "tests/tokenizer_model.py", "source": source},
    }
    with open(path, "wb") as file:
        Writer(file).write_model(header, entries, files, data_bytes)
    return header


def write_tokenizer_model(directory, path, rows=None):
    """Writes a model.bin with the tokenizer of a directory and returns its header. `rows` is the
    size of the vocabulary, which is that of config.json unless it is given."""
    config_path = os.path.join(directory, "config.json")
    config = Settings(config_path) if os.path.exists(config_path) else Settings.of({}, config_path)
    rows = rows or config.integer("vocab_size", 1, 1 << 24)
    pipeline = read_tokenizer(directory, config, rows)
    ends = config.get("eos_token_id")
    tokens = describe_tokens(pipeline, ends if isinstance(ends, list) else [ends])
    return write_tiny_model(path, rows, tokens, pipeline.header, pipeline.files, directory)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: tests/tokenizer_model.py TOKENIZER_DIR OUT.bin")
    try:
        write_tokenizer_model(sys.argv[1], sys.argv[2])
    except InputError as error:
        sys.exit(f"tokenizer_model.py: {error}")
