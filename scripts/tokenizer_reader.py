"""Reads a tokenizer that runs SentencePiece itself: its vocabularies, the tokens that users added
to it, and its settings. tokenizer_choice.py reads the others.

It follows transformers 5. Where tokenizer_config.json has added_tokens_decoder, only that says
which tokens were added. Otherwise added_tokens.json and the list of tokenizer.json say it.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass

from checkpoint_reader import Settings, is_integer, refuse, show
from model_writer import Stored
from sentencepiece_reader import read_sentencepiece

FLAGS = ("lstrip", "rstrip", "single_word", "special")
# The text of an added token has at most this many bytes. Each place of a line is compared with the
# token.
LONGEST = 1024
HINT = "(the model was not resized: model.resize_token_embeddings(len(tokenizer)))"


@dataclass
class Added:
    """An added token is no piece of the SentencePiece models, or splits the text before these
    models see it."""

    # This file names the token.
    path: str
    text: str
    number: int
    flags: dict


def text_of(value):
    """Returns the text of a token in settings, which is a string or an object."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


class Tokenizer:
    def __init__(self, directory, shared, kind):
        """`shared` says whether encoder and decoder share one vocabulary, unless the tokenizer's
        own settings say it. `kind` is "sentencepiece", or "none" for a model that reads and writes
        ids and pieces only."""
        self.kind = kind
        self.path = lambda name: os.path.join(directory, name)
        there = lambda name: os.path.exists(self.path(name))
        self.settings = (
            Settings(self.path("tokenizer_config.json")) if there("tokenizer_config.json") else None
        )
        # A model that reads and writes ids alone need not have its pieces.
        self.has_pieces = kind != "none" or there("vocab.json")
        self.source = self.target = (
            Settings(self.path("vocab.json"))
            if self.has_pieces
            else Settings.of({}, self.path("vocab.json"))
        )
        separate = not shared and there("target_vocab.json")
        if self.settings:
            separate = self.settings.boolean("separate_vocabs", separate)
            self.settings.take("sp_model_kwargs", {}, "{} (xlate has no other)", lambda v: v == {})
        if separate:
            self.target = Settings(self.path("target_vocab.json"))
        self.cleans_up_spaces = bool(
            self.settings and self.settings.boolean("clean_up_tokenization_spaces", False)
        )
        # With this setting transformers does not look for added tokens in a text.
        self.splits_special = bool(
            self.settings and self.settings.boolean("split_special_tokens", False)
        )
        self.added = self.read_added() if kind != "none" else []

    def get(self, key):
        return self.settings.get(key) if self.settings else None

    def id_of(self, key, default, rows):
        """Returns the source's id of the token that a setting names."""
        token = text_of(self.get(key)) or default
        for added in self.added:
            if added.text == token and 0 <= added.number < rows:
                return added.number
        return self.source.token(token, rows)

    def target_pad(self, rows):
        """Returns the target's id of the padding token, which is no text, or None where there is
        none."""
        number = self.target.get(text_of(self.get("pad_token")) or "<pad>")
        return number if is_integer(number) and 0 <= number < rows else None

    def read_added(self):
        """Returns the added tokens in the order of their ids."""
        if self.get("added_tokens_decoder") is not None:
            special, entries = (
                self.list_special("tokenizer_config.json"),
                self.read_decoder(self.settings),
            )
        else:
            special = self.list_special("tokenizer_config.json", "special_tokens_map.json")
            entries = [*self.read_encoder("added_tokens.json"), *self.read_fast("tokenizer.json")]
        by_number = {}
        # The last entry of an id counts.
        for added in entries:
            added.flags["special"] |= added.text in special
            by_number[added.number] = added
        return [by_number[number] for number in sorted(by_number)]

    def list_special(self, *names):
        """Returns the texts of the tokens that the files of settings name as special."""
        found = {"</s>", "<unk>", "<pad>"}
        for name in names:
            values = Settings(self.path(name)).values if os.path.exists(self.path(name)) else {}
            for key, value in values.items():
                if key.endswith("_token"):
                    found.add(text_of(value))
                if key in ("extra_special_tokens", "additional_special_tokens"):
                    listed = (
                        value.values()
                        if isinstance(value, dict)
                        else value
                        if isinstance(value, list)
                        else []
                    )
                    found |= {text_of(token) for token in listed}
        return found

    def make_added(self, path, text, number, flags):
        if not isinstance(text, str):
            refuse(path, "added token", "a text", show(text))
        if len(text.encode("utf-8", "surrogatepass")) > LONGEST:
            refuse(path, "added token", f"a text of at most {LONGEST} bytes", show(text))
        if not is_integer(number) or number < 0:
            refuse(path, show(text), "an id of an added token", show(number))
        for flag in FLAGS:
            if not isinstance(flags.get(flag, False), bool):
                refuse(path, show(text), f"true or false as {flag}", show(flags[flag]))
        return Added(path, text, number, {flag: flags.get(flag, False) for flag in FLAGS})

    def read_decoder(self, settings):
        entries = settings.take(
            "added_tokens_decoder", {}, "an object", lambda v: isinstance(v, dict)
        )
        for number, token in entries.items():
            if (
                not isinstance(token, dict)
                or not number.isascii()
                or not number.isdigit()
                or len(number) > 12
            ):
                refuse(
                    settings.path,
                    "added_tokens_decoder",
                    "ids with an object each",
                    f"{show(number)}: {show(token)}",
                )
            yield self.make_added(settings.path, token.get("content"), int(number), token)

    def read_encoder(self, name):
        if os.path.exists(self.path(name)):
            for text, number in Settings(self.path(name)).values.items():
                yield self.make_added(self.path(name), text, number, {})

    def read_fast(self, name):
        if os.path.exists(self.path(name)):
            for token in Settings(self.path(name)).take(
                "added_tokens", [], "a list", lambda v: isinstance(v, list)
            ):
                if not isinstance(token, dict):
                    refuse(self.path(name), "added_tokens", "objects", show(token))
                yield self.make_added(self.path(name), token.get("content"), token.get("id"), token)

    def list_added(self, rows):
        """Returns the tokens at which a line is split and those that are no text in the output, as
        model.bin lists them. The end, unknown and padding tokens are left out, because model.bin
        names them elsewhere. A special token whose id is beyond the embedding's rows is left out
        too, because the model can neither read nor write it."""
        named = {
            text_of(self.get(key)) or default
            for key, default in (
                ("eos_token", "</s>"),
                ("unk_token", "<unk>"),
                ("pad_token", "<pad>"),
            )
        }
        found = []
        for added in self.added:
            if added.text in named or added.text == "":
                continue
            if added.number >= rows:
                if added.flags["special"]:
                    continue
                refuse(
                    added.path,
                    show(added.text),
                    f"an id below the embedding's {rows} rows {HINT}",
                    added.number,
                )
            if not self.splits_special or added.flags["special"]:
                found.append(dict({"id": added.number}, **added.flags))
        return found

    def list_files(self, source_rows, target_rows):
        """Returns the files of the tokenizer that model.bin keeps."""
        models = (
            [
                Stored(name, read_sentencepiece(self.path(name)))
                for name in ("source.spm", "target.spm")
            ]
            if self.kind == "sentencepiece"
            else []
        )
        return models + [
            Stored(f"{side}.pieces", self.pack_pieces(side, rows))
            for side, rows in (("source", source_rows), ("target", target_rows))
        ]

    def pack_pieces(self, side, rows):
        """Returns the pieces by id, in the format of source.pieces and target.pieces."""
        vocabulary, pieces = self.source if side == "source" else self.target, [None] * rows
        for piece, number in vocabulary.values.items():
            name = json.dumps(piece, ensure_ascii=False)
            if not is_integer(number) or not 0 <= number < rows:
                refuse(
                    vocabulary.path, name, f"an id below the embedding's {rows} rows", show(number)
                )
            if pieces[number] is not None:
                refuse(
                    vocabulary.path,
                    name,
                    "an id of its own",
                    f"{number}, which {pieces[number].decode()!r} has",
                )
            pieces[number] = self.encode(vocabulary.path, piece)
        for added in self.added:
            if added.number < rows and pieces[added.number] is None:
                pieces[added.number] = self.encode(added.path, added.text)
            elif (
                added.number < rows
                and pieces[added.number] != self.encode(added.path, added.text)
                and vocabulary is self.source
            ):
                refuse(
                    added.path,
                    show(added.text),
                    "an id of its own",
                    f"{added.number}, which {pieces[added.number].decode()!r} has",
                )
        return b"".join(
            struct.pack("<I", 0xFFFFFFFF) if p is None else struct.pack("<I", len(p)) + p
            for p in pieces
        )

    def encode(self, path, piece):
        try:
            return piece.encode("utf-8")
        except UnicodeEncodeError:
            refuse(
                path,
                json.dumps(piece, ensure_ascii=False),
                "valid Unicode",
                "half of a surrogate pair",
            )
