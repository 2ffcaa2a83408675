"""Reads SentencePiece models: those that xlate runs itself, which it copies into model.bin, and
those that transformers builds another tokenizer from.

The file is a protocol buffer (sentencepiece_model.proto of SentencePiece). Fields that no tokenizer
needs are skipped. What is refused here includes all that xlate would refuse when it loads the model
(tokenization/sentencepiece/model.cpp).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

from checkpoint_reader import read_bytes, refuse, show
from tokenizer_parts import check_charsmap

# These are values of the field "type" of a piece. The other types need no care here.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
LAST_TYPE = 6
# These are values of the field "model_type" of the trainer. The other types are words and
# characters, which xlate can run but transformers does not build tokenizers from.
UNIGRAM, BPE = 1, 2
LAST_KIND = 4
KINDS = {UNIGRAM: "Unigram", BPE: "BPE"}


class Malformed(Exception):
    """The bytes are no whole model. The text says what is wrong."""


@dataclass
class Trainer:
    """These settings of the training say what the pieces are. The values here are the defaults of
    the format."""

    kind: int = UNIGRAM
    unknown: int = 0
    begin: int = 1
    end: int = 2
    unknown_piece: str = "<unk>"
    begin_piece: str = "<s>"
    end_piece: str = "</s>"
    byte_fallback: bool = False


@dataclass
class SentencePieceModel:
    path: str
    # The list has (text, score, type) by id.
    pieces: list
    trainer: Trainer
    charsmap: bytes = b""
    # The list has (id, text, True for a control piece) of the pieces that are no text for the
    # model.
    added: list = field(default_factory=list)


def read_varint(data, at):
    """Returns the number of a protocol buffer at an offset, and the offset behind the number."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise Malformed("a number that is cut short")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise Malformed("a number of more than ten bytes")


def walk(data):
    """Yields (number of the field, its value) of a protocol buffer. A value is a number or bytes.
    Raises Malformed where the bytes are none."""
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = read_varint(data, at)
        elif wire in (1, 2, 5):
            length, at = read_varint(data, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
            value, at = data[at : at + length], at + length
            if at > len(data):
                raise Malformed(f"field {key >> 3} that is cut short")
        else:
            raise Malformed(f"field {key >> 3} of wire type {wire}")
        yield key >> 3, value


def as_number(value):
    """Returns the number of a field, which the format stores as 64 bits of two's complement."""
    if not isinstance(value, int):
        raise Malformed("bytes where a number is expected")
    return value - (1 << 64) if value >= 1 << 63 else value


def as_bytes(value):
    if not isinstance(value, bytes):
        raise Malformed("a number where bytes are expected")
    return value


def as_choice(value, last, what):
    """Returns the number of a field, which counts from 1 to `last`."""
    number = as_number(value)
    if not 1 <= number <= last:
        raise Malformed(f"{what} {number}, which is no number from 1 to {last}")
    return number


def read_piece(path, data, number):
    text, score, kind = b"", 0.0, NORMAL
    for key, value in walk(data):
        if key == 1:
            text = as_bytes(value)
        elif key == 2:
            if len(as_bytes(value)) != 4:
                raise Malformed("a score that has not 4 bytes")
            score = struct.unpack("<f", value)[0]
        elif key == 3:
            kind = as_choice(value, LAST_TYPE, "a piece's type")
    if not text:
        raise Malformed(f"piece {number}, which is empty")
    if not math.isfinite(score):
        refuse(path, f"piece {number}", "a finite score", str(score))
    return as_text(path, f"piece {number}", text), score, kind


def as_text(path, name, data):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        refuse(path, name, "valid UTF-8", repr(data[:40]))


def read_trainer(path, data):
    trainer = Trainer()
    numbers = {40: "unknown", 41: "begin", 42: "end"}
    texts = {45: "unknown_piece", 46: "begin_piece", 47: "end_piece"}
    for key, value in walk(data):
        if key == 3:
            trainer.kind = as_choice(value, LAST_KIND, "the model's type")
        elif key in numbers:
            # The format has 32 bits for these numbers, and -1 where there is no such piece.
            setattr(trainer, numbers[key], (as_number(value) + (1 << 31)) % (1 << 32) - (1 << 31))
        elif key in texts:
            setattr(trainer, texts[key], as_text(path, texts[key], as_bytes(value)))
        elif key == 35:
            trainer.byte_fallback = bool(as_number(value))
    return trainer


def parse(path, data):
    """Returns the SentencePieceModel of a file's bytes. Throws InputError if they are none."""
    model = SentencePieceModel(path, [], Trainer())
    try:
        for key, value in walk(data):
            if key == 1:
                model.pieces.append(read_piece(path, as_bytes(value), len(model.pieces)))
            elif key == 2:
                model.trainer = read_trainer(path, as_bytes(value))
            elif key == 3:
                charsmaps = [as_bytes(v) for k, v in walk(as_bytes(value)) if k == 2]
                model.charsmap = charsmaps[-1] if charsmaps else b""
        if not model.pieces:
            raise Malformed("no piece")
    except Malformed as error:
        refuse(path, "file", "a SentencePiece model", f"{len(data)} bytes with {error}")
    check_unique(model)
    return model


def read_sentencepiece(path):
    """Returns the bytes of a model that xlate runs itself. Throws InputError if it would refuse
    them."""
    data = read_bytes(path)
    model = parse(path, data)
    if all(kind != UNKNOWN for _, _, kind in model.pieces):
        found = f"{len(model.pieces)} pieces, none for what is unknown"
        refuse(path, "file", "a SentencePiece model", found)
    # A pipeline that has a charsmap is checked by tokenizer_json.py.
    if model.charsmap:
        check_charsmap(path, model.charsmap)
    return data


def count_pieces(path):
    """Returns the number of pieces of a SentencePiece model."""
    return len(parse(path, read_bytes(path)).pieces)


def read_sentencepiece_model(path):
    """Returns the SentencePieceModel that transformers builds another tokenizer from. Throws
    InputError if it builds none."""
    model = parse(path, read_bytes(path))
    if model.trainer.kind not in KINDS:
        refuse(path, "model_type", "1 (unigram) or 2 (BPE)", model.trainer.kind)
    model.added = [
        (number, text, kind == CONTROL)
        for number, (text, _, kind) in enumerate(model.pieces)
        if kind in (CONTROL, USER_DEFINED)
    ]
    return model


def check_unique(model):
    numbers = {}
    for number, (text, _, _) in enumerate(model.pieces):
        if text in numbers:
            refuse(model.path, show(text), "one piece", f"two, {numbers[text]} and {number}")
        numbers[text] = number


def list_merges(pieces):
    """Returns the pairs of pieces that join to another piece, in the order in which a BPE model
    joins them: by the id of the joined piece, and the pair with the shorter left piece first.
    `pieces` has the texts by id. transformers makes the merges of a SentencePiece model so."""
    known = set(pieces)
    merges = []
    for text in pieces:
        for split in range(1, len(text)):
            left, right = text[:split], text[split:]
            if left in known and right in known:
                merges.append((left, right))
    return merges
