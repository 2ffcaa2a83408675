"""Holds the tokens that are added to a tokenizer's model, and gives them ids as the library
tokenizers 0.23 does: a token that the vocabulary has keeps its id, and the others follow the
vocabulary in the order in which they are added.
"""

from __future__ import annotations

from dataclasses import dataclass

from checkpoint_reader import refuse, show

# The text of an added token has at most this many bytes. Each place of a line is compared with the
# token.
LONGEST = 1024
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass
class Token:
    """A token as settings describe it. It is looked for as a whole before the model sees a text."""

    text: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    # None stands for the library's default: special tokens are looked for in the text as it is,
    # others in the normalised text.
    normalized: bool | None = None
    special: bool = False

    def resolved(self):
        """Returns the token with its default filled in."""
        normalized = not self.special if self.normalized is None else self.normalized
        return Token(
            self.text, self.single_word, self.lstrip, self.rstrip, normalized, self.special
        )

    def component(self, number):
        """Returns the token as a tokenizer.json lists it."""
        token = self.resolved()
        return {"id": number, "content": self.text, **{f: getattr(token, f) for f in FLAGS}}


def read_token(path, where, value, special=None):
    """Returns the Token that an object of settings describes. `special` replaces its own flag."""
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        refuse(path, where, "an object with a text as content", show(value))
    text = value["content"]
    if len(text.encode("utf-8", "surrogatepass")) > LONGEST:
        refuse(path, where, f"a text of at most {LONGEST} bytes", show(text))
    flags = {flag: value[flag] for flag in FLAGS if flag in value}
    for flag, found in flags.items():
        if not isinstance(found, bool):
            refuse(path, show(text), f"true or false as {flag}", show(found))
    if special is not None:
        flags["special"] = special
    return Token(text, **flags)


def text_of(token):
    """Returns the text of a token that is a Token, a text or None."""
    return token.text if isinstance(token, Token) else token


class AddedVocabulary:
    def __init__(self, vocabulary):
        """`vocabulary` has the ids of the model's pieces by their texts."""
        self.vocabulary = vocabulary
        self.numbers = {}
        self.tokens = {}
        # A token that was special once is skipped in the output for good.
        self.special = set()
        # This is the largest id of an added token.
        self.last = -1

    def id_of(self, text):
        """Returns the id of a text that is a piece or an added token, or None."""
        number = self.numbers.get(text)
        return self.vocabulary.get(text) if number is None else number

    def add(self, tokens):
        """Adds tokens, which are Tokens or texts. A text is no special token."""
        tokens = [(Token(t) if isinstance(t, str) else t).resolved() for t in tokens]
        self.special |= {token.text for token in tokens if token.special and token.text}
        for token in tokens:
            number = self.id_of(token.text)
            if token.text and (number is None or self.tokens.get(number) != token):
                if number is None:
                    number = max(self.last + 1, len(self.vocabulary))
                self.numbers[token.text] = number
                self.tokens[number] = token
                self.last = max(self.last, number)

    def components(self):
        """Returns the added tokens as a tokenizer.json lists them."""
        return [self.tokens[number].component(number) for number in sorted(self.tokens)]
