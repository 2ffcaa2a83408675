"""Reads the settings beside a tokenizer as transformers 5 does before it makes one: what a class of
tokenizers is called with, and the tokens that were added.

tokenizer_config.json has the settings. Where it has added_tokens_decoder, only that says which
tokens were added. Otherwise special_tokens_map.json adds to the settings, and added_tokens.json and
the list of tokenizer.json say which tokens were added.
"""

from __future__ import annotations

import os

from checkpoint_reader import Settings, is_integer, refuse, show
from tokenizer_added import Token, read_token, text_of

NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
# No tokenizer has an id beyond this one, because a reader of model.bin accepts no such vocabulary.
LARGEST_ID = 1 << 24
MISSING = object()


class TokenizerSettings:
    """`values` has the settings by key. Tokens in them are Tokens or texts. `added` has the added
    tokens by id."""

    def __init__(self, directory):
        self.directory = directory
        self.path = self.file("tokenizer_config.json")
        config = Settings(self.path).values if self.has("tokenizer_config.json") else {}
        self.values = {k: v for k, v in config.items() if k not in ("tokenizer_class", "auto_map")}
        # This is tokenizer.json, or None if there is none.
        self.json = self.read_json()
        if self.json:
            # The template of tokenizer.json says whether these tokens are added.
            self.values.pop("add_bos_token", None)
            self.values.pop("add_eos_token", None)
        self.rename_extra()
        self.collect_model_specific()
        self.added = {}
        if "added_tokens_decoder" in self.values:
            self.read_decoder()
        else:
            self.read_special_map()
            self.read_encoder()
            self.read_list()
        self.make_tokens()

    def file(self, name):
        return os.path.join(self.directory, name)

    def has(self, name):
        return os.path.exists(self.file(name))

    def get(self, key, default=None):
        """Returns a setting. An explicit null is None, whatever the default."""
        return self.values.get(key, default)

    def boolean(self, key, default):
        value = self.values.get(key, default)
        if value is not None and not isinstance(value, bool):
            refuse(self.path, key, "true or false", show(value))
        return value

    def integer(self, key, default):
        value = self.values.get(key, default)
        if not is_integer(value) or not 0 <= value < LARGEST_ID:
            refuse(self.path, key, f"an integer from 0 to {LARGEST_ID - 1}", show(value))
        return value

    def text(self, key, default):
        """Returns the text of a setting that is a token or a text, or None for null."""
        value = text_of(self.values.get(key, default))
        if value is not None and not isinstance(value, str):
            refuse(self.path, key, "a text", show(value))
        return value

    def read_json(self):
        names = self.values.pop("fast_tokenizer_files", None)
        if names not in (None, ["tokenizer.json"]):
            refuse(self.path, "fast_tokenizer_files", '["tokenizer.json"]', show(names))
        return Settings(self.file("tokenizer.json")) if self.has("tokenizer.json") else None

    def rename_extra(self):
        if "additional_special_tokens" in self.values:
            value = self.values.pop("additional_special_tokens")
            self.values.setdefault("extra_special_tokens", value)

    def collect_model_specific(self):
        """Moves the tokens that only this model names into settings of their own."""
        specific = {
            key: self.values.pop(key)
            for key, value in list(self.values.items())
            if key.endswith("_token") and key not in NAMED and isinstance(value, str)
        }
        if isinstance(self.values.get("extra_special_tokens"), dict):
            specific.update(self.values.pop("extra_special_tokens"))
        self.values["model_specific"] = specific

    def take_list(self, settings, key):
        return settings.take(key, [], "a list", lambda v: isinstance(v, list))

    def read_decoder(self):
        entries = self.values["added_tokens_decoder"]
        if not isinstance(entries, dict):
            refuse(self.path, "added_tokens_decoder", "an object", show(entries))
        for number, value in entries.items():
            if not (number.isascii() and number.isdigit() and len(number) <= 12):
                refuse(self.path, "added_tokens_decoder", "ids as keys", show(number))
            self.add(self.path, int(number), read_token(self.path, number, value))

    def read_special_map(self):
        """Adds the settings of special_tokens_map.json, which versions before 5 write."""
        if not self.has("special_tokens_map.json"):
            return
        settings = Settings(self.file("special_tokens_map.json"))
        for key, value in settings.values.items():
            if key == "extra_special_tokens" and isinstance(value, list):
                old = self.values.get(key) or []
                old = old if isinstance(old, list) else []
                value = [*old, *(token for token in value if token not in old)]
            elif isinstance(value, dict) and key != "extra_special_tokens":
                value = read_token(settings.path, key, value, special=True)
            self.values[key] = value
        if isinstance(self.values.get("extra_special_tokens"), dict):
            self.values["model_specific"].update(self.values.pop("extra_special_tokens"))

    def read_encoder(self):
        """Reads added_tokens.json, which versions before 5 write."""
        if not self.has("added_tokens.json"):
            return
        settings = Settings(self.file("added_tokens.json"))
        listed = [self.values.get(key) for key in NAMED]
        extra = self.values.get("extra_special_tokens")
        listed += extra if isinstance(extra, list) else []
        special = {self.text_in(value) for value in listed}
        for text, number in settings.values.items():
            token = read_token(settings.path, show(text), {"content": text}, text in special)
            self.add(settings.path, number, token)

    def text_in(self, value):
        value = value.get("content") if isinstance(value, dict) else text_of(value)
        return value if isinstance(value, str) else None

    def read_list(self):
        if not self.json:
            return
        for value in self.take_list(self.json, "added_tokens"):
            token = read_token(self.json.path, "added_tokens", value)
            self.add(self.json.path, value.get("id"), token)

    def add(self, path, number, token):
        if not is_integer(number) or not 0 <= number < LARGEST_ID:
            refuse(path, show(token.text), f"an id below {LARGEST_ID}", show(number))
        self.added[number] = token

    def make_tokens(self):
        """Replaces the objects that stand for tokens in the settings, and the texts of added tokens
        by these tokens."""
        by_text = {token.text: token for token in self.added.values()}
        for key in NAMED:
            if key in self.values:
                token = self.make_token(key, self.values[key])
                self.values[key] = by_text.get(text_of(token), token)
        for key in ("extra_special_tokens", "additional_special_tokens"):
            value = self.values.get(key)
            if value is not None and not isinstance(value, list):
                refuse(self.path, key, "a list", show(value))
            if value is not None:
                self.values[key] = [self.make_token(key, token) for token in value]
        specific = self.values["model_specific"]
        self.values["model_specific"] = {
            key: self.make_token(key, token) for key, token in specific.items()
        }

    def make_token(self, key, value):
        if isinstance(value, dict):
            return read_token(self.path, key, value)
        if value is not None and not isinstance(value, (str, Token)):
            refuse(self.path, key, "a token", show(value))
        return value
