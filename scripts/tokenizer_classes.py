"""Describes the classes of tokenizers of transformers 5 that xlate knows, and says which of them
AutoTokenizer takes.

A class is an entry of CLASSES. Most classes build their components themselves and take of
tokenizer.json only the pieces, the merges, the charsmap, the added tokens and, where they have no
template of their own, the template. The generic class takes the file as it is. tokenizer_build.py
follows these entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import tokenizer_parts as parts
from checkpoint_reader import refuse, show
from languages import MBART, MBART_50, NLLB
from tokenizer_added import text_of

BOS_EOS = {"bos_token": "<s>", "eos_token": "</s>"}
FAIRSEQ_TOKENS = {
    **BOS_EOS,
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
END_OF_TEXT = "<|endoftext|>"
# In a template, this name stands for the token of the source's language.
LANGUAGE = "src_lang"
GENERIC_NAME = "TokenizersBackend"


@dataclass(frozen=True)
class TokenizerClass:
    """Describes a class of transformers that builds its components itself."""

    kind: str
    # The tokens that have a name unless the settings say otherwise.
    defaults: dict
    # This file has the pieces where there is no tokenizer.json.
    file: str
    components: Callable
    # The function returns the text or the id of the piece for unknown text.
    unknown: Callable = lambda settings, pairs: None
    # The other fields of a BPE model.
    options: dict = field(default_factory=dict)
    # The function puts the pieces of a SentencePiece model into the order of this class.
    arrange: Callable = lambda settings, pairs: pairs
    # The function returns the special tokens of this class beyond the named ones. Its second
    # argument is the list that a SentencePiece model or special_tokens_map.json gives, or None.
    extra: Callable = lambda settings, given: given
    # The names of tokens, LANGUAGE or a text, before and behind a line. None stands for the
    # template of tokenizer.json.
    template: Callable | None = None
    mask: dict = field(default_factory=dict)
    languages: tuple = ()
    default_language: str | None = None
    # True if an extra_special_tokens of null counts as absent. Otherwise it is an empty list.
    null_is_absent: bool = False
    # True if all special tokens are added once more without flags.
    adds_again: bool = False


def t5_extra(settings, given):
    count = settings.integer("extra_ids", 100)
    numbered = [f"<extra_id_{i}>" for i in range(count)]
    if given is None:
        return numbered
    found = sum("<extra_id_" in (text_of(token) or "") for token in given)
    if found and count not in (0, found):
        refuse(settings.path, "extra_ids", f"{found}, as there are extra tokens", count)
    return given if found else [*given, *numbered]


def t5_pieces(settings, pairs):
    count = settings.integer("extra_ids", 100)
    return [*pairs, *((f"<extra_id_{i}>", 0.0) for i in range(count - 1, -1, -1))]


def pegasus_extra(settings, given):
    mask = settings.text("mask_token_sent", "<mask_1>")
    first = [mask] if mask is not None and mask not in (given or []) else []
    return [*first, *(f"<unk_{i}>" for i in range(2, settings.integer("offset", 103)))]


def piece_of(settings, key, default):
    """Returns the piece of a setting. transformers writes None as a text."""
    text = settings.text(key, default)
    return "None" if text is None else text


def pegasus_pieces(settings, pairs):
    start = [piece_of(settings, "pad_token", "<pad>"), piece_of(settings, "eos_token", "</s>")]
    masks = [piece_of(settings, "mask_token", "<mask_1>")]
    masks.append(piece_of(settings, "mask_token_sent", "<mask_2>"))
    start += [mask for mask in dict.fromkeys(masks) if mask != "None"]
    unknown = [(f"<unk_{i}>", -100.0) for i in range(2, settings.integer("offset", 103))]
    return [*((text, 0.0) for text in start), *unknown, *pairs[2:]]


def pegasus_unknown(settings, pairs):
    unknown = (piece_of(settings, "unk_token", "<unk>"), 0.0)
    if unknown not in pairs[1:]:
        refuse(settings.directory, "unk_token", "a piece with the score 0", show(unknown[0]))
    return pairs.index(unknown, 1)


def fairseq_start(settings, first="bos_token"):
    keys = (first, "pad_token", "eos_token", "unk_token")
    return [(piece_of(settings, key, FAIRSEQ_TOKENS[key]), 0.0) for key in keys]


def mbart_pieces(codes, first="bos_token"):
    def arrange(settings, pairs):
        mask = (piece_of(settings, "mask_token", "<mask>"), 0.0)
        start = fairseq_start(settings, first)
        return [*start, *pairs[3:], *((code, 0.0) for code in codes), mask]

    return arrange


def nllb_pieces(settings, pairs):
    start = fairseq_start(settings)
    texts = {text for text, _ in start}
    return [*start, *(pair for pair in pairs if pair[0] not in texts)]


def mbart_extra(settings, given):
    return [*MBART, *(token for token in given or [] if token not in MBART)]


def nllb_extra(settings, given):
    return NLLB if given is None else given


def nllb_template(settings):
    if settings.boolean("legacy_behaviour", False):
        return [], ["eos_token", LANGUAGE]
    return [LANGUAGE], ["eos_token"]


def neox_template(settings):
    """This class makes its template after it has taken that of tokenizer.json, beside which the
    settings of a template do not count."""
    if settings.json:
        return [], []
    wanted = lambda name: settings.boolean(f"add_{name}_token", False)
    return tuple([f"{name}_token"] if wanted(name) else [] for name in ("bos", "eos"))


BYTE_LEVEL = {"file": "vocab.json", "kind": "BPE", "components": parts.bytes_of_words}
MBART_LIKE = {
    "kind": "Unigram",
    "defaults": FAIRSEQ_TOKENS,
    "file": "sentencepiece.bpe.model",
    "unknown": lambda settings, pairs: 3,
    "mask": {"lstrip": True},
    "default_language": "en_XX",
}
ROBERTA = TokenizerClass(
    **BYTE_LEVEL, defaults=FAIRSEQ_TOKENS, template=lambda s: (["cls_token"], ["sep_token"])
)
GENERIC = TokenizerClass("", {}, "tokenizer.model", None)
CLASSES = {
    "T5Tokenizer": TokenizerClass(
        "Unigram",
        {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
        "spiece.model",
        parts.words_and_marks,
        unknown=lambda settings, pairs: 2,
        arrange=t5_pieces,
        extra=t5_extra,
        template=lambda s: ([], ["eos_token"]),
    ),
    "PegasusTokenizer": TokenizerClass(
        "Unigram",
        {
            "pad_token": "<pad>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "mask_token": "<mask_2>",
        },
        "spiece.model",
        parts.pegasus,
        unknown=pegasus_unknown,
        arrange=pegasus_pieces,
        extra=pegasus_extra,
        template=lambda s: ([], ["eos_token"]),
    ),
    "MBartTokenizer": TokenizerClass(
        **MBART_LIKE,
        components=parts.words_without_charsmap,
        arrange=mbart_pieces(MBART),
        extra=mbart_extra,
        template=lambda s: ([], ["eos_token", LANGUAGE]),
        languages=tuple(MBART),
    ),
    "MBart50Tokenizer": TokenizerClass(
        **{**MBART_LIKE, "defaults": {k: v for k, v in FAIRSEQ_TOKENS.items() if k != "bos_token"}},
        components=parts.marks,
        arrange=mbart_pieces(MBART_50, "cls_token"),
        extra=lambda settings, given: [*(given or []), *MBART_50],
        template=lambda s: ([LANGUAGE], ["eos_token"]),
        languages=tuple(MBART_50),
    ),
    "NllbTokenizer": TokenizerClass(
        "BPE",
        FAIRSEQ_TOKENS,
        "sentencepiece.bpe.model",
        parts.nllb,
        unknown=lambda settings, pairs: piece_of(settings, "unk_token", "<unk>"),
        options={"fuse_unknown": True},
        arrange=nllb_pieces,
        extra=nllb_extra,
        null_is_absent=True,
        template=nllb_template,
        mask={"lstrip": True, "normalized": True, "special": True},
        languages=tuple(NLLB),
        default_language="eng_Latn",
    ),
    "GPT2Tokenizer": TokenizerClass(
        **BYTE_LEVEL,
        defaults=dict.fromkeys(("unk_token", "bos_token", "eos_token"), END_OF_TEXT),
    ),
    "RobertaTokenizer": ROBERTA,
    "BartTokenizer": ROBERTA,
    "LlamaTokenizer": TokenizerClass(
        "BPE",
        {**BOS_EOS, "unk_token": "<unk>"},
        "tokenizer.model",
        parts.llama,
        options={"fuse_unknown": True, "byte_fallback": True},
    ),
    "Qwen2Tokenizer": TokenizerClass(
        "BPE",
        dict.fromkeys(("unk_token", "eos_token", "pad_token"), END_OF_TEXT),
        "vocab.json",
        parts.qwen,
        adds_again=True,
    ),
    "GPTNeoXTokenizer": TokenizerClass(
        **BYTE_LEVEL | {"components": parts.neox},
        defaults={
            **dict.fromkeys(("unk_token", "bos_token", "eos_token"), END_OF_TEXT),
            "pad_token": "<|padding|>",
        },
        template=neox_template,
    ),
    "CohereTokenizer": TokenizerClass(
        **BYTE_LEVEL | {"components": parts.cohere},
        defaults={
            "unk_token": "<UNK>",
            "bos_token": "<BOS_TOKEN>",
            "eos_token": "<|END_OF_TURN_TOKEN|>",
            "pad_token": "<PAD>",
            "cls_token": "<CLS>",
            "sep_token": "<SEP>",
            "mask_token": "<MASK_TOKEN>",
        },
    ),
    "GemmaTokenizer": TokenizerClass(
        "BPE",
        {
            "unk_token": "<unk>",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
        },
        "tokenizer.model",
        parts.gemma,
        unknown=lambda settings, pairs: piece_of(settings, "unk_token", "<unk>"),
        options={"fuse_unknown": True, "byte_fallback": True},
    ),
    GENERIC_NAME: GENERIC,
}
# AutoTokenizer has one class for each of these types of models.
CLASS_OF_TYPE = {
    "bart": "RobertaTokenizer",
    **dict.fromkeys(("cohere", "cohere2"), "CohereTokenizer"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text"), "GemmaTokenizer"),
    "gpt2": "GPT2Tokenizer",
    "gpt_neo": "GPT2Tokenizer",
    "gpt_neox": "GPTNeoXTokenizer",
    "gptj": "GPT2Tokenizer",
    "m2m_100": "M2M100Tokenizer",
    "marian": "MarianTokenizer",
    "mbart": "MBartTokenizer",
    "mt5": "T5Tokenizer",
    "nllb-moe": "NllbTokenizer",
    "opt": "GPT2Tokenizer",
    "pegasus": "PegasusTokenizer",
    "phi": "GPT2Tokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen2_moe": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "qwen3_moe": "Qwen2Tokenizer",
    "starcoder2": "GPT2Tokenizer",
    "switch_transformers": "T5Tokenizer",
    "t5": "T5Tokenizer",
    **dict.fromkeys(
        "bigbird_pegasus deepseek_v2 deepseek_v3 glm glm4 granite granitemoe ministral mistral "
        "mixtral nemotron olmo2 olmo3 persimmon phi3 phimoe stablelm umt5".split(),
        "TokenizersBackend",
    ),
}
# The class of these types counts even where a checkpoint names another one.
TYPES_WITH_WRONG_CLASSES = ("qwen2",)
# These names stand for the generic class, also in the files of older versions.
GENERIC_NAMES = (GENERIC_NAME, "PreTrainedTokenizer", "PythonBackend", "BloomTokenizer")


def choose_class(model_type, named):
    """Returns the name of the class that AutoTokenizer takes. `named` is the tokenizer_class of
    tokenizer_config.json, else of config.json, or None."""
    registered = CLASS_OF_TYPE.get(model_type)
    named = named.removesuffix("Fast") if named else None
    if named is None or GENERIC_NAME == registered or model_type in TYPES_WITH_WRONG_CLASSES:
        return registered or GENERIC_NAME
    return GENERIC_NAME if named in GENERIC_NAMES else named
