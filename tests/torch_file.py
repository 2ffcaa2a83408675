"""Makes files of torch.save by hand, opcode by opcode, so that the tests need no PyTorch and can
write what PyTorch never would."""

import io
import struct
import zipfile

import numpy as np

from checkpoint_fixture import STORE

STORAGE = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage"}
STORAGE.update({"I64": "LongStorage", "U8": "ByteStorage", "BOOL": "BoolStorage"})
NUMPY = {"I64": "<i8", "U8": "u1", "BOOL": "?"}
MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
SYSTEM = b"\x80\x02}(X\x0d\x00\x00\x00little_endian\x88u."
ORDERED = b"ccollections\nOrderedDict\n)R"


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value):
    if 0 <= value < 256:
        return b"K" + bytes([value])
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def row(values):
    return b"(" + b"".join(map(integer, values)) + b"t"


def storage(key, kind, count, old=False):
    """Returns opcodes that push a storage. `kind` is the name of its class."""
    named = text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu")
    return b"(" + named + integer(count) + (b"N" if old else b"") + b"tQ"


def tensor(stored, shape, strides=None, offset=0):
    """Returns opcodes that push a tensor of the storage that `stored` pushes."""
    if strides is None:
        strides = [int(np.prod(shape[n + 1 :])) for n in range(len(shape))]
    arguments = stored + integer(offset) + row(shape) + row(strides) + b"\x89" + ORDERED
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def parameter(pushed):
    return b"ctorch._utils\n_rebuild_parameter\n(" + pushed + b"\x88" + ORDERED + b"tR"


def dictionary(items):
    """Returns the pickle of a dictionary. `items` has, by name, the opcodes that push a value."""
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in items.items()) + b"u."


def archive(pickle, storages, folder="archive", **others):
    """Returns a zip archive as torch.save writes it."""
    file = io.BytesIO()
    members = {"data.pkl": pickle, **{f"data/{key}": data for key, data in storages.items()}}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as made:
        for name, data in {**members, "version": b"3\n", **others}.items():
            made.writestr(f"{folder}/{name}", data)
    return file.getvalue()


def old_file(pickle, storages, item):
    """Returns a file as PyTorch wrote it before version 1.6. A number has `item` bytes."""
    keys = b"\x80\x02](" + b"".join(map(text, storages)) + b"e."
    data = b"".join(struct.pack("<q", len(d) // item) + d for d in storages.values())
    return MAGIC + b"\x80\x02M\xe9\x03." + SYSTEM + pickle + keys + data


def describe(tensors, dtype, push=tensor, old=False):
    """Returns the pickle and the storages of tensors, each in a storage of its own."""
    items, storages = {}, {}
    for number, (name, values) in enumerate(tensors.items()):
        kind = dtype(name) if callable(dtype) else dtype
        data = STORE[kind](values) if kind in STORE else values.astype(NUMPY[kind])
        storages[str(number)] = data.tobytes()
        stored = storage(str(number), STORAGE[kind], values.size, old)
        items[name] = push(stored, list(values.shape))
    return dictionary(items), storages


def torch_save(tensors, dtype):
    return archive(*describe(tensors, dtype))
