#!/usr/bin/env python3
"""Writes model.bin from a Hugging Face MarianMT directory (opus-mt-* and its like).

Usage: scripts/convert.py CHECKPOINT_DIR -o model.bin [--dtype fp32|fp16|bf16|int8] [--license TEXT]

This file says what the model is: its settings, which tensors it has and what they are called in model.bin
(docs/model-format.md). checkpoint_reader.py reads the directory, marian_tokenizer.py its tokenizer, model_writer.py writes the file. What xlate would translate
otherwise than Hugging Face's `generate` does is refused in one line that says what to change.
"""
from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys

try:
    import numpy  # noqa: F401 (looked for here so that its absence is one line)
except ImportError:
    sys.exit("convert.py: numpy: expected the Python package, found none (try: apt install python3-numpy, or pip install numpy)")

from checkpoint_reader import (ITEM_SIZE, REQUIRED, Checkpoint, InputError, Settings, Tensor, is_integer, read_sentencepiece,
                               refuse, show)
from marian_tokenizer import Tokenizer
from model_writer import Stored, Writer, lay_out, list_entries

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}
ACTIVATIONS = {"relu": "relu", "swish": "swish", "silu": "swish", "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh",
               "gelu_fast": "gelu_tanh", "gelu_accurate": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}

# Architecture switches of older configurations, each with the only value that the format can express.
FIXED_CONFIG = {"normalize_before": False, "add_final_layer_norm": False, "normalize_embedding": False,
                "static_position_embeddings": True}

# Generation settings that model.bin has no place for, each with the value at which it does nothing.
LARGEST = 1 << 24  # what a reader of model.bin takes (models/config.cpp), as the ranges of the generation defaults below
NEUTRAL_GENERATION = {
    "num_beam_groups": 1, "diversity_penalty": 0, "num_return_sequences": 1, "repetition_penalty": 1,
    "encoder_repetition_penalty": 1, "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "min_length": 0,
    "min_new_tokens": 0, "begin_suppress_tokens": [], "forced_decoder_ids": [], "sequence_bias": {}, "force_words_ids": [],
    "constraints": [], "exponential_decay_length_penalty": None, "guidance_scale": 1, "penalty_alpha": 0, "dola_layers": None,
    "stop_strings": [], "max_time": None, "watermarking_config": None, "token_healing": False}
HINT = "(remove the key to convert without it)"

# Of a layer: our name, the checkpoint's (several are stacked by rows), the weight's shape in letters; a bias has the first.
SELF = (("self.qkv", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "DD"),
        ("self.out", ("self_attn.out_proj",), "DD"),
        ("self.norm", ("self_attn_layer_norm",), "D"))
CROSS = (("cross.query", ("encoder_attn.q_proj",), "DD"),
         ("cross.out", ("encoder_attn.out_proj",), "DD"),
         ("cross.norm", ("encoder_attn_layer_norm",), "D"))
FEED_FORWARD = (("feed_forward.up", ("fc1",), "FD"),
                ("feed_forward.down", ("fc2",), "DF"),
                ("feed_forward.norm", ("final_layer_norm",), "D"))
LAYERS = {"encoder": SELF + FEED_FORWARD, "decoder": SELF + CROSS + FEED_FORWARD}


def read_architecture(settings):
    """The header's config, but for the vocabulary sizes, which only the tensors tell."""
    settings.take("model_type", REQUIRED, '"marian"', lambda v: v == "marian")
    for key, value in FIXED_CONFIG.items():
        settings.take(key, value, f"{json.dumps(value)} (xlate has no other)", lambda v: v is value)
    d_model = settings.integer("d_model", 2, 1 << 20)
    if d_model % 2:
        refuse(settings.path, "d_model", "an even number", d_model)
    config = {"d_model": d_model}
    for ours, theirs in (("layers", "layers"), ("heads", "attention_heads"), ("ffn", "ffn_dim")):
        for stack in LAYERS:
            config[f"{stack}_{ours}"] = settings.integer(f"{stack}_{theirs}", 1, 1 << 20)
            if ours == "heads" and d_model % config[f"{stack}_heads"]:
                refuse(settings.path, f"{stack}_attention_heads", f"a divisor of d_model {d_model}", config[f"{stack}_heads"])
    activation = settings.take("activation_function", REQUIRED, f"one of {', '.join(ACTIVATIONS)}",
                               lambda v: isinstance(v, str) and v in ACTIVATIONS)
    scaled = settings.boolean("scale_embedding", False)
    return dict(config, activation=ACTIVATIONS[activation], norm="post", norm_epsilon=1e-5,
                embedding_scale=math.sqrt(d_model) if scaled else 1.0, positions="sinusoidal",
                max_source_length=settings.integer("max_position_embeddings", 2, LARGEST, 1024))


def list_embeddings(checkpoint, d_model, settings):
    """The encoder's, the decoder's and the projection's matrix: one Tensor where they are the same.

    Presence decides, as in transformers 5: a matrix that the file has under its own name is used, whatever config.json says of tying;
    one that it does not have is the one that it is tied to. Where tie_word_embeddings is false, encoder and decoder still share one
    matrix, as in transformers 4, which wrote such files (5 fills what is missing with random numbers).
    """
    shared = settings.boolean("share_encoder_decoder_embeddings", True)
    tied = settings.boolean("tie_word_embeddings", True)
    encoder, decoder, projection = "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"
    if shared:
        together = ["model.shared.weight"] + ([projection, decoder, encoder] if tied else [])
        names = [[encoder] + together, [decoder] + together, [projection] + (together if tied else [])]
    else:
        names = [[encoder], [decoder] + [projection] * tied, [projection] + [decoder] * tied]
    matrices = [checkpoint.take_first(choices, d_model) for choices in names]
    checkpoint.ignore("model.shared.weight")  # which nobody uses where all three have their own, or share none
    if shared and not tied and not {encoder, decoder} <= checkpoint.tensors.keys():
        print(f"convert.py: note: {checkpoint.path}: tie_word_embeddings is false: an embedding that is not there is model.shared.weight, as in "
              "transformers 4 (5 fills it with random numbers)", file=sys.stderr)
    for matrix, key in zip(matrices, ("vocab_size", "decoder_vocab_size")):
        if settings.integer(key, 1, 1 << 30, matrix.shape[0]) != matrix.shape[0]:
            refuse(matrix.path, matrix.name, f"{settings.get(key)} rows ({key} of config.json)", matrix.shape[0])
    if matrices[2].shape[0] != matrices[1].shape[0]:
        refuse(matrices[2].path, matrices[2].name, f"{matrices[1].shape[0]} rows as {matrices[1].name}", matrices[2].shape[0])
    return [next(first for first in matrices if matrix.equals(first)) for matrix in matrices]


def list_positions(checkpoint, config):
    """(name, parts) of the position tables that the checkpoint stores; transformers uses them in place of the sinusoids. Notes their
    lengths in config."""
    for stack in LAYERS:
        name = f"model.{stack}.embed_positions.weight"
        if name in checkpoint.tensors:
            config[f"{stack}_positions"] = config["max_source_length"]
            yield f"{stack}.positions.weight", [checkpoint.take(name, (config["max_source_length"], config["d_model"]))]


def list_layers(checkpoint, config):
    """(name, parts) of every tensor in the layers of both stacks."""
    d_model = config["d_model"]
    for stack, layer in LAYERS.items():
        sizes = {"D": d_model, "F": config[f"{stack}_ffn"]}
        for n in range(config[f"{stack}_layers"]):
            for ours, theirs, letters in layer:
                for kind, shape in (("weight", [sizes[c] for c in letters]), ("bias", [sizes[letters[0]]])):
                    yield (f"{stack}.{n}.{ours}.{kind}",
                           [checkpoint.take(f"model.{stack}.layers.{n}.{part}.{kind}", shape) for part in theirs])
    for kind, shape in (("weight", [d_model, d_model]), ("bias", [d_model])):
        yield (f"decoder.cross.keys_values.{kind}",
               [checkpoint.take(f"model.decoder.layers.{n}.encoder_attn.{part}.{kind}", shape)
                for n in range(config["decoder_layers"]) for part in ("k_proj", "v_proj")])


def list_tensors(checkpoint, config, settings):
    """(name, parts) of every tensor of model.bin, in the order of the file; completes config."""
    encoder, decoder, projection = list_embeddings(checkpoint, config["d_model"], settings)
    config["source_vocabulary"], config["target_vocabulary"] = encoder.shape[0], decoder.shape[0]
    if "final_logits_bias" in checkpoint.tensors:
        bias = checkpoint.take("final_logits_bias", (1, decoder.shape[0]))
        bias.shape = bias.shape[1:]
    else:
        zeros = memoryview(bytes(decoder.shape[0] * ITEM_SIZE[projection.dtype]))
        bias = Tensor(checkpoint.path, "final_logits_bias", projection.dtype, decoder.shape[:1], zeros)
    tensors = [("encoder.embedding.weight", [encoder]), ("decoder.embedding.weight", [decoder]),
               ("decoder.projection.weight", [projection]), ("decoder.projection.bias", [bias])]
    tensors += list_positions(checkpoint, config)
    tensors += list_layers(checkpoint, config)
    checkpoint.check_all_taken()
    return tensors


def read_start(settings, generation, rows):
    """The decoder's first input, of the one file that speaks of generation."""
    for key in ("decoder_start_token_id", "bos_token_id"):
        start = generation.token(key, rows, None)
        if start is not None:
            return start
    there = settings.get("decoder_start_token_id")
    hint = "" if generation is settings or there is None else (
        f" ({os.path.basename(settings.path)}'s, {show(there)}, does not count where {os.path.basename(generation.path)} is there)")
    refuse(generation.path, "decoder_start_token_id", f"an id, here or as bos_token_id{hint}", "nothing")


def read_tokens(settings, generation, tokenizer, config):
    source, target = config["source_vocabulary"], config["target_vocabulary"]
    tokens = {"start": read_start(settings, generation, target), "end": tokenizer.id_of("eos_token", "</s>", source),
              "unknown": tokenizer.id_of("unk_token", "<unk>", source)}
    pad = generation.token("pad_token_id", target, None)
    pad = tokenizer.target_pad(target) if pad is None else pad
    if pad is not None:
        tokens["pad"] = pad
    added = tokenizer.list_added(source)
    if added:
        tokens["added"] = added
    if tokenizer.cleans_up_spaces:
        tokens["clean_up_spaces"] = True
    return tokens


def read_ends(generation, rows):
    """The ids that end a hypothesis. None at all where the file that speaks of generation names none: then the limit does."""
    ends = generation.take("eos_token_id", [], "an id", lambda v: True)
    ends = [end for i, end in enumerate(ends) if end not in ends[:i]] if isinstance(ends, list) else [ends]
    if len(ends) > 1 or not all(is_integer(end) and 0 <= end < rows for end in ends):
        refuse(generation.path, "eos_token_id", f"one id below {rows}", show(generation.get("eos_token_id")))
    return ends


def read_never_chosen(generation, rows, pad, ends):
    words = generation.take("bad_words_ids", [], "a list of lists", lambda v: isinstance(v, list))
    for word in words:
        if not isinstance(word, list) or len(word) != 1:
            refuse(generation.path, "bad_words_ids", f"entries of one id each {HINT}", show(word))
    words = [word[0] for word in words]
    suppressed = generation.take("suppress_tokens", [], "a list of ids", lambda v: isinstance(v, list))
    for key, ids in (("bad_words_ids", words), ("suppress_tokens", suppressed)):
        for value in ids:
            if not is_integer(value) or not 0 <= value < rows:
                refuse(generation.path, key, f"ids below {rows}", show(value))
    # generate() drops the end token from bad_words_ids, though not from suppress_tokens. A pad that is an end, too, may be chosen.
    return sorted(set(suppressed) | set(words + ([] if pad is None else [pad])) - set(ends))


def read_generation(generation, rows, tokens):
    """The defaults of the search, as far as the checkpoint has any."""
    for key, neutral in NEUTRAL_GENERATION.items():
        value = generation.get(key)
        if value is not None and (value != neutral or isinstance(value, bool) != isinstance(neutral, bool)):
            refuse(generation.path, key, f"{json.dumps(neutral)} {HINT}", show(value))
    penalty = generation.take("length_penalty", None, "a number", lambda v: isinstance(v, (int, float)) and
                              not isinstance(v, bool) and abs(v) <= 100)
    stopping = generation.take("early_stopping", None, 'true, false or "never"', lambda v: isinstance(v, bool) or v == "never")
    longest = generation.integer("max_length", 2, LARGEST, None)
    ends = read_ends(generation, rows)
    values = {"beam_size": generation.integer("num_beams", 1, 256, None),
              "length_penalty": None if penalty is None else float(penalty),
              "early_stopping": json.dumps(stopping) if isinstance(stopping, bool) else stopping,
              # max_length counts the start token, max_new_tokens, which wins, does not
              "max_length": generation.integer("max_new_tokens", 1, LARGEST, None if longest is None else longest - 1),
              "forced_first": generation.token("forced_bos_token_id", rows, None),
              "forced_end": generation.token("forced_eos_token_id", rows, None),
              "ends": None if ends == [tokens["end"]] else ends,
              "never_chosen": read_never_chosen(generation, rows, generation.token("pad_token_id", rows, None), ends),
              "renormalize": generation.boolean("renormalize_logits", None),
              "do_sample": generation.boolean("do_sample", False) or None}
    return {key: value for key, value in values.items() if value is not None}


def describe(directory, wanted, license_text):
    """Reads and checks all of the directory: what Writer.write_model() needs."""
    if not os.path.isdir(directory):
        refuse(directory, "checkpoint", "a directory", "a file" if os.path.exists(directory) else "nothing")
    path = lambda name: os.path.join(directory, name)
    optional = lambda name: Settings(path(name)) if os.path.exists(path(name)) else None
    settings = Settings(path("config.json"))
    generation = optional("generation_config.json") or settings  # where it is there, config.json says nothing of generation
    tokenizer = Tokenizer(directory, settings.boolean("share_encoder_decoder_embeddings", True))
    config = read_architecture(settings)
    tensors = list_tensors(Checkpoint(directory), config, settings)
    tokens = read_tokens(settings, generation, tokenizer, config)
    files = [Stored("source.spm", read_sentencepiece(path("source.spm"))),
             Stored("target.spm", read_sentencepiece(path("target.spm"))),
             Stored("source.pieces", tokenizer.pack_pieces("source", config["source_vocabulary"])),
             Stored("target.pieces", tokenizer.pack_pieces("target", config["target_vocabulary"]))]
    entries = list_entries(tensors, wanted)
    data_bytes = lay_out(entries, files)
    provenance = {"converter": "scripts/convert.py", "source": os.path.basename(os.path.abspath(directory))}
    if license_text:
        provenance["license"] = license_text
    header = {"architecture": "transformer", "config": config, "tokens": tokens,
              "generation": read_generation(generation, config["target_vocabulary"], tokens),
              "tensors": [entry.header() for entry in entries], "files": [file.header() for file in files],
              "provenance": {key: os.fsencode(text).decode("utf-8", "replace") for key, text in provenance.items()}}
    return header, entries, files, data_bytes


def convert(directory, output, wanted=None, license_text=None):
    """Writes output from directory; wanted: a dtype of the format, None for the checkpoint's own."""
    if os.path.exists(output):
        if not os.path.isfile(output):
            refuse(output, "output", "a file", "a directory" if os.path.isdir(output) else "a device or pipe")
        if os.path.isdir(directory) and any(os.path.samefile(output, entry) for entry in os.scandir(directory)
                                            if entry.is_file()):
            refuse(output, "output", "another file than the checkpoint's", "one of them")
    description = describe(directory, wanted, license_text)
    partial = output + ".partial"
    with open(partial, "wb") as file:
        try:
            Writer(file).write_model(*description)
            file.close()
            os.replace(partial, output)
        except BaseException:  # interruptions too
            os.unlink(partial)
            raise


def printable(text):
    """On one line, whatever a file's names and values hold."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="convert.py", allow_abbrev=False,
                                     description="Writes model.bin from a Hugging Face MarianMT directory.")
    parser.add_argument("checkpoint", metavar="CHECKPOINT_DIR")
    parser.add_argument("-o", "--output", metavar="model.bin", required=True)
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights (default: the checkpoint's own)")
    parser.add_argument("--license", metavar="TEXT", help="kept in the file for people to read")
    options = parser.parse_args(arguments)
    try:
        convert(options.checkpoint, options.output, DTYPES.get(options.dtype), options.license)
        return 0
    except InputError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or options.output}: {error.strerror or error}"
    print(printable(f"convert.py: {message}"), file=sys.stderr)
    return 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
