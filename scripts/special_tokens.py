"""Reads the ids of special tokens: those that begin and end a text, and the tokens of a
tokenizer that the header of model.bin lists."""

from __future__ import annotations

import os

from checkpoint_reader import is_integer, refuse, show
from languages import read_languages

# A step of search allows at most this many end tokens (kMaxEnds in engine/search_state.h).
MOST_ENDS = 8


def read_start(settings, generation, rows):
    """Returns the decoder's first input, from the one file that has the generation settings."""
    for key in ("decoder_start_token_id", "bos_token_id"):
        start = generation.token(key, rows, None)
        if start is not None:
            return start
    there = settings.get("decoder_start_token_id")
    hint = (
        ""
        if generation is settings or there is None
        else (
            f" ({os.path.basename(settings.path)}'s, {show(there)}, does not count where "
            f"{os.path.basename(generation.path)} is there)"
        )
    )
    refuse(
        generation.path,
        "decoder_start_token_id",
        f"an id, here or as bos_token_id{hint}",
        "nothing",
    )


def read_ends(generation, rows):
    """Returns the ids that end a hypothesis. The list is empty where the file with the generation
    settings names none. Then only the limit ends a hypothesis."""
    ends = generation.take("eos_token_id", [], "an id", lambda v: True)
    ends = (
        [end for i, end in enumerate(ends) if end not in ends[:i]]
        if isinstance(ends, list)
        else [ends]
    )
    if not all(is_integer(end) and 0 <= end < rows for end in ends):
        refuse(
            generation.path,
            "eos_token_id",
            f"an id below {rows}, or a list of such ids",
            show(generation.get("eos_token_id")),
        )
    if len(ends) > MOST_ENDS:
        refuse(generation.path, "eos_token_id", f"at most {MOST_ENDS} ids", len(ends))
    return ends


def read_tokens(settings, generation, tokenizer, source, target):
    """Returns the special tokens of a model whose tokenizer is Marian's, or which reads and writes
    ids. `source` and `target` are the sizes of the vocabularies."""
    tokens = {"start": read_start(settings, generation, target)}
    if tokenizer.kind == "none":
        # The user's own tokenizer puts the end token behind a source.
        ends = read_ends(generation, target) or read_ends(settings, target)
        tokens["end"] = tokens["unknown"] = ends[0] if ends else tokens["start"]
    else:
        tokens["end"] = tokenizer.id_of("eos_token", "</s>", source)
        tokens["unknown"] = tokenizer.id_of("unk_token", "<unk>", source)
    pad = generation.token("pad_token_id", target, None)
    pad = tokenizer.target_pad(target) if pad is None else pad
    languages = read_languages(tokenizer, settings.get("model_type"), target)
    return tokens | list_present(
        pad, languages, tokenizer.list_added(source), tokenizer.cleans_up_spaces
    )


def read_pipeline_tokens(settings, generation, pipeline, rows):
    """Returns the special tokens of a model with a Pipeline (tokenizer_pipeline.py). `rows` is the
    size of the vocabulary."""
    start, end, unknown = read_start(settings, generation, rows), pipeline.end, pipeline.unknown
    if end is None:
        ends = read_ends(generation, rows) or read_ends(settings, rows)
        end = ends[0] if ends else start
    tokens = {"start": start, "end": end, "unknown": end if unknown is None else unknown}
    pad = generation.token("pad_token_id", rows, None)
    return tokens | list_present(
        pipeline.pad if pad is None else pad,
        pipeline.languages,
        pipeline.added,
        pipeline.cleans_up_spaces,
    )


def read_decoder_tokens(generation, pipeline, rows):
    """Returns the special tokens of a model that is a decoder alone. It has no start token, and
    nothing ends a prompt. `pipeline` is None for a model that reads and writes ids."""
    pad = generation.token("pad_token_id", rows, None)
    unknown = pipeline and pipeline.unknown
    if unknown is None:
        # No text is unknown to a tokenizer without this token. A piece that a user writes may be.
        unknown = next(iter(read_ends(generation, rows)), 0)
    tokens = {"unknown": unknown}
    if pipeline is None:
        return tokens | list_present(pad, {}, [], False)
    pad = pipeline.pad if pad is None else pad
    return tokens | list_present(pad, {}, pipeline.added, pipeline.cleans_up_spaces)


def list_present(pad, languages, added, cleans_up_spaces):
    """Returns the optional tokens and flags of the header, as far as there are any."""
    tokens = {} if pad is None else {"pad": pad}
    if languages:
        tokens["languages"] = languages
    if added:
        tokens["added"] = added
    if cleans_up_spaces:
        tokens["clean_up_spaces"] = True
    return tokens
