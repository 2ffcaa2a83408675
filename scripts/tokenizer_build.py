"""Builds the tokenizer that AutoTokenizer of transformers 5 makes for a directory. The result is a
Backend: the components of a tokenizer.json, the model and the added tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import tokenizer_parts as parts
from checkpoint_reader import Settings, refuse, show
from sentencepiece_reader import KINDS, list_merges, read_sentencepiece_model
from tokenizer_added import AddedVocabulary, Token, read_token, text_of
from tokenizer_classes import GENERIC, LANGUAGE, TokenizerClass
from subword_model import (
    Model,
    kind_of,
    make_bpe,
    make_unigram,
    read_json_merges,
    read_merges_file,
    read_model,
    read_pairs,
    read_vocabulary,
)
from tokenizer_settings import NAMED, TokenizerSettings


@dataclass
class Backend:
    """What a class builds. The components are as in a tokenizer.json."""

    settings: TokenizerSettings
    kind: TokenizerClass
    model: Model
    components: dict
    added: AddedVocabulary
    # The tokens with names such as eos_token, which are Tokens, texts or None.
    named: dict
    # The code of the source's language where the caller names none, or None in other models.
    source_language: str | None = None

    def id_of(self, name):
        """Returns the id of a named token, or None."""
        text = text_of(self.named.get(name))
        return None if text is None else self.added.id_of(text)


def read_pieces(settings, kind):
    """Returns the model of a class that builds its components itself, the charsmap, and the special
    tokens that a SentencePiece model names."""
    if settings.json:
        model = read_json_pieces(settings, kind)
        charsmap = parts.find_charsmap(settings.json)
        return model, charsmap, settings.get("additional_special_tokens")
    # transformers takes this name for any class.
    name = "tokenizer.model" if settings.has("tokenizer.model") else kind.file
    if not settings.has(name):
        refuse(settings.directory, "tokenizer", f"tokenizer.json or {name}", "neither")
    path = settings.file(name)
    if name.endswith(".json"):
        vocabulary = read_vocabulary(path, Settings(path).values)
        merges = read_merges_file(settings.file("merges.txt"))
        model = make_bpe(path, vocabulary, merges, kind.unknown(settings, None), **kind.options)
        return model, None, settings.get("additional_special_tokens")
    found = read_sentencepiece_model(path)
    given = [Token(text, normalized=False, special=special) for _, text, special in found.added]
    pairs = kind.arrange(settings, [(text, score) for text, score, _ in found.pieces])
    unknown = kind.unknown(settings, pairs)
    if kind.kind == "Unigram":
        model = make_unigram(path, pairs, unknown)
    else:
        vocabulary = {text: number for number, (text, _) in enumerate(pairs)}
        merges = list_merges([text for text, _, _ in found.pieces])
        model = make_bpe(path, vocabulary, merges, unknown, **kind.options)
    return replace(model, spm_pieces=len(found.pieces)), found.charsmap or None, given


def read_json_pieces(settings, kind):
    file_kind, model = kind_of(settings.json)
    if file_kind != kind.kind:
        refuse(model.path, "model", f"{kind.kind}, as tokenizer_class has it", file_kind)
    if file_kind == "Unigram":
        pairs = read_pairs(model, model.get("vocab"))
        return make_unigram(model.path, pairs, kind.unknown(settings, pairs))
    vocabulary = read_vocabulary(model.path, model.get("vocab"))
    merges = read_json_merges(model, model.get("merges"))
    return make_bpe(model.path, vocabulary, merges, kind.unknown(settings, None), **kind.options)


def name_tokens(settings, kind):
    """Returns the named tokens, those that only this model names behind the others."""
    named = {key: settings.get(key, kind.defaults.get(key)) for key in NAMED}
    if kind.mask and isinstance(named["mask_token"], str):
        named["mask_token"] = Token(named["mask_token"], **kind.mask)
    own = {
        key: value
        for key, value in settings.values.items()
        if key.endswith("_token") and key not in NAMED and isinstance(value, (str, Token))
    }
    return {**named, **own, **settings.get("model_specific")}


def add_tokens(settings, added, named, extra):
    """Adds the tokens that the settings list, and the special tokens that are not among them."""
    adding = [settings.added[number] for number in sorted(settings.added)]
    known = set(added.numbers) | {token.text for token in adding}
    for token in [*named.values(), *extra]:
        if token is not None and text_of(token) not in known and token not in adding:
            adding.append(token)
    texts = {text_of(token) for token in named.values()}
    added.add(
        Token(token, special=True)
        if isinstance(token, str)
        else replace(token, special=token.special or token.text in texts)
        for token in adding
    )


def make_template(backend):
    """Returns the template of a class, with the source's language where it is part of it."""

    def item(name):
        text = backend.source_language if name == LANGUAGE else text_of(backend.named[name])
        number = None if text is None else backend.added.id_of(text)
        if number is None:
            refuse(backend.settings.path, name, "a token of the vocabulary", show(text))
        return text, number

    before, after = backend.kind.template(backend.settings)
    return parts.template([item(name) for name in before], [item(name) for name in after])


def update_template(backend):
    """Returns the template of the base class, which adds bos_token and eos_token as the settings
    say."""
    around = []
    for name in ("bos", "eos"):
        text = text_of(backend.named.get(f"{name}_token"))
        wanted = backend.settings.boolean(f"add_{name}_token", False) and text is not None
        around.append([(text, backend.added.id_of(text))] if wanted else [])
    return parts.template(*around)


def build_generic(settings):
    """Returns the parts of a Backend that take tokenizer.json, or tokenizer.model, as it is."""
    if settings.json:
        model = read_model(settings.json)
        added = AddedVocabulary(model.vocabulary)
        listed = settings.take_list(settings.json, "added_tokens")
        added.add(read_token(settings.json.path, "added_tokens", value) for value in listed)
        names = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
        return model, {name: settings.json.get(name) for name in names}, added, None
    if not settings.has(GENERIC.file):
        refuse(settings.directory, "tokenizer", f"tokenizer.json or {GENERIC.file}", "neither")
    found = read_sentencepiece_model(settings.file(GENERIC.file))
    model = model_of(settings, found)
    given = [Token(text, normalized=False, special=special) for _, text, special in found.added]
    trainer = found.trainer
    for key, number, text in (
        ("bos_token", trainer.begin, trainer.begin_piece),
        ("eos_token", trainer.end, trainer.end_piece),
        ("unk_token", trainer.unknown, trainer.unknown_piece),
    ):
        if number >= 0:
            settings.values.setdefault(key, text)
    return model, parts.generic(found), AddedVocabulary(model.vocabulary), given


def model_of(settings, found):
    """Returns the model that the generic class makes of a SentencePiece model."""
    fallback = found.trainer.byte_fallback
    if KINDS[found.trainer.kind] == "Unigram":
        if settings.added:
            refuse(settings.path, "added_tokens_decoder", "none beside a unigram model", "some")
        pairs = [(text, score) for text, score, _ in found.pieces]
        return make_unigram(found.path, pairs, found.trainer.unknown, fallback)
    texts = [text for text, _, _ in found.pieces]
    merges = list_merges(texts)
    vocabulary = {text: number for number, text in enumerate(texts)}
    # An added token takes the place of the piece with its id.
    for number, token in settings.added.items():
        if number < len(texts) and token.text not in vocabulary:
            del vocabulary[texts[number]]
            vocabulary[token.text] = number
    return make_bpe(
        found.path,
        vocabulary,
        merges,
        found.trainer.unknown_piece,
        fuse_unknown=True,
        byte_fallback=fallback,
    )


def build(settings, kind):
    """Returns the Backend of a class for the settings of a directory. It has no template yet."""
    if kind is GENERIC:
        model, components, added, given = build_generic(settings)
        given = settings.get("additional_special_tokens") if given is None else given
    else:
        model, charsmap, given = read_pieces(settings, kind)
        components = {**kind.components(settings, charsmap), "post_processor": None}
        if settings.json:
            components["post_processor"] = settings.json.get("post_processor")
        added = AddedVocabulary(model.vocabulary)
    named, extra = name_tokens(settings, kind), settings.get("extra_special_tokens")
    if extra is None and (kind.null_is_absent or "extra_special_tokens" not in settings.values):
        extra = kind.extra(settings, given)
    extra = extra or []
    add_tokens(settings, added, named, extra)
    if kind.adds_again:
        texts = [text_of(token) for token in [*named.values(), *extra] if token is not None]
        added.add(Token(text, special=True) for text in dict.fromkeys(texts))
    language = None
    if kind.languages:
        language = settings.text("src_lang", None)
        language = kind.default_language if language is None else language
    return Backend(settings, kind, model, components, added, named, language)


def set_template(backend):
    """Sets the template, unless tokenizer.json has one that counts."""
    if backend.kind.template:
        backend.components["post_processor"] = make_template(backend)
    elif not backend.components.get("post_processor"):
        backend.components["post_processor"] = update_template(backend)
