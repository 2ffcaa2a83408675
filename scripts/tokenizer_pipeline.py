"""Puts the tokenizer of a directory together as model.bin keeps it: the section `tokenizer` of the
header, the special and the added tokens, and the files. It depends on no network."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

import numpy as np

from checkpoint_reader import refuse, show
from languages import MBART_50, NLLB
from model_writer import Stored
from tokenizer_added import FLAGS, text_of
from tokenizer_build import set_template
from tokenizer_json import KINDS, list_steps, read_charsmap, read_template
from subword_model import check_text
from tokenizer_settings import NAMED

KEYS = {"normalizer": "normalize", "pre_tokenizer": "split", "decoder": "decode"}
# The score of an unknown character is this much below that of the worst piece.
UNKNOWN_PENALTY = 10.0
NO_PIECE = struct.pack("<I", 0xFFFFFFFF)
RESIZE = "(the model was not resized: model.resize_token_embeddings(len(tokenizer)))"
MULTILINGUAL = ("m2m_100", "mbart")
# Templates have these tokens.
AROUND = ("bos_token", "eos_token", "cls_token", "sep_token")
NLLB_CODE = re.compile("[a-z]{3}_[A-Z][a-z]{3}")
MBART_CODE = re.compile("[a-z]{2,3}_[A-Z]{2}")


@dataclass
class Pipeline:
    """The tokenizer as model.bin keeps it."""

    # This text is for people.
    description: str
    # This object is the header's `tokenizer`.
    header: dict
    # This list is the header's `tokens.added`.
    added: list
    # The ids of the named tokens are None where the tokenizer has no such token.
    end: int | None
    unknown: int | None
    pad: int | None
    # The ids of the language tokens by their codes.
    languages: dict
    cleans_up_spaces: bool
    files: list
    # These are for chat templates: the texts of the named tokens (bos_token, ...) by their names,
    # and those of the added tokens that are not special by their ids.
    named: dict = field(default_factory=dict)
    plain: dict = field(default_factory=dict)


def make_pipeline(name, backend, model_type, rows):
    """Returns the Pipeline of what the class of this name has built. `model_type` is that of
    config.json, and `rows` is the number of rows of the embedding."""
    languages = list_languages(backend, model_type in MULTILINGUAL)
    check_languages(backend, languages, rows)
    check_added_ids(backend, languages)
    set_template(backend)
    description = (
        f"{name}, {len(set(backend.added.numbers) | set(backend.model.vocabulary))} pieces"
    )
    return assemble(description, backend, languages, rows)


def list_languages(backend, multilingual):
    """Returns the ids of the language tokens by their codes: those that the class knows, and the
    special tokens that look like them."""
    added, known = backend.added, backend.kind.languages
    if not known:
        known = MBART_50 + NLLB if multilingual else ()
        return {code: added.numbers[code] for code in known if code in added.numbers}
    pattern = NLLB_CODE if known == tuple(NLLB) else MBART_CODE
    texts = [token.text for token in added.tokens.values() if token.text in added.special]
    codes = [*known, *filter(pattern.fullmatch, texts)]
    return {code: added.id_of(code) for code in codes if added.id_of(code) is not None}


def check_languages(backend, languages, rows):
    """Refuses languages whose ids in transformers are not those that the model was trained with."""
    path = backend.model.path
    for code, number in languages.items():
        if number >= rows:
            refuse(path, code, f"an id below the embedding's {rows} rows", number)
    if not backend.kind.languages:
        return
    if not backend.settings.json:
        check_spm_languages(backend, languages)
    if backend.source_language not in languages:
        some = ", ".join(list(languages)[:3]) or "none"
        expected = f"one of the checkpoint's {len(languages)} codes ({some}, ...)"
        refuse(backend.settings.path, "src_lang", expected, show(backend.source_language))


def check_added_ids(backend, languages):
    """Refuses a token that the settings list with another id than transformers gives it, if text or
    a template can have it. transformers counts on from the vocabulary, whatever the listed ids."""
    settings, added = backend.settings, backend.added
    around = {text_of(backend.named.get(name)) for name in AROUND} | set(languages)
    for number, token in settings.added.items():
        found = added.id_of(token.text)
        if found != number and (token.text not in added.special or token.text in around):
            expected = f"the id {number}, as the tokenizer's files list it"
            refuse(settings.directory, show(token.text), expected, f"{found} in transformers")


def check_spm_languages(backend, languages):
    """Refuses languages that transformers does not put where fairseq has them, behind the pieces.
    fairseq has one more token before the pieces than the SentencePiece model."""
    first = backend.model.spm_pieces + 1
    for number, code in enumerate(backend.kind.languages, first):
        if languages.get(code) != number:
            expected = (
                f"the id {number}, which the model was trained with (without tokenizer.json, "
                "transformers gives it another one unless tokenizer_config.json has "
                "added_tokens_decoder)"
            )
            refuse(backend.model.path, code, expected, show(languages.get(code)))


def check_first_mark(path, steps):
    """Refuses a mark at the start of a line alone where a step may take the start away: tokenizers
    then puts no mark there, because the first character is not the line's first."""
    takes = lambda step: (
        (step["kind"] == "strip" and step["left"])
        or (step["kind"] == "replace" and step["with"] == "")
    )
    marks = any(step.get("prepend") == "first" for step in steps["split"])
    if marks and any(map(takes, steps["normalize"])):
        expected = "always or never, because normalizer may take characters off the start"
        refuse(path, "Metaspace.prepend_scheme", expected, "first")


def assemble(description, backend, languages, rows):
    """Returns the Pipeline of what a class has built."""
    path = backend.settings.json.path if backend.settings.json else backend.model.path
    special = {backend.added.id_of(text) for text in backend.added.special}
    special |= set(languages.values())
    steps = {
        key: list_steps(path, name, backend.components.get(name)) for name, key in KEYS.items()
    }
    if not steps["decode"]:
        refuse(path, "decoder", f"one of {', '.join(KINDS['decoder'][1])}", "none")
    check_first_mark(path, steps)
    header = {
        "normalize": steps["normalize"],
        "split": steps["split"],
        "model": describe_model(backend),
        "template": describe_template(path, backend, languages, rows),
        "decode": steps["decode"],
    }
    if backend.source_language is not None:
        header["source_language"] = backend.source_language
    ids = {name: row_id(backend, f"{name}_token", rows) for name in ("eos", "unk", "pad")}
    unknown = backend.model.unknown if backend.model.unknown is not None else ids["unk"]
    return Pipeline(
        description,
        header,
        list_added(backend, special, rows),
        ids["eos"],
        unknown,
        ids["pad"],
        languages,
        cleans_up(backend),
        list_files(path, backend, special, rows),
        {name: text_of(backend.named[name]) for name in NAMED if backend.named.get(name)},
        {n: token.text for n, token in backend.added.tokens.items() if n not in special},
    )


def row_id(backend, name, rows):
    """Returns the id of a named token, or None if there is none. A token whose id is beyond the
    embedding's rows is none, except for the end token, which the model needs."""
    number = backend.id_of(name)
    if number is None or number < rows:
        return number
    if name == "eos_token":
        text = text_of(backend.named[name])
        refuse(backend.settings.path, name, f"an id below {rows} {RESIZE}", f"{number} ({text})")
    return None


def cleans_up(backend):
    """Says whether the output's white space is cleaned up. transformers does not do it after a BPE
    model, whatever the usual setting says."""
    key = "clean_up_tokenization_spaces"
    wanted = backend.settings.boolean(key, False)
    forced = f"{key}_for_bpe_even_though_it_will_corrupt_output"
    if backend.model.kind == "BPE":
        return bool(wanted and backend.settings.boolean(forced, False))
    return bool(wanted)


def describe_model(backend):
    model = backend.model
    header = {"kind": model.kind.lower(), "byte_fallback": model.byte_fallback}
    if model.unknown is not None:
        header["unknown"] = model.unknown
    if model.kind == "Unigram":
        header["unknown_score"] = min(model.scores.values()) - UNKNOWN_PENALTY
    else:
        header["fuse_unknown"] = model.fuse_unknown
        header["whole_words"] = model.ignore_merges
    return header


def describe_template(path, backend, languages, rows):
    template = read_template(path, backend.components.get("post_processor"))
    for number in [*template[0], *template[1]]:
        if number >= rows:
            refuse(path, "post_processor", f"ids below the embedding's {rows} rows", number)
    source = languages[backend.source_language] if backend.source_language is not None else None
    name = lambda number: "source_language" if number == source else number
    return dict(zip(("before", "after"), ([name(n) for n in side] for side in template)))


def list_added(backend, special, rows):
    """Returns the added tokens as the header lists them. A special token whose id is beyond the
    embedding's rows is left out, because the model can neither read nor write it."""
    tokens, found = backend.added.tokens, []
    for number in sorted(special | set(tokens)):
        token = tokens.get(number)
        flags = {flag: True for flag in FLAGS if getattr(token, flag, False)}
        flags.pop("special", None)
        if number in special:
            # Special tokens are looked for in the text as it is.
            flags.pop("normalized", None)
            flags["special"] = True
            if number < rows:
                found.append({"id": number, **flags})
        elif number >= rows:
            refuse(backend.settings.path, show(token.text), f"an id below {rows} {RESIZE}", number)
        else:
            found.append({"id": number, **flags})
    return found


def list_files(path, backend, special, rows):
    """Returns the files that model.bin keeps of the tokenizer."""
    model = backend.model
    pieces = list_pieces(backend, rows)
    packed = b"".join(NO_PIECE if p is None else struct.pack("<I", len(p)) + p for p in pieces)
    files = [Stored(f"{side}.pieces", packed) for side in ("source", "target")]
    if model.kind == "Unigram":
        scores = np.full(rows, np.nan, "<f8")
        for text, number in model.vocabulary.items():
            if number not in special:
                scores[number] = model.scores[text]
        files.append(Stored("scores", scores.tobytes()))
    else:
        ids = [
            [model.vocabulary[text] for text in (left, right, left + right)]
            for left, right in model.merges
        ]
        files.append(Stored("merges", np.array(ids, "<i4").tobytes()))
    charsmap = read_charsmap(path, backend.components.get("normalizer"))
    return files if charsmap is None else [*files, Stored("charsmap", charsmap)]


def list_pieces(backend, rows):
    """Returns the bytes of the pieces by id, which are None for an id without a piece."""
    path, pieces = backend.model.path, [None] * rows
    for text, number in backend.model.vocabulary.items():
        if number >= rows:
            refuse(path, show(text), f"an id below the embedding's {rows} rows", number)
        pieces[number] = check_text(path, text)
    for number, token in backend.added.tokens.items():
        data = check_text(backend.settings.path, token.text)
        if number < rows and pieces[number] not in (None, data):
            found = f"{number}, which {pieces[number].decode()!r} has"
            refuse(backend.settings.path, show(token.text), "an id of its own", found)
        if number < rows:
            pieces[number] = data
    return pieces
