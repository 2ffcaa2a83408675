"""Reads the pickles of PyTorch's files, and calls no function that they name.

A pickle is a program for a machine with a stack, and pickle.load may call any function that the
program names. The machine here knows the few opcodes that a dictionary of tensors needs, and the
few globals, which stand for descriptions and not for functions. Everything else is refused by its
name. The result refers to storages. The numbers in them are not read here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from checkpoint_reader import refuse

# Pickles of real checkpoints have some 200 bytes and 40 opcodes a tensor.
MOST_BYTES, MOST_OPCODES = 1 << 24, 1 << 21
# A dictionary is written a thousand pairs at a time, which lie on the stack until then.
MOST_VALUES = 4096
# Dictionaries may be nested this many levels deep.
MOST_LEVELS = 8
# Tuples are shapes, strides and arguments. A tensor has at most 8 dimensions.
MOST_ITEMS, MOST_DIMENSIONS = 16, 8
STORAGES = {
    f"{kind}Storage": dtype
    for kind, dtype in {
        **{"Float": "float32", "Half": "float16", "BFloat16": "bfloat16"},
        **{"Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8"},
        "Bool": "bool",
    }.items()
}
FUNCTIONS = {
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("collections", "OrderedDict"),
}
MARK = object()


@dataclass(frozen=True)
class Function:
    """A Function is the name of something that a pickle calls. Machine.call() says what it does."""

    name: str


@dataclass(frozen=True)
class StorageType:
    """A StorageType is the class of a storage, such as torch.FloatStorage."""

    dtype: str


@dataclass(frozen=True)
class Storage:
    """A Storage is an array of numbers in the file, which the pickle names by a key."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class View:
    """A View is a tensor: numbers of a storage from an offset on, with a stride for each
    dimension. All of them count numbers. The file's bytes may be too few for it."""

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple


# A dictionary is compared and hashed by identity.
@dataclass(eq=False)
class Dictionary:
    """A Dictionary has strings as keys. Once it is a part of another value, it may not change any
    more, so that no dictionary can contain itself."""

    items: dict = field(default_factory=dict)
    levels: int = 1
    closed: bool = False


def is_count(value):
    return type(value) is int and 0 <= value < 1 << 62


def is_shape(value):
    return isinstance(value, tuple) and len(value) <= MOST_DIMENSIONS and all(map(is_count, value))


class Machine:
    """Runs the pickle that begins at offset `at` of `data`. `path` names the file in messages."""

    def __init__(self, path, data, at=0):
        self.path, self.data, self.at, self.begin = path, data, at, at
        self.stack, self.memo, self.storages = [], {}, {}

    def refuse(self, found):
        refuse(self.path, "pickle", "a dictionary of tensors and nothing that is run", found)

    def run(self):
        """Returns the value of the pickle. Afterwards `at` is the offset behind the pickle."""
        for _ in range(MOST_OPCODES):
            opcode = self.bytes(1)
            if opcode == b".":
                if len(self.stack) != 1:
                    self.refuse(f"{len(self.stack)} values at its end")
                return self.pop()
            self.operations.get(opcode, Machine.refuse_opcode)(self)
        self.refuse(f"more than {MOST_OPCODES} opcodes")

    def refuse_opcode(self):
        import pickletools

        code = self.data[self.at - 1]
        known = pickletools.code2op.get(chr(code))
        self.refuse(f"the opcode {known.name if known else hex(code)}")

    def bytes(self, count):
        if count > min(len(self.data) - self.at, MOST_BYTES - (self.at - self.begin)):
            self.refuse("what ends too early, or is too long")
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def number(self, format):
        return struct.unpack(format, self.bytes(struct.calcsize(format)))[0]

    def line(self):
        """Reads a text up to its newline, and returns it without the newline."""
        end = bytes(self.data[self.at : self.at + 256]).find(b"\n")
        if end < 0:
            self.refuse("a name of more than 255 bytes")
        return self.bytes(end + 1)[:-1].decode("utf-8", "backslashreplace")

    def push(self, value):
        if len(self.stack) >= MOST_VALUES:
            self.refuse(f"more than {MOST_VALUES} values on its stack")
        self.stack.append(value)

    def pop(self):
        if not self.stack or self.stack[-1] is MARK:
            self.refuse("an opcode without its operand")
        return self.stack.pop()

    def pop_to_mark(self):
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is MARK:
                values = self.stack[at + 1 :]
                del self.stack[at:]
                return values
        self.refuse("an opcode without its mark")

    # The functions of the opcodes follow, in the order of the table `operations`.

    def protocol(self):
        version = self.number("<B")
        if version not in (2, 3):
            self.refuse(f"protocol {version}")

    def mark(self):
        self.push(MARK)

    def global_name(self):
        module, name = self.line(), self.line()
        if (module, name) in FUNCTIONS:
            self.push(Function(name))
        elif module == "torch" and name in STORAGES:
            self.push(StorageType(STORAGES[name]))
        else:
            self.refuse(f"the global {module}.{name}")

    def text(self):
        try:
            self.push(self.bytes(self.number("<I")).decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            self.refuse("a text that is not UTF-8")

    def long(self):
        size = self.number("<B")
        if size > 16:
            self.refuse(f"an integer of {size} bytes")
        self.push(int.from_bytes(self.bytes(size), "little", signed=True))

    def put(self, format):
        key = self.number(format)
        self.memo[key] = value = self.pop()
        self.push(value)

    def get(self, format):
        key = self.number(format)
        if key not in self.memo:
            self.refuse(f"number {key} of its memo, which was not put there")
        self.push(self.memo[key])

    def tuple(self, values):
        nested = any(isinstance(v, tuple) and any(isinstance(i, tuple) for i in v) for v in values)
        if len(values) > MOST_ITEMS or nested:
            self.refuse(f"a tuple of more than {MOST_ITEMS} items or of three levels")
        self.push(tuple(values))

    def tuple_of(self, count):
        self.tuple([self.pop() for _ in range(count)][::-1])

    def dictionary(self):
        self.push(Dictionary())

    def set_items(self, values):
        target = self.pop()
        if not isinstance(target, Dictionary) or target.closed or len(values) % 2:
            self.refuse("items for what is no dictionary")
        for key, value in zip(values[::2], values[1::2]):
            if not isinstance(key, str):
                self.refuse(f"a key of type {type(key).__name__}")
            self.close(target, value)
            target.items[key] = value
        self.push(target)

    def close(self, target, value):
        """Marks the dictionaries in `value` as parts of `target`, and refuses too many levels."""
        if isinstance(value, tuple):
            for item in value:
                self.close(target, item)
        if isinstance(value, Dictionary):
            value.closed = True
            target.levels = max(target.levels, value.levels + 1)
            if target is value or target.levels > MOST_LEVELS:
                self.refuse(f"dictionaries of more than {MOST_LEVELS} levels")

    def set_item(self):
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def build(self):
        """Leaves out the state of a dictionary, in which torch.nn keeps the versions of modules."""
        state, target = self.pop(), self.pop()
        if not isinstance(target, Dictionary) or not isinstance(state, Dictionary):
            self.refuse("a state for what is no dictionary")
        self.push(target)

    def persistent(self):
        """Pushes the storage of ("storage", type, key, device, count). Files older than PyTorch 1.6
        have one more item, which must be None."""
        named = self.pop()
        named = named[:5] if isinstance(named, tuple) and named[5:] in ((), (None,)) else ()
        kinds = (str, StorageType, str, str, int)
        if (
            len(named) != 5
            or not all(map(isinstance, named, kinds))
            or named[0] != "storage"
            or not is_count(named[4])
        ):
            self.refuse("a reference to what is no storage")
        storage = Storage(named[2], named[1].dtype, named[4])
        if self.storages.setdefault(storage.key, storage) != storage:
            self.refuse(f"two descriptions of the storage {storage.key}")
        self.push(storage)

    def call(self):
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Function) or not isinstance(arguments, tuple):
            self.refuse("a call of what is no function")
        value = {
            "OrderedDict": self.ordered_dict,
            "_rebuild_tensor_v2": self.tensor,
            "_rebuild_parameter": self.parameter,
        }[function.name](arguments)
        if value is None:
            self.refuse(f"other arguments than those of {function.name}")
        self.push(value)

    def ordered_dict(self, arguments):
        return Dictionary() if arguments == () else None

    def tensor(self, arguments):
        """Returns the tensor of these arguments: storage, offset, shape, strides, whether there is
        a gradient, and hooks. Returns None if they are others."""
        if len(arguments) != 6:
            return None
        storage, offset, shape, strides, *_ = arguments
        fits = isinstance(storage, Storage) and is_count(offset)
        fits = fits and is_shape(shape) and is_shape(strides) and len(shape) == len(strides)
        return View(storage, offset, shape, strides) if fits else None

    def parameter(self, arguments):
        """Returns the tensor of these arguments: a tensor, whether there is a gradient, and hooks.
        Returns None if they are others."""
        fits = len(arguments) == 3 and isinstance(arguments[0], View)
        return arguments[0] if fits else None

    operations = {
        b"\x80": protocol,
        b"(": mark,
        b"c": global_name,
        b"X": text,
        b"J": lambda self: self.push(self.number("<i")),
        b"K": lambda self: self.push(self.number("<B")),
        b"M": lambda self: self.push(self.number("<H")),
        b"\x8a": long,
        b"G": lambda self: self.push(self.number(">d")),
        b"N": lambda self: self.push(None),
        b"\x88": lambda self: self.push(True),
        b"\x89": lambda self: self.push(False),
        b"q": lambda self: self.put("<B"),
        b"r": lambda self: self.put("<I"),
        b"h": lambda self: self.get("<B"),
        b"j": lambda self: self.get("<I"),
        b")": lambda self: self.tuple([]),
        b"\x85": lambda self: self.tuple_of(1),
        b"\x86": lambda self: self.tuple_of(2),
        b"\x87": lambda self: self.tuple_of(3),
        b"t": lambda self: self.tuple(self.pop_to_mark()),
        b"}": dictionary,
        b"s": set_item,
        b"u": lambda self: self.set_items(self.pop_to_mark()),
        b"b": build,
        b"Q": persistent,
        b"R": call,
    }


class KeyMachine(Machine):
    """Runs the pickle of a list of texts."""

    def append(self, values):
        target = self.pop()
        if not isinstance(target, list) or not all(isinstance(value, str) for value in values):
            self.refuse("a list of keys that are no texts")
        target += values
        self.push(target)

    operations = {
        **{key: Machine.operations[key] for key in (b"\x80", b"(", b"X", b"q", b"r")},
        b"]": lambda self: self.push([]),
        b"a": lambda self: self.append([self.pop()]),
        b"e": lambda self: self.append(self.pop_to_mark()),
    }
