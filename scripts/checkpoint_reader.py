"""Reads a Hugging Face checkpoint directory: its JSON settings, and safetensors or PyTorch weights
in one file or in shards.

The files are not trusted. Whatever their bytes are, the result is a value that fits its description
or an InputError.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
from dataclasses import dataclass

import numpy as np

# This many bytes of a tensor are converted at a time. A block and its result fit into the cache of
# a core; blocks of 1 << 20 took twice as long.
BLOCK = 1 << 18
ITEM_SIZE = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
SAFETENSORS_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# The format itself sets this limit.
SAFETENSORS_HEADER_LIMIT = 100_000_000
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


def read_varint(data, at):
    """Returns the number of a protocol buffer at an offset, and the offset behind the number."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise LookupError("a number of more than ten bytes")


def read_sentencepiece(path):
    """Returns the bytes of a SentencePiece model."""
    return walk_sentencepiece(path)[0]


def count_pieces(path):
    """Returns the number of pieces of a SentencePiece model."""
    return walk_sentencepiece(path)[1]


def walk_sentencepiece(path):
    """Returns the bytes and the number of pieces of a SentencePiece model. It walks over the fields
    of the protocol buffer, so that it notices a truncated file."""
    data, at, pieces = read_bytes(path), 0, 0
    try:
        while at < len(data):
            key, at = read_varint(data, at)
            # Field 1 has bytes: a piece.
            pieces += key == 1 << 3 | 2
            if key & 7 == 0:
                _, at = read_varint(data, at)
            else:
                length, at = read_varint(data, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
                at += length
    # A number does not end, or a field has an unknown type.
    except LookupError:
        pieces = 0
    if at != len(data) or not pieces:
        refuse(
            path,
            "file",
            "a SentencePiece model",
            f"{len(data)} bytes that are none, or not a whole one",
        )
    return data, pieces


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

    def blocks(self):
        """Yields the data as unsigned words, in blocks of whole rows."""
        words = np.frombuffer(self.data, "<u4" if self.dtype == "float32" else "<u2").reshape(
            self.shape
        )
        rows = max(1, BLOCK // (ITEM_SIZE[self.dtype] * math.prod(self.shape[1:])))
        for first in range(0, self.shape[0], rows):
            yield words[first : first + rows]
        self.release()

    def rows_from(self, first):
        """Returns the tensor without its first rows."""
        if first == 0:
            return self
        skipped = first * math.prod(self.shape[1:]) * ITEM_SIZE[self.dtype]
        return Tensor(
            self.path,
            self.name,
            self.dtype,
            (self.shape[0] - first, *self.shape[1:]),
            self.data[skipped:],
            self.mapping,
            self.offset + skipped,
        )

    def columns_of_rows(self, rows):
        """A matrix [columns, len(rows)]: the rows named, as columns."""
        words = np.frombuffer(self.data, "<u4" if self.dtype == "float32" else "<u2")
        chosen = np.ascontiguousarray(words.reshape(self.shape)[rows].T)
        return Tensor(
            self.path, self.name, self.dtype, chosen.shape, chosen.reshape(-1).view(np.uint8).data
        )

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


def safetensors_entry(path, name, entry, size):
    """Returns dtype, shape and place of an entry of a safetensors header. `size` is the number of
    bytes of data behind the header."""
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
        and 0 <= place[0] <= place[1] <= size
    ):
        refuse(path, name, f"data_offsets within the {size} bytes of data", show(place))
    dtype = SAFETENSORS_DTYPES[dtype]
    needed = math.prod(shape) * ITEM_SIZE[dtype]
    if place[1] - place[0] != needed:
        refuse(path, name, f"{needed} bytes for {dtype} {shape}", f"{place[1] - place[0]}")
    return dtype, tuple(shape), place


def read_safetensors(path):
    """Returns tensors by name. The file has the length of its header, the header and the data
    (https://huggingface.co/docs/safetensors)."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except (OSError, ValueError) as error:
        refuse(path, "file", "a readable file", getattr(error, "strerror", None) or str(error))
    refuse_pointer(path, mapping[:100])
    length, start = int.from_bytes(mapping[:8], "little"), 8 + int.from_bytes(mapping[:8], "little")
    if size < 8 or start > min(size, SAFETENSORS_HEADER_LIMIT):
        refuse(path, "header", "its length within the file", f"{length} of {size} bytes")
    header = parse_json_object(path, mapping[8:start])
    header.pop("__metadata__", None)
    tensors, places = {}, []
    for name, entry in header.items():
        dtype, shape, (begin, end) = safetensors_entry(path, name, entry, size - start)
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
        refuse(path, "data", f"{previous} bytes", str(size - start))
    return tensors


def read_torch(path):
    """Returns tensors by name. PyTorch reads the whole file into memory."""
    try:
        import torch
    except ImportError:
        refuse(
            path,
            "file",
            "PyTorch to read it with, or model.safetensors beside it",
            "neither (try: pip install torch)",
        )
    dtypes = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    # pickle and zip raise many kinds of errors.
    except Exception as error:
        refuse(path, "file", "a PyTorch checkpoint", f"what cannot be read ({error})")
    if not isinstance(stored, dict):
        refuse(path, "file", "a dictionary of tensors", f"a {type(stored).__name__}")
    tensors = {}
    for name, value in stored.items():
        dtype = dtypes.get(getattr(value, "dtype", None))
        if not isinstance(name, str) or dtype is None or value.layout != torch.strided:
            refuse(
                path,
                str(name),
                "a tensor of float32, float16 or bfloat16",
                str(getattr(value, "dtype", f"a {type(value).__name__}")),
            )
        words = (
            value.detach()
            .contiguous()
            .view(torch.int32 if dtype == "float32" else torch.int16)
            .numpy()
        )
        tensors[name] = Tensor(
            path, name, dtype, tuple(value.shape), words.reshape(-1).view(np.uint8).data
        )
    return tensors


def read_shards(index, read):
    """Returns tensors by name from the files that an index names. `read` is read_safetensors or
    read_torch."""
    files = Settings(index).take("weight_map", REQUIRED, "an object", lambda v: isinstance(v, dict))
    tensors = {}
    for shard in dict.fromkeys(map(str, files.values())):
        if not re.fullmatch(r"[\w.-]+", shard, re.ASCII):
            refuse(index, "weight_map", "names of files beside it", shard)
        for name, tensor in read(os.path.join(os.path.dirname(index), shard)).items():
            if files.get(name) != shard:
                refuse(
                    tensor.path,
                    name,
                    f"tensors that {os.path.basename(index)} says are there",
                    "another",
                )
            tensors[name] = tensor
    for name in sorted(files.keys() - tensors.keys()):
        refuse(index, name, f"a tensor in {files[name]}", "none")
    return tensors


def name_other_format(names, config=None):
    """Says which files among the names are a checkpoint of another program, and which program
    writes such files. Returns None where that cannot be told.

    config: the directory's config.json as Settings, or None if there is none.
    """

    def matching(pattern):
        return [name for name in sorted(names) if re.fullmatch(pattern, name)]

    def shorten(name):
        return name if len(name) <= 30 else name[:27] + "..."

    if any(name.startswith(weights) for name in names for weights, _ in Checkpoint.FILES):
        return None  # A training folder of Hugging Face has an optimizer.pt beside its weights.
    if found := matching(r"(?s).*\.npz"):
        return f"{shorten(found[0])}, as Marian writes it"
    # The config.json of CTranslate2 has no model_type, and its older releases write none.
    knows_marks = config is not None and config.get("add_source_bos") is not None
    if "model.bin" in names and (knows_marks or matching(r"(\w+_)?vocabulary\.(json|txt)")):
        return "model.bin, as CTranslate2 writes it"
    if found := matching(r"(?s).*\.pt"):
        dictionaries = matching(r"(?s)dict\..*\.txt")
        if dictionaries:
            return f"{shorten(found[0])} and {shorten(dictionaries[0])}, as fairseq writes them"
        return f"{shorten(found[0])}, as OpenNMT or fairseq writes it"
    return None


def refuse_other_format(path, names, config=None):
    """Refuses the checkpoint of another program if the names of its files tell which one it is."""
    if other := name_other_format(names, config):
        refuse(
            path,
            "checkpoint",
            "a Hugging Face directory with config.json and its weights",
            f"{other}: this format is not supported",
        )


class Checkpoint:
    """A checkpoint has the tensors of a directory. It remembers which tensors were taken, so that
    none is overlooked."""

    FILES = (("model.safetensors", read_safetensors), ("pytorch_model.bin", read_torch))

    def __init__(self, directory):
        self.taken = set()
        for name, read in self.FILES:
            self.path = os.path.join(directory, name)
            if os.path.exists(self.path):
                self.tensors = read(self.path)
                return
            self.path += ".index.json"
            if os.path.exists(self.path):
                self.tensors = read_shards(self.path, read)
                return
        refuse(directory, "weights", "model.safetensors or pytorch_model.bin", "neither")

    def ignore(self, name):
        self.taken.add(name)

    def take(self, name, shape):
        if name not in self.tensors:
            refuse(self.path, name, f"a tensor of shape {list(shape)}", "none")
        tensor = self.tensors[name]
        if tensor.shape != tuple(shape):
            refuse(tensor.path, name, f"shape {list(shape)}", list(tensor.shape))
        self.taken.add(name)
        return tensor

    def take_first(self, names, columns):
        """Takes the first of the named tensors that is stored, as a matrix [any, columns]. Error
        messages use the second name, which is the usual one."""
        name = next((name for name in names if name in self.tensors), None)
        if name is None:
            refuse(self.path, names[:2][-1], f"a tensor of shape [vocabulary, {columns}]", "none")
        matrix = self.tensors[name]
        if len(matrix.shape) != 2 or matrix.shape[0] == 0:
            refuse(matrix.path, name, f"shape [vocabulary, {columns}]", list(matrix.shape))
        return self.take(name, (matrix.shape[0], columns))

    def check_all_taken(self):
        for name in sorted(self.tensors.keys() - self.taken):
            refuse(
                self.tensors[name].path,
                name,
                "no such tensor in a model of this config.json",
                list(self.tensors[name].shape),
            )
