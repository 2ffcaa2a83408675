"""Finds the class that AutoTokenizer of transformers 5 takes for a directory, and reads the
tokenizer as this class does."""

from __future__ import annotations

import os

from checkpoint_reader import Settings, refuse, show
from tokenizer_build import build
from tokenizer_classes import CLASSES, choose_class
from tokenizer_m2m import read_m2m_pipeline
from tokenizer_pipeline import make_pipeline
from tokenizer_settings import TokenizerSettings

# A directory without any of these files has no tokenizer for text.
FILES = (
    "tokenizer.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
M2M_100 = "M2M100Tokenizer"


def has_tokenizer(directory):
    return any(os.path.exists(os.path.join(directory, name)) for name in FILES)


def name_class(directory, config):
    """Returns the name of the class that AutoTokenizer takes, and the file that decides it.
    `config` has the settings of config.json."""
    path = os.path.join(directory, "tokenizer_config.json")
    settings = Settings(path) if os.path.exists(path) else Settings.of({}, path)
    take_text = lambda s: s.take("tokenizer_class", None, "a text", lambda v: isinstance(v, str))
    named, model_type = take_text(settings), config.get("model_type")
    if settings.get("auto_map") is not None:
        # The class is in the checkpoint's own code, unless transformers has one of this name.
        if named is None or choose_class(None, named) not in CLASSES:
            refuse(path, "auto_map", "no code of its own", show(settings.get("auto_map")))
        model_type = None
    if named is None:
        return choose_class(model_type, take_text(config)), config.path
    return choose_class(model_type, named), path


def read_tokenizer(directory, config, rows):
    """Returns the Pipeline of a directory. `config` has the settings of config.json, and `rows` is
    the number of rows of the embedding. Throws InputError if transformers would build a tokenizer
    that xlate does not have."""
    name, path = name_class(directory, config)
    if name == M2M_100:
        return read_m2m_pipeline(directory, rows)
    if name not in CLASSES:
        refuse(path, "tokenizer_class", f"one of {', '.join([*CLASSES, M2M_100])}", name)
    backend = build(TokenizerSettings(directory), CLASSES[name])
    return make_pipeline(name, backend, config.get("model_type"), rows)
