#!/usr/bin/env python3
"""Tests what the converter says of tensors that are no weights, and of checkpoints that xlate does
not support: quantised ones, mixtures of experts and adapters. It also tests the two lines that say
what the converter understood."""

import json
import os
import struct
import unittest

import numpy as np

from checkpoint_fixture import ConvertTest, Fixture, encode_safetensors
from t5_fixture import T5Fixture

FC1 = "model.encoder.layers.0.fc1"


class BuffersTest(ConvertTest):
    def with_tensor(self, name, dtype, shape):
        """Returns a fixture whose safetensors have one more tensor, which may have any type."""
        fixture = Fixture(layers=(1, 1))
        fixture.tensors.pop(name, None)
        whole = encode_safetensors(fixture.tensors, lambda name: "F16")
        start = 8 + int.from_bytes(whole[:8], "little")
        header, end = json.loads(whole[8:start]), len(whole) - start
        sizes = {"I64": 8, "F64": 8, "I32": 4, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F32": 4, "I8": 1}
        size = int(np.prod(shape)) * sizes[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        text = json.dumps(header).encode()
        data = struct.pack("<Q", len(text)) + text + whole[start:] + bytes(size)
        fixture.files["model.safetensors"] = data
        return fixture

    def test_known_buffers_are_skipped(self):
        plain = self.convert(Fixture(layers=(1, 1))).data
        for name, dtype in (
            ("model.encoder.embed_positions.position_ids", "I64"),
            ("position_ids", "I64"),
            ("model.decoder.layers.0.attn.bias", "BOOL"),
            ("model.decoder.layers.0.attn.masked_bias", "F32"),
            ("masked_bias", "F32"),
            ("gpt_neox.layers.0.attention.bias", "BOOL"),
            ("model.layers.0.self_attn.rotary_emb.inv_freq", "F32"),
            ("model.norm.num_batches_tracked", "I64"),
            ("encoder.version", "F32"),
            ("model.decoder.embed_positions._float_tensor", "F32"),
        ):
            self.assertEqual(self.convert(self.with_tensor(name, dtype, [1, 3])).data, plain, name)

    def test_other_types_are_refused(self):
        for dtype, ours in (
            ("I64", "int64"),
            ("I32", "int32"),
            ("U8", "uint8"),
            ("BOOL", "bool"),
            ("F64", "float64"),
            ("F8_E4M3", "float8_e4m3"),
        ):
            fixture = self.with_tensor("counts", dtype, [2, 3])
            self.refuse(fixture, "model.safetensors", "counts", "no such", f"found {ours} [2, 3]")
            fixture = self.with_tensor(FC1 + ".bias", dtype, [12])
            self.refuse(
                fixture,
                "model.safetensors",
                FC1 + ".bias",
                f"expected float32, float16 or bfloat16, found {ours}",
            )
        fixture = self.with_tensor("self_attn.bias", "F32", [3])
        self.refuse(fixture, "model.safetensors", "self_attn.bias", "no such tensor")


class QuantisedTest(ConvertTest):
    def test_settings(self):
        for value, found in (
            ({"quant_method": "awq", "bits": 4}, '"awq"'),
            ({"quant_method": "gptq"}, '"gptq"'),
            ({"quant_method": "bitsandbytes", "load_in_8bit": True}, '"bitsandbytes"'),
            ({"quant_method": "fp8"}, '"fp8"'),
            ({"quant_method": "mxfp4"}, '"mxfp4"'),
            ({"quant_algo": "NVFP4"}, '{"quant_algo": "NVFP4"}'),
            ("int4", '"int4"'),
        ):
            fixture = Fixture()
            fixture.config["quantization_config"] = value
            self.refuse(
                fixture,
                "config.json",
                "quantization_config",
                "weights of 16 or 32 bits (convert the original checkpoint",
                f"found {found}\n",
            )
        fixture = Fixture()
        fixture.config["quantization_config"] = None
        self.convert(fixture)

    def test_tensors(self):
        for name in (
            "qweight",
            "qzeros",
            "scales",
            "g_idx",
            "SCB",
            "weight.absmax",
            "weight.nested_absmax",
            "weight.quant_map",
            "weight.quant_state.bitsandbytes__nf4",
            "weight_scale",
            "weight_scale_inv",
            "weight_scale_2",
            "input_scale",
            "weight_packed",
            "gate_up_proj_blocks",
            "down_proj_scales",
        ):
            fixture = Fixture(layers=(1, 1))
            fixture.tensors[f"{FC1}.{name}"] = fixture.values(2, 3)
            self.refuse(
                fixture,
                "model.safetensors",
                f"{FC1}.{name}",
                "the original checkpoint",
                "found float16 [2, 3], as quantised checkpoints have it",
            )


class ExpertsTest(ConvertTest):
    def test_settings(self):
        for key, value in (
            ("model_type", "nllb-moe"),
            ("model_type", "switch_transformers"),
            ("model_type", "qwen2_moe"),
            ("model_type", "mixtral"),
            ("num_experts", 8),
            ("num_local_experts", 8),
            ("n_routed_experts", 64),
        ):
            fixture = Fixture()
            fixture.config[key] = value
            self.refuse(fixture, "config.json", key, "no mixtures of experts", json.dumps(value))
        for value in (None, 0, 1):
            fixture = Fixture()
            fixture.config["num_experts"] = value
            self.convert(fixture)

    def test_tensors(self):
        for name in (
            "model.encoder.layers.0.ffn.router.classifier.weight",
            "model.encoder.layers.0.ffn.experts.expert_0.fc1.weight",
            "model.layers.0.block_sparse_moe.gate.weight",
        ):
            fixture = Fixture(layers=(1, 1))
            fixture.tensors[name] = fixture.values(3)
            self.refuse(fixture, "model.safetensors", name, "as mixtures of experts have it")


class AdaptersTest(ConvertTest):
    def test_adapters_without_a_base_model(self):
        os.mkdir(self.checkpoint)
        with open(os.path.join(self.checkpoint, "adapter_config.json"), "w") as file:
            file.write('{"peft_type": "LORA"}')
        self.refuse(
            self.checkpoint,
            "adapter_config.json",
            "checkpoint",
            "convert the base model with --adapter",
            "found an adapter without a base model",
        )
        fixture = Fixture()
        fixture.files["adapter_config.json"] = b"{}"
        self.refuse(fixture, "adapter_config.json", "checkpoint", "found an adapter beside a model")


class SummaryTest(ConvertTest):
    def summary(self, fixture):
        code, errors = self.run_main(fixture.write(self.checkpoint), quiet=None)
        self.assertEqual(code, 0, errors)
        first, *lines = errors.splitlines()
        self.assertIn(fixture.config["model_type"] + ", ", first)
        return lines

    def test_lines(self):
        self.assertEqual(
            self.summary(Fixture(source=11, target=13, heads=(2, 2))),
            [
                "convert.py: 3 + 2 layers, width 8, heads 2, vocabulary 11 and 13",
                "convert.py: SentencePiece tokenizer, no language codes, output matrix tied to the "
                "embedding",
            ],
        )
        os.remove(os.path.join(self.checkpoint, "tokenizer_config.json"))
        self.assertEqual(
            self.summary(T5Fixture(own_output=True)),
            [
                "convert.py: 2 + 1 layers, width 8, heads 2, vocabulary 11",
                "convert.py: ids only, without a tokenizer for text, no language codes, own output "
                "matrix",
                "convert.py: without a tokenizer xlate reads and writes ids and pieces only, but "
                "no text",
                "convert.py: its values may overflow float16: a GPU computes in bfloat16 by "
                "default",
            ],
        )

    def test_errors_come_alone(self):
        fixture = Fixture()
        fixture.config["d_model"] = 0
        code, errors = self.run_main(fixture.write(self.checkpoint), quiet=None)
        self.assertEqual((code, errors.count("\n")), (1, 1))
        self.assertFalse(os.path.exists(self.output))


if __name__ == "__main__":
    unittest.main()
