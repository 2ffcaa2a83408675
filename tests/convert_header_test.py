#!/usr/bin/env python3
"""Tests what the converter writes to the header of model.bin."""

import json
import os
import unittest

from checkpoint_fixture import (
    ConvertTest,
    Fixture,
)
from t5_fixture import T5Fixture


class HeaderTest(ConvertTest):
    def test_config(self):
        fixture = Fixture()
        model = self.convert(fixture, "--license", "CC0; füße")
        stack = lambda layers, heads, ffn, causal: {
            "layers": layers,
            "width": 8,
            "causal": causal,
            "parallel": False,
            "residual_scale": 1.0,
            "embedding": {
                "vocabulary": 11,
                "scale": 8**0.5,
                "positions": "sinusoidal",
                "offset": 0,
                "rate": 4.0,
                "norm": False,
            },
            "norm": {"kind": "layer", "epsilon": 1e-5, "places": ["after"], "final": False},
            "attention": {
                "heads": heads,
                "kv_heads": heads,
                "head": 8 // heads,
                "scale": (8 // heads) ** -0.5,
            },
            "feed_forward": {"width": ffn, "activation": "swish", "gated": False},
        }
        self.assertEqual(
            model.header["network"],
            {
                "encoder": stack(3, 2, 12, False),
                "decoder": stack(2, 4, 20, True),
                "output": {"scale": 1.0},
            },
        )
        self.assertEqual(model.header["generation"]["max_source_length"], 512)
        self.assertEqual(
            model.header["provenance"],
            {
                "converter": "scripts/convert.py",
                "source": "tiny",
                "family": "marian",
                "license": "CC0; füße",
            },
        )
        self.assertEqual(
            self.convert(self.checkpoint + "/", "--license", "CC0; füße").data, model.data
        )

    def overflows(self, fixture):
        network = self.convert(fixture, "--dtype", "fp32").header["network"]
        self.assertIn(network.get("overflows_float16"), (None, True))
        return network.get("overflows_float16", False)

    def test_overflow_of_float16(self):
        """config.json says in which type a model was trained. Where it does not, the stored
        matrices do."""
        matrices_alone = lambda name: "F32" if "norm" in name or "bias" in name else "BF16"
        vectors_alone = lambda name: "BF16" if "norm" in name else "F32"
        for dtype, config, expected in (
            ("F32", {}, False),
            ("F16", {}, False),
            ("BF16", {}, True),
            (matrices_alone, {}, True),
            (vectors_alone, {}, False),
            ("F32", {"dtype": "bfloat16"}, True),
            ("F32", {"torch_dtype": "bfloat16"}, True),
            ("F32", {"torch_dtype": "torch.bfloat16"}, True),
            ("BF16", {"dtype": "float32"}, False),
            ("BF16", {"torch_dtype": "float16"}, False),
            ("BF16", {"dtype": "float32", "torch_dtype": "bfloat16"}, False),
            ("BF16", {"dtype": None, "torch_dtype": "auto"}, True),
            ("BF16", {"dtype": {"": 1}}, True),
        ):
            fixture = Fixture(dtype=dtype)
            fixture.config.update(config)
            self.assertEqual(self.overflows(fixture), expected, (dtype, config))

    def test_t5_overflows_float16_in_every_type(self):
        for kind in ("t5", "mt5"):
            for dtype in ("F32", "F16", "BF16"):
                fixture = T5Fixture(kind)
                fixture.dtype = dtype
                fixture.config["dtype"] = "float32"
                self.assertTrue(self.overflows(fixture), (kind, dtype))

    def test_activations_and_scale(self):
        for theirs, ours in (
            ("relu", "relu"),
            ("swish", "swish"),
            ("silu", "swish"),
            ("gelu", "gelu"),
            ("gelu_new", "gelu_tanh"),
            ("gelu_pytorch_tanh", "gelu_tanh"),
            ("gelu_fast", "gelu_tanh"),
        ):
            fixture = Fixture()
            fixture.config.update(activation_function=theirs, scale_embedding=False)
            stack = self.convert(fixture).header["network"]["decoder"]
            self.assertEqual(
                (stack["feed_forward"]["activation"], stack["embedding"]["scale"]), (ours, 1.0)
            )
        del fixture.config["scale_embedding"]
        self.assertEqual(
            self.convert(fixture).header["network"]["encoder"]["embedding"]["scale"], 1.0
        )

    def test_generation(self):
        twice = {"repetition_penalty": 2.0}
        cases = (
            ({"num_beams": None}, {"beam_size": None}),
            ({"num_beams": 1}, {"beam_size": 1}),
            ({"length_penalty": 0.6}, {"length_penalty": 0.6}),
            ({"length_penalty": 2}, {"length_penalty": 2.0}),
            ({"early_stopping": True}, {"early_stopping": "true"}),
            ({"early_stopping": False}, {"early_stopping": "false"}),
            ({"early_stopping": "never"}, {"early_stopping": "never"}),
            ({"max_length": 200}, {"max_length": 199}),
            ({"max_new_tokens": 77}, {"max_length": 77}),
            ({"max_length": None}, {"max_length": None}),
            ({"forced_bos_token_id": 7}, {"forced_first": 7}),
            ({"forced_eos_token_id": None}, {"forced_end": None}),
            ({"forced_eos_token_id": [0]}, {"forced_end": 0}),
            ({"renormalize_logits": True}, {"renormalize": True}),
            ({"bad_words_ids": [[4], [3], [4]]}, {"never_chosen": [3, 4, 10]}),
            ({"bad_words_ids": None, "suppress_tokens": [5, 2]}, {"never_chosen": [2, 5, 10]}),
            # generate() keeps the end token possible.
            (
                {"bad_words_ids": [[0], [3]]},
                {"never_chosen": [3, 10]},
            ),
            ({"no_repeat_ngram_size": 0, "repetition_penalty": 1.0, "min_length": 0}, {}),
            ({"no_repeat_ngram_size": 3, "repetition_penalty": 2}, {"no_repeat_ngram": 3, **twice}),
            # min_length counts the start token, and min_new_tokens wins.
            ({"min_length": 12}, {"min_length": 11}),
            ({"min_length": 1}, {}),
            ({"min_length": 12, "min_new_tokens": 5}, {"min_length": 5}),
            ({"min_length": 12, "min_new_tokens": 0}, {}),
            ({"eos_token_id": [3, 0, 3]}, {"ends": [3, 0]}),
            (
                {"temperature": 0.7, "top_k": 50, "transformers_version": "4.0", "use_cache": True},
                {"temperature": 0.7, "top_k": 50},
            ),
        )
        defaults = {"beam_size": 6, "max_length": 511, "forced_end": 0, "never_chosen": [10]}
        for change, result in cases:
            fixture = Fixture()
            fixture.generation.update(change)
            expected = {
                key: value for key, value in dict(defaults, **result).items() if value is not None
            }
            self.assertEqual(self.generation_of(self.convert(fixture)), expected, change)

    def test_config_speaks_for_a_missing_generation_config_only(self):
        fixture = Fixture()
        fixture.config.update(num_beams=3, max_length=100, bad_words_ids=[[10]])
        self.assertEqual(self.convert(fixture).header["generation"]["beam_size"], 6)
        fixture.config["encoder_no_repeat_ngram_size"] = 3
        self.convert(fixture)
        fixture.generation = None
        os.remove(os.path.join(self.checkpoint, "generation_config.json"))
        os.remove(self.output)
        self.refuse(
            fixture,
            "config.json",
            "encoder_no_repeat_ngram_size",
            "found 3",
            "remove the key",
        )
        del fixture.config["encoder_no_repeat_ngram_size"]
        self.assertEqual(
            self.generation_of(self.convert(fixture)),
            {"beam_size": 3, "max_length": 99, "forced_end": 0, "never_chosen": [10]},
        )

    def test_token_ids_come_from_one_file(self):
        """The settings of generation come from generation_config.json if it is there, otherwise
        from config.json. What that file does not say is not taken from the other one."""

        def header(generation, config):
            fixture = Fixture(layers=(1, 1))
            fixture.generation = generation
            for key in (
                "decoder_start_token_id",
                "bos_token_id",
                "eos_token_id",
                "pad_token_id",
                "forced_eos_token_id",
            ):
                fixture.config.pop(key, None)
            fixture.config.update(config)
            fixture.write(self.checkpoint)
            if generation is None and os.path.exists(
                os.path.join(self.checkpoint, "generation_config.json")
            ):
                os.remove(os.path.join(self.checkpoint, "generation_config.json"))
            model = self.convert(self.checkpoint)
            return {**model.header["tokens"], **self.generation_of(model)}

        hidden = {
            "decoder_start_token_id": 9,
            "bos_token_id": 8,
            "eos_token_id": 7,
            "pad_token_id": 6,
            "num_beams": 3,
        }
        # The pad is the tokenizer's own <pad>.
        every = {"end": 0, "unknown": 1, "pad": 10}
        for generation, config, expected in (
            ({"decoder_start_token_id": 4}, hidden, {"start": 4, "ends": [], "never_chosen": []}),
            ({"bos_token_id": 5}, hidden, {"start": 5, "ends": [], "never_chosen": []}),
            (
                {"bos_token_id": 5, "decoder_start_token_id": 4, "eos_token_id": [0]},
                hidden,
                {"start": 4, "never_chosen": []},
            ),
            (
                {"bos_token_id": [5], "eos_token_id": [3, 3]},
                hidden,
                {"start": 5, "ends": [3], "never_chosen": []},
            ),
            (
                {"bos_token_id": 5, "eos_token_id": [], "pad_token_id": 10},
                hidden,
                {"start": 5, "ends": [], "pad": 10, "never_chosen": [10]},
            ),
            (
                {"bos_token_id": 5, "eos_token_id": 3, "pad_token_id": 3},
                hidden,
                {"start": 5, "ends": [3], "pad": 3, "never_chosen": []},
            ),
            (
                {"decoder_start_token_id": None, "bos_token_id": 5, "eos_token_id": None},
                hidden,
                {"start": 5, "ends": [], "never_chosen": []},
            ),
            (
                None,
                hidden,
                {"start": 9, "ends": [7], "pad": 6, "never_chosen": [6], "beam_size": 3},
            ),
            (None, {"bos_token_id": 8, "eos_token_id": 0}, {"start": 8, "never_chosen": []}),
        ):
            self.assertEqual(
                header(generation, config), {**every, **expected}, (generation, config)
            )

    def test_added_tokens(self):
        token = lambda text, **flags: dict(content=text, **flags)
        listed = lambda number, **flags: dict(
            {
                "id": number,
                "lstrip": False,
                "rstrip": False,
                "single_word": False,
                "special": False,
            },
            **flags,
        )
        every = {"</s>": 0, "<unk>": 1, "<pad>": 10}
        for tokenizer, files, expected in (
            (
                {
                    "added_tokens_decoder": {
                        "2": token("<A>", lstrip=True),
                        "0": token("</s>", special=True),
                    }
                },
                {},
                [listed(2, lstrip=True)],
            ),
            (
                {"added_tokens_decoder": {"2": token("<A>", special=True)}},
                {},
                [listed(2, special=True)],
            ),
            (
                {"added_tokens_decoder": {"2": token("<A>")}, "extra_special_tokens": ["<A>"]},
                {},
                [listed(2, special=True)],
            ),
            (
                {
                    "added_tokens_decoder": {"2": token("<A>")},
                    "additional_special_tokens": [token("<A>")],
                },
                {},
                [listed(2, special=True)],
            ),
            (
                {"added_tokens_decoder": {"2": token("<A>")}, "mask_token": "<A>"},
                {},
                [listed(2, special=True)],
            ),
            # The empty added_tokens_decoder alone counts.
            (
                {"added_tokens_decoder": {}},
                {"added_tokens.json": {"<A>": 2}},
                None,
            ),
            ({}, {"added_tokens.json": dict(every, **{"<A>": 2})}, [listed(2)]),
            (
                {},
                {
                    "added_tokens.json": {"<A>": 2},
                    "special_tokens_map.json": {"additional_special_tokens": ["<A>"]},
                },
                [listed(2, special=True)],
            ),
            (
                {},
                {"tokenizer.json": {"added_tokens": [{"id": 2, "content": "<A>", "rstrip": True}]}},
                [listed(2, rstrip=True)],
            ),
            ({"split_special_tokens": True}, {"added_tokens.json": {"<A>": 2}}, None),
            # This added token is a piece of the vocabulary.
            (
                {"added_tokens_decoder": {"5": token("▁s5", single_word=True)}},
                {},
                [listed(5, single_word=True)],
            ),
            # This id has no row, and no line can contain the token.
            ({"added_tokens_decoder": {"99": token("<A>", special=True)}}, {}, None),
        ):
            fixture = Fixture(layers=(1, 1))
            fixture.tokenizer.update(tokenizer)
            fixture.files.update(
                {name: json.dumps(value).encode() for name, value in files.items()}
            )
            model = self.convert(fixture)
            self.assertEqual(model.header["tokens"].get("added"), expected, (tokenizer, files))
            if expected and expected[0]["id"] == 2:
                self.assertEqual(
                    (model.pieces("source")[2], model.pieces("target")[2]), ("<A>", "<A>")
                )
            for name in files:
                os.remove(os.path.join(self.checkpoint, name))

    def test_spaces_to_be_cleaned_up(self):
        for value in (True, False, None):
            fixture = Fixture(layers=(1, 1))
            fixture.tokenizer["clean_up_tokenization_spaces"] = value
            self.assertEqual(
                self.convert(fixture).header["tokens"].get("clean_up_spaces"), value or None
            )

    def test_a_checkpoint_that_samples_by_default(self):
        for value in (True, False, None):
            fixture = Fixture(layers=(1, 1))
            fixture.generation["do_sample"] = value
            self.assertEqual(
                self.convert(fixture).header["generation"].get("do_sample"), value or None
            )

    def test_sentencepiece_models_are_kept(self):
        fixture = Fixture()
        model = self.convert(fixture)
        self.assertEqual(
            [model.files[name] for name in fixture.files], list(fixture.files.values())
        )
        fixture.files["target.spm"] = fixture.files["source.spm"]
        model = self.convert(fixture)
        self.assertEqual(model.offset("source.spm"), model.offset("target.spm"))

    def test_one_vocabulary_although_another_lies_beside_it(self):
        fixture = Fixture(source=11, target=11)
        fixture.tokenizer["separate_vocabs"] = False
        self.assertEqual(self.convert(fixture).pieces("target")[3], "▁s3")
        fixture.tokenizer = None
        os.remove(os.path.join(self.checkpoint, "tokenizer_config.json"))
        self.assertEqual(self.convert(fixture).pieces("target")[3], "▁t3")

    def test_unknown_token(self):
        fixture = Fixture()
        fixture.vocab["?"] = fixture.vocab.pop("▁s4")
        fixture.tokenizer["unk_token"] = "?"
        self.assertEqual(self.convert(fixture).header["tokens"]["unknown"], 4)


if __name__ == "__main__":
    unittest.main()
