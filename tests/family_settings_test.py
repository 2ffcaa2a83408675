#!/usr/bin/env python3
"""Tests how scripts/families.py reads the checkpoints of each family. The expected values are those
that transformers 5.17 was seen to use."""

import json
import os
import shutil
import unittest

import numpy as np

from checkpoint_fixture import ConvertTest, Fixture, TIED, sentencepiece_model
from t5_fixture import T5Fixture

T5_TIED = ("shared.weight", *(name.removeprefix("model.") for name in TIED[1:]))
# An entry STORED:USED says which matrices the encoder, the decoder and the output use, in this
# order, where the file has those of STORED. S is the shared matrix, E the encoder's, D the
# decoder's and H the output's.
COMMON = (
    "S:SSS E:EEE D:DDD H:HHH SE:ESS SD:SDS SH:SSH SED:EDS SEH:ESH SDH:SDH EDH:EDH SEDH:EDH"
).split()
PRESENCE = {
    "mbart": "ED:EDD EH:EHH DH:HDH",
    "m2m_100": "ED:EDD EH:EHH DH:HDH",
    "pegasus": "ED:EDD EH:EHH DH:HDH",
    "t5": "ED:EDE EH:EHH DH:HDH",
    "mt5": "ED:EDE EH:EEH DH:DDH",
}


def fairseq_fixture(kind, **options):
    """Returns a tiny checkpoint of a family with the tensor names of fairseq's descendants. It has
    one layer in each stack unless `options` say otherwise."""
    fixture = Fixture(**{"layers": (1, 1), **options})
    for key in ("normalize_before", "normalize_embedding", "add_final_layer_norm"):
        del fixture.config[key]
    for key in ("static_position_embeddings", "share_encoder_decoder_embeddings"):
        del fixture.config[key]
    fixture.config.update(model_type=kind, pad_token_id=1, max_position_embeddings=16)
    if kind == "m2m_100":
        del fixture.tensors["final_logits_bias"]
        fixture.files["vocab.json"] = b'{"a": 0}'
        fixture.vocab = None
    for stack in ("encoder", "decoder"):
        norms = ["layer_norm"] + ["layernorm_embedding"] * (kind in ("bart", "mbart"))
        for norm in norms[kind == "bart" :]:
            for part in ("weight", "bias"):
                fixture.tensors[f"model.{stack}.{norm}.{part}"] = fixture.values(8)
        if kind in ("bart", "mbart"):
            fixture.tensors[f"model.{stack}.embed_positions.weight"] = fixture.values(18, 8)
    return fixture


class FamilyTest(ConvertTest):
    def run_main(self, directory, *options, quiet="-q"):
        """These checkpoints have no tokenizer for text."""
        return super().run_main(directory, "--no-tokenizer", *options, quiet=quiet)

    def make(self, kind):
        """Returns a tiny checkpoint, in place of what a test wrote before. The languages of mBART
        and M2M-100 need more than 100 rows."""
        shutil.rmtree(self.checkpoint, ignore_errors=True)
        if os.path.exists(self.output):
            os.remove(self.output)
        if "t5" in kind:
            return T5Fixture(kind, gated=kind == "mt5")
        fixture = fairseq_fixture(kind, source=120)
        fixture.files["sentencepiece.bpe.model"] = sentencepiece_model("abc")
        return fixture

    def network(self, fixture):
        return self.convert(fixture).header["network"]


class EmbeddingsTest(FamilyTest):
    def assert_used(self, kind, stored, used, tied):
        fixture = self.make(kind)
        names = dict(zip("SEDH", T5_TIED if "t5" in kind else TIED))
        base = fixture.tensors.pop(names["S"])
        for n, letter in enumerate("SEDH"):
            if letter in stored:
                fixture.tensors[names[letter]] = base + n
        fixture.config.pop("tie_word_embeddings", None)
        if tied is not None:
            fixture.config["tie_word_embeddings"] = tied
        # The other families do not have this key of MarianMT.
        fixture.config["share_encoder_decoder_embeddings"] = False
        tensors = self.convert(fixture).tensors
        for letter, ours in zip(
            used, ("encoder.embedding", "decoder.embedding", "decoder.projection")
        ):
            np.testing.assert_array_equal(
                tensors[ours + ".weight"],
                fixture.tensors[names[letter]].astype("<f2"),
                (kind, stored, tied, ours),
            )

    def test_presence_decides_which_matrix_is_used(self):
        for kind, rows in PRESENCE.items():
            for row in COMMON + rows.split():
                self.assert_used(kind, *row.split(":"), True)
            self.assert_used(kind, "S", "SSS", None)

    def test_t5_is_always_tied_and_says_nothing(self):
        for kind in ("t5", "mt5"):
            for row in COMMON + PRESENCE[kind].split():
                self.assert_used(kind, *row.split(":"), False)

    def test_one_vocabulary(self):
        fixture = self.make("pegasus")
        fixture.config["decoder_vocab_size"] = 7
        self.convert(fixture)


class OutputTest(FamilyTest):
    def test_scale(self):
        for kind, tied, scaled, expected in (
            ("t5", None, None, 8**-0.5),
            ("t5", True, None, 8**-0.5),
            ("t5", False, None, 1.0),
            ("t5", True, False, 1.0),
            ("t5", False, True, 8**-0.5),
            ("mt5", None, None, 1.0),
            ("mt5", True, True, 1.0),
        ):
            fixture = T5Fixture(kind)
            fixture.config.update(tie_word_embeddings=tied, scale_decoder_outputs=scaled)
            self.assertEqual(self.network(fixture)["output"], {"scale": expected})

    def test_bias(self):
        for kind in PRESENCE:
            fixture = self.make(kind)
            rows = fixture.config["vocab_size"]
            fixture.tensors["final_logits_bias"] = fixture.values(1, rows)
            if kind in ("mbart", "pegasus"):
                self.assertIn("decoder.projection.bias", self.convert(fixture).tensors)
            else:
                self.refuse(fixture, "model.safetensors", "final_logits_bias", "no such tensor")


class T5Test(FamilyTest):
    def test_network(self):
        fixture = T5Fixture(gated=True, own_output=True)
        model = self.convert(fixture)
        stack = lambda layers, causal: {
            "layers": layers,
            "width": 8,
            "causal": causal,
            "parallel": False,
            "residual_scale": 1.0,
            "embedding": {"scale": 1.0, "positions": "none", "norm": False, "vocabulary": 11},
            "norm": {"kind": "rms", "epsilon": 1e-6, "places": ["before"], "final": True},
            "attention": {"heads": 2, "kv_heads": 2, "head": 6, "scale": 1.0, "distances": 20},
            "feed_forward": {"width": 10, "activation": "gelu_tanh", "gated": True},
        }
        self.assertEqual(
            model.header["network"],
            {
                "encoder": stack(2, False),
                "decoder": stack(1, True),
                "output": {"scale": 8**-0.5},
                "overflows_float16": True,
            },
        )
        stored = {name: v.astype("<f2") for name, v in fixture.tensors.items()}
        gates = [stored[f"encoder.block.1.layer.1.DenseReluDense.wi_{n}.weight"] for n in (0, 1)]
        np.testing.assert_array_equal(
            model.tensors["encoder.1.feed_forward.up.weight"], np.concatenate(gates)
        )
        cross = [stored[f"decoder.block.0.layer.1.EncDecAttention.{x}.weight"] for x in "kv"]
        np.testing.assert_array_equal(
            model.tensors["decoder.cross.keys_values.weight"], np.concatenate(cross)
        )

    def test_activations(self):
        for kind, changes, activation, gated in (
            ("t5", {}, "relu", False),
            ("t5", {"feed_forward_proj": None}, "relu", False),
            ("mt5", {"feed_forward_proj": None}, "gelu_tanh", True),
            ("t5", {"feed_forward_proj": "gated-gelu"}, "gelu_tanh", True),
            ("t5", {"feed_forward_proj": "gelu"}, "gelu", False),
            ("t5", {"feed_forward_proj": "gated-gelu_new"}, "gelu_tanh", True),
            ("t5", {"feed_forward_proj": "gated-silu"}, "swish", True),
            ("t5", {"feed_forward_proj": "gated-relu"}, "relu", True),
            # dense_act_fn and is_gated_act win over feed_forward_proj.
            ("t5", {"feed_forward_proj": "relu", "dense_act_fn": "gelu"}, "gelu", False),
            ("t5", {"feed_forward_proj": "relu", "is_gated_act": True}, "relu", True),
            ("mt5", {"dense_act_fn": "silu", "is_gated_act": False}, "swish", False),
        ):
            fixture = T5Fixture(kind, gated=gated)
            fixture.config.update(changes)
            found = self.network(fixture)["encoder"]["feed_forward"]
            self.assertEqual((found["activation"], found["gated"]), (activation, gated), changes)

    def test_defaults(self):
        fixture = T5Fixture(layers=(1, 1), buckets=32)
        for key in list(fixture.config):
            if key.startswith("relative_") or key == "num_decoder_layers":
                fixture.config[key] = None
        model = self.convert(fixture)
        attention = model.header["network"]["decoder"]["attention"]
        self.assertEqual(attention["distances"], 128)
        self.assertEqual(model.header["generation"]["max_source_length"], 512)
        fixture.config["n_positions"] = 300
        self.assertEqual(self.convert(fixture).header["generation"]["max_source_length"], 300)

    def test_biases_by_distance(self):
        """Compares with the distance buckets of Raffel et al. (2020), counted by hand for 8 of them
        up to distance 20. The encoder has 4 of them for each direction, and the decoder all 8."""
        fixture = T5Fixture()
        model = self.convert(fixture)
        table = lambda stack: fixture.tensors[
            f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        ].astype("<f2")
        encoder = [0, 1, *[2] * 5, *[3] * 14]
        decoder = [0, 1, 2, 3, *[4] * 2, *[5] * 3, *[6] * 5, *[7] * 7]
        for stack, behind, ahead in (
            ("encoder", encoder, [bucket + 4 for bucket in encoder]),
            ("decoder", decoder, [0] * 21),
        ):
            rows = behind[::-1] + ahead[1:]
            np.testing.assert_array_equal(
                model.tensors[f"{stack}.self.distance_bias"], table(stack)[rows].T
            )

    def test_the_table_that_nobody_uses(self):
        fixture = T5Fixture()
        name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
        fixture.tensors[name] = fixture.values(8, 2)
        self.convert(fixture)

    def test_refusals(self):
        for key, value in (
            ("feed_forward_proj", "gelu-gated"),
            ("feed_forward_proj", "gated-gelu-x"),
            ("feed_forward_proj", "gated"),
            ("feed_forward_proj", 3),
            ("dense_act_fn", "tanh"),
            ("is_gated_act", 1),
            ("d_model", 7),
            ("d_kv", 0),
            ("num_layers", None),
            ("layer_norm_epsilon", 2),
            ("layer_norm_epsilon", float("nan")),
            ("relative_attention_num_buckets", 3),
            ("relative_attention_max_distance", 4),
            ("relative_attention_max_distance", 1 << 17),
            ("tie_word_embeddings", "no"),
            ("scale_decoder_outputs", 1),
            ("vocab_size", 12),
        ):
            fixture = T5Fixture()
            fixture.config[key] = value
            file, what = "config.json", key
            if key == "vocab_size":
                file, what = "model.safetensors", "shared.weight"
            found = "nothing" if value is None else str(value) if key == "vocab_size" else None
            self.refuse(fixture, file, what, found or json.dumps(value).strip('"'))


class PositionsTest(FamilyTest):
    def test_m2m_100_begins_behind_its_pad(self):
        for pad, first in ((1, 2), (5, 6), (None, 2)):
            fixture = self.make("m2m_100")
            fixture.config["pad_token_id"] = pad
            embedding = self.network(fixture)["decoder"]["embedding"]
            self.assertEqual((embedding["offset"], embedding["rate"]), (first, 3))

    def test_m2m_100_ignores_stored_positions(self):
        fixture = self.make("m2m_100")
        for name in ("weight", "weights", "bias", "_float_tensor"):
            fixture.tensors[f"model.encoder.embed_positions.{name}"] = fixture.values(3)
        self.assertEqual(self.network(fixture)["encoder"]["embedding"]["positions"], "sinusoidal")

    def test_pegasus_uses_stored_positions(self):
        fixture = self.make("pegasus")
        fixture.tensors["model.encoder.embed_positions.weight"] = fixture.values(16, 8)
        network = self.network(fixture)
        self.assertEqual(network["encoder"]["embedding"]["positions"], "learned")
        self.assertEqual(network["decoder"]["embedding"]["rate"], 4)

    def test_embedding_scale(self):
        for kind, value, scale in (
            ("mbart", None, 1.0),
            ("pegasus", None, 1.0),
            ("m2m_100", None, 8**0.5),
            ("m2m_100", False, 1.0),
            ("mbart", True, 8**0.5),
        ):
            fixture = self.make(kind)
            fixture.config["scale_embedding"] = value
            self.assertEqual(self.network(fixture)["encoder"]["embedding"]["scale"], scale)


class RobustnessTest(FamilyTest):
    VALUES = (
        *(None, True, -1, 0, 1, 2.5, 1 << 40, 10**30, "", "x", "gated-", [], [0], {}, {"a": []}),
        float("nan"),
    )

    def test_values_of_every_type_under_every_key(self):
        """Each value gives either a model or one line."""
        more = ("tie_word_embeddings", "scale_decoder_outputs", "dense_act_fn", "is_gated_act")
        more += ("n_positions", "num_experts", "quantization_config", "scale_embedding")
        for kind in (*PRESENCE, "bart"):
            for key in [*self.make(kind).config, *more]:
                for value in self.VALUES:
                    fixture = self.make(kind)
                    fixture.config[key] = value
                    fixture.tokenizer = {"tokenizer_class": value}
                    code, errors = self.run_main(fixture.write(self.checkpoint))
                    lines = [line for line in errors.splitlines() if ": note: " not in line]
                    self.assertEqual(len(lines), code, (kind, key, value, errors))


if __name__ == "__main__":
    unittest.main()
