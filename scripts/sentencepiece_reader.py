"""Reads a SentencePiece model as transformers does when it builds another tokenizer from it.

The file is a protocol buffer (sentencepiece_model.proto of SentencePiece). Fields that no tokenizer
needs are skipped. A reader that wants only the bytes or the number of pieces uses
checkpoint_reader.py.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

from checkpoint_reader import read_bytes, read_varint, refuse, show

# These are values of the field "type" of a piece. The other types need no care here.
CONTROL, USER_DEFINED = 3, 4
# These are values of the field "model_type" of the trainer.
UNIGRAM, BPE = 1, 2
KINDS = {UNIGRAM: "Unigram", BPE: "BPE"}


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


def walk(data):
    """Yields (number of the field, its value) of a protocol buffer. A value is a number or bytes.
    Raises LookupError where the bytes are none."""
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        if key & 7 == 0:
            value, at = read_varint(data, at)
        else:
            length, at = read_varint(data, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
            value, at = data[at : at + length], at + length
            if at > len(data):
                raise LookupError("a field that is longer than the data")
        yield key >> 3, value


def as_number(value):
    """Returns the number of a field, which the format stores as 64 bits of two's complement."""
    if not isinstance(value, int):
        raise LookupError("bytes where a number is expected")
    return value - (1 << 64) if value >= 1 << 63 else value


def as_bytes(value):
    if not isinstance(value, bytes):
        raise LookupError("a number where bytes are expected")
    return value


def read_piece(path, data, number):
    text, score, kind = b"", 0.0, 1
    for key, value in walk(data):
        if key == 1:
            text = as_bytes(value)
        elif key == 2:
            if len(as_bytes(value)) != 4:
                raise LookupError("a score that is no float")
            score = struct.unpack("<f", value)[0]
        elif key == 3:
            kind = as_number(value)
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
    numbers = {3: "kind", 40: "unknown", 41: "begin", 42: "end"}
    texts = {45: "unknown_piece", 46: "begin_piece", 47: "end_piece"}
    for key, value in walk(data):
        if key in numbers:
            # The format has 32 bits for these numbers, and -1 where there is no such piece.
            setattr(trainer, numbers[key], (as_number(value) + (1 << 31)) % (1 << 32) - (1 << 31))
        elif key in texts:
            setattr(trainer, texts[key], as_text(path, texts[key], as_bytes(value)))
        elif key == 35:
            trainer.byte_fallback = bool(as_number(value))
    return trainer


def read_sentencepiece_model(path):
    """Returns the SentencePieceModel of a file. Throws InputError if it is none."""
    data = read_bytes(path)
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
    except LookupError as error:
        refuse(path, "file", "a SentencePiece model", f"{len(data)} bytes that are none ({error})")
    if not model.pieces:
        refuse(path, "file", "a SentencePiece model", f"{len(data)} bytes without a piece")
    if model.trainer.kind not in KINDS:
        refuse(path, "model_type", "1 (unigram) or 2 (BPE)", model.trainer.kind)
    check_unique(model)
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
