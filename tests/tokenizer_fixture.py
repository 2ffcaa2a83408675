"""Makes small directories of tokenizers that the tests of the converter change and write."""

import json
import math
import os
import shutil
import struct
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "scripts"), os.path.join(ROOT, "tests")]
sys.dont_write_bytecode = True

from checkpoint_reader import InputError, Settings
from tokenizer_choice import read_tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
DATA = os.path.join(ROOT, "tests", "data")
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
# The pieces of SentencePiece models here, with their scores and types.
PIECES = (
    ("<unk>", 0.0, UNKNOWN),
    ("<s>", 0.0, CONTROL),
    ("</s>", 0.0, CONTROL),
    ("▁a", -1.5, NORMAL),
    ("▁", -2.5, NORMAL),
    ("a", -3.25, NORMAL),
    ("b", -4.0, UNUSED),
    ("[x]", 0.0, USER_DEFINED),
)


def varint(number):
    number &= (1 << 64) - 1
    data = b""
    while number > 0x7F:
        data, number = data + bytes([number & 0x7F | 0x80]), number >> 7
    return data + bytes([number])


def field(key, value):
    """Returns a field of a protocol buffer. A float has 32 bits."""
    if isinstance(value, float):
        return varint(key << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(key << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(key << 3 | 2) + varint(len(value)) + value


def sentencepiece(pieces=PIECES, kind=1, charsmap=b"", **trainer):
    """Returns the bytes of a SentencePiece model. `trainer` has more fields of the trainer."""
    numbers = {"unknown": 40, "begin": 41, "end": 42, "byte_fallback": 35, "unknown_piece": 45}
    data = b"".join(
        field(1, field(1, text) + field(2, score) + field(3, type)) for text, score, type in pieces
    )
    settings = field(3, kind) + b"".join(field(numbers[k], v) for k, v in trainer.items())
    return data + field(2, settings) + field(3, field(2, charsmap) if charsmap else b"")


def token(number, text, **flags):
    """Returns an added token as tokenizer.json has it."""
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": number, "content": text, **{n: flags.get(n, False) for n in names}}


def special(number, text):
    return token(number, text, special=True)


def unigram():
    """Returns a tokenizer.json of T5's kind."""
    pieces = [["<pad>", 0], ["</s>", 0], ["<unk>", 0], ["▁", -2.5], ["▁a", -1], ["b", -3.125]]
    return {
        "version": "1.0",
        "added_tokens": [special(0, "<pad>"), special(1, "</s>"), special(2, "<unk>")],
        "normalizer": None,
        "pre_tokenizer": METASPACE,
        "post_processor": None,
        "decoder": METASPACE,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": pieces, "byte_fallback": False},
    }


def bpe():
    """Returns a tokenizer.json of GPT-2's kind."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    texts = ["a", "b", "c", "ab", "abc", "Ġ", "<|endoftext|>"]
    return {
        "version": "1.0",
        "added_tokens": [special(6, "<|endoftext|>")],
        "normalizer": None,
        "pre_tokenizer": {**level, "use_regex": True},
        "post_processor": None,
        "decoder": {**level, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {text: number for number, text in enumerate(texts)},
            "merges": [["a", "b"], ["ab", "c"]],
        },
    }


def unpack_pieces(data):
    """Returns the pieces of source.pieces by id, None where there is none."""
    pieces, at = [], 0
    while at < len(data):
        length = struct.unpack_from("<I", data, at)[0]
        at += 4
        if length == 0xFFFFFFFF:
            pieces.append(None)
        else:
            pieces.append(data[at : at + length].decode("utf-8"))
            at += length
    return pieces


class TokenizerTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="xlate-tokenizer-")
        self.addCleanup(shutil.rmtree, self.folder)

    def write(self, files):
        """Writes the files of a directory, which are bytes or JSON values, in place of those that
        are there. Returns the directory."""
        for name in os.listdir(self.folder):
            os.remove(os.path.join(self.folder, name))
        for name, content in files.items():
            if not isinstance(content, bytes):
                content = json.dumps(content).encode("utf-8")
            with open(os.path.join(self.folder, name), "wb") as file:
                file.write(content)
        return self.folder

    def copy(self, source, *names, **more):
        """Writes the named files of a directory, and the JSON values of `more`, whose names have no
        suffix. Returns the directory."""
        files = {}
        for name in names:
            with open(os.path.join(source, name), "rb") as file:
                files[name] = file.read()
        return self.write({**files, **{f"{name}.json": value for name, value in more.items()}})

    def read(self, directory, model_type=None, rows=None):
        """Returns the Pipeline of a directory."""
        path = os.path.join(directory, "config.json")
        values = Settings(path).values if os.path.exists(path) else {}
        values = {**values, **({"model_type": model_type} if model_type else {})}
        return read_tokenizer(
            directory, Settings.of(values, path), rows or values.get("vocab_size", 300)
        )

    def read_files(self, files, model_type=None, rows=None):
        return self.read(self.write(files), model_type, rows)

    def refuse(self, files, file, what, *found, model_type=None, rows=None):
        """Checks that a tokenizer is refused in one line with the file, the fault and each of
        `found`. `file` is None for the directory."""
        with self.assertRaises(InputError) as caught:
            self.read_files(files, model_type, rows)
        message = str(caught.exception)
        path = os.path.join(self.folder, file) if file else self.folder
        self.assertTrue(message.startswith(f"{path}: {what}: expected "), message)
        for text in (", found ", *found):
            self.assertIn(text, message)

    @staticmethod
    def file(pipeline, name):
        return next(file.data for file in pipeline.files if file.name == name)

    def pieces(self, pipeline):
        return unpack_pieces(self.file(pipeline, "source.pieces"))

    def scores(self, pipeline):
        """Returns the scores by id, None for NaN."""
        data = self.file(pipeline, "scores")
        scores = struct.unpack(f"<{len(data) // 8}d", data)
        return [None if math.isnan(score) else score for score in scores]

    def merges(self, pipeline):
        """Returns the merges as texts."""
        pieces = self.pieces(pipeline)
        triples = struct.iter_unpack("<3i", self.file(pipeline, "merges"))
        return [tuple(pieces[number] for number in triple) for triple in triples]
