"""Reads PyTorch's files of weights (pytorch_model.bin) without PyTorch.

A file of torch.save is a zip archive. Its member data.pkl is a pickle that describes the tensors
(pickle_reader.py), and each member data/KEY has the numbers of one storage. The members are stored
without compression, so a tensor is a view of the mapped file.

Before version 1.6 PyTorch wrote one pickle after another and then the storages. Many of the first
opus-mt checkpoints are such files.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

from checkpoint_reader import ITEM_SIZE, Tensor, map_file, refuse
from pickle_reader import MOST_BYTES, Dictionary, KeyMachine, Machine, View

SAVE_AGAIN = "(save the model again: model.save_pretrained(DIRECTORY) writes model.safetensors)"
WANTED = f"a file of torch.save {SAVE_AGAIN}"
# An old file begins with two pickles: this magic number, and 1001, the version of the format.
OLD_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
OLD_VERSION = b"\x80\x02M\xe9\x03."


@dataclass(eq=False)
class StridedTensor(Tensor):
    """The numbers of this tensor do not follow one another in its storage. A transposed matrix is
    an example. `data` has the bytes of the storage from the tensor's first number on."""

    strides: tuple = ()

    def words(self):
        words = np.frombuffer(self.data, "<u4" if self.dtype == "float32" else "<u2")
        strides = [stride * words.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(words, self.shape, strides, writeable=False)


def read_torch(path):
    """Returns tensors by name."""
    mapping = map_file(path)
    if mapping[: len(OLD_MAGIC)] == OLD_MAGIC:
        value, places = read_old(path, mapping)
    else:
        value, places = read_archive(path, mapping)
    if not isinstance(value, Dictionary):
        refuse(path, "file", "a dictionary of tensors", f"type {type(value).__name__}")
    tensors = {}
    for name, view in value.items.items():
        if not isinstance(view, View):
            refuse(path, name, "a tensor", f"type {type(view).__name__}")
        tensors[name] = make_tensor(path, mapping, name, view, places)
    return tensors


def make_tensor(path, mapping, name, view, places):
    """Returns the tensor that `view` describes. `places` has the (begin, end) of each storage in
    the file, by its key."""
    storage, item = view.storage, ITEM_SIZE[view.storage.dtype]
    if storage.key not in places:
        refuse(path, name, f"the storage {storage.key} in the file", "none")
    begin, end = places[storage.key]
    if end - begin != storage.count * item:
        needed = f"{storage.count * item} bytes in the storage {storage.key}"
        refuse(path, name, needed, str(end - begin))
    count = math.prod(view.shape)
    last = sum((size - 1) * stride for size, stride in zip(view.shape, view.strides))
    used = view.offset + last + 1 if count else view.offset
    if used > storage.count or count > storage.count:
        described = f"{list(view.shape)} with strides {list(view.strides)} from {view.offset}"
        refuse(path, name, f"a tensor within the {storage.count} numbers of its storage", described)
    first = begin + view.offset * item
    described = (path, name, storage.dtype, view.shape)
    if is_contiguous(view) or not count:
        data = memoryview(mapping)[first : first + count * item]
        return Tensor(*described, data, mapping, first)
    data = memoryview(mapping)[first : begin + used * item]
    return StridedTensor(*described, data, mapping, first, strides=view.strides)


def is_contiguous(view):
    expected = 1
    for size, stride in zip(reversed(view.shape), reversed(view.strides)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def read_archive(path, mapping):
    """Returns the value of an archive's pickle, and the (begin, end) of its storages by key."""
    members = list_members(path, mapping)
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        refuse(path, "file", WANTED, f"an archive with {len(pickles)} data.pkl")
    folder = pickles[0][: -len("data.pkl")]
    if folder + "constants.pkl" in members:
        refuse(path, "file", WANTED, "a TorchScript archive")
    begin, end = members.get(folder + "byteorder", (0, 0))
    if mapping[begin:end] not in (b"", b"little"):
        refuse(path, "byteorder", "little", repr(mapping[begin : min(end, begin + 20)]))
    begin, end = members[pickles[0]]
    if end - begin > MOST_BYTES:
        refuse(path, "data.pkl", f"at most {MOST_BYTES} bytes", str(end - begin))
    machine = Machine(path, mapping[begin:end])
    value = machine.run()
    if machine.at != end - begin:
        refuse(path, "data.pkl", f"{machine.at} bytes", str(end - begin))
    prefix = folder + "data/"
    places = {key: members[prefix + key] for key in machine.storages if prefix + key in members}
    return value, places


def list_members(path, mapping):
    """Returns the (begin, end) of an archive's members by their names. Members that are compressed
    or encrypted are refused. The checksum of the pickle is compared, those of the numbers are
    not."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    # zipfile raises these errors for bytes that are no archive.
    except (
        zipfile.BadZipFile,
        ValueError,
        struct.error,
        LookupError,
        NotImplementedError,
    ) as error:
        refuse(path, "file", WANTED, f"what cannot be read ({error})")
    members = {}
    for member in found:
        name = member.filename
        if name in members:
            refuse(path, name, "one member of this name", "several")
        if member.compress_type or member.flag_bits & 1 or member.file_size != member.compress_size:
            refuse(path, name, "a stored member", "a compressed or encrypted one")
        # The name and the extra field of the local header may have other lengths than those in the
        # archive's directory.
        header = mapping[member.header_offset : member.header_offset + 30]
        if member.header_offset < 0 or len(header) < 30 or header[:4] != b"PK\3\4":
            refuse(path, name, "a header of a member", f"none at {member.header_offset}")
        begin = member.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
        end = begin + member.file_size
        if end > len(mapping):
            refuse(path, name, f"a member within {len(mapping)} bytes", f"{begin} to {end}")
        if name.endswith(".pkl") and zlib.crc32(memoryview(mapping)[begin:end]) != member.CRC:
            refuse(path, name, "the checksum of the archive's directory", "another")
        members[name] = (begin, end)
    return members


def read_old(path, mapping):
    """Returns the value of an old file, and the (begin, end) of its storages by key. The file
    begins with five pickles: a magic number, a version, a description of the system that wrote it,
    the value, and the list of the storages' keys. Then the storages follow in the order of the
    keys, each as the count of its numbers in eight bytes, and the numbers."""
    at = len(OLD_MAGIC)
    if mapping[at : at + len(OLD_VERSION)] != OLD_VERSION:
        refuse(path, "file", WANTED, "an old file of another version")
    system = Machine(path, mapping, at + len(OLD_VERSION))
    described = system.run()
    little = described.items.get("little_endian") if isinstance(described, Dictionary) else None
    if little is not True:
        refuse(path, "little_endian", "true", str(little))
    machine = Machine(path, mapping, system.at)
    value = machine.run()
    keys = KeyMachine(path, mapping, machine.at)
    listed, at, places = keys.run(), keys.at, {}
    if not isinstance(listed, list):
        refuse(path, "storages", "a list of keys", f"type {type(listed).__name__}")
    for key in listed:
        storage = machine.storages.get(key)
        count = int.from_bytes(mapping[at : at + 8], "little")
        if storage is None or key in places or count != storage.count:
            refuse(path, f"storage {key}", "numbers as the tensors say", f"{count}")
        begin, at = at + 8, at + 8 + count * ITEM_SIZE[storage.dtype]
        if at > len(mapping):
            refuse(path, f"storage {key}", f"an end within {len(mapping)} bytes", str(at))
        places[key] = (begin, at)
    return value, places
