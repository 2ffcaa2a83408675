#!/usr/bin/env python3
"""Tests text in and text out for every family. Each folder of tests/data/families and of
tests/data/tokenizers has the ids that the tokenizer of its checkpoint makes of each line in
transformers (source.ids), and the folders of families have the text of outputs
(beam4.decoded)."""

import os
import random
import re
import subprocess

import families_test
import model_bytes
from checkpoint_fixture import read
from families_test import FAMILIES, TRAINED, FamilyCase, model_of
from family_options import LANGUAGES, run_options
from program import BINARY, main
from tokenizer_model import write_tokenizer_model

TOKENIZE_LINES = os.path.join(os.path.dirname(BINARY), "tokenize_lines")
TOKENIZERS = os.path.join(os.path.dirname(FAMILIES), "tokenizers")
DECODERS = ("gpt2", "llama", "opt", "qwen3")
# T5's reference has this before each line.
PREFIX = {"t5": "translate English to German: "}
UNKNOWN = "\u2047"


def setUpModule():
    families_test.setUpModule()


def texts(family, name="input.txt"):
    lines = read(FAMILIES, name).decode("utf-8").split("\n")[:-1]
    return [PREFIX.get(family, "") + line for line in lines]


def joined(lines):
    return "".join(line + "\n" for line in lines)


def tokenize(model, lines, *options):
    """Returns what tokenize_lines prints for each line."""
    done = subprocess.run(
        [TOKENIZE_LINES, model, *options],
        input=joined(lines).encode("utf-8", "surrogateescape"),
        capture_output=True,
    )
    if done.returncode:
        raise AssertionError(done.stderr.decode())
    return done.stdout.decode("utf-8").split("\n")[:-1]


def tokenize_pieces(model, ids):
    """Returns the pieces of ids, as the table source.pieces of the model file has them."""
    file = model_bytes.ModelFile(model)
    entry = file.file("source.pieces")
    table = bytes(file.data[entry["offset"] : entry["offset"] + entry["bytes"]])
    pieces, at = [], 0
    while at < len(table):
        size = int.from_bytes(table[at : at + 4], "little")
        at += 4
        pieces.append(None if size == 0xFFFFFFFF else table[at : at + size].decode("utf-8"))
        at += 0 if size == 0xFFFFFFFF else size
    return [pieces[number] for number in sorted(ids) if pieces[number]]


class Ids(FamilyCase):
    """A tokenizer makes the ids of transformers."""

    def test_families(self):
        for family in TRAINED:
            model = model_of(os.path.join(FAMILIES, family))
            for source, name, language in (
                ("input.txt", "source.ids", 0),
                ("input.de.txt", "source.de.ids", 1),
            ):
                if not os.path.exists(os.path.join(FAMILIES, family, name)):
                    continue
                codes = LANGUAGES.get(family)
                options = ["--source-lang", codes[language]] if codes else []
                with self.subTest(family, source=source):
                    expected = read(os.path.join(FAMILIES, family), name).decode().split("\n")[:-1]
                    found = tokenize(model, texts(family, source), *options)
                    self.assertEqual(found, expected)

    def test_decoder_only_families(self):
        prompts = read(TOKENIZERS, "prompts.txt").decode("utf-8").split("\n")[:-1]
        for family in DECODERS:
            with self.subTest(family):
                folder = os.path.join(TOKENIZERS, family)
                write_tokenizer_model(folder, self.path("model.bin"))
                expected = read(folder, "source.ids").decode().split("\n")[:-1]
                self.assertEqual(tokenize(self.path("model.bin"), prompts), expected)


class Text(FamilyCase):
    """A model file translates text to text."""

    def translate(self, family, lines, setting="beam4", **extra):
        folder = os.path.join(FAMILIES, family)
        options = run_options(family, folder, setting, families_test.has_option)
        options = {name: value for name, value in {**options, **extra}.items() if value is not None}
        words = [word for option in options.items() for word in option if word != ""]
        return self.ok(
            *words,
            *self.device_options,
            input=joined(lines).encode("utf-8"),
            model=model_of(folder),
            **self.where,
        ).lines

    def test_the_text_is_that_of_transformers(self):
        """transformers writes nothing for the unknown token, where xlate writes U+2047 between
        spaces."""
        plain = lambda text: re.sub(r"\s", "", text.replace(UNKNOWN, ""))
        for family in TRAINED:
            with self.subTest(family):
                found = self.translate(family, texts(family))
                folder = os.path.join(FAMILIES, family)
                expected = read(folder, "beam4.decoded").decode("utf-8").split("\n")[:-1]
                self.assertEqual(len(found), len(expected))
                self.assertEqual(
                    [plain(line) for line in found], [plain(line) for line in expected]
                )
                known = [i for i, line in enumerate(found) if UNKNOWN not in line]
                self.assertGreater(len(known), 80)
                self.assertEqual([found[i] for i in known], [expected[i] for i in known])

    def test_language_columns(self):
        """Directions may change from line to line, and each line is what it is alone."""
        for family in ("m2m100", "nllb"):
            with self.subTest(family):
                english, german, third = LANGUAGES[family]
                lines, directed = [], []
                expected = []
                for source, target, name in (
                    (english, german, "input.txt"),
                    (german, english, "input.de.txt"),
                    (english, third, "input.txt"),
                ):
                    part = texts(family, name)[:30]
                    languages = {"--source-lang": source, "--target-lang": target}
                    expected += self.translate(family, part, **languages)
                    lines += part
                    directed += [f"{source}\t{target}\t{line}" for line in part]
                order = list(range(len(lines)))
                random.Random(4).shuffle(order)
                none = {"--source-lang": None, "--target-lang": None, "--lang-column": ""}
                found = self.translate(family, [directed[i] for i in order], **none)
                self.assertEqual(found, [expected[i] for i in order])

    def test_language_columns_that_are_wrong(self):
        model = model_of(os.path.join(FAMILIES, "nllb"))
        for line, names in (
            ("Hello" * 20, ["line 2", "a tab is missing", "HelloHello…"]),
            ("eng_Latn\tHello", ["line 2", "a tab is missing"]),
            ("en\tdeu_Latn\tHello", ["line 2", "'en' is no source language", "zul_Latn"]),
            ("eng_Latn\tDE\tHello", ["line 2", "'DE' is no target language", "ace_Arab"]),
        ):
            with self.subTest(line):
                lines = ["eng_Latn\tdeu_Latn\tGood morning", line, ""]
                result = self.fails(
                    "-b",
                    "1",
                    "--max-length",
                    "20",
                    "--lang-column",
                    input=joined(lines),
                    model=model,
                    names=names,
                )
                self.assertEqual(len(result.lines), 1)

    def test_language_columns_of_empty_lines(self):
        lines = ["", "  ", "eng_Latn\tdeu_Latn\t", "eng_Latn\tdeu_Latn\tHello"]
        none = {"--source-lang": None, "--target-lang": None, "--lang-column": ""}
        found = self.translate("nllb", lines, **none)
        self.assertEqual(found[:3], ["", "", ""])
        self.assertNotEqual(found[3], "")

    def test_language_columns_stand_alone(self):
        model = model_of(os.path.join(FAMILIES, "nllb"))
        for option in ("--source-lang", "--target-lang"):
            self.usage_error(
                "--lang-column", option, "eng_Latn", names=[option, "--lang-column"], model=model
            )
        self.usage_error("--lang-column", names=["--lang-column", "no language tokens"])


class Lines(FamilyCase):
    """What stands in a line is text."""

    def models(self):
        for family in TRAINED:
            codes = LANGUAGES.get(family)
            options = ["--source-lang", codes[0]] if codes else []
            yield family, model_of(os.path.join(FAMILIES, family)), options
        for family in DECODERS:
            model = self.path(family + ".bin")
            write_tokenizer_model(os.path.join(TOKENIZERS, family), model)
            yield family, model, []

    def test_no_line_forges_a_special_token(self):
        """The text of each special token gives none of these tokens. The template's are left out of
        the comparison."""
        for family, model, options in self.models():
            header = model_bytes.ModelFile(model).header
            special = {token["id"] for token in header["tokens"]["added"] if token.get("special")}
            # The model itself may give this token for a character that it does not know.
            model_kind = header["tokenizer"]["model"]
            if model_kind["kind"] == "sentencepiece" or "unknown" in model_kind:
                special -= {header["tokens"]["unknown"]}
            around = header["tokenizer"]["template"]
            first, last = len(around["before"]), len(around["after"])
            pieces = tokenize_pieces(model, special)
            self.assertGreater(len(pieces), 0, family)
            with self.subTest(family, tokens=len(pieces)):
                lines = [
                    pattern % piece for piece in pieces for pattern in ("a %s b", "%s", "a%sb")
                ]
                for line, ids in zip(lines, tokenize(model, lines, *options)):
                    inner = [int(number) for number in ids.split()][first:]
                    inner = inner[: len(inner) - last]
                    self.assertFalse(special & set(inner), line)

    def test_any_bytes(self):
        """Every line gives ids, and every ids give one line of valid UTF-8."""
        maker = random.Random(11)
        lines = []
        for _ in range(300):
            kind = maker.randrange(3)
            length = maker.randrange(60)
            if kind == 0:
                data = bytes(maker.randrange(256) for _ in range(length))
            else:
                most = 0x300 if kind == 1 else 0x10FFFF
                points = [maker.randrange(1, most) for _ in range(length)]
                data = "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000).encode("utf-8")
            lines.append(data.replace(b"\n", b" ").decode("utf-8", "surrogateescape"))
        for family, model, options in self.models():
            with self.subTest(family):
                ids = tokenize(model, lines, *options)
                self.assertEqual(len(ids), len(lines))
                self.assertEqual(ids, tokenize(model, lines, *options))
                decoded = tokenize(model, ids, "--decode")
                self.assertEqual(len(decoded), len(lines))


if __name__ == "__main__":
    main()
