#!/usr/bin/env python3
"""Tests which tokenizer the converter stores for a directory: the class that AutoTokenizer takes,
and what each class builds. The tokenizers of the families are in tests/data."""

import json
import os
import unittest

from tokenizer_fixture import (
    CONTROL,
    DATA,
    NORMAL,
    PIECES,
    TokenizerTest,
    bpe,
    sentencepiece,
    special,
    token,
    unigram,
)

FAMILIES, TOKENIZERS = (os.path.join(DATA, name) for name in ("families", "tokenizers"))
CHARSMAP, BLANKS = {"kind": "charsmap"}, {"kind": "replace", "pattern": " {2,}", "with": " "}
WHITESPACE = {"kind": "whitespace"}
MARKS = {"kind": "metaspace", "prepend": "always", "split": True}
MARKS_OUT = {"kind": "metaspace", "prepend": "always"}
GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT2_BYTES = {"kind": "byte_level", "prefix_space": False, "pattern": GPT2_WORDS}
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_OUT = [
    {"kind": "replace", "text": "▁", "with": " "},
    {"kind": "byte_fallback"},
    {"kind": "fuse"},
    {"kind": "strip", "text": " ", "left": 1, "right": 0},
]


def template(before, after):
    return {"before": before, "after": after}


class FamiliesTest(TokenizerTest):
    def check(self, directory, normalize, split, model, around, decode, language=None):
        """Checks the header of a directory, and that `source.ids` begins and ends as the template
        says. Returns the Pipeline."""
        pipeline = self.read(directory)
        header = dict(pipeline.header)
        expected = {
            "normalize": normalize,
            "split": split,
            "template": around,
            "decode": decode,
            **({"source_language": language} if language else {}),
        }
        kind = dict(header.pop("model"))
        kind.pop("unknown_score", None)
        self.assertEqual(header, expected)
        self.assertEqual(kind, model)
        name = lambda item: pipeline.languages[language] if item == "source_language" else item
        before, after = ([name(i) for i in around[side]] for side in ("before", "after"))
        with open(os.path.join(directory, "source.ids"), encoding="utf-8") as file:
            for line in file:
                ids = [int(number) for number in line.split()]
                self.assertEqual(ids[: len(before)], before)
                self.assertEqual(ids[len(ids) - len(after) :], after)
        return pipeline

    def special(self, pipeline):
        pieces = self.pieces(pipeline)
        return [pieces[entry["id"]] for entry in pipeline.added if entry.get("special")]

    def test_t5(self):
        for name, pieces in (("t5", 1100), ("flan", 1400)):
            pipeline = self.check(
                os.path.join(FAMILIES, name),
                [CHARSMAP],
                [WHITESPACE, MARKS],
                {"kind": "unigram", "unknown": 2, "byte_fallback": False},
                template([], [1]),
                [MARKS_OUT],
            )
            extra = [f"<extra_id_{n}>" for n in range(99, -1, -1)]
            self.assertEqual(self.special(pipeline), ["<pad>", "</s>", "<unk>", *extra])
            self.assertEqual(self.pieces(pipeline)[pieces - 100 : pieces], extra)
            self.assertEqual(
                self.pieces(pipeline)[pieces:], [None] * (len(self.pieces(pipeline)) - pieces)
            )
            scores = self.scores(pipeline)
            text = [n for n in range(3, pieces - 100)]
            self.assertEqual([n for n, score in enumerate(scores) if score is not None], text)
            self.assertEqual(
                pipeline.header["model"]["unknown_score"], min(scores[n] for n in text) - 10
            )
            self.assertEqual((pipeline.end, pipeline.unknown, pipeline.pad), (1, 2, 0))

    def test_t5_without_tokenizer_json_is_the_same(self):
        t5 = os.path.join(FAMILIES, "t5")
        flan = os.path.join(FAMILIES, "flan")
        with open(os.path.join(t5, "tokenizer.json"), encoding="utf-8") as file:
            charsmap = json.load(file)["normalizer"]
        first = self.read(flan)
        pieces, scores = self.pieces(first), self.scores(first)
        file = unigram()
        file["normalizer"] = charsmap
        file["model"]["vocab"] = [
            [piece, 0.0 if scores[n] is None else scores[n]]
            for n, piece in enumerate(pieces)
            if piece is not None
        ]
        second = self.read_files(
            {"tokenizer.json": file, "tokenizer_config.json": {"tokenizer_class": "T5Tokenizer"}},
            rows=len(pieces),
        )
        self.assertEqual(first.header, second.header)
        self.assertEqual(first.added, second.added)
        for one, other in zip(first.files, second.files):
            self.assertEqual((one.name, one.data), (other.name, other.data))

    def test_pegasus(self):
        pipeline = self.check(
            os.path.join(FAMILIES, "pegasus"),
            [CHARSMAP, BLANKS],
            [MARKS],
            {"kind": "unigram", "unknown": 105, "byte_fallback": False},
            template([], [1]),
            [MARKS_OUT],
        )
        unknown = [f"<unk_{n}>" for n in range(2, 103)]
        start = ["<pad>", "</s>", "<mask_2>", "<mask_1>", *unknown, "<unk>"]
        self.assertEqual(self.special(pipeline), start)
        # The pieces that stand for nothing have the lowest scores.
        self.assertEqual(pipeline.header["model"]["unknown_score"], -110.0)
        self.assertEqual(self.scores(pipeline)[:106], [None] * 106)

    def test_mbart_50(self):
        pipeline = self.check(
            os.path.join(FAMILIES, "mbart50"),
            [CHARSMAP, BLANKS],
            [MARKS],
            {"kind": "unigram", "unknown": 3, "byte_fallback": False},
            template(["source_language"], [2]),
            [MARKS_OUT],
            "en_XX",
        )
        self.assertEqual(len(pipeline.languages), 52)
        self.assertEqual(self.pieces(pipeline)[pipeline.languages["de_DE"]], "de_DE")
        self.assertEqual(self.special(pipeline)[:4], ["<s>", "<pad>", "</s>", "<unk>"])
        self.assertEqual(self.special(pipeline)[4:], [*pipeline.languages, "<mask>"])

    def test_nllb(self):
        pipeline = self.check(
            os.path.join(FAMILIES, "nllb"),
            [CHARSMAP, BLANKS],
            [MARKS],
            {
                "kind": "bpe",
                "unknown": 3,
                "byte_fallback": False,
                "fuse_unknown": True,
                "whole_words": False,
            },
            template(["source_language"], [2]),
            [MARKS_OUT],
            "eng_Latn",
        )
        self.assertEqual(len(pipeline.languages), 202)
        self.assertEqual(self.special(pipeline)[4:], [*pipeline.languages, "<mask>"])
        self.assertEqual(len(self.merges(pipeline)), 1589)
        self.assertTrue(all(a + b == c for a, b, c in self.merges(pipeline)))

    def test_m2m_100(self):
        pipeline = self.check(
            os.path.join(FAMILIES, "m2m100"),
            [],
            [],
            {"kind": "sentencepiece"},
            template(["source_language"], [2]),
            [{"kind": "sentencepiece"}],
            "en",
        )
        self.assertEqual(self.file(pipeline, "source.spm"), self.file(pipeline, "target.spm"))
        codes = [f"__{code}__" for code in pipeline.languages]
        self.assertEqual(self.special(pipeline), ["<s>", "<pad>", "</s>", "<unk>", *codes])
        self.assertEqual(self.pieces(pipeline)[889:989], codes)

    def test_bart(self):
        pipeline = self.check(
            os.path.join(FAMILIES, "bart"),
            [],
            [GPT2_BYTES],
            {"kind": "bpe", "byte_fallback": False, "fuse_unknown": False, "whole_words": False},
            template([0], [2]),
            [{"kind": "byte_level"}],
        )
        self.assertEqual(self.special(pipeline), ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
        self.assertEqual(pipeline.unknown, 3)
        self.assertEqual(self.merges(pipeline)[:2], [("e", "n", "en"), ("e", "r", "er")])

    def test_gpt2_and_opt(self):
        for name, around, found in (
            ("gpt2", template([], []), ["<|endoftext|>"]),
            ("opt", template([2], []), ["<pad>", "</s>"]),
        ):
            pipeline = self.check(
                os.path.join(TOKENIZERS, name),
                [],
                [GPT2_BYTES],
                {
                    "kind": "bpe",
                    "byte_fallback": False,
                    "fuse_unknown": False,
                    "whole_words": False,
                },
                around,
                [{"kind": "byte_level"}],
            )
            self.assertEqual(self.special(pipeline), found)

    def test_llama(self):
        pipeline = self.check(
            os.path.join(TOKENIZERS, "llama"),
            [],
            [{"kind": "metaspace", "prepend": "first", "split": False}],
            {"kind": "bpe", "byte_fallback": True, "fuse_unknown": True, "whole_words": False},
            template([1], []),
            LLAMA_OUT,
        )
        self.assertEqual(self.special(pipeline), ["<unk>", "<s>", "</s>"])
        self.assertEqual((pipeline.end, pipeline.unknown, pipeline.pad), (2, 0, None))

    def test_llama_from_its_sentencepiece_model(self):
        """The merges follow from the pieces, and the settings say which tokens stand around."""
        names = ("tokenizer.model", "config.json")
        llama = os.path.join(TOKENIZERS, "llama")
        of_json = self.read(llama)
        config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": False}
        pipeline = self.read(self.copy(llama, *names, tokenizer_config=config))
        self.assertEqual(pipeline.header, of_json.header)
        self.assertEqual(self.pieces(pipeline), self.pieces(of_json))
        self.assertEqual(self.merges(pipeline), self.merges(of_json))
        config = {
            "tokenizer_class": "LlamaTokenizer",
            "add_eos_token": True,
            "add_prefix_space": False,
        }
        pipeline = self.read(self.copy(llama, *names, tokenizer_config=config))
        self.assertEqual(pipeline.header["template"], template([], [2]))
        self.assertEqual(pipeline.header["split"][0]["prepend"], "never")
        self.assertEqual(pipeline.header["decode"], LLAMA_OUT[:3])
        config = {"tokenizer_class": "LlamaTokenizer", "legacy": True}
        pipeline = self.read(self.copy(llama, *names, tokenizer_config=config))
        self.assertEqual(pipeline.header["split"][0]["prepend"], "always")

    def test_qwen(self):
        pipeline = self.check(
            os.path.join(TOKENIZERS, "qwen3"),
            [{"kind": "unicode", "form": "nfc"}],
            [
                {
                    "kind": "pattern",
                    "pattern": QWEN_WORDS,
                    "behavior": "isolated",
                    "invert": False,
                },
                {"kind": "byte_level", "prefix_space": False},
            ],
            {"kind": "bpe", "byte_fallback": False, "fuse_unknown": False, "whole_words": False},
            template([], []),
            [{"kind": "byte_level"}],
        )
        found = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        self.assertEqual(self.special(pipeline), found)
        self.assertEqual((pipeline.end, pipeline.unknown, pipeline.pad), (1102, None, 1100))

    def test_kinds_of_a_decoder_alone(self):
        """The ids of these tokenizers are compared by tokenizer_test."""
        nfc = [{"kind": "unicode", "form": "nfc"}]
        digits = {"kind": "digits", "individual": True}
        for name, normalize, split, around, decode in (
            ("neox", nfc, [GPT2_BYTES], template([0], []), [{"kind": "byte_level"}]),
            ("cohere", nfc, [digits, GPT2_BYTES], template([5], []), [{"kind": "byte_level"}]),
            (
                "gemma",
                [{"kind": "replace", "text": " ", "with": "▁"}],
                [],
                template([2], []),
                LLAMA_OUT[:3],
            ),
        ):
            header = self.read(os.path.join(DATA, "tokenizer_kinds", name)).header
            self.assertEqual(header["normalize"], normalize, name)
            self.assertEqual(header["split"], split, name)
            self.assertEqual(header["template"], around, name)
            self.assertEqual(header["decode"], decode, name)


class ChoiceTest(TokenizerTest):
    """The class follows from tokenizer_class, from the type of the model, or from both."""

    def steps(self, file, named, model_type, **more):
        files = {"tokenizer.json": file}
        if named is not None or more:
            files["tokenizer_config.json"] = {"tokenizer_class": named, **more}
        header = self.read_files(files, model_type).header
        return header["split"], header["template"]

    def test_unigram(self):
        own, as_file = [WHITESPACE, MARKS], [MARKS]
        for named, model_type, split in (
            ("T5Tokenizer", "t5", own),
            ("T5TokenizerFast", "mt5", own),
            (None, "t5", own),
            (None, "mt5", own),
            ("PreTrainedTokenizerFast", "t5", as_file),
            ("TokenizersBackend", "t5", as_file),
            ("T5Tokenizer", "umt5", as_file),
            (None, "umt5", as_file),
            ("T5Tokenizer", None, own),
        ):
            after = [1] if split is own else []
            found = self.steps(unigram(), named, model_type)
            self.assertEqual(found, (split, template([], after)), (named, model_type))

    def test_bpe(self):
        file = bpe()
        file["pre_tokenizer"]["use_regex"] = False
        as_file, gpt2 = [{"kind": "byte_level", "prefix_space": False}], [GPT2_BYTES]
        for named, model_type, split in (
            ("GPT2Tokenizer", "gpt2", gpt2),
            (None, "opt", gpt2),
            ("GPT2TokenizerFast", "llama", gpt2),
            ("PreTrainedTokenizerFast", "gpt2", as_file),
            (None, "llama", as_file),
            ("LlamaTokenizer", "mistral", as_file),
            (None, "gpt_neox", gpt2),
            ("CohereTokenizerFast", "cohere2", [{"kind": "digits", "individual": True}, *gpt2]),
        ):
            self.assertEqual(self.steps(file, named, model_type)[0], split, (named, model_type))
        self.assertEqual(len(self.steps(file, "LlamaTokenizer", "qwen2")[0]), 2)
        self.assertEqual(
            self.steps(file, "GPT2Tokenizer", "gpt2", add_prefix_space=True)[0][0],
            {**GPT2_BYTES, "prefix_space": True},
        )

    def test_neox_ignores_the_template_of_its_file(self):
        file = bpe()
        vocabulary = file["model"]["vocab"]
        text, number = next(iter(vocabulary.items()))
        file["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": text, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [],
            "special_tokens": {text: {"id": text, "ids": [number], "tokens": [text]}},
        }
        for named, before in (("GPT2Tokenizer", [number]), ("GPTNeoXTokenizer", [])):
            found = self.steps(file, named, None, add_bos_token=True)[1]
            self.assertEqual(found, template(before, []))

    def test_config_json_names_the_class(self):
        files = {"tokenizer.json": unigram(), "config.json": {"tokenizer_class": "T5Tokenizer"}}
        self.assertEqual(self.read_files(files).header["split"], [WHITESPACE, MARKS])

    def test_mbart_with_25_languages(self):
        files = {"sentencepiece.bpe.model": sentencepiece(charsmap=b"1234")}
        pipeline = self.read_files(files, "mbart")
        self.assertEqual(pipeline.header["template"], template([], [2, "source_language"]))
        self.assertEqual(pipeline.header["normalize"], [])
        self.assertEqual(pipeline.header["split"], [WHITESPACE, MARKS])
        self.assertEqual(pipeline.header["source_language"], "en_XX")
        # The codes follow the pieces, of which fairseq has one more.
        self.assertEqual(list(pipeline.languages.values()), list(range(9, 34)))
        pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁a", "▁", "a", "b", "[x]"]
        self.assertEqual(self.pieces(pipeline)[:9], pieces)
        scores = [*[None] * 4, -1.5, -2.5, -3.25, -4.0, 0.0]
        self.assertEqual(self.scores(pipeline)[:10], [*scores, None])
        # A piece that a user defined is looked up whole.
        self.assertIn({"id": 8}, pipeline.added)

    def test_nllb(self):
        """A directory without tokenizer.json has the right codes only if the settings list the
        added tokens."""
        pieces = [*PIECES[:6], ("▁ab", -3.0, NORMAL), ("b", -4.0, NORMAL)]
        model = sentencepiece(pieces, kind=2)
        flags = {"normalized": False, "special": True}
        codes = {str(9 + n): {"content": c, **flags} for n, c in enumerate(self.codes())}
        config = {"tokenizer_class": "NllbTokenizer", "added_tokens_decoder": codes}
        files = {"sentencepiece.bpe.model": model, "tokenizer_config.json": config}
        pipeline = self.read_files(files, "m2m_100")
        self.assertEqual(pipeline.languages["ace_Arab"], 9)
        self.assertEqual(self.pieces(pipeline)[9 + 202], "<mask>")
        self.assertEqual(self.merges(pipeline), [("▁", "a", "▁a"), ("▁a", "b", "▁ab")])
        self.assertEqual(pipeline.header["template"], template(["source_language"], [2]))
        config["legacy_behaviour"] = True
        config["src_lang"] = "deu_Latn"
        pipeline = self.read_files(files, "m2m_100")
        self.assertEqual(pipeline.header["template"], template([], [2, "source_language"]))
        self.assertEqual(pipeline.header["source_language"], "deu_Latn")

    @staticmethod
    def codes():
        from languages import NLLB

        return NLLB

    def test_generic_class_with_a_sentencepiece_model(self):
        pieces = [*PIECES[:6], ("▁ab", -3.0, NORMAL), ("b", -4.0, NORMAL)]
        model = sentencepiece(pieces, kind=2, byte_fallback=1)
        pipeline = self.read_files({"tokenizer.model": model}, "llama")
        self.assertEqual(
            pipeline.header,
            {
                "normalize": [{"kind": "replace", "text": " ", "with": "▁"}],
                "split": [],
                "model": {
                    "kind": "bpe",
                    "unknown": 0,
                    "byte_fallback": True,
                    "fuse_unknown": True,
                    "whole_words": False,
                },
                "template": template([], []),
                "decode": LLAMA_OUT[:3],
            },
        )
        self.assertEqual(pipeline.end, 2)


class AddedTest(TokenizerTest):
    def read_t5(self, added=(), **settings):
        file = unigram()
        file["added_tokens"] += added
        config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, **settings}
        return self.read_files({"tokenizer.json": file, "tokenizer_config.json": config})

    def test_flags(self):
        pipeline = self.read_t5(
            [token(6, "<x>", normalized=True, lstrip=True), token(7, "<y>", single_word=True)]
        )
        special = [{"id": number, "special": True} for number in range(3)]
        added = [{"id": 6, "lstrip": True, "normalized": True}, {"id": 7, "single_word": True}]
        self.assertEqual(pipeline.added, special + added)
        self.assertEqual(self.pieces(pipeline)[6:8], ["<x>", "<y>"])
        self.assertEqual(self.scores(pipeline)[6:8], [None, None])

    def test_settings_take_the_place_of_the_list(self):
        decoder = {"6": {"content": "<x>", "rstrip": True}, "4": {"content": "▁a"}}
        pipeline = self.read_t5([token(6, "<x>", special=True)], added_tokens_decoder=decoder)
        self.assertIn({"id": 4, "normalized": True}, pipeline.added)
        self.assertIn({"id": 6, "rstrip": True, "normalized": True}, pipeline.added)
        # An added token that the model has keeps its score there.
        self.assertEqual(self.scores(pipeline)[4], -1.0)

    def test_named_tokens_are_special(self):
        pipeline = self.read_t5(cls_token="<c>", image_token="<i>", extra_special_tokens=["<e>"])
        self.assertEqual(self.pieces(pipeline)[6:9], ["<c>", "<i>", "<e>"])
        self.assertEqual(
            [entry["id"] for entry in pipeline.added if entry["special"]], [0, 1, 2, 6, 7, 8]
        )

    def test_special_tokens_beyond_the_embedding_are_left_out(self):
        file, config = unigram(), {"tokenizer_class": "T5Tokenizer", "extra_ids": 0}
        file["added_tokens"].append(special(6, "<x>"))
        files = {"tokenizer.json": file, "tokenizer_config.json": config}
        pipeline = self.read_files(files, rows=6)
        self.assertEqual([entry["id"] for entry in pipeline.added], [0, 1, 2])

    def test_files_of_older_versions(self):
        files = {
            "spiece.model": sentencepiece(
                [("<pad>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), ("<unk>", 0.0, 2), ("a", -1.0, 1)]
            ),
            "tokenizer_config.json": {"tokenizer_class": "T5Tokenizer", "extra_ids": 0},
            "special_tokens_map.json": {"additional_special_tokens": ["<e>"], "sep_token": "<s>"},
            "added_tokens.json": {"<x>": 4, "<s>": 5},
        }
        pipeline = self.read_files(files)
        self.assertEqual(self.pieces(pipeline)[4:6], ["<x>", "<s>"])
        self.assertIn({"id": 4, "normalized": True}, pipeline.added)
        self.assertIn({"id": 5, "special": True}, pipeline.added)

    def test_clean_up(self):
        """transformers does not clean up behind a BPE model."""
        name = "clean_up_tokenization_spaces"
        self.assertFalse(self.read_t5().cleans_up_spaces)
        self.assertTrue(self.read_t5(**{name: True}).cleans_up_spaces)
        files = {
            "tokenizer.json": bpe(),
            "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", name: True},
        }
        self.assertFalse(self.read_files(files).cleans_up_spaces)
        forced = f"{name}_for_bpe_even_though_it_will_corrupt_output"
        files["tokenizer_config.json"][forced] = True
        self.assertTrue(self.read_files(files).cleans_up_spaces)

    def test_scores_as_the_library_reads_them(self):
        """The library tokenizers rounds these digits twice. A class that reads the file by itself
        has the nearest number."""
        raw = json.dumps(unigram()).replace("-3.125", "-7.2095794677734375").encode()
        config = {"tokenizer_class": "PreTrainedTokenizerFast"}
        files = {"tokenizer.json": raw, "tokenizer_config.json": config}
        self.assertEqual(self.scores(self.read_files(files))[5], -7.209579467773437)
        config["tokenizer_class"] = "T5Tokenizer"
        self.assertEqual(self.scores(self.read_files(files))[5], -7.2095794677734375)


if __name__ == "__main__":
    unittest.main()
