"""Makes tiny checkpoints with the chat formats of tests/data/chat, on the tokenizers of
tests/data/tokenizers. tests/data/chat/golden.json has what transformers makes of CONVERSATIONS with
them; scripts/golden_chat.py writes it."""

import json
import os
import shutil

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
CHAT = os.path.join(DATA, "chat")
GOLDEN = os.path.join(CHAT, "golden.json")
# The white space behind these special tokens belongs to them.
STRIPS_RIGHT = {"rstrip": True}
# These tokens are added, but not special.
NOT_SPECIAL = {"special": False}
# Each format has its tokenizer, the tokens that are added to it, their flags, and settings.
FORMATS = {
    "chatml": ("qwen3", [], {}, {}),
    "llama3": (
        "qwen3",
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        {},
        {"bos_token": "<|begin_of_text|>"},
    ),
    "llama2": ("llama", [], {}, {}),
    "mistral": ("llama", ["[INST]", "[/INST]"], {}, {}),
    "gemma": ("llama", ["<start_of_turn>", "<end_of_turn>"], {}, {}),
    "phi3": (
        "llama",
        ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
        STRIPS_RIGHT,
        {},
    ),
    "cohere": (
        "qwen3",
        [
            "<BOS_TOKEN>",
            "<|START_OF_TURN_TOKEN|>",
            "<|END_OF_TURN_TOKEN|>",
            "<|USER_TOKEN|>",
            "<|CHATBOT_TOKEN|>",
            "<|SYSTEM_TOKEN|>",
        ],
        {},
        {"bos_token": "<BOS_TOKEN>"},
    ),
    "zephyr": ("llama", [], {}, {}),
    "deepseek": (
        "qwen3",
        ["<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"],
        NOT_SPECIAL,
        {"bos_token": "<|endoftext|>"},
    ),
}
# These have no system message of their own.
NO_SYSTEM = ("gemma", "mistral")
LINES = [
    "Here",
    "To determine the size",
    "  Why don't you ",
    'He said: "{{ x }} \\n"',
    "\u00e4 \u6f22",
]
SYSTEM = {"role": "system", "content": " Translate to German. "}
TURNS = [
    {"role": "user", "content": "Here\n is it."},
    {"role": "assistant", "content": " Hier ist es. "},
    {"role": "user", "content": " And now? \n"},
]
CONVERSATIONS = [[{"role": "user", "content": line}] for line in LINES] + [
    TURNS,
    [SYSTEM, TURNS[0]],
    [SYSTEM, *TURNS],
    TURNS[:2] * 2 + TURNS[2:],
]


def read_json(*path):
    with open(os.path.join(*path), encoding="utf-8") as file:
        return json.load(file)


def write_json(value, *path):
    with open(os.path.join(*path), "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False)


def template_of(name):
    with open(os.path.join(CHAT, name + ".jinja"), encoding="utf-8") as file:
        return file.read()


def write_tokenizer(name, folder):
    """Writes the tokenizer of a format, its chat template and config.json."""
    tokenizer, tokens, flags, settings = FORMATS[name]
    shutil.copytree(os.path.join(DATA, "tokenizers", tokenizer), folder, dirs_exist_ok=True)
    pipeline = read_json(folder, "tokenizer.json")
    config = read_json(folder, "config.json")
    known = [token["id"] for token in pipeline["added_tokens"]]
    first = max([*pipeline["model"]["vocab"].values(), *known]) + 1
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    added = {
        str(first + i): {"content": text, **plain, "special": True, **flags}
        for i, text in enumerate(tokens)
    }
    pipeline["added_tokens"] += [{"id": int(n), **token} for n, token in added.items()]
    write_json(pipeline, folder, "tokenizer.json")
    settings = read_json(folder, "tokenizer_config.json") | settings
    if "added_tokens_decoder" in settings:
        settings["added_tokens_decoder"].update(added)
    settings["chat_template"] = template_of(name)
    write_json(settings, folder, "tokenizer_config.json")
    config["vocab_size"] = max(config["vocab_size"], first + len(tokens))
    write_json(config, folder, "config.json")


def marks_of(folder):
    """Returns the texts of the tokens that mark turns, or begin and end a text, by their ids."""
    added = read_json(folder, "tokenizer.json")["added_tokens"]
    return {token["id"]: token["content"] for token in added if token["content"] != "<unk>"}
