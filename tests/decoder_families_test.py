#!/usr/bin/env python3
"""Converts the checkpoints of models that are a decoder alone, and compares the logits of their
model.bin with those of transformers. decoder_walker.py computes them as docs/model-format.md says.
The checkpoints are those folders random-… of tests/data/families that
scripts/golden_decoders.py makes. Where the reference folder is there, the greedy continuations of
its trained models are compared, too.
"""

import json
import os
import unittest

import numpy as np

from checkpoint_fixture import ConvertTest, read
from decoder_case import DecoderCase, folder_of, ids_of, weights_of
from decoder_walker import Decoder
from program import ROOT

REFERENCE = os.path.join(
    os.environ.get("XLATE_REFERENCE_DIR") or os.path.join(ROOT, "..", "shared"),
    "models",
    "families",
)
RANDOM = (
    "gpt2",
    "opt",
    "llama",
    "llama-linear",
    "llama-yarn",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi3",
    "gpt_neox",
    "starcoder2",
    "cohere",
    "cohere2",
)
TRAINED = ("gpt2", "llama", "qwen3", "opt")
# So many lines of each trained model are continued, each with at most so many tokens.
LINES, MOST = 6, 40


class LogitsTest(DecoderCase):
    """Has a test for each family, test_NAME."""

    def assert_logits(self, model, name):
        """Compares the logits of a converted checkpoint with those of transformers."""
        expected = np.load(os.path.join(folder_of(name), "logits.npy"))
        found = Decoder(model.header, model.tensors).logits(
            ids_of(folder_of(name), "target.ids")[0]
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4, err_msg=name)

    def check(self, name):
        model = self.convert(folder_of(name))
        network, tokens = model.header["network"], model.header["tokens"]
        self.assertEqual(set(network) - {"overflows_float16"}, {"decoder", "output"})
        self.assertEqual(network.get("overflows_float16", False), "gemma" in name)
        self.assertEqual(tokens, {"unknown": 2, "pad": 0})
        generation = model.header["generation"]
        self.assertEqual(generation["max_source_length"], 64)
        self.assertEqual(generation["never_chosen"], [])
        expected = json.loads(read(folder_of(name), "generation_config.json"))["eos_token_id"]
        self.assertEqual(generation["ends"], expected if isinstance(expected, list) else [expected])
        self.assert_logits(model, name)


for name in RANDOM:
    setattr(LogitsTest, f"test_{name.replace('-', '_')}", lambda self, n=name: self.check(n))


class FormsTest(DecoderCase):
    """Tests the forms in which the same checkpoint may be stored."""

    def assert_same_model(self, folder, name):
        """Expects that a folder gives the tensors and the network of the checkpoint `name`."""
        expected, found = self.convert(folder_of(name)), self.convert(folder)
        self.assertEqual(found.header["network"], expected.header["network"])
        self.assert_tensors(found, expected.tensors)

    def test_names_without_the_first_part(self):
        for name, first in (("gpt2", "transformer."), ("llama", "model."), ("opt", "model.")):
            folder = self.copy_of(name)
            self.write_weights({n.removeprefix(first): w for n, w in weights_of(name).items()})
            self.assert_same_model(folder, name)

    def test_a_model_that_reads_images_too(self):
        vision = {
            "vision_tower.encoder.weight": np.ones((2, 3), np.float32),
            "multi_modal_projector.weight": np.ones((2, 3), np.float32),
        }
        name = "gemma3_text"
        config = json.loads(read(folder_of(name), "config.json"))
        for first in ("language_model.model.", "model.language_model."):
            folder = self.copy_of(name)
            weights = {first + n.removeprefix("model."): w for n, w in weights_of(name).items()}
            self.write_weights(weights | vision)
            self.write_json("config.json", {"model_type": "gemma3", "text_config": config})
            self.assert_same_model(folder, name)

    def test_an_output_matrix_of_its_own_is_used_though_it_is_tied(self):
        folder, head = self.copy_of("qwen2"), np.ones((97, 30), np.float32)
        self.write_weights(weights_of("qwen2") | {"lm_head.weight": head})
        model = self.convert(folder)
        np.testing.assert_array_equal(model.tensors["decoder.projection.weight"], head)

    def test_other_types(self):
        """Gains that are stored less 1, and the rates of rotation, are not rounded."""
        plain = self.convert(folder_of("gemma2"))
        for dtype in ("fp16", "bf16", "int8"):
            model = self.convert(folder_of("gemma2"), "--dtype", dtype)
            for name in (
                "decoder.rotary.rates",
                "decoder.norm.weight",
                "decoder.1.feed_forward.norm_inside.weight",
            ):
                np.testing.assert_array_equal(model.tensors[name], plain.tensors[name], name)

    def test_a_shared_norm_is_stored_once(self):
        model = self.convert(folder_of("cohere"))
        names = (f"decoder.1.{part}.norm_before.weight" for part in ("self", "feed_forward"))
        self.assertEqual(len({model.offset(name) for name in names}), 1)

    def test_adapters(self):
        """An adapter is merged before rows are moved and matrices are transposed."""
        for name, module, swapped in (
            ("gpt2", "transformer.h.1.attn.c_attn", True),
            ("gpt_neox", "gpt_neox.layers.0.attention.query_key_value", False),
            ("cohere", "model.layers.1.self_attn.q_proj", False),
        ):
            weights = weights_of(name)
            base = weights[f"{module}.weight"]
            adapter, product = self.write_adapter(module, base.shape, swapped)
            merged = self.convert(folder_of(name), "--adapter", adapter, "--dtype", "fp32")
            self.copy_of(name)
            self.write_weights(weights | {f"{module}.weight": base + product}, "F32")
            expected = self.convert(self.checkpoint, "--dtype", "fp32")
            for tensor, values in expected.tensors.items():
                np.testing.assert_allclose(merged.tensors[tensor], values, atol=1e-5)

    def write_adapter(self, module, shape, swapped):
        """Writes an adapter for a weight of this shape. Returns its folder and what it adds."""
        random, adapter = np.random.default_rng(1), os.path.join(self.folder, "adapter")
        outputs, inputs = shape[::-1] if swapped else shape
        narrow, wide = (
            random.standard_normal(size).astype(np.float32) for size in ((2, inputs), (outputs, 2))
        )
        os.makedirs(adapter, exist_ok=True)
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "fan_in_fan_out": swapped}
        config["target_modules"] = [module.rsplit(".", 1)[1]]
        with open(os.path.join(adapter, "adapter_config.json"), "w", encoding="utf-8") as file:
            json.dump(config, file)
        pair = {"lora_A": narrow, "lora_B": wide}
        self.write_weights(
            {f"base_model.model.{module}.{key}.weight": value for key, value in pair.items()},
            "F32",
            os.path.join(adapter, "adapter_model.safetensors"),
        )
        product = wide @ narrow
        return adapter, product.T if swapped else product


@unittest.skipUnless(os.path.isdir(os.path.join(REFERENCE, "gpt2")), "no reference folder")
class ReferenceTest(ConvertTest):
    def test_greedy_continuations(self):
        for name in TRAINED:
            folder = os.path.join(REFERENCE, name)
            model = self.convert(folder)
            network = Decoder(model.header, model.tensors)
            rows = read(folder, "greedy.txt").decode().splitlines()
            for prompt, row in list(zip(ids_of(folder, "source.ids"), rows))[:LINES]:
                _, ids, ended, _ = row.split(" ||| ")
                found, is_end = network.continue_greedily(
                    prompt, model.header["generation"]["ends"], MOST
                )
                self.assertEqual(" ".join(map(str, found)), ids, (name, prompt))
                self.assertEqual("end" if is_end else "cut", ended)


if __name__ == "__main__":
    unittest.main()
