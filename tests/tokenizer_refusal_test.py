#!/usr/bin/env python3
"""Tests that the converter refuses, in one line, a tokenizer that xlate does not have or that
transformers would get wrong, and that no file of a tokenizer makes it fail otherwise."""

import copy
import json
import unittest

from checkpoint_fixture import ConvertTest
from checkpoint_reader import InputError
from t5_fixture import T5Fixture
from tokenizer_fixture import (
    METASPACE,
    NORMAL,
    PIECES,
    TokenizerTest,
    bpe,
    field,
    sentencepiece,
    token,
    unigram,
    varint,
)

CONFIG, JSON = "tokenizer_config.json", "tokenizer.json"
GENERIC = {"tokenizer_class": "PreTrainedTokenizerFast"}
HALF_PAIR = "\ud800"


class ClassTest(TokenizerTest):
    def test_unknown_class(self):
        for name in ("BertTokenizer", "ByT5Tokenizer", "", "T5 Tokenizer", "é"):
            files = {JSON: unigram(), CONFIG: {"tokenizer_class": name}}
            if name:
                self.refuse(files, CONFIG, "tokenizer_class", name, "T5Tokenizer", "LlamaTokenizer")
        self.refuse({JSON: bpe(), CONFIG: {"tokenizer_class": 3}}, CONFIG, "tokenizer_class", "3")

    def test_code_in_the_checkpoint(self):
        config = {"auto_map": {"AutoTokenizer": ["a.B", None]}, "tokenizer_class": "MyTokenizer"}
        self.refuse({JSON: bpe(), CONFIG: config}, CONFIG, "auto_map", "a.B")
        # A class that transformers has itself is taken.
        config["tokenizer_class"] = "GPT2Tokenizer"
        self.read_files({JSON: bpe(), CONFIG: config})

    def test_missing_files(self):
        for named, missing in (
            ("T5Tokenizer", "spiece.model"),
            ("NllbTokenizer", "sentencepiece.bpe.model"),
            ("GPT2Tokenizer", "vocab.json"),
            ("PreTrainedTokenizerFast", "tokenizer.model"),
        ):
            files = {CONFIG: {"tokenizer_class": named}}
            self.refuse(files, None, "tokenizer", f"tokenizer.json or {missing}", "neither")
        files = {"vocab.json": {"a": 0}, CONFIG: {"tokenizer_class": "GPT2Tokenizer"}}
        self.refuse(files, "merges.txt", "file", "No such file")

    def test_another_model_than_the_class_has(self):
        files = {JSON: bpe(), CONFIG: {"tokenizer_class": "T5Tokenizer"}}
        self.refuse(files, JSON, "model", "Unigram, as tokenizer_class has it", "BPE")
        files = {JSON: unigram(), CONFIG: {"tokenizer_class": "LlamaTokenizer"}}
        self.refuse(files, JSON, "model", "BPE, as tokenizer_class has it", "Unigram")

    def test_extra_ids_that_disagree(self):
        files = {
            JSON: unigram(),
            CONFIG: {"tokenizer_class": "T5Tokenizer", "extra_ids": 5},
            "special_tokens_map.json": {"additional_special_tokens": ["<extra_id_0>"]},
        }
        self.refuse(files, CONFIG, "extra_ids", "expected 1,", "found 5")

    def test_pegasus_without_its_unknown_piece(self):
        config = {"tokenizer_class": "PegasusTokenizer", "unk_token": "<none>"}
        self.refuse({JSON: unigram(), CONFIG: config}, None, "unk_token", "<none>")


class LanguageTest(TokenizerTest):
    def test_nllb_from_its_sentencepiece_model_alone(self):
        model = sentencepiece([*PIECES[:6], ("b", -4.0, NORMAL)], kind=2)
        for more in ({}, {"extra_special_tokens": ["ace_Arab", "ace_Latn"]}):
            config = {"tokenizer_class": "NllbTokenizer", **more}
            files = {"sentencepiece.bpe.model": model, CONFIG: config}
            self.refuse(
                files,
                "sentencepiece.bpe.model",
                "ace_Arab",
                "the id 8, which the model was trained with",
                "added_tokens_decoder",
                model_type="m2m_100",
            )

    def test_unknown_source_language(self):
        model = sentencepiece()
        for named, file, code in (
            ("MBartTokenizer", "sentencepiece.bpe.model", "en"),
            ("MBart50Tokenizer", "sentencepiece.bpe.model", "fra"),
            ("MBartTokenizer", "sentencepiece.bpe.model", ""),
        ):
            files = {file: model, CONFIG: {"tokenizer_class": named, "src_lang": code}}
            self.refuse(files, CONFIG, "src_lang", "codes (ar_AR, cs_CZ, ", json.dumps(code))
        files = {"sentencepiece.bpe.model": model, "vocab.json": {"</s>": 0, "<unk>": 1}}
        files[CONFIG] = {"tokenizer_class": "M2M100Tokenizer", "src_lang": "eng"}
        self.refuse(files, CONFIG, "src_lang", "af, am", "eng")
        files[CONFIG] = {"tokenizer_class": "M2M100Tokenizer", "language_codes": "all"}
        self.refuse(files, CONFIG, "language_codes", "m2m100, wmt21", "all")

    def test_codes_beyond_the_embedding(self):
        files = {"sentencepiece.bpe.model": sentencepiece()}
        self.refuse(files, "sentencepiece.bpe.model", "zh_CN", "33", model_type="mbart", rows=33)

    def test_tokens_whose_listed_ids_are_not_those_of_transformers(self):
        for text, more in (("<x>", {}), ("<s>", {"bos_token": "<s>"})):
            file = unigram()
            file["added_tokens"].append(token(8, text, special=text == "<s>"))
            for named in ("T5Tokenizer", "PreTrainedTokenizerFast"):
                config = {"tokenizer_class": named, "extra_ids": 0, **more}
                files = {JSON: file, CONFIG: config}
                self.refuse(files, None, f'"{text}"', "the id 8", "found 6 in transformers")
        # No text has another special token, so that its id does not matter.
        file["added_tokens"][-1]["content"] = "<y>"
        self.read_files({JSON: file, CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast"}})

    def test_a_code_with_another_id(self):
        files = {
            "sentencepiece.bpe.model": sentencepiece(),
            "vocab.json": {"</s>": 0, "<unk>": 1, "a": 2},
            CONFIG: {"tokenizer_class": "M2M100Tokenizer"},
            "added_tokens.json": {"__af__": 4},
        }
        self.refuse(files, "vocab.json", "__af__", "the id 3", "found 4")


class ComponentTest(TokenizerTest):
    def refuse_part(self, file, key, value, what, *found):
        changed = copy.deepcopy(file)
        changed[key] = value
        self.refuse({JSON: changed, CONFIG: GENERIC}, JSON, what, *found)

    def test_normalizers(self):
        for value, what, found in (
            ({"type": "Lowercase"}, "normalizer.type", "Lowercase"),
            ({"type": "BertNormalizer"}, "normalizer.type", "BertNormalizer"),
            ({"type": 3}, "normalizer", "an object with a type"),
            ([], "normalizer", "an object with a type"),
            ({"type": "Sequence"}, "normalizer.Sequence", "null"),
            ({"type": "Sequence", "normalizers": [{"type": "Nmt"}]}, "normalizer.type", "Nmt"),
            ({"type": "Strip", "strip_left": True}, "normalizer.Strip.strip_right", "nothing"),
            ({"type": "Replace", "pattern": "a"}, "normalizer.Replace.pattern", '"a"'),
            ({"type": "Replace", "pattern": {"String": ""}}, "normalizer.Replace.String", '""'),
            (
                {"type": "Replace", "pattern": {"String": "a"}},
                "normalizer.Replace.content",
                "null",
            ),
            ({"type": "Prepend", "prepend": 3}, "normalizer.Prepend.prepend", "3"),
            ({"type": "Precompiled"}, "precompiled_charsmap", "base64"),
            ({"type": "Precompiled", "precompiled_charsmap": "?"}, "precompiled_charsmap", "base"),
            (
                {"type": "Precompiled", "precompiled_charsmap": "AAAAAAAA"},
                "precompiled_charsmap",
                "trie",
            ),
        ):
            self.refuse_part(unigram(), "normalizer", value, what, found)

    def test_pre_tokenizers(self):
        split = {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Isolated"}
        for value, what, found in (
            ({"type": "Punctuation"}, "pre_tokenizer.type", "Punctuation"),
            ({"type": "UnicodeScripts"}, "pre_tokenizer.type", "UnicodeScripts"),
            ({**METASPACE, "replacement": "_"}, "Metaspace.replacement", '"_"'),
            (
                {**METASPACE, "prepend_scheme": "never?"},
                "pre_tokenizer.Metaspace.prepend_scheme",
                "first",
            ),
            ({**METASPACE, "add_prefix_space": False}, "Metaspace.prepend_scheme", "always"),
            (split, "pre_tokenizer.Split.invert", "nothing"),
            (
                {**split, "invert": False, "behavior": "x"},
                "pre_tokenizer.Split.behavior",
                "MergedWithNext",
            ),
            ({"type": "Digits"}, "pre_tokenizer.Digits.individual_digits", "nothing"),
            ({"type": "ByteLevel"}, "pre_tokenizer.ByteLevel.add_prefix_space", "nothing"),
        ):
            self.refuse_part(bpe(), "pre_tokenizer", value, what, found)
        nested = split
        for _ in range(12):
            nested = {"type": "Sequence", "pretokenizers": [nested]}
        self.refuse_part(bpe(), "pre_tokenizer", nested, "pre_tokenizer.Sequence")

    def test_a_first_mark_where_the_start_may_be_taken_away(self):
        data = bpe()
        data["normalizer"] = {"type": "Strip", "strip_left": True, "strip_right": False}
        first = {**METASPACE, "prepend_scheme": "first"}
        self.refuse_part(data, "pre_tokenizer", first, "Metaspace.prepend_scheme", "found first")

    def test_decoders_and_templates(self):
        strip = {"type": "Strip", "content": " ", "start": -1, "stop": 0}
        for value, what, found in (
            (None, "decoder", "none"),
            ({"type": "WordPiece"}, "decoder.type", "WordPiece"),
            (strip, "decoder.Strip", "-1"),
            ({**strip, "start": 1, "content": "ab"}, "decoder.Strip.content", "ab"),
            (
                {"type": "Replace", "pattern": {"Regex": "a"}, "content": "b"},
                "decoder.Replace.pattern",
                "Regex",
            ),
        ):
            self.refuse_part(bpe(), "decoder", value, what, found)
        line = {"Sequence": {"id": "A", "type_id": 0}}
        item = {"SpecialToken": {"id": "x", "type_id": 0}}
        for value, what, found in (
            ({"type": "Other"}, "post_processor.type", "Other"),
            ({"type": "TemplateProcessing", "single": [line, line]}, "post_processor.single", "2"),
            ({"type": "TemplateProcessing", "single": []}, "post_processor.single", "0 times"),
            ({"type": "TemplateProcessing", "single": [line, item]}, "post_processor.single", "x"),
            ({"type": "BertProcessing", "cls": ["a"]}, "post_processor.BertProcessing.cls", "a"),
            (
                {"type": "RobertaProcessing", "cls": ["a", 300], "sep": ["b", 0]},
                "post_processor",
                "300",
            ),
        ):
            self.refuse_part(bpe(), "post_processor", value, what, found)


class ModelTest(TokenizerTest):
    def refuse_model(self, file, what, *found, config=GENERIC, **model):
        file["model"].update(model)
        self.refuse({JSON: file, CONFIG: config}, JSON, what, *found)

    def test_unigram(self):
        pieces = unigram()["model"]["vocab"]
        for vocab, what, *found in (
            ({}, "vocab", "a list"),
            ([*pieces, ["b", 0]], '"b"', "two, 5 and 6"),
            ([*pieces, ["x", float("nan")]], "piece 6", "finite"),
            ([*pieces, ["x", 1e999]], "piece 6", "finite"),
            ([*pieces, ["x", True]], "piece 6", "true"),
            ([*pieces, ["x"]], "piece 6", '["x"]'),
            ([*pieces, [3, 0]], "piece 6", "3"),
            ([*pieces, [HALF_PAIR, 0]], '"\\ud800"', "surrogate"),
            ([*pieces, *([f"x{n}", 0] for n in range(300))], '"x294"', "300 rows", "300"),
        ):
            self.refuse_model(unigram(), what, *found, vocab=vocab)
        raw = json.dumps(unigram())
        for number in ("1" * 300 + ".5", "-0." + "1" * 5000, "0.5e-" + "1" * 5000, "1.5e-400"):
            self.read_files({JSON: raw.replace("-3.125", number).encode(), CONFIG: GENERIC})
        for unknown in (-1, 6, 1 << 70, "2", None):
            self.refuse_model(unigram(), "unk_id", unk_id=unknown)
        config = {"tokenizer_class": "T5Tokenizer"}
        self.refuse_model(unigram(), "unk_id", "below 2", config=config, vocab=pieces[:2])

    def test_bpe(self):
        vocab = bpe()["model"]["vocab"]
        for change, what, found in (
            ({"vocab": [["a", 0]]}, "vocab", "an object"),
            ({"vocab": {**vocab, "x": -1}}, '"x"', "-1"),
            ({"vocab": {**vocab, "x": 1 << 62}}, '"x"', "an id below"),
            ({"vocab": {**vocab, "x": 300}}, '"x"', "300 rows"),
            ({"vocab": {**vocab, "x": 3}}, '"x"', "3, which 'ab' has"),
            ({"vocab": {**vocab, "x": 1.5}}, '"x"', "1.5"),
            ({"vocab": {**vocab, HALF_PAIR: 8}}, '"\\ud800"', "surrogate"),
            ({"merges": None}, "merges", "a list"),
            ({"merges": ["a b", "a"]}, "merge 1", '"a"'),
            ({"merges": ["a b c"]}, "merge 0", "two pieces"),
            ({"merges": [["a", 3]]}, "merge 0", "3"),
            ({"merges": [["a", "x"]]}, "merge 0", '"x", no piece'),
            ({"merges": [["b", "c"]]}, "merge 0", '"bc", no piece'),
            ({"unk_token": "x"}, "unk_token", '"x"'),
            ({"unk_token": 3}, "unk_token", "3"),
            ({"dropout": 0.1}, "dropout", "0.1"),
            ({"continuing_subword_prefix": "##"}, "continuing_subword_prefix", "##"),
            ({"end_of_word_suffix": "</w>"}, "end_of_word_suffix", "</w>"),
            ({"fuse_unk": 1}, "fuse_unk", "1"),
            ({"type": "WordPiece"}, "model", "WordPiece"),
        ):
            self.refuse_model(bpe(), what, found, **change)

    def test_files_of_gpt2(self):
        config = {"tokenizer_class": "GPT2Tokenizer"}
        vocab = bpe()["model"]["vocab"]
        for merges, what, found in (
            (b"#version: 0.2\na b\n\n", "line 3", '""'),
            (b"a b\nab c d\n", "line 2", "ab c d"),
            (b"a \xff\n", "file", "UTF-8"),
        ):
            files = {"vocab.json": vocab, "merges.txt": merges, CONFIG: config}
            self.refuse(files, "merges.txt", what, found)
        files = {"vocab.json": vocab, "merges.txt": b"a x\n", CONFIG: config}
        self.refuse(files, "vocab.json", "merge 0", "no piece")
        files = {"vocab.json": vocab, "merges.txt": b"#version: 0.2\r\na b\r\n", CONFIG: config}
        self.assertEqual(self.merges(self.read_files(files)), [("a", "b", "ab")])

    def test_added_tokens(self):
        for added, what, found in (
            ([token(6, "x" * 2000)], "added_tokens", "1024 bytes"),
            ([3], "added_tokens", "3"),
            ([{"id": 6}], "added_tokens", '"id"'),
            ([{**token(6, "x"), "lstrip": 1}], '"x"', "lstrip"),
            ([token(-1, "x")], '"x"', "-1"),
            ([token(1 << 60, "x")], '"x"', "an id below"),
            ([token(None, "x")], '"x"', "null"),
        ):
            file = unigram()
            file["added_tokens"] += added
            files = {JSON: file, CONFIG: {"tokenizer_class": "T5Tokenizer"}}
            self.refuse(files, JSON, what, found)
        file["added_tokens"] = [token(6, HALF_PAIR)]
        self.refuse({JSON: file, CONFIG: GENERIC}, CONFIG, '"\\ud800"', "surrogate")
        file["added_tokens"] = [token(6 + n, f"<{n}>") for n in range(4)]
        config = {**GENERIC, "eos_token": "<3>"}
        self.refuse({JSON: file, CONFIG: config}, CONFIG, "eos_token", "resize", "9", rows=9)
        self.refuse({JSON: file, CONFIG: GENERIC}, CONFIG, '"<3>"', "resize", "9", rows=9)
        # A padding token that the model has no row for is none.
        file["added_tokens"].pop()
        config = {**GENERIC, "pad_token": "[PAD]"}
        self.assertIsNone(self.read_files({JSON: file, CONFIG: config}, rows=9).pad)


class SentencePieceTest(TokenizerTest):
    NAME = "spiece.model"

    def refuse_bytes(self, data, what, *found):
        files = {self.NAME: data, CONFIG: {"tokenizer_class": "T5Tokenizer"}}
        self.refuse(files, self.NAME, what, *found)

    def test_bytes_that_are_no_model(self):
        good = sentencepiece()
        for length in range(len(good)):
            files = {self.NAME: good[:length], CONFIG: {"tokenizer_class": "T5Tokenizer"}}
            try:
                self.read_files(files)
            except InputError as error:
                self.assertNotIn("\n", str(error))
        for data in (b"", b"\0", b"\xff" * 20, b"version https://git-lfs x", field(2, b"")):
            self.refuse_bytes(data, "file")

    def test_fields(self):
        piece = lambda data: field(1, data)
        for data, what, found in (
            (piece(field(1, 3)), "file", "number where bytes"),
            (piece(field(2, b"abc")), "file", "not 4 bytes"),
            (piece(field(3, b"a")), "file", "bytes where a number"),
            (piece(field(1, b"\xff")), "piece 0", "UTF-8"),
            (piece(field(1, "a") + field(2, float("inf"))), "piece 0", "finite"),
            (piece(field(1, "a") + field(2, float("nan"))), "piece 0", "finite"),
            (field(1, 3), "file", "number where bytes"),
            (sentencepiece([*PIECES, PIECES[3]]), '"▁a"', "two, 3 and 8"),
            (sentencepiece(kind=3), "model_type", "3"),
            (sentencepiece(kind=-1), "file", "the model's type -1"),
            (sentencepiece(charsmap=b"abc"), "precompiled_charsmap", "trie"),
            (sentencepiece() + varint(3 << 3 | 7), "file", "wire type 7"),
        ):
            self.refuse_bytes(data, what, found)


class AnyValueTest(TokenizerTest):
    """Whatever a value is, the result is a tokenizer or one line."""

    VALUES = (
        *(None, True, -1, 0, 1, 2.5, 1 << 40, 10**30, "", "x", HALF_PAIR, [], [0], [None], {}),
        *({"a": []}, [[]], [["a", "b"]], {"type": "Sequence"}, {"content": "x"}, float("nan")),
    )

    def places(self, value, path=()):
        """Yields the path to each part of a JSON value."""
        yield path
        items = (
            value.items()
            if isinstance(value, dict)
            else enumerate(value[:3])
            if isinstance(value, list)
            else ()
        )
        for key, part in items:
            yield from self.places(part, (*path, key))

    def put(self, value, path, new):
        """Returns a copy of a JSON value with another part."""
        if not path:
            return new
        value = copy.copy(value)
        value[path[0]] = self.put(value[path[0]], path[1:], new)
        return value

    def check(self, files, model_type):
        try:
            self.read_files(files, model_type)
        except InputError as error:
            self.assertTrue(str(error).startswith(self.folder), error)

    def each(self, files, model_type):
        for name, content in files.items():
            if isinstance(content, bytes):
                continue
            for path in self.places(content):
                for value in self.VALUES:
                    with self.subTest(file=name, path=path, value=value):
                        self.check({**files, name: self.put(content, path, value)}, model_type)

    SETTINGS = {
        **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<m>"},
        **{"src_lang": "en_XX", "extra_ids": 2, "offset": 5, "legacy": True, "image_token": "<i>"},
        **{"add_bos_token": True, "add_prefix_space": False, "split_special_tokens": False},
        **{"clean_up_tokenization_spaces": True, "legacy_behaviour": False},
        "extra_special_tokens": ["<e>", {"__type": "AddedToken", "content": "<f>"}],
        "additional_special_tokens": ["<g>"],
        "added_tokens_decoder": {"7": {"content": "<h>", "lstrip": True}},
        "fast_tokenizer_files": ["tokenizer.json"],
        "mask_token_sent": "<m2>",
    }

    def test_classes(self):
        model = sentencepiece()
        names = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
        for named in ("T5", "Pegasus", "MBart", "MBart50", "Nllb", "Llama", "M2M100"):
            config = {"tokenizer_class": f"{named}Tokenizer", **self.SETTINGS}
            files = {CONFIG: config, **dict.fromkeys(names[: 2 + (named == "Llama")], model)}
            files["special_tokens_map.json"] = {"sep_token": "<s>", "pad_token": {"content": "p"}}
            files["added_tokens.json"] = {"<k>": 9}
            if named == "M2M100":
                files["vocab.json"] = {"</s>": 0, "<unk>": 1, "a": 2}
            self.each(files, "m2m_100")
            del config["added_tokens_decoder"]
            self.each({CONFIG: config, **files}, "m2m_100")

    def test_generic_class(self):
        parts = [
            {"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAA="},
            {"type": "Replace", "pattern": {"String": "a"}, "content": "b"},
            {"type": "Strip", "strip_left": True, "strip_right": True},
        ]
        template = {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "x", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "special_tokens": {"x": {"id": "x", "ids": [1], "tokens": ["x"]}},
        }
        file = {**unigram(), "normalizer": {"type": "Sequence", "normalizers": parts}}
        file["post_processor"] = {"type": "Sequence", "processors": [template]}
        for settings in (GENERIC, {"tokenizer_class": "T5Tokenizer", **self.SETTINGS}):
            self.each({JSON: file, CONFIG: settings}, "t5")
        self.each({JSON: bpe(), CONFIG: GENERIC}, "gpt2")
        self.each({JSON: bpe(), CONFIG: {"tokenizer_class": "Qwen2Tokenizer"}}, "qwen3")


class ConverterTest(ConvertTest):
    """The converter itself says how to convert without the tokenizer, and what it understood."""

    def fixture(self):
        fixture = T5Fixture()
        fixture.tokenizer = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0}
        fixture.files = {JSON: json.dumps(unigram()).encode()}
        return fixture

    def test_tokenizer(self):
        model = self.convert(self.fixture())
        header = model.header
        self.assertEqual(header["tokenizer"]["model"]["kind"], "unigram")
        self.assertEqual(header["tokens"]["added"], [{"id": n, "special": True} for n in range(3)])
        self.assertEqual(
            [file["name"] for file in header["files"]], ["source.pieces", "target.pieces", "scores"]
        )
        code, errors = self.run_main(self.checkpoint, quiet=None)
        self.assertIn(
            "unigram tokenizer (T5Tokenizer, 6 pieces), source: text + end token, ", errors
        )

    def test_refused_tokenizer(self):
        fixture = self.fixture()
        fixture.tokenizer["tokenizer_class"] = "BertTokenizer"
        self.refuse(fixture, CONFIG, "tokenizer_class", "--no-tokenizer converts it")
        header = self.convert(fixture, "--no-tokenizer").header
        self.assertNotIn("tokenizer", header)
        self.assertEqual(
            [file["name"] for file in header["files"]], ["source.pieces", "target.pieces"]
        )

    def test_directory_without_a_tokenizer(self):
        fixture = self.fixture()
        fixture.files = {}
        self.assertNotIn("tokenizer", self.convert(fixture).header)
        code, errors = self.run_main(self.checkpoint, quiet=None)
        self.assertIn("ids only, without a tokenizer for text, ", errors)


if __name__ == "__main__":
    unittest.main()
