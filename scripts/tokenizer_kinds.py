#!/usr/bin/env python3
"""Makes directories with small tokenizers of every kind that xlate reads, and says what
transformers does with them. scripts/compare_tokenizers runs this program with a Python that has
transformers, tokenizers and sentencepiece.

Usage: tokenizer_kinds.py make FOLDER KIND SIZE TEXT [RULES]
       tokenizer_kinds.py rules FILE
       tokenizer_kinds.py encode FOLDER SEED [LANGUAGE] < lines > JSON

`make` trains a tokenizer with SIZE pieces on the lines of the file TEXT and saves it as it is on
the hub. RULES is a file with the rules of a charsmap (default: nmt_nfkc), such as `rules` writes.
`encode` prints one JSON object with the ids of each line, the text of these ids and random
sequences with their text.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import unicodedata

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + TAIL
COHERE = GPT2.replace(r" ?\p{N}+", r"\p{N}")
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + TAIL

# Settings of SentencePiece's trainer for each kind that has a SentencePiece model, the name of the
# model's file and the type of the network.
LLAMA = {
    "model_type": "bpe",
    "byte_fallback": True,
    "split_digits": True,
    "allow_whitespace_only_pieces": True,
    "remove_extra_whitespaces": False,
    "normalization_rule_name": "identity",
}
GEMMA = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "bos_piece": "<bos>"}
GEMMA |= {"eos_piece": "<eos>", "user_defined_symbols": ["<mask>", "\n\n", "<b>"]}
T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
SENTENCEPIECE = {
    "marian": ({}, "source.spm", "marian"),
    "marian-bpe": ({"model_type": "bpe"}, "source.spm", "marian"),
    "m2m100": ({"model_type": "bpe"}, "sentencepiece.bpe.model", "m2m_100"),
    "t5": (T5, "spiece.model", "t5"),
    "mt5": (T5 | {"max_sentencepiece_length": 8}, "spiece.model", "mt5"),
    "mbart": ({}, "sentencepiece.bpe.model", "mbart"),
    "mbart50": ({}, "sentencepiece.bpe.model", "mbart"),
    "pegasus": (T5, "spiece.model", "pegasus"),
    "nllb": ({"model_type": "bpe"}, "sentencepiece.bpe.model", "m2m_100"),
    "llama2": (LLAMA, "tokenizer.model", "llama"),
    "llama2-old": (LLAMA, "tokenizer.model", "llama"),
    "gemma": (LLAMA | GEMMA, "tokenizer.model", "gemma2"),
}
BYTE_LEVEL = {"gpt2": "gpt2", "bart": "bart", "opt": "opt", "llama3": "llama", "qwen3": "qwen3"}
BYTE_LEVEL |= {"neox": "gpt_neox", "cohere": "cohere"}
# These kinds are others with added tokens that are not special.
ADDED = {f"{kind}-added": kind for kind in ("t5", "llama2-old", "qwen3")}
KINDS = [*SENTENCEPIECE, *BYTE_LEVEL, *ADDED]
# The source's language in the comparison. It is not the default of the kind.
LANGUAGES = {"m2m100": "de", "mbart": "de_DE", "mbart50": "de_DE", "nllb": "deu_Latn"}
CONFIGS = {
    "marian": {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "de"},
    "m2m100": {"tokenizer_class": "M2M100Tokenizer", "src_lang": "en", "language_codes": "m2m100"},
    "t5": {"tokenizer_class": "T5Tokenizer", "extra_ids": 100},
    "mt5": {"tokenizer_class": "T5Tokenizer", "extra_ids": 0},
    "mbart": {"tokenizer_class": "MBartTokenizer", "src_lang": "en_XX"},
    "mbart50": {"tokenizer_class": "MBart50Tokenizer", "src_lang": "en_XX"},
    "pegasus": {"tokenizer_class": "PegasusTokenizer", "offset": 103},
    "nllb": {"tokenizer_class": "NllbTokenizer", "src_lang": "eng_Latn"},
    "llama2": {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": False},
    "gpt2": {"tokenizer_class": "GPT2Tokenizer"},
    "bart": {"tokenizer_class": "BartTokenizer"},
    "opt": {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True},
    "qwen3": {"tokenizer_class": "Qwen2Tokenizer"},
    "neox": {"tokenizer_class": "GPTNeoXTokenizer", "add_bos_token": True},
    "cohere": {"tokenizer_class": "CohereTokenizer", "add_bos_token": True},
    "gemma": {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True},
}
OPT = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "</s>") | {"pad_token": "<pad>"}
CONFIGS["opt"] |= OPT
CONFIGS["qwen3"] |= {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None}


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False)


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def save(tokenizer, folder):
    """Saves a tokenizer. The file tokenizer.json has no needless blanks."""
    tokenizer.save_pretrained(folder)
    path = f"{folder}/tokenizer.json"
    write_json(path, read_json(path))


def write_config(folder, model_type, size):
    write_json(f"{folder}/config.json", {"model_type": model_type, "vocab_size": size})


def write_rules(path):
    """Writes a part of the rules of nmt_nfkc, so that the charsmap is small: controls, blanks,
    Latin, kana, ligatures, forms of numbers and letters, some Hangul."""
    rules = dict.fromkeys([*map(chr, range(1, 32)), "\x7f", "\x8f", "\x9f"], "")
    rules |= dict.fromkeys("\t\n\f\r\xa0\u1680\u200b\u200e\u2028\u3000\ufeff\ufffd▁", " ")
    rules |= {chr(c): " " for c in range(0x2000, 0x200B)}
    blocks = ((0xA8, 0x17F), (0x1E00, 0x1EFF), (0x2150, 0x217F), (0x2460, 0x2473), (0xFB00, 0xFB06))
    blocks += ((0xFF01, 0xFF5D), (0xFF66, 0xFF9F), (0x304C, 0x30FE), (0x3300, 0x3310))
    blocks += ((0xAC00, 0xAC10), (0x1F00, 0x1F0F))
    for first, last in blocks:
        for c in map(chr, range(first, last + 1)):
            composed = unicodedata.normalize("NFKC", c)
            letters = unicodedata.normalize("NFD", c)
            if composed != c:
                rules[c] = composed
            if letters != c and composed == c:
                rules[letters] = c
                base = unicodedata.normalize("NFC", letters[:-1]) + letters[-1]
                rules[base] = c
    with open(path, "w", encoding="utf-8") as file:
        for key, value in rules.items():
            hexes = (" ".join(f"{ord(c):X}" for c in text) for text in (key, value))
            file.write("\t".join(hexes) + "\n")


def train_sentencepiece(path, text, size, settings, rules):
    """Writes a model and returns it. Kinds with the same settings share one model, which is kept
    beside the directories of the kinds."""
    import sentencepiece

    settings = {
        "model_type": "unigram",
        "character_coverage": 0.998 if size > 4000 else 0.98,
    } | settings
    if rules and "normalization_rule_name" not in settings:
        settings["normalization_rule_tsv"] = rules
    key = json.dumps([size, text, settings], sort_keys=True).encode()
    kept = os.path.join(os.path.dirname(text), f"{hashlib.sha256(key).hexdigest()[:16]}.model")
    if not os.path.exists(kept):
        sentencepiece.SentencePieceTrainer.train(
            input=text,
            model_prefix=kept.removesuffix(".model"),
            vocab_size=size,
            hard_vocab_limit=False,
            max_sentence_length=1 << 16,
            num_threads=2,
            minloglevel=2,
            **settings,
        )
    shutil.copy(kept, path)
    return sentencepiece.SentencePieceProcessor(model_file=path)


def write_pieces(path, pieces, seed):
    """Writes a vocab.json with its own order. One ordinary piece in twenty is left out, so that the
    model has pieces without an id."""
    draw = random.Random(seed)
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    rest = [p for p in pieces if p not in first]
    rest = [p for p in rest if len(p) == 1 or draw.random() > 0.05]
    draw.shuffle(rest)
    write_json(path, {piece: i for i, piece in enumerate(first + rest)})
    return len(first) + len(rest)


def write_marian_network(folder, size):
    """Writes the smallest checkpoint that scripts/convert.py reads. All weights are zero."""
    import numpy
    from safetensors.numpy import save_file

    width = 8
    config = {
        "model_type": "marian",
        "vocab_size": size,
        "d_model": width,
        "activation_function": "relu",
        "scale_embedding": True,
        "eos_token_id": 0,
        "pad_token_id": size - 1,
        "decoder_start_token_id": size - 1,
        "max_position_embeddings": 512,
    }
    shapes = {"model.shared.weight": (size, width), "final_logits_bias": (1, size)}
    for stack, attentions in (
        ("encoder", ["self_attn"]),
        ("decoder", ["self_attn", "encoder_attn"]),
    ):
        config |= {f"{stack}_layers": 1, f"{stack}_attention_heads": 1, f"{stack}_ffn_dim": width}
        layer = f"model.{stack}.layers.0"
        linear = [f"{layer}.{a}.{p}_proj" for a in attentions for p in ("q", "k", "v", "out")]
        norms = [f"{layer}.{a}_layer_norm" for a in attentions] + [f"{layer}.final_layer_norm"]
        for name in [*linear, f"{layer}.fc1", f"{layer}.fc2", *norms]:
            shapes[f"{name}.weight"] = (width,) if name in norms else (width, width)
            shapes[f"{name}.bias"] = (width,)
    write_json(f"{folder}/config.json", config)
    tensors = {name: numpy.zeros(shape, numpy.float16) for name, shape in shapes.items()}
    save_file(tensors, f"{folder}/model.safetensors")
    os.chmod(f"{folder}/model.safetensors", 0o644)


def make_sentencepiece(folder, kind, size, text, rules):
    from transformers import AutoTokenizer

    settings, name, model_type = SENTENCEPIECE[kind]
    model = train_sentencepiece(f"{folder}/{name}", text, size, settings, rules)
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    write_json(
        f"{folder}/tokenizer_config.json", CONFIGS[kind.removesuffix("-bpe").removesuffix("-old")]
    )
    write_config(folder, model_type, len(pieces))
    if model_type == "marian":
        shutil.copy(f"{folder}/source.spm", f"{folder}/target.spm")
        order = [
            "</s>",
            "<unk>",
            *(p for p in pieces if p not in ("<s>", "</s>", "<unk>")),
            "<pad>",
        ]
        write_json(f"{folder}/vocab.json", {piece: i for i, piece in enumerate(order)})
        write_marian_network(folder, len(order))
        return
    if kind == "m2m100":
        count = write_pieces(f"{folder}/vocab.json", pieces, 1)
        codes = AutoTokenizer.from_pretrained(folder).lang_code_to_token.values()
        special = {"additional_special_tokens": sorted(codes)}
        write_json(f"{folder}/special_tokens_map.json", special)
        write_config(folder, model_type, count + 108)
        return
    tokenizer = AutoTokenizer.from_pretrained(folder)
    write_config(folder, model_type, len(tokenizer))
    if kind in ("mbart50", "pegasus", "mt5"):
        return  # The hub has these without tokenizer.json.
    with tempfile.TemporaryDirectory() as saved:
        tokenizer.save_pretrained(saved)
        data = read_json(f"{saved}/tokenizer.json")
        config = read_json(f"{saved}/tokenizer_config.json")
    if kind == "nllb":
        restore_nllb(data, config)
    if kind == "llama2-old":
        mark = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        first = {"type": "Prepend", "prepend": "▁"}
        data["normalizer"] = {"type": "Sequence", "normalizers": [first, mark]}
        data["pre_tokenizer"] = None
        names = ("bos_token", "eos_token", "unk_token")
        config = {name: config[name] for name in names}
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.pop("vocab_file", None)  # It has the path of this folder.
    write_json(f"{folder}/tokenizer.json", data)
    write_json(f"{folder}/tokenizer_config.json", config)
    if kind in ("mbart", "t5", "nllb", "llama2-old", "gemma"):
        os.remove(f"{folder}/{name}")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    write_config(folder, model_type, len(tokenizer))


def restore_nllb(data, config):
    """Adds the language codes with the ids that they have in the hub's file: after the pieces and
    before <mask>. The class alone gives <mask> the first of these ids."""
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as CODES

    mask = next(token for token in data["added_tokens"] if token["content"] == "<mask>")
    first = mask["id"]
    data["model"]["vocab"].pop("<mask>", None)
    data["added_tokens"].remove(mask)
    plain = {"special": True} | dict.fromkeys(
        ("single_word", "lstrip", "rstrip", "normalized"), False
    )
    codes = [{"id": first + i, "content": code} | plain for i, code in enumerate(CODES)]
    data["added_tokens"] += [*codes, mask | {"id": first + len(CODES)}]
    data["post_processor"] = None  # The class makes its own.
    config["extra_special_tokens"] = list(CODES)


def train_byte_level(text, size, special, pattern, normalizer, **settings):
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(**settings))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        show_progress=False,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train([text], trainer)
    return tokenizer


def make_byte_level(folder, kind, size, text):
    from tokenizers import normalizers, processors
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    model_type = BYTE_LEVEL[kind]
    special = {
        "gpt2": [],
        "bart": ["<s>", "<pad>", "</s>", "<unk>"],
        "opt": ["<s>", "<pad>", "</s>", "<unk>"],
        "cohere": ["<PAD>", "<UNK>", "<CLS>", "<SEP>", "<MASK_TOKEN>", "<BOS_TOKEN>"],
        "neox": ["<|endoftext|>", "<|padding|>"],
    }.get(kind, [])
    pattern = {"llama3": LLAMA3, "qwen3": QWEN, "cohere": COHERE}.get(kind, GPT2)
    normalizer = normalizers.NFC() if kind in ("qwen3", "neox", "cohere") else None
    settings = {"ignore_merges": True} if kind == "llama3" else {}
    backend = train_byte_level(text, size, special, pattern, normalizer, **settings)
    if kind == "llama3":
        backend.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
        first = "<|begin_of_text|>"
        template = processors.TemplateProcessing(
            single=f"{first} $A",
            pair=f"{first} $A {first} $B",
            special_tokens=[(first, backend.token_to_id(first))],
        )
        parts = [processors.ByteLevel(trim_offsets=True), template]
        backend.post_processor = processors.Sequence(parts)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token=first, eos_token="<|end_of_text|>"
        )
        save(tokenizer, folder)
        config = read_json(f"{folder}/tokenizer_config.json")
        write_json(
            f"{folder}/tokenizer_config.json",
            config | {"tokenizer_class": "PreTrainedTokenizerFast"},
        )
        write_config(folder, model_type, len(tokenizer))
        return
    data = json.loads(backend.to_str())["model"]
    vocabulary = data["vocab"]
    last = {
        "gpt2": ["<|endoftext|>"],
        "bart": ["<mask>"],
        "cohere": ["<|END_OF_TURN_TOKEN|>"],
    }.get(kind, [])
    for token in last:
        vocabulary[token] = len(vocabulary)
    write_json(f"{folder}/vocab.json", vocabulary)
    with open(f"{folder}/merges.txt", "w", encoding="utf-8") as file:
        file.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in data["merges"]))
    write_config(folder, model_type, len(vocabulary))
    config = dict(CONFIGS[kind])
    if kind == "qwen3":
        flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
        names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
        config["added_tokens_decoder"] = {
            str(len(vocabulary) + i): {"content": name, "special": True} | flags
            for i, name in enumerate(names)
        }
    write_json(f"{folder}/tokenizer_config.json", config)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    write_config(folder, model_type, len(tokenizer))
    if kind in ("qwen3", "cohere"):
        save(tokenizer, folder)  # Beside vocab.json and merges.txt, as on the hub.


def add_tokens(folder):
    """Adds tokens with every flag, which have normalized text of their own where the tokenizer
    normalizes, and saves the tokenizer again."""
    from tokenizers import AddedToken
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(
        [
            AddedToken("<NUM>", normalized=True),
            AddedToken("<left>", lstrip=True, normalized=False),
            AddedToken("<both>", lstrip=True, rstrip=True, normalized=False),
            AddedToken("<word>", single_word=True, normalized=False),
            AddedToken("<each>", single_word=True, rstrip=True, normalized=True),
            AddedToken("Größe", normalized=True),
            AddedToken("ﬁnd Å", normalized=True),
            AddedToken("<é>", normalized=False),
        ]
    )
    save(tokenizer, folder)
    config = read_json(f"{folder}/config.json")
    write_config(folder, config["model_type"], len(tokenizer))


def make(folder, kind, size, text, rules=None):
    os.makedirs(folder, exist_ok=True)
    if kind in ADDED:
        make(folder, ADDED[kind], size, text, rules)
        add_tokens(folder)
    elif kind in SENTENCEPIECE:
        make_sentencepiece(folder, kind, int(size), text, rules)
    else:
        make_byte_level(folder, kind, int(size), text)


def special_texts(tokenizer):
    """Returns the texts of the special tokens."""
    added = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
    return {*tokenizer.all_special_tokens, *(token.content for token in added)} - {""}


def encode(folder, seed, language, lines):
    """Returns for each line the ids, or None for a line that holds the text of a special
    token, raw or normalized; the texts of ids; and random sequences of ids with their texts."""
    import tokenizers
    import transformers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if language:
        tokenizer.src_lang = language
    special = special_texts(tokenizer)
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    ids = []
    for line in lines:
        normal = normalizer.normalize_str(line) if normalizer else line
        held = any(text in line or text in normal for text in special)
        held |= isinstance(tokenizer, transformers.MarianTokenizer) and line.startswith(">>")
        ids.append(None if held else tokenizer(line).input_ids)
    unknown = tokenizer.unk_token_id
    known = [i for i in range(len(tokenizer)) if i != unknown]
    draw = random.Random(int(seed))
    sequences = [draw.choices(known, k=draw.randint(1, 12)) for _ in range(2000)]
    decode = lambda row: tokenizer.decode(
        [i for i in row if i != unknown or unknown is None], skip_special_tokens=True
    )
    return {
        "versions": [transformers.__version__, tokenizers.__version__],
        "unknown": unknown,
        "empty": tokenizer("").input_ids,
        "ids": ids,
        "texts": [None if row is None else decode(row) for row in ids],
        "sequences": sequences,
        "sequence_texts": [decode(row) for row in sequences],
    }


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if sys.argv[1] == "rules":
        write_rules(sys.argv[2])
    elif sys.argv[1] == "make":
        make(*sys.argv[2:])
    else:
        lines = sys.stdin.buffer.read().decode().split("\n")[:-1]
        language = sys.argv[4] if len(sys.argv) > 4 else None
        json.dump(encode(sys.argv[2], sys.argv[3], language, lines), sys.stdout)
