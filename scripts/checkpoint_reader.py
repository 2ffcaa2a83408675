"""Reads the files of a Hugging Face checkpoint: JSON settings and safetensors. torch_reader.py
reads PyTorch's files, sentencepiece_reader.py SentencePiece models, and checkpoint.py the tensors
of a directory.

The files are not trusted. Whatever their bytes are, the result is a value that fits its description
or an InputError.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from dataclasses import dataclass

import numpy as np

# This many bytes of a tensor are converted at a time. A block and its result fit into the cache of
# a core; blocks of 1 << 20 took twice as long.
BLOCK = 1 << 18
# The number of bytes of each type. Weights have one of FLOATS. A checkpoint may have buffers of
# other types, which are skipped or refused by their names.
ITEM_SIZE = {
    **{"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8},
    **{"float8_e4m3": 1, "float8_e5m2": 1, "float8_e8m0": 1, "bool": 1},
    **{"int8": 1, "int16": 2, "int32": 4, "int64": 8},
    **{"uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8},
}
FLOATS = ("float32", "float16", "bfloat16")
SAFETENSORS_DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"},
    **{"F8_E4M3": "float8_e4m3", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0"},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
# The format itself sets this limit.
SAFETENSORS_HEADER_LIMIT = 100_000_000
CUT_SHORT = "the file is cut short"
REQUIRED = object()


class InputError(Exception):
    """This is an error in the input. The user sees its message unchanged."""


def show(value):
    """Returns a JSON value as a message shows it."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "nested values"


def refuse(path, what, expected, found):
    """Raises InputError. `found` is text, or a value that is not a string."""
    found = found if isinstance(found, str) else show(found)
    raise InputError(
        f"{path}: {what}: expected {expected}, found "
        f"{found if len(found) <= 120 else found[:117] + '...'}"
    )


def refuse_pointer(path, start):
    if start.startswith(b"version https://git-lfs"):
        refuse(path, "file", "the data", "a Git LFS pointer (fetch the data with: git lfs pull)")


def read_bytes(path):
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        refuse(path, "file", "a readable file", error.strerror)
    refuse_pointer(path, data)
    return data


def parse_json_object(path, data):
    def unique(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                refuse(path, key, "one entry", "several")
            seen.add(key)
        return dict(pairs)

    # ValueError means bad UTF-8, bad JSON or an integer with too many digits.
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except (
        ValueError,
        RecursionError,
    ) as error:
        refuse(path, "JSON", "an object", f"what cannot be read ({error})")
    if not isinstance(value, dict):
        refuse(path, "JSON", "an object", show(value))
    return value


def is_integer(value):
    return isinstance(value, int) and not isinstance(value, bool)


class Settings:
    """Settings are a JSON object in a file. Values are checked when they are taken. null counts as
    absent."""

    def __init__(self, path):
        self.path, self.values = path, parse_json_object(path, read_bytes(path))

    @classmethod
    def of(cls, values, path="settings"):
        """Returns the settings of an object that is not in a file."""
        settings = cls.__new__(cls)
        settings.path, settings.values = path, values
        return settings

    def get(self, key):
        return self.values.get(key)

    def take(self, key, default, expected, good):
        value = self.get(key)
        if value is None and default is not REQUIRED:
            return default
        if value is None or not good(value):
            refuse(self.path, key, expected, "nothing" if value is None else show(value))
        return value

    def integer(self, key, low, high, default=REQUIRED):
        return self.take(
            key,
            default,
            f"an integer from {low} to {high}",
            lambda v: is_integer(v) and low <= v <= high,
        )

    def boolean(self, key, default=REQUIRED):
        return self.take(key, default, "true or false", lambda v: isinstance(v, bool))

    def token(self, key, rows, default=REQUIRED):
        """Returns a token id. Hugging Face also accepts a list of one id."""
        expected = f"one id below {rows}"
        value = self.take(key, default, expected, lambda v: True)
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if value is not default and not (is_integer(value) and 0 <= value < rows):
            refuse(self.path, key, expected, show(self.get(key)))
        return value


# One object stands for one stored tensor, so objects are compared by identity.
@dataclass(eq=False)
class Tensor:
    path: str
    name: str
    dtype: str
    shape: tuple
    data: memoryview
    mapping: object = None
    # The data begin at this position of the mapping.
    offset: int = 0
    # True if the tensor is written in its own dtype whichever one is wanted.
    keeps_dtype: bool = False

    def words(self):
        """Returns the data as an array of unsigned words. The dtype must be one of FLOATS."""
        words = np.frombuffer(self.data, "<u4" if self.dtype == "float32" else "<u2")
        return words.reshape(self.shape)

    def blocks(self):
        """Yields the data as unsigned words, in blocks of whole rows."""
        words = self.words()
        rows = max(1, BLOCK // (ITEM_SIZE[self.dtype] * math.prod(self.shape[1:])))
        for first in range(0, self.shape[0], rows):
            yield np.ascontiguousarray(words[first : first + rows])
        self.release()

    def copy_of(self, words):
        """Returns a tensor of this name with other words."""
        words = np.ascontiguousarray(words)
        data = words.reshape(-1).view(np.uint8).data
        return Tensor(self.path, self.name, self.dtype, words.shape, data)

    def rows_from(self, first):
        """Returns the tensor without its first rows."""
        return self if first == 0 else self.copy_of(self.words()[first:])

    def columns_of_rows(self, rows):
        """Returns a matrix [columns, len(rows)], whose columns are the named rows of this one."""
        return self.copy_of(self.words()[rows].T)

    def release(self):
        """Releases the pages that were read. Until then they count as memory of this process,
        although they remain in the file cache."""
        if hasattr(self.mapping, "madvise"):
            first = self.offset // mmap.PAGESIZE * mmap.PAGESIZE
            self.mapping.madvise(mmap.MADV_DONTNEED, first, self.offset + len(self.data) - first)

    def equals(self, other):
        return self is other or (
            self.shape == other.shape
            and self.dtype == other.dtype
            and all(np.array_equal(a, b) for a, b in zip(self.blocks(), other.blocks()))
        )


def map_file(path):
    """Returns the mapping of a file, which is empty bytes if the file is empty."""
    # Opening a pipe would wait for its other end.
    if os.path.exists(path) and not os.path.isfile(path):
        refuse(path, "file", "a regular file", "a directory, a pipe or a device")
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except (OSError, ValueError) as error:
        refuse(path, "file", "a readable file", getattr(error, "strerror", None) or str(error))
    refuse_pointer(path, mapping[:100])
    return mapping


def safetensors_entry(path, name, entry):
    """Returns dtype, shape and place of an entry of a safetensors header. The place may lie behind
    the end of the file."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        refuse(path, name, "dtype, shape and data_offsets", show(entry))
    dtype, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SAFETENSORS_DTYPES:
        refuse(path, name, "dtype F32, F16 or BF16", show(dtype))
    if not isinstance(shape, list) or not all(is_integer(n) and n >= 0 for n in shape):
        refuse(path, name, "a shape", show(shape))
    if not (
        isinstance(place, list)
        and len(place) == 2
        and all(map(is_integer, place))
        and 0 <= place[0] <= place[1]
    ):
        refuse(path, name, "data_offsets that are where the data begin and end", show(place))
    dtype = SAFETENSORS_DTYPES[dtype]
    needed = math.prod(shape) * ITEM_SIZE[dtype]
    if place[1] - place[0] != needed:
        refuse(path, name, f"{needed} bytes for {dtype} {shape}", f"{place[1] - place[0]}")
    return dtype, tuple(shape), place


def read_safetensors(path):
    """Returns tensors by name. The file has the length of its header, the header and the data
    (https://huggingface.co/docs/safetensors)."""
    mapping = map_file(path)
    size = len(mapping)
    length, start = int.from_bytes(mapping[:8], "little"), 8 + int.from_bytes(mapping[:8], "little")
    if size < 8:
        refuse(path, "header", "its length in the first 8 bytes", f"{size} bytes: {CUT_SHORT}")
    if start > SAFETENSORS_HEADER_LIMIT:
        limit = f"at most {SAFETENSORS_HEADER_LIMIT} bytes, as safetensors has"
        refuse(path, "header", limit, f"a length of {length}")
    if start > size:
        refuse(path, "header", f"{length} bytes", f"{size - 8}: {CUT_SHORT}")
    header = parse_json_object(path, mapping[8:start])
    header.pop("__metadata__", None)
    tensors, places = {}, []
    for name, entry in header.items():
        dtype, shape, (begin, end) = safetensors_entry(path, name, entry)
        tensors[name] = Tensor(
            path,
            name,
            dtype,
            shape,
            memoryview(mapping)[start + begin : start + end],
            mapping,
            start + begin,
        )
        places.append((begin, end, name))
    previous = 0
    # The format allows neither gaps nor overlaps.
    for begin, end, name in sorted(places):
        if begin != previous:
            refuse(path, name, f"data at offset {previous}", str(begin))
        previous = end
    if previous != size - start:
        cut = f": {CUT_SHORT}" if previous > size - start else ""
        refuse(path, "data", f"{previous} bytes behind the header", f"{size - start}{cut}")
    return tensors
