"""Reads the tokenizer of M2M-100, which is a SentencePiece model that cuts a text into pieces, and
vocab.json with their ids. transformers runs SentencePiece itself for it."""

from __future__ import annotations

import os

from checkpoint_reader import is_integer, refuse, show
from languages import read_codes
from model_writer import Stored
from sentencepiece_reader import read_sentencepiece
from tokenizer_pipeline import Pipeline
from tokenizer_reader import Added, Tokenizer

MODEL = "sentencepiece.bpe.model"
NAMED = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}
# A Pipeline has the ids of these tokens.
ID_OF = ("eos", "unk", "pad")


def add_codes(tokenizer, codes, rows):
    """Adds the tokens of the languages behind the pieces, and returns their ids by code."""
    first, path = len(tokenizer.source.values), tokenizer.source.path
    ids = {added.text: added.number for added in tokenizer.added}
    for number, code in enumerate(codes, first):
        text = f"__{code}__"
        if number >= rows:
            refuse(path, code, f"an id below the embedding's {rows} rows", number)
        found = ids.get(text, tokenizer.source.get(text))
        if found not in (None, number):
            expected = f"the id {number}, which transformers reads before a line"
            refuse(path, text, expected, show(found))
        if text not in ids:
            tokenizer.added.append(Added(path, text, number, {"special": True}))
    return {code: number for number, code in enumerate(codes, first)}


def list_added(tokenizer, languages, rows):
    """Returns the added tokens as the header lists them. All special tokens are among them, and
    tokens of languages are special."""
    special = tokenizer.list_special("tokenizer_config.json", "special_tokens_map.json")
    if tokenizer.get("added_tokens_decoder") is not None:
        special = tokenizer.list_special("tokenizer_config.json")
    special |= set(NAMED.values())
    ids = {added.text: added.number for added in tokenizer.added}
    numbers = {ids.get(text, tokenizer.source.get(text)) for text in special}
    numbers |= {added.number for added in tokenizer.added if added.flags["special"]}
    numbers |= set(languages.values())
    found = {n: {"id": n, "special": True} for n in numbers if is_integer(n) and 0 <= n < rows}
    for entry in tokenizer.list_added(rows):
        if entry["id"] not in found and not entry["special"]:
            flags = {flag: True for flag, value in entry.items() if value is True}
            found[entry["id"]] = {"id": entry["id"], **flags}
    return [found[number] for number in sorted(found)]


def read_m2m_pipeline(directory, rows):
    """Returns the Pipeline of an M2M-100 directory for an embedding of that many rows."""
    model = read_sentencepiece(os.path.join(directory, MODEL))
    tokenizer = Tokenizer(directory, True, "sentencepiece")
    codes = read_codes(tokenizer.settings)
    language = tokenizer.get("src_lang")
    language = "en" if language is None else language
    if language not in codes:
        expected = f"one of {', '.join(codes)}"
        refuse(tokenizer.settings.path, "src_lang", expected, show(language))
    # This checks the vocabulary, too.
    tokenizer.pack_pieces("source", rows)
    languages = add_codes(tokenizer, codes, rows)
    pieces = tokenizer.pack_pieces("source", rows)
    ids = {name: tokenizer.id_of(f"{name}_token", NAMED[f"{name}_token"], rows) for name in ID_OF}
    header = {
        "normalize": [],
        "split": [],
        "model": {"kind": "sentencepiece"},
        "template": {"before": ["source_language"], "after": [ids["eos"]]},
        "decode": [{"kind": "sentencepiece"}],
        "source_language": language,
    }
    files = [Stored(f"{side}.spm", model) for side in ("source", "target")]
    files += [Stored(f"{side}.pieces", pieces) for side in ("source", "target")]
    added = list_added(tokenizer, languages, rows)
    cleans_up = tokenizer.cleans_up_spaces
    description = f"M2M100Tokenizer, {len(tokenizer.source.values)} pieces"
    return Pipeline(
        description, header, added, ids["eos"], ids["unk"], ids["pad"], languages, cleans_up, files
    )
