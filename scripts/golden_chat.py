#!/usr/bin/env python3
"""Writes tests/data/chat/golden.json: what transformers makes of the conversations of
tests/chat_fixture.py with each chat format. It needs transformers and jinja2.

Usage: scripts/golden_chat.py

For each format there is a list with the ids of each conversation, or null where the template
refuses it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile

import jinja2
import transformers

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests"))

import chat_fixture


def ids_of(tokenizer, messages):
    try:
        found = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False
        )
    except jinja2.exceptions.TemplateError:
        return None
    return " ".join(map(str, found))


def main():
    golden = {}
    for name in chat_fixture.FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            chat_fixture.write_tokenizer(name, folder)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            golden[name] = [ids_of(tokenizer, messages) for messages in chat_fixture.CONVERSATIONS]
    with open(chat_fixture.GOLDEN, "w", encoding="utf-8") as file:
        json.dump(golden, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
