#!/usr/bin/env python3
"""Tests how the config.json and the generation_config.json of models that are a decoder alone are
read, and what is refused. The expected values are those that transformers 5.17 was seen to use."""

import unittest

import numpy as np

from decoder_case import DecoderCase, weights_of
from checkpoint_reader import Settings
from decoder_families import DECODERS
from decoder_network import read_sizes

FULL, SLIDING = "full_attention", "sliding_attention"
OLD = {"rope_parameters": None}
# Each entry has a name, the checkpoint, the changes of its config.json, the scale of the scores,
# and the rates of rotation.
ROTATIONS = (
    (
        "parameters",
        "llama-linear",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
        0.3162278,
        (1, 0.07247796, 0.005253056, 0.0003807307, 2.759459e-05),
    ),
    (
        "keys of version 4",
        "llama-linear",
        OLD | {"rope_theta": 5000.0, "rope_scaling": None},
        0.3162278,
        (1, 0.1820564, 0.03314454, 0.006034175, 0.001098561),
    ),
    (
        "nothing",
        "llama-linear",
        OLD,
        0.3162278,
        (1, 0.1584893, 0.02511886, 0.003981071, 0.0006309573),
    ),
    (
        "parameters before keys beside them",
        "llama-linear",
        {"rope_parameters": {"rope_theta": 5000.0}, "rope_theta": 777.0},
        0.3162278,
        (1, 0.1820564, 0.03314454, 0.006034175, 0.001098561),
    ),
    (
        "a base beside parameters",
        "llama-linear",
        {"rope_parameters": {"rope_type": "default"}, "rope_theta": 777.0},
        0.3162278,
        (1, 0.2641896, 0.06979617, 0.01843942, 0.004871505),
    ),
    (
        "rope_scaling before rope_parameters",
        "llama-linear",
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 777.0},
        0.3162278,
        (0.5, 0.1320948, 0.03489808, 0.009219712, 0.002435752),
    ),
    (
        "dynamic",
        "llama-linear",
        OLD | {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        0.3162278,
        (1, 0.1584893, 0.02511886, 0.003981071, 0.0006309573),
    ),
    (
        "llama3",
        "llama",
        OLD
        | {
            "rope_theta": 500000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
        0.25,
        (
            *(1, 0.02424034, 0.004700754, 0.0009115831),
            *(0.0001767767, 3.428102e-05, 6.64787e-06, 1.289173e-06),
        ),
    ),
    (
        "yarn",
        "llama-yarn",
        OLD
        | {
            "rope_theta": 500.0,
            "rope_scaling": {
                "type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
        0.3241192,
        (
            *(1, 0.2874146, 0.05286856, 0.02431231),
            *(0.01118034, 0.005141428, 0.002364354, 0.00108728),
        ),
    ),
    (
        "yarn with every parameter",
        "llama-yarn",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "mscale": 0.7,
                "mscale_all_dim": 1.3,
                "beta_fast": 20,
                "beta_slow": 2,
                "truncate": False,
            }
        },
        0.2160035,
        (1, 0.07905694, 0.025, 0.007905695, 0.0025, 0.0007905695, 0.00025, 7.905695e-05),
    ),
    (
        "yarn with a factor for attention",
        "llama-yarn",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "attention_factor": 1.3,
            }
        },
        0.4225,
        (1, 0.2371708, 0.05, 0.007905695, 0.0025, 0.0007905695, 0.00025, 7.905695e-05),
    ),
    (
        "a part of a head",
        "phi3",
        OLD | {"rope_theta": 5000.0, "partial_rotary_factor": 0.5},
        0.3535534,
        (1, 0.01414214),
    ),
    (
        "the keys of GPT-NeoX",
        "gpt_neox",
        OLD | {"rotary_pct": 0.34, "rotary_emb_base": 5000},
        0.2886751,
        (1, 0.01414214),
    ),
    ("Cohere's base", "cohere", OLD, 0.4082483, (1, 0.01259921, 0.0001587401)),
)
# Each entry has the checkpoint, the changes of its config.json, the windows and the rows of rates.
# None stands for an absent key.
LAYERS = (
    ("llama", {"sliding_window": 7}, None, None),
    ("mistral", {}, [7, 7], None),
    ("mistral", {"sliding_window": 63}, [63, 63], None),
    ("mistral", {"sliding_window": 64}, None, None),
    # Without the key, the window is 4096.
    ("mistral", {"sliding_window": None, "max_position_embeddings": 5000}, [4096, 4096], None),
    ("qwen2", {"layer_types": None}, [0, 7], None),
    ("qwen2", {"layer_types": None, "max_window_layers": 0}, [7, 7], None),
    ("qwen2", {"layer_types": None, "max_window_layers": None}, None, None),
    ("qwen2", {"layer_types": None, "use_sliding_window": False}, None, None),
    ("qwen2", {"layer_types": [SLIDING, FULL]}, [7, 0], None),
    ("gemma2", {"layer_types": None}, [7, 0], None),
    ("gemma2", {"layer_types": [FULL, SLIDING]}, [0, 7], None),
    ("gemma3_text", {"layer_types": None, "sliding_window_pattern": 2}, [7, 0], [0, 1]),
    ("gemma3_text", {"layer_types": None}, [7, 7], None),
    ("gemma3_text", {"layer_types": [FULL, SLIDING]}, [0, 7], [0, 1]),
    ("cohere2", {}, [7, 0], [0, -1]),
    ("cohere2", {"layer_types": [FULL, SLIDING]}, [0, 7], [-1, 0]),
    ("cohere2", {"layer_types": None, "sliding_window": 64}, None, None),
    ("phi3", {"sliding_window": None}, None, None),
    ("starcoder2", {"sliding_window": None}, None, None),
)
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.5],
    "long_factor": [2.0, 3.1, 4.3, 5.0],
}
NO_OTHER = "(xlate has no other)"
# Each entry has the checkpoint, the changes of its config.json, the key that the message names, and
# more of its text.
REFUSED = (
    ("cohere", {"use_qk_norm": True}, "use_qk_norm", f"expected false {NO_OTHER}"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights", NO_OTHER),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx", "true"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention", NO_OTHER),
    ("opt", {"word_embed_proj_dim": 20}, "word_embed_proj_dim", "hidden_size 30"),
    ("opt", {"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine", NO_OTHER),
    ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention", NO_OTHER),
    (
        "gemma3_text",
        {"attn_logit_softcapping": 50.0},
        "attn_logit_softcapping",
        f"expected null {NO_OTHER}, found 50.0",
    ),
    ("llama", {"num_key_value_heads": 4}, "num_key_value_heads", "a divisor of 6 heads"),
    ("gpt2", {"n_head": 7}, "n_head", "a divisor of n_embd 30"),
    ("llama", {"hidden_act": "tanh"}, "hidden_act", "silu"),
    ("llama", {"num_hidden_layers": 0}, "num_hidden_layers", "found 0"),
    ("qwen2", {"layer_types": [FULL]}, "layer_types", "2 times"),
    ("qwen2", {"layer_types": [FULL, "chunked_attention"]}, "layer_types", "chunked"),
    ("qwen2", {"use_sliding_window": False}, "sliding_window", "nothing"),
    ("mistral", {"layer_types": [SLIDING, FULL]}, "layer_types", "sliding_attention in all"),
    ("llama", {"rope_parameters": {FULL: {}}}, f"rope_parameters.{FULL}", "its own"),
    ("gemma3_text", {"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters", FULL),
    (
        "llama",
        {"rope_parameters": {"rope_type": "mrope"}},
        "rope_parameters: rope_type",
        "found mrope",
    ),
    (
        "llama",
        OLD | {"partial_rotary_factor": 0.5},
        "rope_parameters: partial_rotary_factor",
        "1 in this family",
    ),
    (
        "llama",
        {"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4}},
        "rope_scaling: high_freq_factor",
        "nothing",
    ),
    (
        "phi3",
        {"rope_parameters": {"rope_type": "linear", "factor": 2}},
        "rope_parameters: rope_type",
        "one of default, longrope",
    ),
    (
        "phi3",
        {
            "rope_parameters": LONGROPE | {"short_factor": [1.0], "partial_rotary_factor": 0.25},
            "original_max_position_embeddings": 40,
        },
        "rope_parameters: attention_factor",
        "where a part of a head is rotated",
    ),
    ("phi3", {"rope_parameters": LONGROPE | {"short_factor": [1]}}, "rope_parameters: short_", "4"),
    ("gpt_neox", {"rope_parameters": {"partial_rotary_factor": 0.1}}, "rope_parameters: p", "1 of"),
    ("llama", {"model_type": "mixtral"}, "model_type", "a dense model"),
    ("llama", {"model_type": "qwen3_moe"}, "model_type", "a dense model"),
    ("llama", {"model_type": "bloom"}, "model_type", "one of marian, bart"),
    ("llama", {"quantization_config": {"quant_method": "awq"}}, "quantization_config", "awq"),
    ("gemma2", {"model_type": "gemma3"}, "text_config", "an object"),
)


class ConfigTest(DecoderCase):
    def attention_of(self, name, changes):
        model = self.convert(self.copy_of(name, changes))
        return model, model.header["network"]["decoder"]["attention"]

    def test_rotations(self):
        for title, name, changes, scale, rates in ROTATIONS:
            with self.subTest(title):
                model, attention = self.attention_of(name, changes)
                self.assertAlmostEqual(attention["scale"], scale, places=6)
                self.assertEqual(attention["rotary_dims"], 2 * len(rates))
                found = model.tensors["decoder.rotary.rates"]
                np.testing.assert_allclose(found, [rates], rtol=2e-6)

    def test_a_scaling_that_changes_with_the_length_bounds_the_context(self):
        changes = {"rope_parameters": LONGROPE, "original_max_position_embeddings": 40}
        code, errors = self.run_main(self.copy_of("phi3", changes))
        self.assertEqual((code, errors.count("\n")), (0, 1))
        self.assertIn("note: ", errors)
        self.assertIn("the context is 40 tokens", errors)
        # The default of Phi-3 takes precedence over the value among the parameters.
        inside = LONGROPE | {"original_max_position_embeddings": 8000}
        changes = {"rope_parameters": inside, "max_position_embeddings": 16384}
        code, errors = self.run_main(self.copy_of("phi3", changes))
        self.assertEqual(code, 0)
        self.assertIn("the context is 4096 tokens", errors)

    def test_windows_and_rates_by_layer(self):
        for name, changes, windows, rates in LAYERS:
            with self.subTest(name=name, changes=changes):
                _, attention = self.attention_of(name, changes)
                self.assertEqual(attention.get("windows"), windows)
                if name != "cohere2" or windows:
                    self.assertEqual(attention.get("rates"), rates)

    def test_bounds_and_scales(self):
        model, attention = self.attention_of("gemma2", {"query_pre_attn_scalar": 16})
        network = model.header["network"]
        self.assertEqual((attention["softcap"], attention["scale"]), (4, 0.25))
        self.assertEqual(network["output"], {"scale": 1, "softcap": 9})
        self.assertAlmostEqual(network["decoder"]["embedding"]["scale"], 30**0.5)
        # An absent key has a default.
        changes = dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping"))
        model, attention = self.attention_of("gemma2", changes)
        self.assertEqual(attention["softcap"], 50)
        self.assertEqual(model.header["network"]["output"]["softcap"], 30)
        model, _ = self.attention_of("cohere", {"logit_scale": None})
        self.assertEqual(model.header["network"]["output"], {"scale": 0.0625})

    def test_sizes_that_are_left_out(self):
        """GPT-2 may leave out the width of feed-forward layers, and Gemma 3 most sizes."""
        folder = self.copy_of("gpt2", {"n_inner": None})
        code, errors = self.run_main(folder)
        self.assertEqual(code, 1)
        self.assertIn("mlp.c_fc.weight: expected shape [30, 120], found [30, 34]", errors)
        folder = self.copy_of("gemma3_text", {"num_attention_heads": None, "head_dim": None})
        code, errors = self.run_main(folder)
        self.assertEqual(code, 1)
        self.assertIn("q_proj.weight: expected shape [2048, 30]", errors)

    def test_heads_of_keys(self):
        """null stands for as many as there are heads, and an absent key for the default."""
        sizes = {"num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 64}
        sizes |= {"intermediate_size": 96}
        for more, heads in (({}, 32), ({"num_key_value_heads": None}, 64)):
            read = read_sizes(Settings.of(sizes | more), DECODERS["qwen2"])
            self.assertEqual(read["kv_heads"], heads)

    def test_norms_after_sublayers(self):
        self.copy_of("opt", {"do_layer_norm_before": False})
        final = "model.decoder.final_layer_norm."
        self.write_weights({n: w for n, w in weights_of("opt").items() if not n.startswith(final)})
        model = self.convert(self.checkpoint)
        norm = model.header["network"]["decoder"]["norm"]
        self.assertEqual((norm["places"], norm["final"]), (["after"], False))

    def test_values_that_overflow_float16(self):
        for value, expected in (("bfloat16", True), ("float16", False)):
            model = self.convert(self.copy_of("llama", {"dtype": value}))
            self.assertIs(model.header["network"].get("overflows_float16", False), expected)

    def test_refused(self):
        for name, changes, key, text in REFUSED:
            with self.subTest(name=name, changes=changes):
                code, errors = self.run_main(self.copy_of(name, changes))
                self.assertEqual((code, errors.count("\n")), (1, 1), errors)
                self.assertIn(f"config.json: {key}", errors)
                self.assertIn(text, errors)

    def test_refused_tensors(self):
        weights = weights_of("llama")
        for changes, removed, texts in (
            ({}, "lm_head.weight", ("lm_head.weight", "none")),
            ({}, "model.layers.1.self_attn.q_proj.bias", ("q_proj.bias", "[96]", "none")),
            ({"attention_bias": False}, None, ("self_attn.k_proj.bias", "no such tensor")),
            ({"vocab_size": 98}, None, ("embed_tokens.weight", "98 rows")),
            ({"head_dim": 8}, None, ("q_proj.weight", "[48, 30]")),
        ):
            self.copy_of("llama", changes)
            self.write_weights({n: w for n, w in weights.items() if n != removed})
            code, errors = self.run_main(self.checkpoint)
            self.assertEqual((code, errors.count("\n")), (1, 1), errors)
            for text in texts:
                self.assertIn(text, errors)


class GenerationTest(DecoderCase):
    def read(self, **changes):
        return self.convert(self.copy_of("llama", generation=changes)).header

    def test_limits(self):
        for changes, expected in (
            ({}, {}),
            ({"max_length": 40}, {"max_total_length": 40}),
            ({"max_new_tokens": 30}, {"max_length": 30}),
            ({"max_length": 40, "max_new_tokens": 30}, {"max_length": 30}),
            ({"min_new_tokens": 3, "min_length": 9}, {"min_length": 3}),
            ({"min_length": 0, "repetition_penalty": 1.25}, {"repetition_penalty": 1.25}),
            ({"do_sample": True, "temperature": 0.5}, {"do_sample": True, "temperature": 0.5}),
            ({"top_k": 20, "top_p": 0.9}, {"top_k": 20, "top_p": 0.9}),
            ({"top_k": -1, "top_p": 1.5, "temperature": 0}, {}),
        ):
            generation = self.read(**changes)["generation"]
            common = {"max_source_length": 64, "ends": [2], "never_chosen": []}
            self.assertEqual(generation, common | expected)

    def test_tokens(self):
        for changes, tokens, ends in (
            ({"eos_token_id": None}, {"unknown": 0, "pad": 0}, []),
            ({"eos_token_id": [5, 4, 5]}, {"unknown": 5, "pad": 0}, [5, 4]),
            ({"pad_token_id": None}, {"unknown": 2}, [2]),
        ):
            header = self.read(**changes)
            self.assertEqual(header["tokens"], tokens)
            self.assertEqual(header["generation"]["ends"], ends)

    def test_refused(self):
        for key, value in (("forced_bos_token_id", 5), ("min_length", 3), ("guidance_scale", 2)):
            code, errors = self.run_main(self.copy_of("llama", generation={key: value}))
            self.assertEqual((code, errors.count("\n")), (1, 1), errors)
            self.assertIn(f"generation_config.json: {key}: expected ", errors)
            self.assertIn("remove the key", errors)


class SummaryTest(DecoderCase):
    def test_what_is_said_of_a_checkpoint(self):
        for name, first, second in (
            ("llama", "heads 6 and 2 for keys", "own output matrix"),
            ("gpt2", "heads 3", "output matrix tied to the embedding"),
        ):
            code, errors = self.run_main(self.copy_of(name), quiet=None)
            self.assertEqual(code, 0)
            of_file, _, rest = errors.partition("\n")
            self.assertIn(f" bytes, {name}, ", of_file)
            self.assertEqual(
                rest,
                f"convert.py: 2 layers, width 30, {first}, vocabulary 97, context 64\n"
                f"convert.py: ids only, without a tokenizer for text, {second}\n"
                "convert.py: without a tokenizer xlate reads and writes ids and pieces only, but "
                "no text\n",
            )


if __name__ == "__main__":
    unittest.main()
