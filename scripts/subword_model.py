"""Reads the model of a tokenizer: pieces with scores (Unigram) or with merges (BPE), from
tokenizer.json, from vocab.json and merges.txt, or from a SentencePiece model.

A model is checked whole: each piece has an id of its own and can be written as UTF-8, and each
merge joins pieces that are there to one that is there.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from checkpoint_reader import Settings, is_integer, read_bytes, refuse, show
from tokenizer_settings import LARGEST_ID


@dataclass
class Model:
    """`kind` is Unigram or BPE. The other fields are those of the library tokenizers."""

    path: str
    kind: str
    # The ids of the pieces, by their texts.
    vocabulary: dict
    # A Unigram model has the score of each piece.
    scores: dict = field(default_factory=dict)
    # A BPE model has pairs of texts, the first merge first.
    merges: list = field(default_factory=list)
    # The id of a character without a piece, or None if such characters are left out.
    unknown: int | None = None
    byte_fallback: bool = False
    fuse_unknown: bool = False
    ignore_merges: bool = False
    # The number of pieces of the SentencePiece model that this model was made of.
    spm_pieces: int = 0


def check_text(path, text):
    """Returns the UTF-8 bytes of a piece. Refuses half of a surrogate pair."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        refuse(path, show(text).encode("ascii", "backslashreplace").decode(), *HALF_PAIR)


HALF_PAIR = ("valid Unicode", "half of a surrogate pair")


def read_vocabulary(path, values):
    """Returns ids by the texts of pieces. `values` is a JSON object."""
    if not isinstance(values, dict):
        refuse(path, "vocab", "an object", show(values))
    owners = {}
    for text, number in values.items():
        check_text(path, text)
        if not is_integer(number) or not 0 <= number < LARGEST_ID:
            refuse(path, show(text), f"an id below {LARGEST_ID}", show(number))
        if number in owners:
            refuse(path, show(text), "an id of its own", f"{number}, which {owners[number]!r} has")
        owners[number] = text
    return dict(values)


def check_merges(path, merges, vocabulary):
    for rank, (left, right) in enumerate(merges):
        for text in (left, right, left + right):
            if text not in vocabulary:
                refuse(path, f"merge {rank}", "pieces of the vocabulary", f"{show(text)}, no piece")
    return merges


def read_json_merges(settings, values):
    """Returns the merges of a tokenizer.json, which has pairs, or texts with a space between."""
    if not isinstance(values, list):
        refuse(settings.path, "merges", "a list", show(values))
    merges = []
    for rank, value in enumerate(values):
        pair = value.split(" ") if isinstance(value, str) else value
        if not (
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(t, str) for t in pair)
        ):
            refuse(settings.path, f"merge {rank}", "two pieces", show(value))
        merges.append(tuple(pair))
    return merges


def read_pairs(settings, values):
    """Returns the pieces and scores of a Unigram model in tokenizer.json, in the order of ids."""
    if not isinstance(values, list):
        refuse(settings.path, "vocab", "a list of pieces and scores", show(values))
    for number, pair in enumerate(values):
        if not (
            isinstance(pair, list)
            and len(pair) == 2
            and isinstance(pair[0], str)
            and isinstance(pair[1], (int, float))
            and not isinstance(pair[1], bool)
            and math.isfinite(pair[1])
        ):
            refuse(settings.path, f"piece {number}", "a text and a finite score", show(pair))
    return [(text, float(score)) for text, score in values]


def as_library_reads(text):
    """Returns the number that tokenizers reads from a decimal text of a JSON file. It rounds twice,
    the digits and then their product with a power of ten, so the last bit may differ from that of
    the nearest number."""
    if len(text) > 100:
        return float(text)
    number, _, power = text.lower().partition("e")
    whole, _, digits = number.lstrip("-").partition(".")
    value, exponent = int(whole), int(power or 0)
    for digit in digits:
        if value * 10 + int(digit) >= 1 << 64:
            break
        value, exponent = value * 10 + int(digit), exponent - 1
    if value >= 1 << 64 or abs(exponent) > 308:
        return float(text)
    scale = float(f"1e{abs(exponent)}")
    value = float(value) * scale if exponent >= 0 else float(value) / scale
    return -value if text.startswith("-") else value


def make_unigram(path, pairs, unknown, byte_fallback=False):
    """Returns a Unigram model of (text, score) pairs, which have the ids from 0."""
    vocabulary = {}
    for number, (text, _) in enumerate(pairs):
        check_text(path, text)
        if text in vocabulary:
            refuse(path, show(text), "one piece", f"two, {vocabulary[text]} and {number}")
        vocabulary[text] = number
    if unknown is None or not 0 <= unknown < len(pairs):
        refuse(path, "unk_id", f"an id below {len(pairs)}", show(unknown))
    return Model(
        path, "Unigram", vocabulary, dict(pairs), unknown=unknown, byte_fallback=byte_fallback
    )


def make_bpe(path, vocabulary, merges, unknown=None, **options):
    """Returns a BPE model. `unknown` is the text of a piece, or None. `options` are the other
    fields of Model."""
    if unknown is not None and unknown not in vocabulary:
        refuse(path, "unk_token", "a piece of the vocabulary", show(unknown))
    check_merges(path, merges, vocabulary)
    number = None if unknown is None else vocabulary[unknown]
    return Model(path, "BPE", vocabulary, merges=merges, unknown=number, **options)


def kind_of(settings):
    """Returns the kind of the model in a tokenizer.json. Old files do not name it."""
    model = settings.take("model", None, "an object", lambda v: isinstance(v, dict))
    if model is None:
        refuse(settings.path, "model", "an object", "nothing")
    kind = model.get("type")
    if kind is None:
        kind = "BPE" if "merges" in model else "Unigram"
    if kind not in ("BPE", "Unigram"):
        refuse(settings.path, "model", "BPE or Unigram", show(kind))
    return kind, Settings.of(model, settings.path)


def read_model(settings):
    """Returns the model of a tokenizer.json as the file describes it."""
    kind, model = kind_of(settings)
    if kind == "Unigram":
        unknown = model.integer("unk_id", 0, LARGEST_ID, None)
        read_pairs(model, model.get("vocab"))
        file = json.loads(read_bytes(model.path), parse_float=as_library_reads)
        pairs = read_pairs(model, file["model"]["vocab"])
        return make_unigram(model.path, pairs, unknown, model.boolean("byte_fallback", False))
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        model.take(key, "", '"" (xlate has no other)', lambda v: v == "")
    model.take("dropout", 0, "0 (xlate has no other)", lambda v: v == 0)
    return make_bpe(
        model.path,
        read_vocabulary(model.path, model.get("vocab")),
        read_json_merges(model, model.get("merges")),
        model.take("unk_token", None, "a text", lambda v: isinstance(v, str)),
        byte_fallback=model.boolean("byte_fallback", False),
        fuse_unknown=model.boolean("fuse_unk", False),
        ignore_merges=model.boolean("ignore_merges", False),
    )


def read_merges_file(path):
    """Returns the merges of a merges.txt, one in each line."""
    try:
        lines = read_bytes(path).decode("utf-8").split("\n")
    except UnicodeDecodeError:
        refuse(path, "file", "valid UTF-8", "other bytes")
    if lines[-1] == "":
        lines.pop()
    merges = []
    for number, line in enumerate(lines, 1):
        if not line.startswith("#version"):
            pair = line.removesuffix("\r").split(" ")
            if len(pair) != 2:
                refuse(path, f"line {number}", "two pieces", show(line))
            merges.append(tuple(pair))
    return merges
