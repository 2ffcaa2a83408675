"""Writes model.bin (docs/model-format.md). Tensors are converted and hashed block by block, and all
parts are written one after another.

Every offset is known before the first byte is written, so the memory does not grow with the
checkpoint.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from dataclasses import dataclass, field

import numpy as np

import xxh64
from checkpoint_reader import ITEM_SIZE, refuse

MAGIC, VERSION, PREAMBLE, ALIGNMENT = b"XLATEMDL", 2, 40, 64
MAGNITUDE_AND_INFINITY = {
    "float32": (0x7FFFFFFF, 0x7F800000),
    "float16": (0x7FFF, 0x7C00),
    "bfloat16": (0x7FFF, 0x7F80),
}


@dataclass
class Entry:
    """An entry is a tensor of model.bin. Its parts are whole tensors of the checkpoint that lie one
    after another."""

    name: str
    parts: list
    dtype: str
    shape: list
    offset: int = 0
    # The scales of int8 rows are collected while the rows are written.
    scales: list = field(default_factory=list)
    # In an entry of scales, this is the int8 entry that they belong to.
    scale_of: object = None

    @property
    def bytes(self):
        return math.prod(self.shape) * ITEM_SIZE[self.dtype]

    def header(self):
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": self.shape,
            "offset": self.offset,
            "bytes": self.bytes,
        }


@dataclass
class Stored:
    """This file is kept in model.bin."""

    name: str
    data: bytes
    offset: int = 0

    def header(self):
        return {"name": self.name, "offset": self.offset, "bytes": len(self.data)}


def align(offset):
    return -(-offset // ALIGNMENT) * ALIGNMENT


def choose_dtype(name, parts, wanted):
    """Returns the checkpoint's own dtype (float32 where the parts differ) unless another is wanted.
    Only matrices become int8. Positions and distance biases keep their own dtype, because they are
    added in float32, and rounding them again would change lines. So do the rates of rotation."""
    own = parts[0].dtype if len({part.dtype for part in parts}) == 1 else "float32"
    keeps = (
        wanted is None
        or parts[0].keeps_dtype
        or name.endswith((".positions.weight", ".distance_bias", ".rotary.rates"))
        or (wanted == "int8" and len(parts[0].shape) == 1)
    )
    return own if keeps else wanted


def list_entries(tensors, wanted):
    """Returns the entries of tensors. `tensors` has (name, parts), and `wanted` is a dtype or None
    for the checkpoint's own."""
    entries = []
    for name, parts in tensors:
        shape = [sum(part.shape[0] for part in parts), *parts[0].shape[1:]]
        entries.append(Entry(name, parts, choose_dtype(name, parts, wanted), shape))
        if entries[-1].dtype == "int8":
            entries.append(Entry(name + ".scale", [], "float32", shape[:1], scale_of=entries[-1]))
    return entries


def lay_out(entries, files):
    """Sets the offsets and sorts by them. Entries that share data have one offset, so they become
    neighbours. Returns the size of the data."""
    end, offsets = 0, {}

    def place(key, size):
        nonlocal end
        if key not in offsets:
            offsets[key] = align(end)
            end = offsets[key] + size
        return offsets[key]

    for entry in entries:
        parts = (entry.scale_of or entry).parts
        entry.offset = place((entry.scale_of is None, entry.dtype, *map(id, parts)), entry.bytes)
    for file in files:
        file.offset = place(file.data, len(file.data))
    entries.sort(key=lambda entry: entry.offset)
    files.sort(key=lambda file: file.offset)
    return end


def has_non_finite(words, dtype):
    magnitude, infinity = MAGNITUDE_AND_INFINITY[dtype]
    return bool((words & words.dtype.type(magnitude)).max() >= infinity)


def half_to_float32(words):
    """Does the same as numpy's astype for finite numbers in a fifth of the time. It shifts float16
    to where float32 has its exponent. The sign is extended by the shift, and a mask removes its
    copies. Multiplying by the difference of the exponents' biases is exact."""
    wide = words.view("<i2").astype("<i4")
    wide <<= 13
    # The mask is 0x8FFFE000.
    wide &= np.int32(-0x70002000)
    values = wide.view("<f4")
    values *= np.float32(2.0**112)
    return values


def to_float32(words, dtype, finite=False):
    """Returns float32 numbers. `finite` says whether all numbers are known to be finite."""
    if dtype == "bfloat16":
        return (words.astype("<u4") << 16).view("<f4")
    if dtype == "float32":
        return words.view("<f4")
    return half_to_float32(words) if finite else words.view("<f2").astype("<f4")


def from_float32(values, dtype):
    """Returns unsigned words, rounded to nearest, ties to even."""
    if dtype == "float32":
        return values.view("<u4")
    if dtype == "float16":
        # The caller checks for overflow.
        with np.errstate(over="ignore"):
            return values.astype("<f2").view("<u2")
    words = values.view("<u4")
    rounded = ((words + (((words >> 16) & 1) + 0x7FFF)) >> 16).astype("<u2")
    # Rounding could make a NaN infinite or zero.
    if has_non_finite(words, "float32"):
        rounded = np.where(np.isnan(values), (words >> 16).astype("<u2") | 0x40, rounded)
    return rounded


def quantize(values):
    """Returns int8 rows and their scales."""
    scales = np.abs(values).max(axis=1) / np.float32(127)
    scales[scales == 0] = 1
    steps = values / scales[:, None]
    np.rint(steps, out=steps)
    # A subnormal scale may be rounded so much that a quotient exceeds 127.
    if scales.min() < np.finfo(np.float32).tiny:
        np.clip(steps, -127, 127, out=steps)
    return steps.astype(np.int8), scales


class Writer:
    """Writes to an open file. Offsets count from the start of the file."""

    def __init__(self, file):
        self.file, self.hash, self.at, self.warned = file, xxh64.start(), 0, None

    def write(self, data):
        self.file.write(data)
        self.hash.update(data)
        self.at += len(data)

    def pad_to(self, offset):
        self.write(bytes(offset - self.at))

    def write_model(self, header, entries, files, data_bytes):
        text = json.dumps(header, ensure_ascii=False, allow_nan=False).encode("utf-8")
        start = align(PREAMBLE + len(text))
        # The hash comes last, because it covers everything behind it.
        self.file.write(MAGIC + bytes(8))
        self.at = 16
        self.write(struct.pack("<IIQQ", VERSION, 0, len(text), start + data_bytes) + text)
        self.write_data(start, entries, files)
        assert self.at == start + data_bytes
        self.file.seek(8)
        self.file.write(struct.pack("<Q", self.hash.intdigest()))

    def write_data(self, start, entries, files):
        written = None
        for item in entries + files:
            # Otherwise the item shares the data that were just written.
            if item.offset != written:
                self.pad_to(start + item.offset)
                if isinstance(item, Stored):
                    self.write(item.data)
                elif item.scale_of is not None:
                    self.write(
                        np.concatenate(item.scale_of.scales).astype("<f4").view(np.uint8).data
                    )
                else:
                    self.write_tensor(item)
            written = item.offset

    def write_tensor(self, entry):
        for part in entry.parts:
            for words in part.blocks():
                self.write(self.convert_block(words, part, entry).reshape(-1).view(np.uint8).data)

    def convert_block(self, words, part, entry):
        """Returns one block of a part in the dtype of the entry."""
        finite = not has_non_finite(words, part.dtype)
        if not finite:
            if entry.dtype == "int8":
                refuse(part.path, part.name, "finite numbers for int8", "NaN or infinity")
            if self.warned is not part:
                self.warned = part
                print(
                    f"convert.py: warning: {part.path}: {part.name}: holds NaN or infinity",
                    file=sys.stderr,
                )
        if part.dtype == entry.dtype:
            return words
        values = to_float32(words, part.dtype, finite)
        if entry.dtype == "int8":
            block, scales = quantize(values)
            entry.scales.append(scales)
            return block
        block = from_float32(values, entry.dtype)
        if has_non_finite(block, entry.dtype):
            overflowed = values[np.isfinite(values) & ~np.isfinite(to_float32(block, entry.dtype))]
            if overflowed.size:
                refuse(
                    part.path,
                    part.name,
                    f"numbers that {entry.dtype} can hold (--dtype fp32 and bf16 hold them)"
                    if entry.dtype == "float16"
                    else f"numbers that {entry.dtype} can hold",
                    f"{overflowed[0]:g}",
                )
        return block
