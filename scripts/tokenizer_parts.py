"""Makes the components that the classes of transformers 5 build, in the form of a tokenizer.json,
and the templates of special tokens."""

from __future__ import annotations

import base64
import binascii

from checkpoint_reader import refuse

MARK = "▁"
METASPACE = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True}
BYTE_LEVEL_DECODER = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": True,
    "use_regex": True,
}
JOIN_BLANKS = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
NEWLINES = {"type": "Replace", "pattern": {"Regex": "\\n"}, "content": " "}
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def sequence(kind, steps):
    name = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}
    return {"type": "Sequence", name[kind]: steps}


def precompiled(charsmap):
    return {
        "type": "Precompiled",
        "precompiled_charsmap": base64.b64encode(charsmap).decode("ascii"),
    }


def find_charsmap(settings):
    """Returns the bytes of the first charsmap in the normalizer of a tokenizer.json, or None."""
    normalizer = settings.get("normalizer") or []
    if isinstance(normalizer, dict) and normalizer.get("type") == "Sequence":
        normalizer = normalizer.get("normalizers")
    for step in normalizer if isinstance(normalizer, list) else [normalizer]:
        if isinstance(step, dict) and step.get("type") == "Precompiled":
            return decode_charsmap(settings.path, step)
    return None


def decode_charsmap(path, step):
    text = step.get("precompiled_charsmap")
    try:
        return check_charsmap(path, base64.b64decode(text, validate=True))
    except (TypeError, ValueError, binascii.Error):
        refuse(path, "precompiled_charsmap", "base64", "another text, or none")


def check_charsmap(path, data):
    """Returns a charsmap, which has the size of its trie, the trie and the texts to put in."""
    size = int.from_bytes(data[:4], "little")
    if len(data) < 8 or size % 4 or not 4 <= size <= len(data) - 4:
        found = f"{size} of {len(data)} bytes"
        refuse(path, "precompiled_charsmap", "a trie within its bytes", found)
    try:
        data[4 + size :].decode("utf-8")
    except UnicodeDecodeError:
        refuse(path, "precompiled_charsmap", "texts in UTF-8", "other bytes")
    if data[-1] != 0 or len(data) == 4 + size:
        refuse(path, "precompiled_charsmap", "texts that each end in a NUL", "another end")
    return data


def byte_level(prefix_space, pattern=True):
    return {
        "type": "ByteLevel",
        "add_prefix_space": prefix_space,
        "trim_offsets": True,
        "use_regex": pattern,
    }


def template(before, after):
    """Returns a template of (text, id) pairs around a line."""
    item = lambda text: {"SpecialToken": {"id": text, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [
            *(item(text) for text, _ in before),
            {"Sequence": {"id": "A", "type_id": 0}},
            *(item(text) for text, _ in after),
        ],
        "special_tokens": {
            text: {"id": text, "ids": [number], "tokens": [text]}
            for text, number in [*before, *after]
        },
    }


def words_and_marks(settings, charsmap):
    """T5's components split at white space first, so that blanks of any kind separate words."""
    return {
        "normalizer": None if charsmap is None else precompiled(charsmap),
        "pre_tokenizer": sequence("pre_tokenizer", [{"type": "WhitespaceSplit"}, METASPACE]),
        "decoder": METASPACE,
    }


def words_without_charsmap(settings, charsmap):
    """mBART's class leaves the charsmap of its model out."""
    return words_and_marks(settings, None)


def marks(settings, charsmap):
    """The components of Pegasus, mBART-50 and NLLB take a charsmap and join blanks."""
    steps = [] if charsmap is None else [precompiled(charsmap)]
    return {
        "normalizer": sequence("normalizer", [*steps, JOIN_BLANKS]),
        "pre_tokenizer": METASPACE,
        "decoder": METASPACE,
    }


def pegasus(settings, charsmap):
    if charsmap is not None:
        return marks(settings, charsmap)
    steps = {"normalizer": sequence("normalizer", [NEWLINES, JOIN_BLANKS])}
    return {**marks(settings, None), **steps}


def nllb(settings, charsmap):
    if charsmap is not None:
        return marks(settings, charsmap)
    return {**marks(settings, None), "normalizer": None}


def bytes_of_words(settings, charsmap):
    """GPT-2's components map bytes to an alphabet of their own."""
    return {
        "normalizer": None,
        "pre_tokenizer": byte_level(bool(settings.boolean("add_prefix_space", False))),
        "decoder": BYTE_LEVEL_DECODER,
    }


def qwen(settings, charsmap):
    split = {
        "type": "Split",
        "pattern": {"Regex": QWEN_PATTERN},
        "behavior": "Isolated",
        "invert": False,
    }
    prefix = bool(settings.boolean("add_prefix_space", False))
    return {
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": sequence("pre_tokenizer", [split, byte_level(prefix, pattern=False)]),
        "decoder": BYTE_LEVEL_DECODER,
    }


def neox(settings, charsmap):
    """GPT-NeoX's components are GPT-2's behind NFC."""
    return {**bytes_of_words(settings, charsmap), "normalizer": {"type": "NFC"}}


def cohere(settings, charsmap):
    components = neox(settings, charsmap)
    digits = {"type": "Digits", "individual_digits": True}
    steps = [digits, components["pre_tokenizer"]]
    return {**components, "pre_tokenizer": sequence("pre_tokenizer", steps)}


def gemma(settings, charsmap):
    """Blanks become marks, also the first one. No blank is left that would split the text."""
    return {
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": MARK},
        "pre_tokenizer": None,
        "decoder": sequence("decoder", spaces_and_bytes(True)),
    }


def llama(settings, charsmap):
    prefix = settings.boolean("add_prefix_space", None) is not False
    legacy = settings.boolean("legacy", False)
    scheme = "never" if not prefix else "always" if legacy else "first"
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {
        "normalizer": None,
        "pre_tokenizer": {**METASPACE, "prepend_scheme": scheme, "split": False},
        "decoder": sequence("decoder", [*spaces_and_bytes(True), *([strip] if prefix else [])]),
    }


def spaces_and_bytes(byte_fallback):
    """Returns the steps of a decoder that turns marks into spaces, and byte pieces into text."""
    steps = [{"type": "Replace", "pattern": {"String": MARK}, "content": " "}]
    return steps + ([{"type": "ByteFallback"}, {"type": "Fuse"}] if byte_fallback else [])


def generic(model):
    """Returns the components that the generic class makes for a SentencePiece model."""
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
    steps = [precompiled(model.charsmap)] if model.charsmap else []
    return {
        "normalizer": sequence("normalizer", [*steps, blanks]),
        "pre_tokenizer": None,
        "decoder": sequence("decoder", spaces_and_bytes(model.trainer.byte_fallback)),
    }
