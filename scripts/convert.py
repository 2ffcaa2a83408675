#!/usr/bin/env python3
"""Writes model.bin from a Hugging Face directory of an encoder-decoder model, or of a model that is
a decoder alone.

Usage: scripts/convert.py CHECKPOINT_DIR -o model.bin [--dtype fp32|fp16|bf16|int8]
       [--adapter DIR] [--no-tokenizer] [--license TEXT] [-q]

families.py describes an encoder-decoder network, and family_tensors.py finds its tensors for
model.bin, whose format is in docs/model-format.md. decoder_network.py and decoder_tensors.py do so
for a decoder alone. generation_settings.py reads the settings of search, and this file puts
everything together. checkpoint.py reads the tensors, adapter.py merges an adapter into them,
tokenizer_choice.py reads the tokenizer (tokenizer_reader.py reads Marian's), chat_template.py the
chat template, special_tokens.py finds the special tokens, and model_writer.py writes the file. A
checkpoint that xlate would translate differently from Hugging Face's `generate` is refused in one
line that says what to change.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

# A user's own Python may have no numpy where the system's has it. If neither has it, that is said
# in one line.
SYSTEM_PYTHON = "/usr/bin/python3"
try:
    import numpy  # noqa: F401
except ImportError:
    other = os.path.realpath(sys.executable) != os.path.realpath(SYSTEM_PYTHON)
    if __name__ == "__main__" and other and os.access(SYSTEM_PYTHON, os.X_OK):
        os.execv(SYSTEM_PYTHON, [SYSTEM_PYTHON, *sys.argv])
    sys.exit(
        "convert.py: numpy: expected the Python package, found none (try: apt install "
        "python3-numpy, or pip install numpy)"
    )

import families
import family_tensors
from adapter import Adapter
from chat_template import mark_tokens, read_chat
from checkpoint import Checkpoint
from checkpoint_reader import InputError, Settings, refuse
from config_values import overflows_float16
from decoder_families import DecoderFamily
from decoder_network import describe_decoder, settings_of_network
from decoder_tensors import DecoderTensors, rename_tensors
from generation_settings import read_generation
from model_writer import Writer, lay_out, list_entries
from special_tokens import read_decoder_tokens, read_pipeline_tokens, read_tokens
from summary import summarise
from tokenizer_choice import has_tokenizer, read_tokenizer
from tokenizer_reader import Tokenizer
from unsupported import refuse_adapter, refuse_experts, refuse_other_format, refuse_quantised

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}
NO_TOKENIZER = "(--no-tokenizer converts it for ids and pieces only)"


def list_tensors(checkpoint, family, network, settings, longest):
    """Returns (name, parts) of every tensor of model.bin in the order of the file, and completes
    `network`. `longest` is the number of rows of a position table."""
    encoder, decoder, projection = family_tensors.list_embeddings(
        checkpoint, family, network, settings
    )
    tensors = [
        ("encoder.embedding.weight", [encoder]),
        ("decoder.embedding.weight", [decoder]),
        ("decoder.projection.weight", [projection]),
    ]
    if family.output_bias and "final_logits_bias" in checkpoint.tensors:
        bias = checkpoint.take("final_logits_bias", (1, decoder.shape[0]))
        bias.shape = bias.shape[1:]
        tensors.append(("decoder.projection.bias", [bias]))
    tensors += family_tensors.list_positions(checkpoint, family, network, longest)
    tensors += family_tensors.list_norms(checkpoint, family, network)
    tensors += family_tensors.list_layers(checkpoint, family, network)
    tensors += family_tensors.list_biases(checkpoint, family, network, settings)
    checkpoint.check_all_taken()
    return tensors


def read_settings(directory, adapter):
    """Returns the settings of config.json. Refuses a checkpoint that xlate does not support."""
    if not os.path.isdir(directory):
        if os.path.exists(directory):
            refuse_other_format(directory, [os.path.basename(directory)])
        found = "a file" if os.path.exists(directory) else "nothing"
        refuse(directory, "checkpoint", "a directory", found)
    refuse_adapter(directory, adapter)
    path = os.path.join(directory, "config.json")
    settings = Settings(path) if os.path.exists(path) else None
    if settings is None or settings.get("model_type") is None:
        refuse_other_format(directory, os.listdir(directory), settings)
    if settings is None:
        refuse(path, "file", "the settings of a Hugging Face checkpoint", "No such file")
    refuse_quantised(settings)
    refuse_experts(settings)
    return settings


def describe_provenance(directory, settings, adapter, tokenizer, license_text, chat_notes):
    """Returns what model.bin says of its origin, for people to read."""
    name_of = lambda folder: os.path.basename(os.path.abspath(folder))
    provenance = {
        "converter": "scripts/convert.py",
        "source": name_of(directory),
        "family": settings.get("model_type"),
    }
    if adapter:
        provenance["adapter"] = name_of(adapter)
    if tokenizer:
        provenance["tokenizer"] = tokenizer
    if license_text:
        provenance["license"] = license_text
    if chat_notes:
        provenance["chat"] = "; ".join(chat_notes)
    return {key: os.fsencode(text).decode("utf-8", "replace") for key, text in provenance.items()}


def read_text(directory, settings, generation, family, rows, with_tokenizer):
    """Returns the special tokens of a model, its Pipeline or None, and the files of the tokenizer.
    `rows` has the sizes of the vocabularies of source and target."""
    kind = family.tokenizer if with_tokenizer else "none"
    alone, pipeline = isinstance(family, DecoderFamily), None
    if kind == "any" and has_tokenizer(directory):
        try:
            pipeline = read_tokenizer(directory, settings, rows[0])
        except InputError as error:
            raise InputError(f"{error} {NO_TOKENIZER}") from error
        if not alone:
            tokens = read_pipeline_tokens(settings, generation, pipeline, rows[0])
            return tokens, pipeline, pipeline.files
    if alone:
        files = pipeline.files if pipeline else Tokenizer(directory, True, "none").list_files(*rows)
        return read_decoder_tokens(generation, pipeline, rows[0]), pipeline, files
    shared = settings.boolean("share_encoder_decoder_embeddings", True)
    tokenizer = Tokenizer(directory, shared, "none" if kind == "any" else kind)
    tokens = read_tokens(settings, generation, tokenizer, *rows)
    return tokens, None, tokenizer.list_files(*rows)


def read_encoder_decoder(directory, settings, family, adapter):
    """Returns the description of an encoder-decoder network, its tensors, and the number of source
    tokens that it was made for. `adapter` is None or the one that is merged."""
    network, longest = families.describe_network(settings), families.read_longest(settings, family)
    checkpoint = Checkpoint(directory)
    if adapter:
        adapter.merge_into(checkpoint, family.swapped)
    return network, list_tensors(checkpoint, family, network, settings, longest), longest


def read_decoder(directory, settings, family, adapter):
    """Returns the description of a network that is a decoder alone, its tensors, and the number of
    tokens of its context. `adapter` is None or the one that is merged."""
    settings = settings_of_network(settings, family)
    network = describe_decoder(settings, family)
    checkpoint = Checkpoint(directory)
    rename_tensors(checkpoint, family, adapter)
    if adapter:
        adapter.merge_into(checkpoint, family.swapped)
    tensors = list(DecoderTensors(checkpoint, family, network, settings).list())
    return network.header, tensors, network.context


def read_chat_of(directory, pipeline):
    """Returns the header's `chat`, or None, and notes about it. Marks the tokens of turns in the
    pipeline, which is None for a model that reads and writes ids: it has no chat."""
    chat, notes = read_chat(directory, pipeline.named) if pipeline else (None, [])
    if chat:
        mark_tokens(chat, pipeline.added, pipeline.plain)
    return chat, notes


def describe(directory, wanted, license_text, adapter, with_tokenizer):
    """Reads and checks the whole directory. Returns the arguments of Writer.write_model()."""
    settings = read_settings(directory, adapter)
    # If generation_config.json is there, config.json says nothing of generation.
    path = os.path.join(directory, "generation_config.json")
    generation = Settings(path) if os.path.exists(path) else settings
    family = families.family_of(settings)
    read = read_decoder if isinstance(family, DecoderFamily) else read_encoder_decoder
    network, tensors, longest = read(directory, settings, family, adapter and Adapter(adapter))
    if overflows_float16(settings, family, tensors):
        network["overflows_float16"] = True
    has_encoder = "encoder" in network
    rows = [
        network[stack]["embedding"]["vocabulary"]
        for stack in ("encoder" if has_encoder else "decoder", "decoder")
    ]
    tokens, pipeline, files = read_text(
        directory, settings, generation, family, rows, with_tokenizer
    )
    # A model with an encoder has no conversation.
    chat, notes = (None, []) if has_encoder else read_chat_of(directory, pipeline)
    entries = list_entries(tensors, wanted)
    data_bytes = lay_out(entries, files)
    header = {
        "network": network,
        "tokens": tokens,
        **({"tokenizer": pipeline.header} if pipeline else {}),
        **({"chat": chat} if chat else {}),
        "generation": {
            "max_source_length": longest,
            **read_generation(generation, rows[1], tokens, has_encoder),
        },
        "tensors": [entry.header() for entry in entries],
        "files": [file.header() for file in files],
        "provenance": describe_provenance(
            directory, settings, adapter, pipeline and pipeline.description, license_text, notes
        ),
    }
    return header, entries, files, data_bytes


def open_output(partial, output):
    """Opens the file that becomes the output. An error names the output."""
    try:
        return open(partial, "wb")
    except OSError as error:
        error.filename = output
        raise


def convert(directory, output, wanted=None, license_text=None, adapter=None, with_tokenizer=True):
    """Writes `output` from `directory` and returns its header. `wanted` is a dtype of the format,
    or None for the checkpoint's own. `adapter` is the directory of a LoRA adapter, or None. Without
    a tokenizer the model reads and writes ids and pieces."""
    if os.path.exists(output):
        if not os.path.isfile(output):
            refuse(
                output,
                "output",
                "a file",
                "a directory" if os.path.isdir(output) else "a device or pipe",
            )
        if os.path.isdir(directory) and any(
            os.path.samefile(output, entry) for entry in os.scandir(directory) if entry.is_file()
        ):
            refuse(output, "output", "another file than the checkpoint's", "one of them")
    description = describe(directory, wanted, license_text, adapter, with_tokenizer)
    partial = output + ".partial"
    with open_output(partial, output) as file:
        try:
            Writer(file).write_model(*description)
            file.close()
            os.replace(partial, output)
        # This includes interruptions.
        except BaseException:
            os.unlink(partial)
            raise
    return description[0]


def printable(text):
    """Returns the text on one line, whatever the names and values of a file contain."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the command line, and exits with 2."""

    def error(self, message):
        self.exit(
            2, printable(f"{self.prog}: {message} ({self.prog} --help lists the options)") + "\n"
        )


def read_options(arguments):
    parser = Parser(
        prog="convert.py",
        allow_abbrev=False,
        description="Writes model.bin from a Hugging Face directory.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT_DIR")
    parser.add_argument("-o", "--output", metavar="model.bin", required=True)
    parser.add_argument(
        "--dtype", choices=DTYPES, help="of the weights (default: the checkpoint's own)"
    )
    parser.add_argument(
        "--adapter",
        metavar="DIR",
        help="a LoRA adapter of PEFT that is merged into the weights; those that it changes are "
        "written in float32 unless --dtype says another type",
    )
    parser.add_argument(
        "--no-tokenizer",
        action="store_true",
        help="leave the tokenizer out: the model then reads and writes ids and pieces only",
    )
    parser.add_argument("--license", metavar="TEXT", help="kept in the file for people to read")
    parser.add_argument("-q", "--quiet", action="store_true", help="do not say what was written")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = read_options(arguments)
    try:
        header = convert(
            options.checkpoint,
            options.output,
            DTYPES.get(options.dtype),
            options.license,
            options.adapter,
            not options.no_tokenizer,
        )
        for line in [] if options.quiet else summarise(header, options.output):
            print(printable(f"convert.py: {line}"), file=sys.stderr)
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
