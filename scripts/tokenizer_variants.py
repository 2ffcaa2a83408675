#!/usr/bin/env python3
"""Chooses the lines that tell a tokenizer from those that are nearly the same, and writes them with
what transformers makes of them. scripts/compare_tokenizers runs this program with a Python that has
transformers, tokenizers and sentencepiece.

Usage: tokenizer_variants.py FOLDER COUNT [LANGUAGE] < LINES

Writes into FOLDER: lines.txt, lines.ids, lines.decoded (the texts of the ids without the unknown
token), sequences.ids and sequences.decoded (random ids) and lines.json (the unknown token's id and
the source's language).
"""

from __future__ import annotations

import collections
import copy
import json
import os
import re
import sys
import unicodedata

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

from tokenizer_kinds import GPT2, LLAMA3, QWEN, encode, write_json

LONGEST = 80  # characters of most lines
LONG_LINES = 3  # so many lines may be longer
SEQUENCES = 40


def set_pattern(pattern):
    def change(data):
        for step in steps(data["pre_tokenizer"]):
            if step["type"] == "ByteLevel":
                step["use_regex"] = False
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
        rest = [step for step in steps(data["pre_tokenizer"]) if step["type"] != "Split"]
        both = [split | {"invert": False}, *rest]
        data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": both}

    return change


def set_normalizer(*names):
    def change(data):
        normalizers = [{"type": name} for name in names]
        data["normalizer"] = {"type": "Sequence", "normalizers": normalizers}

    return change


def drop_last_normalizer(data):
    data["normalizer"]["normalizers"].pop()


def set_metaspace(**settings):
    def change(data):
        for step in steps(data["pre_tokenizer"]):
            if step["type"] == "Metaspace":
                step.update(settings)

    return change


def drop_whitespace_split(data):
    rest = [s for s in steps(data["pre_tokenizer"]) if s["type"] != "WhitespaceSplit"]
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": rest}


def add_whitespace_split(data):
    both = [{"type": "WhitespaceSplit"}, *steps(data["pre_tokenizer"])]
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": both}


def flip(name):
    def change(data):
        data["model"][name] = not data["model"][name]

    return change


def add_prefix_space(data):
    for step in steps(data["pre_tokenizer"]):
        if step["type"] == "ByteLevel":
            step["add_prefix_space"] = True


def steps(pre_tokenizer):
    """Returns the steps of a pre-tokenizer."""
    if pre_tokenizer is None:
        return []
    return pre_tokenizer.get("pretokenizers", [pre_tokenizer])


# Naive or neighbouring rules. Those that a tokenizer does not have make no difference to it.
CHANGES = {
    "GPT-2's pattern": set_pattern(GPT2),
    "Llama 3's pattern": set_pattern(LLAMA3),
    "Qwen's pattern": set_pattern(QWEN),
    "words with marks": set_pattern(QWEN.replace(r"\p{L}+", r"[\p{L}\p{M}]+")),
    "ASCII blanks": set_pattern(GPT2.replace(r"\s", r"[ \t-\r]").replace(r"\S", r"[^ \t-\r]")),
    "no normalizer": set_normalizer(),
    "NFC": set_normalizer("NFC"),
    "NFKC": set_normalizer("NFKC"),
    "one normalizer less": drop_last_normalizer,
    "mark before the first word": set_metaspace(prepend_scheme="first"),
    "no mark": set_metaspace(prepend_scheme="never"),
    "marks always": set_metaspace(prepend_scheme="always"),
    "other split": set_metaspace(split=True),
    "no split": set_metaspace(split=False),
    "no split at blanks": drop_whitespace_split,
    "split at blanks": add_whitespace_split,
    "prefix space": add_prefix_space,
    "whole words": flip("ignore_merges"),
    "byte fallback": flip("byte_fallback"),
    "fused unknowns": flip("fuse_unk"),
}


def make_variants(tokenizer, folder):
    """Returns functions from a line to ids or pieces, of which only the differences between lines
    count."""
    import sentencepiece
    from tokenizers import Tokenizer

    variants = {}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        data = json.loads(backend.to_str())
        for name, change in CHANGES.items():
            changed = copy.deepcopy(data)
            try:
                change(changed)
                other = Tokenizer.from_str(json.dumps(changed))
            except (KeyError, TypeError, IndexError):
                continue
            if changed != data:
                variants[name] = lambda line, other=other: (
                    other.encode(line, add_special_tokens=False).ids
                )
    for name in sorted(os.listdir(folder)):
        if name.endswith((".model", ".spm")):
            model = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/{name}")
            for form in ("NFC", "NFD"):
                variants[f"{name}, {form}"] = lambda line, model=model, form=form: model.encode(
                    unicodedata.normalize(form, line), out_type=str
                )
    return variants


def features(line, ids, unknown):
    """Returns what a line has, apart from the variants that it tells from each other."""
    categories = {unicodedata.category(c) for c in line}
    return (
        unknown in ids,
        bool(categories & {"Cc", "Cf"}),
        "Mn" in categories,
        bool(categories & {"Nl", "No"}),
        any(ord(c) > 0xFFFF for c in line),
        line[:1].isspace() or line[-1:].isspace(),
    )


def is_stable(line):
    """Whether every version of Unicode from 14 on has the same rules for a line."""
    for c in line:
        reserved = unicodedata.category(c) == "Cn"
        if reserved and not (0xFDD0 <= ord(c) <= 0xFDEF or ord(c) & 0xFFFE == 0xFFFE):
            return False
    return True


def choose(lines, rows, signatures, count):
    """Returns the numbers of `count` lines with as many different signatures as possible, rare ones
    first, and of lines with the same signature those of a middle length."""
    groups = collections.defaultdict(list)
    for i, signature in signatures.items():
        groups[signature].append(i)
    for group in groups.values():
        group.sort(key=lambda i: (len(lines[i]) > LONGEST, abs(len(lines[i]) - 32), i))
    order = sorted(groups, key=lambda signature: (len(groups[signature]), groups[signature]))
    chosen, long_lines, depth = [], 0, 0
    while len(chosen) < count and any(len(group) > depth for group in groups.values()):
        for signature in order:
            if len(groups[signature]) <= depth or len(chosen) == count:
                continue
            i = groups[signature][depth]
            if len(lines[i]) > LONGEST:
                if long_lines == LONG_LINES or len(lines[i]) > 400:
                    continue
                long_lines += 1
            chosen.append(i)
        depth += 1
    return sorted(chosen)


def write_lines(path, lines):
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(re.sub("[\r\n]", " ", line) + "\n" for line in lines)


def write_raw(path, lines):
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)


def main(folder, count, language=None):
    from transformers import AutoTokenizer

    given = sys.stdin.buffer.read().decode()
    lines = given.split("\n")[:-1]
    truth = encode(folder, 1, language, lines)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    variants = make_variants(tokenizer, folder)
    plain = "ordinary text"
    usual = {name: same_as(tokenizer, variant, plain) for name, variant in variants.items()}
    signatures = {}
    for i, (line, ids) in enumerate(zip(lines, truth["ids"])):
        if ids is None or ids == truth["empty"] or not is_stable(line):
            continue
        differs = tuple(
            same_as(tokenizer, variant, line) != usual[name] for name, variant in variants.items()
        )
        signatures[i] = differs + features(line, ids, truth["unknown"])
    chosen = choose(lines, truth["ids"], signatures, int(count))
    write_raw(f"{folder}/lines.txt", [lines[i] for i in chosen])
    write_lines(f"{folder}/lines.ids", [" ".join(map(str, truth["ids"][i])) for i in chosen])
    write_lines(f"{folder}/lines.decoded", [truth["texts"][i] for i in chosen])
    sequences = truth["sequences"][:SEQUENCES]
    write_lines(f"{folder}/sequences.ids", [" ".join(map(str, ids)) for ids in sequences])
    write_lines(f"{folder}/sequences.decoded", truth["sequence_texts"][:SEQUENCES])
    write_json(f"{folder}/lines.json", {"unknown": truth["unknown"], "source_lang": language})
    print(f"{folder}: {len(chosen)} lines, {len(set(signatures.values()))} signatures")


def same_as(tokenizer, variant, line):
    """Whether a variant gives the ids or pieces of the tokenizer."""
    ids = tokenizer(line, add_special_tokens=False).input_ids
    other = variant(line)
    if other and isinstance(other[0], str):
        return other == tokenizer.convert_ids_to_tokens(ids)
    return other == ids


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    main(*sys.argv[1:])
