#!/usr/bin/env python3
"""Compares the ids and the text of tokenizers with those of transformers. Every folder of
tests/data/tokenizer_kinds has a tokenizer of one kind, lines that tell it from similar ones, and
what transformers makes of them (README.md there).

XLATE_TOKENIZE_LINES names the program that is run (default: tokenize_lines beside xlate).
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest

import program

TOKENIZE_LINES = os.environ.get("XLATE_TOKENIZE_LINES") or os.path.join(
    os.path.dirname(program.BINARY), "tokenize_lines"
)
DATA = os.path.join(program.ROOT, "tests", "data", "tokenizer_kinds")


def read_lines(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8", newline="\n") as file:
        return file.read().split("\n")[:-1]


def convert(folder, path):
    """Makes a model.bin of a tokenizer. The folders of Marian are whole checkpoints."""
    script, arguments = ["tests", "tokenizer_model.py"], [folder, path]
    if os.path.exists(os.path.join(folder, "source.spm")):
        script, arguments = ["scripts", "convert.py"], [folder, "-o", path]
    command = [sys.executable, os.path.join(program.ROOT, *script), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def tokenize(model, lines, *flags):
    """Returns what tokenize_lines prints for each line."""
    given = "".join(line + "\n" for line in lines).encode("utf-8")
    command = [TOKENIZE_LINES, model, *flags]
    result = subprocess.run(command, input=given, stdout=subprocess.PIPE, check=True)
    return result.stdout.decode("utf-8").split("\n")[:-1]


class TokenizerTest(unittest.TestCase):
    maxDiff = None

    def compare(self, expected, actual, shown):
        self.assertEqual(len(expected), len(actual))
        wrong = [i for i, (a, b) in enumerate(zip(expected, actual)) if a != b]
        story = "".join(
            f"\n  line {i + 1}: {ascii(shown[i])}\n    expected {ascii(expected[i])}"
            f"\n    got      {ascii(actual[i])}"
            for i in wrong[:5]
        )
        self.assertFalse(wrong, f"{len(wrong)} of {len(expected)} lines differ{story}")

    def check(self, kind):
        folder = os.path.join(DATA, kind)
        with open(os.path.join(folder, "lines.json"), encoding="utf-8") as file:
            settings = json.load(file)
        flags = ["--source-lang", settings["source_lang"]] if settings["source_lang"] else []
        lines, ids = read_lines(folder, "lines.txt"), read_lines(folder, "lines.ids")
        unknown = str(settings["unknown"])
        known = [" ".join(id for id in row.split() if id != unknown) for row in ids]
        with tempfile.TemporaryDirectory() as place:
            model = os.path.join(place, "model.bin")
            convert(folder, model)
            with self.subTest("ids"):
                self.compare(ids, tokenize(model, lines, *flags), lines)
            with self.subTest("text"):
                decoded = read_lines(folder, "lines.decoded")
                self.compare(decoded, tokenize(model, known, "--decode"), known)
            with self.subTest("text of random ids"):
                sequences = read_lines(folder, "sequences.ids")
                decoded = read_lines(folder, "sequences.decoded")
                self.compare(decoded, tokenize(model, sequences, "--decode"), sequences)


def add_tests():
    kinds = sorted(name for name in os.listdir(DATA) if os.path.isdir(os.path.join(DATA, name)))
    for kind in kinds:
        name = "test_" + kind.replace("-", "_")
        setattr(TokenizerTest, name, lambda self, kind=kind: self.check(kind))
    return kinds


def setUpModule():
    if not os.path.isfile(TOKENIZE_LINES):
        raise RuntimeError(f"{TOKENIZE_LINES} is not there (see XLATE_TOKENIZE_LINES)")


if not add_tests():
    raise RuntimeError(f"{DATA} has no tokenizers")

if __name__ == "__main__":
    program.main()
