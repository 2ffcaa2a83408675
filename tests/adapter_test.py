#!/usr/bin/env python3
"""Tests scripts/convert.py --adapter: what is added to the weights, and which adapters are
refused."""

import json
import os
import unittest
from unittest import mock

import numpy as np

from checkpoint_fixture import ConvertTest, Fixture, encode_safetensors
import adapter
from checkpoint_reader import Tensor

Q0 = "model.encoder.layers.0.self_attn.q_proj"
V1 = "model.decoder.layers.1.encoder_attn.v_proj"
UP = "model.encoder.layers.2.fc1"


class AdapterTest(ConvertTest):
    def setUp(self):
        super().setUp()
        self.adapter = os.path.join(self.folder, "lora")
        self.fixture, self.random = Fixture(), np.random.default_rng(5)
        self.config = {
            "peft_type": "LORA",
            "r": 3,
            "lora_alpha": 12,
            "target_modules": ["q_proj", "v_proj", "fc1"],
            "bias": "none",
            "use_dora": False,
            "fan_in_fan_out": False,
            "lora_dropout": 0.1,
            "task_type": "SEQ_2_SEQ_LM",
        }
        self.pairs = {}
        for module, shape in ((Q0, (8, 8)), (V1, (8, 8)), (UP, (12, 8))):
            self.add(module, shape, 3)

    def add(self, module, shape, rank):
        for letter, size in (("A", (rank, shape[1])), ("B", (shape[0], rank))):
            values = self.random.standard_normal(size).astype(np.float32)
            self.pairs[f"base_model.model.{module}.lora_{letter}.weight"] = values

    def write(self, dtype="F32"):
        os.makedirs(self.adapter, exist_ok=True)
        with open(os.path.join(self.adapter, "adapter_config.json"), "w") as file:
            json.dump(self.config, file)
        with open(os.path.join(self.adapter, "adapter_model.safetensors"), "wb") as file:
            file.write(encode_safetensors(self.pairs, lambda name: dtype))
        return self.adapter

    def merged(self, *options, dtype="F32"):
        return self.convert(self.fixture, "--adapter", self.write(dtype), *options)

    def expected(self, module, scale, cast=lambda values: values):
        """Returns a merged weight in double precision."""
        a, b = (
            cast(self.pairs[f"base_model.model.{module}.lora_{letter}.weight"]).astype(float)
            for letter in "AB"
        )
        return self.fixture.tensors[module + ".weight"].astype("<f2").astype(float) + scale * b @ a

    def assert_merged(self, model, scales, tolerance=1e-5, cast=lambda values: values):
        tensors = model.tensors
        found = {
            Q0: tensors["encoder.0.self.qkv.weight"][:8],
            V1: tensors["decoder.cross.keys_values.weight"][24:],
            UP: tensors["encoder.2.feed_forward.up.weight"],
        }
        for module, values in found.items():
            wanted = self.expected(module, scales[module], cast)
            np.testing.assert_allclose(values, wanted, rtol=tolerance, atol=tolerance)


class MergeTest(AdapterTest):
    def test_merging(self):
        model = self.merged()
        self.assert_merged(model, dict.fromkeys((Q0, V1, UP), 4))
        dtypes = {entry["name"]: entry["dtype"] for entry in model.header["tensors"]}
        merged = {
            "encoder.0.self.qkv.weight",
            "decoder.cross.keys_values.weight",
            "encoder.2.feed_forward.up.weight",
        }
        self.assertEqual({name for name in dtypes if dtypes[name] == "float32"}, merged)
        self.assertEqual(model.header["provenance"]["adapter"], "lora")
        plain = self.convert(self.fixture)
        for name in plain.tensors.keys() - merged:
            np.testing.assert_array_equal(plain.tensors[name], model.tensors[name], name)
        np.testing.assert_array_equal(
            plain.tensors["encoder.0.self.qkv.weight"][8:],
            model.tensors["encoder.0.self.qkv.weight"][8:],
        )

    def test_another_type_is_written(self):
        scales = dict.fromkeys((Q0, V1, UP), 4)
        for option, tolerance in (("fp32", 1e-5), ("fp16", 2e-3), ("bf16", 1e-2), ("int8", 0.3)):
            model = self.merged("--dtype", option)
            self.assert_merged(model, scales, tolerance)

    def test_adapters_of_16_bits(self):
        half = lambda values: values.astype("<f2")
        scales = dict.fromkeys((Q0, V1, UP), 4)
        self.assert_merged(self.merged(dtype="F16"), scales, cast=half)

    def test_blocks_and_whole_tensors_give_the_same(self):
        scales = dict.fromkeys((Q0, V1, UP), 4)
        with mock.patch.object(adapter, "BLOCK", 64):
            self.assert_merged(self.merged(), scales)

    def test_scales(self):
        self.config["use_rslora"] = True
        self.assert_merged(self.merged(), dict.fromkeys((Q0, V1, UP), 12 / 3**0.5))
        self.config.update(use_rslora=False, alpha_pattern={"fc1": 1, "encoder_attn.v_proj": 6.0})
        self.assert_merged(self.merged(), {Q0: 4, V1: 2, UP: 1 / 3})
        self.config["rank_pattern"] = {"model.encoder.layers.0.self_attn.q_proj": 5}
        self.add(Q0, (8, 8), 5)
        self.assert_merged(self.merged(), {Q0: 12 / 5, V1: 2, UP: 1 / 3})

    def test_target_modules_as_a_text(self):
        for text in ("all-linear", r".*\.(q_proj|v_proj|fc1)"):
            self.config["target_modules"] = text
            self.assert_merged(self.merged(), dict.fromkeys((Q0, V1, UP), 4))

    def test_an_adapter_beside_its_base_model(self):
        self.fixture.write(self.adapter)
        self.assert_merged(
            self.convert(self.write(), "--adapter", self.adapter + "/"),
            dict.fromkeys((Q0, V1, UP), 4),
        )

    def test_models_decide_how_weights_are_stored(self):
        """fan_in_fan_out says that weights are stored as [in, out]. PEFT ignores it where the model
        does not store them so, and takes it as given where the model does."""
        self.config["fan_in_fan_out"] = True
        self.assert_merged(self.merged(), dict.fromkeys((Q0, V1, UP), 4))
        loaded = adapter.Adapter(self.write())
        values = self.fixture.values(8, 12)
        base = Tensor("base", UP, "float32", (8, 12), values.view(np.uint8).reshape(-1).data)
        merged = loaded.merge(UP, loaded.pairs[UP], base, True)
        a, b = (self.pairs[f"base_model.model.{UP}.lora_{letter}.weight"] for letter in "AB")
        wanted = values + 4 * (b @ a).T
        np.testing.assert_allclose(merged.words().view("<f4"), wanted, rtol=1e-5, atol=1e-5)


class RefusalTest(AdapterTest):
    def fault(self, file, what, *found):
        checkpoint, adapter = self.fixture.write(self.checkpoint), self.write()
        code, errors = self.run_main(checkpoint, "--adapter", adapter)
        self.assertEqual((code, errors.count("\n")), (1, 1), errors)
        beginning = f"convert.py: {os.path.join(self.adapter, file)}: {what}: expected "
        self.assertTrue(errors.startswith(beginning), errors)
        for text in found:
            self.assertIn(text, errors)
        self.assertFalse(os.path.exists(self.output))

    def test_settings(self):
        for key, value in (
            ("peft_type", "IA3"),
            ("peft_type", None),
            ("use_dora", True),
            ("bias", "all"),
            ("bias", "lora_only"),
            ("lora_bias", True),
            ("modules_to_save", ["lm_head"]),
            ("trainable_token_indices", [3]),
            ("layer_replication", [[0, 2]]),
            ("init_lora_weights", "pissa"),
            ("init_lora_weights", 1),
            ("velora_config", {}),
            ("r", 0),
            ("r", "3"),
            ("lora_alpha", -1),
            ("lora_alpha", float("nan")),
            ("lora_alpha", True),
            ("use_rslora", 1),
            ("fan_in_fan_out", "no"),
            ("rank_pattern", [3]),
            ("rank_pattern", {".*q_proj": 3}),
            ("rank_pattern", {"q_proj": "3"}),
            ("alpha_pattern", {"q_proj": 0}),
            ("target_modules", None),
            ("target_modules", []),
            ("target_modules", [3]),
        ):
            good = self.config.get(key)
            self.config[key] = value
            shown = "nothing" if value is None and key == "target_modules" else ""
            self.fault("adapter_config.json", key, shown)
            self.config[key] = good

    def test_modules_and_ranks(self):
        name = "adapter_model.safetensors"
        self.config["target_modules"].append("k_proj")
        self.fault("adapter_config.json", "target_modules", 'found "k_proj" without any')
        self.config["target_modules"].pop()
        self.config["rank_pattern"] = {"fc1": 4}
        expected = "rank 4 of adapter_config.json, found 3"
        self.fault(name, f"base_model.model.{UP}.lora_A.weight", expected)
        self.config["rank_pattern"] = {"fc2": 3}
        self.fault("adapter_config.json", "rank_pattern", 'found "fc2" without any')
        self.config["rank_pattern"] = {}
        wide = f"base_model.model.{UP}.lora_B.weight"
        good = self.pairs[wide]
        self.pairs[wide] = good[:, :2]
        self.fault(name, wide, "rank 3 of adapter_config.json, found 2")
        del self.pairs[wide]
        self.fault(name, wide, "found none")

    def test_tensors(self):
        name = "adapter_model.safetensors"
        for tensor in ("base_model.model.lm_head.weight", "base_model.model.x.lora_embedding_A"):
            self.pairs[tensor] = self.fixture.values(2, 2)
            self.fault(name, tensor, "MODULE.lora_A.weight")
            del self.pairs[tensor]
        self.add("model.encoder.layers.7.fc1", (12, 8), 3)
        missing = "base_model.model.model.encoder.layers.7.fc1.lora_A.weight"
        self.fault(name, missing, "layers.7.fc1.weight in model.safetensors, found none")
        self.pairs = {}
        self.config["target_modules"] = "all-linear"
        self.fault(name, "tensors", "found none")

    def test_shapes(self):
        self.add(UP, (8, 12), 3)
        code, errors = self.run_main(self.fixture.write(self.checkpoint), "--adapter", self.write())
        self.assertEqual((code, errors.count("\n")), (1, 1), errors)
        self.assertIn(f"{UP}.weight: expected a matrix [8, 12] as the adapter has", errors)
        self.assertIn("found float16 [12, 8]", errors)

    def test_files(self):
        checkpoint = self.fixture.write(self.checkpoint)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            self.write()
            os.remove(os.path.join(self.adapter, name))
            code, errors = self.run_main(checkpoint, "--adapter", self.adapter)
            self.assertEqual((code, errors.count("\n")), (1, 1), errors)
            self.assertIn(f"{name}: file: expected a readable file, found No such file", errors)


if __name__ == "__main__":
    unittest.main()
