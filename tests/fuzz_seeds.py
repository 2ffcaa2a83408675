#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets that have a tokenizer pipeline, those with SentencePiece
models of other kinds than Marian has, and seeds of text. Together the models have every kind of
step, every file of a tokenizer, added tokens with each flag, and languages. One of them is a
decoder alone.

Usage: tests/fuzz_seeds.py [FOLDER]

FOLDER is tests/data/fuzz unless it is given. The models are written to FOLDER/model_file, where
fuzz_text reads them, too, and the texts to FOLDER/text.
"""

import os
import struct
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "scripts"), os.path.join(ROOT, "tests")]
sys.dont_write_bytecode = True

import numpy as np

from checkpoint_reader import Tensor
from model_bin_reader import expected_shapes
from model_writer import Stored, Writer, lay_out, list_entries
from tokenizer_fixture import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, field
from tokenizer_model import write_tiny_model

FOLDER = os.path.join(ROOT, "tests", "data", "fuzz")
NO_PIECE = 0xFFFFFFFF
NAN = float("nan")
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # GPT-2's.
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def byte_letters():
    """Returns the letters of byte-level BPE by byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(b) if b in printable else chr(256 + others.index(b)) for b in range(256)]


def charsmap(rules):
    """Returns a precompiled character map (tokenization/charsmap.cpp) of the rules, which map texts
    to texts. The trie is a double array: the children of a node lie at the node's base with the
    bits of their bytes flipped."""
    texts, root = b"", {}
    for text, to in rules.items():
        node = root
        for byte in text.encode():
            node = node.setdefault(byte, {})
        node[0] = len(texts)
        texts += to.encode() + b"\0"
    units, used, bases = {}, {0}, {0}

    # No two nodes have the same base, because the children of one would be those of the other.
    def place(node, at, label):
        free = (b for b in range(1, 1 << 16) if b not in bases)
        base = next(b for b in free if all(b ^ byte not in used for byte in node))
        bases.add(base)
        used.update(base ^ byte for byte in node)
        units[at] = (base ^ at) << 10 | (0 in node) << 8 | label
        for byte, child in node.items():
            if byte == 0:
                units[base] = 1 << 31 | child
            else:
                place(child, base ^ byte, byte)

    place(root, 0, 0)
    table = [units.get(at, 1 << 31) for at in range(max(units) + 1)]
    return struct.pack(f"<I{len(table)}I", 4 * len(table), *table) + texts


def pack(pieces):
    table = b""
    for piece in pieces:
        text = b"" if piece is None else piece.encode()
        table += struct.pack("<I", NO_PIECE if piece is None else len(text)) + text
    return table


def tables(pieces, **more):
    table = pack(pieces)
    files = [Stored("source.pieces", table), Stored("target.pieces", table)]
    return files + [Stored(name, data) for name, data in more.items()]


def merges(pieces, pairs):
    """Returns the file of the merges of pairs, whose joined pieces are in the vocabulary."""
    number = {piece: place for place, piece in enumerate(pieces)}
    return b"".join(struct.pack("<3i", number[a], number[b], number[a + b]) for a, b in pairs)


def token(number, *flags):
    return {"id": number, **dict.fromkeys(flags, True)}


def tokenizer(normalize, split, model, decode, before=(), after=(0,)):
    around = {"before": list(before), "after": list(after)}
    steps = {"normalize": normalize, "split": split, "decode": decode}
    return {**steps, "model": model, "template": around}


def metaspace(prepend="always"):
    return {"kind": "metaspace", "prepend": prepend}


def unigram():
    """A tokenizer like mBART's: a unigram model with a charsmap, added tokens and languages."""
    pieces = ["</s>", "<unk>", "<pad>", "en_XX", "de_DE", "<mask>", "<one>", "ÄB", None]
    texts = ["▁", "▁a", "a", "b", "ab", "fi", "é", "▁the", "1", "2", ".", "日本"]
    scores = [NAN] * len(pieces) + [-1.0 - number / 4 for number in range(len(texts))]
    rules = {"\ufb01": "fi", "e\u0301": "é", "\u3000": " ", "½": "1/2", "\u200b": "", "\t": " "}
    added = [*(token(n, "special") for n in range(5)), token(5, "lstrip"), token(6, "single_word")]
    tokens = {"start": 0, "end": 0, "unknown": 1, "pad": 2, "languages": {"en_XX": 3, "de_DE": 4}}
    tokens |= {"added": [*added, token(7, "normalized", "rstrip")], "clean_up_spaces": True}
    steps = tokenizer(
        [
            {"kind": "charsmap"},
            {"kind": "replace", "pattern": " {2,}", "with": " "},
            {"kind": "strip", "left": False, "right": True},
        ],
        [{"kind": "whitespace"}, {**metaspace(), "split": True}],
        {"kind": "unigram", "unknown": 1, "unknown_score": -20.5, "byte_fallback": False},
        [metaspace()],
        ["source_language", 5],
        [0, "source_language"],
    )
    files = {"scores": struct.pack(f"<{len(scores)}d", *scores), "charsmap": charsmap(rules)}
    return tokens, {**steps, "source_language": "en_XX"}, tables(pieces + texts, **files)


def unigram_bytes():
    """A unigram model with pieces for bytes, and every form of Unicode."""
    pieces = ["</s>", "<unk>", *BYTES, "▁", "a", "▁a", "é", "12"]
    scores = [NAN, NAN, *[-30.0] * 256, -1.0, -2.0, -2.5, -3.0, -4.0]
    tokens = {"start": 0, "end": 0, "unknown": 1, "added": [token(0, "special")]}
    forms = [{"kind": "unicode", "form": form} for form in ("nfd", "nfkd", "nfkc", "nfc")]
    steps = tokenizer(
        forms,
        [{"kind": "digits", "individual": False}, {**metaspace("first"), "split": False}],
        {"kind": "unigram", "unknown": 1, "unknown_score": -40, "byte_fallback": True},
        [{"kind": "byte_fallback"}, metaspace("first")],
    )
    return tokens, steps, tables(pieces, scores=struct.pack(f"<{len(scores)}d", *scores))


def bpe():
    """A tokenizer like Llama's: BPE with pieces for bytes, and blanks that become marks."""
    pieces = ["<s>", "</s>", "<unk>", *BYTES, *"▁abc1", "▁a", "ab", "▁ab", "<x>"]
    pairs = [("▁", "a"), ("a", "b"), ("▁a", "b"), ("▁", "ab")]
    added = [*(token(n, "special") for n in range(3)), token(len(pieces) - 1, "normalized")]
    tokens = {"start": 0, "end": 1, "unknown": 2, "added": added}
    steps = tokenizer(
        [{"kind": "prepend", "text": "▁"}, {"kind": "replace", "text": " ", "with": "▁"}],
        [],
        {"kind": "bpe", "unknown": 2, "byte_fallback": True, "fuse_unknown": True},
        [
            {"kind": "replace", "text": "▁", "with": " "},
            {"kind": "byte_fallback"},
            {"kind": "fuse"},
            {"kind": "strip", "text": " ", "left": 1, "right": 1},
        ],
        [0],
        [1],
    )
    return tokens, steps, tables(pieces, merges=merges(pieces, pairs))


def bpe_words():
    """A BPE whose words are cut at digits and patterns, without an unknown id."""
    pieces = ["</s>", "▁", *"abcd12", "ab", "cd", "abcd", "-", ",", None, "d1"]
    tokens = {"start": 0, "end": 0, "unknown": 0, "added": [token(0, "special"), token(11)]}
    behaviors = ("removed", "merged_with_previous", "merged_with_next", "contiguous", "isolated")
    patterns = [
        {"kind": "pattern", "pattern": p, "behavior": b, "invert": p == "c"}
        for p, b in zip((";+", "-", "#", r"\s", "c"), behaviors)
    ]
    steps = tokenizer(
        [],
        [*patterns, {"kind": "digits", "individual": True}, {**metaspace("never"), "split": True}],
        {"kind": "bpe", "whole_words": True},
        [],
    )
    pairs = [("a", "b"), ("c", "d"), ("ab", "cd"), ("d", "1")]
    return tokens, steps, tables(pieces, merges=merges(pieces, pairs))


def byte_level():
    """A tokenizer like GPT-2's, with several ids around the text."""
    letters = byte_letters()
    pieces = ["<|end|>", "<|x|>", *letters, "Ġa", "he", "the", "Ġthe", "ÃŁ"]
    pairs = [("Ġ", "a"), ("h", "e"), ("t", "he"), ("Ġ", "the"), ("Ã", "Ł")]
    tokens = {"start": 0, "end": 0, "unknown": 0, "pad": 0}
    tokens["added"] = [token(0, "special"), token(1, "lstrip", "rstrip")]
    steps = tokenizer(
        [{"kind": "unicode", "form": "nfc"}],
        [{"kind": "byte_level", "prefix_space": True, "pattern": WORDS}],
        {"kind": "bpe", "whole_words": True},
        [{"kind": "byte_level"}],
        [0, 1, 0],
        [1, 0],
    )
    return tokens, steps, tables(pieces, merges=merges(pieces, pairs))


# This decoder has everything that no network with an encoder has, but for parallel sublayers.
DECODER = {
    "layers": 2,
    "width": 4,
    "causal": True,
    "parallel": False,
    "residual_scale": 0.5,
    "embedding": {"vocabulary": 0, "scale": 2.0, "positions": "learned", "rows": 8, "norm": True},
    "norm": {"kind": "rms", "epsilon": 1e-6, "places": ["before", "inside"], "final": True},
    "attention": {
        "heads": 2,
        "kv_heads": 1,
        "head": 6,
        "scale": 0.4,
        "softcap": 5.0,
        "query_key_norm": True,
        "slope": True,
        "rotary_dims": 4,
        "rates": [1, -1],
        "windows": [0, 3],
    },
    "feed_forward": {"width": 5, "activation": "gelu_tanh", "gated": True},
}


def random_tensor(name, shape):
    values = np.random.default_rng(sum(name.encode())).standard_normal(shape).astype("<f4")
    words = values.reshape(-1).view(np.uint8).data
    return Tensor("seed", name, "float32", tuple(shape), words)


def write_decoder(path):
    """Writes the model of DECODER with the tokenizer of bpe()."""
    tokens, steps, files = bpe()
    rows = count_pieces(files[0].data)
    decoder = DECODER | {"embedding": DECODER["embedding"] | {"vocabulary": rows}}
    network = {"decoder": decoder, "output": {"scale": 0.25, "softcap": 30.0}}
    shapes, _ = expected_shapes(network)
    tensors = [(name, [random_tensor(name, shape)]) for name, shape in shapes.items()]
    entries = list_entries(tensors, None)
    data_bytes = lay_out(entries, files)
    header = {
        "network": network,
        "tokens": {"unknown": 2, "added": tokens["added"]},
        "tokenizer": steps | {"template": {"before": [0], "after": []}},
        "generation": {
            "max_source_length": 8,
            "max_total_length": 8,
            "ends": [1, 0],
            "never_chosen": [],
        },
        "tensors": [entry.header() for entry in entries],
        "files": [file.header() for file in files],
        "provenance": {"converter": "tests/fuzz_seeds.py"},
    }
    with open(path, "wb") as file:
        Writer(file).write_model(header, entries, files, data_bytes)


def sentencepiece_model(pieces, kind, rules, training=b"", flags=b""):
    """Returns a SentencePiece model whose character map is that of its denormalization, too."""
    entries = (field(1, t) + field(2, float(s)) + field(3, type) for t, s, type in pieces)
    normalization = field(2, charsmap(rules)) + flags
    data = b"".join(field(1, entry) for entry in entries)
    data += field(2, field(3, kind) + training)
    return data + field(3, normalization) + field(5, normalization)


def sentencepiece(kind, more=(), training=b"", flags=b""):
    """Returns a tokenizer like M2M-100's. The vocabulary has another order than the model, pieces
    that the model does not have, and an id without a piece."""
    special = [("<unk>", 0, UNKNOWN), ("<s>", 0, CONTROL), ("</s>", 0, CONTROL)]
    texts = ["▁", "▁a", "a", "b", "ab", "fi", "é", "▁the", "1", "2", ".", "日本", "▁▁", "▁ab"]
    ordinary = [(text, -1 - number / 4, NORMAL) for number, text in enumerate([*texts, *"the"])]
    symbols = [("<x>", 0, USER_DEFINED), ("▁u", 0, USER_DEFINED)]
    pieces = [*special, *ordinary, *symbols, *more]
    rules = {"\ufb01": "fi", "e\u0301": "é", "\u3000": " ", "½": "1/2", "\u200b": "", "x": "▁ y"}
    model = sentencepiece_model(pieces, kind, rules, training, flags)
    names = [text for text, _, type in pieces if type not in (UNKNOWN, CONTROL)]
    vocabulary = ["</s>", "<unk>", *names, "▁▁other", "x▁y", None, "en", "de"]
    last = len(vocabulary) - 1
    tokens = {"start": 0, "end": 0, "unknown": 1, "added": [token(0, "special"), token(3)]}
    tokens["languages"] = {"de": last, "en": last - 1}
    around = {"before": ["source_language"], "after": [0]}
    header = {"model": {"kind": "sentencepiece"}, "template": around, "source_language": "en"}
    files = {f"{side}.spm": model for side in ("source", "target")}
    return tokens, header, tables(vocabulary, **files)


BYTE_PIECES = [(text, 0, BYTE) for text in BYTES]
NO_PREFIX = field(3, 0) + field(4, 0)  # Superfluous spaces stay.


def sentencepiece_unigram():
    return sentencepiece(1, BYTE_PIECES, field(35, 1), NO_PREFIX)


def sentencepiece_bpe():
    """Returns BPE with another text for the unknown piece."""
    return sentencepiece(2, (), field(44, " ? "))


def sentencepiece_words():
    """Returns words, which the SentencePiece library segments. Each begins with a mark, because the
    library refuses a text that has a control piece as a word."""
    return sentencepiece(3, [("unused", 0, UNUSED)])


TEXTS = (
    "The first line, and it's about 12 things: a, b; ab.",
    "  a  the ab\ufb01 1/2 \u00bd e\u0301 <one> <mask> <x> \u65e5\u672c \u3000\t ",
    "\u2581a\u2581\u2581b </s><unk><0x41> <|x|> <|end|> en_XX \u00c4Bab >>xx<< a",
    "\U0001f469\u200d\U0001f467 \uac00\u11a7\u1100\u1161 \u1e9b\u0323 \ufdfa\u0344\u0300 \u0f73",
    "\r\n\x00\x1c\u0085\u2028\ufeff\u00ad\u180e",
    " " * 300 + "x",
    "a" * 300,
    "e" + "\u0301" * 100,
    "12-34#56;;7 c d1 n't 's 've",
)
KINDS = (unigram, unigram_bytes, bpe, bpe_words, byte_level)
SENTENCEPIECE = (sentencepiece_unigram, sentencepiece_bpe, sentencepiece_words)


def count_pieces(table):
    """Returns the number of entries of a .pieces file."""
    rows, at = 0, 0
    while at < len(table):
        length = struct.unpack_from("<I", table, at)[0]
        rows, at = rows + 1, at + 4 + (0 if length == NO_PIECE else length)
    return rows


def write_seeds(folder):
    for kind in (*KINDS, *SENTENCEPIECE):
        tokens, steps, files = kind()
        # The first file has all pieces.
        rows = count_pieces(files[0].data)
        name = kind.__name__ if kind in SENTENCEPIECE else f"pipeline_{kind.__name__}"
        path = os.path.join(folder, "model_file", name)
        write_tiny_model(path, rows, tokens, steps, files, name)
    write_decoder(os.path.join(folder, "model_file", "decoder"))
    for number, text in enumerate(TEXTS):
        with open(os.path.join(folder, "text", f"seed_{number}"), "wb") as file:
            file.write(text.encode("utf-8"))


if __name__ == "__main__":
    write_seeds(sys.argv[1] if len(sys.argv) > 1 else FOLDER)
