#!/usr/bin/env python3
"""Tests what scripts/convert.py refuses: every kind of wrong input, and bytes altered at random."""

import copy
import json
import os
import struct
import unittest

from checkpoint_fixture import (
    ConvertTest,
    DECODER,
    ENCODER,
    Fixture,
    HEAD,
    REFUSED_KEYS,
    SHARED,
    encode_safetensors,
    sentencepiece_model,
)
import generation_settings


class WrongInputTest(ConvertTest):
    def changed(self, part, **changes):
        fixture = Fixture()
        for key, value in changes.items():
            getattr(fixture, part)[key] = value
        return fixture

    def test_config(self):
        for key, value in (
            ("model_type", "mamba"),
            ("model_type", None),
            ("normalize_before", True),
            ("add_final_layer_norm", True),
            ("normalize_embedding", True),
            ("static_position_embeddings", False),
            ("activation_function", "tanh"),
            ("activation_function", ["relu"]),
            ("d_model", 0),
            ("d_model", 7),
            ("d_model", "8"),
            ("d_model", True),
            ("encoder_layers", 0),
            ("decoder_layers", 1.5),
            ("encoder_attention_heads", 3),
            ("decoder_ffn_dim", None),
            ("scale_embedding", 1),
            ("share_encoder_decoder_embeddings", "yes"),
            ("max_position_embeddings", 0),
        ):
            fixture = self.changed("config", **{key: value})
            self.refuse(
                fixture, "config.json", key, "nothing" if value is None else json.dumps(value)
            )

    def test_generation_in_the_config(self):
        """Where generation_config.json is absent, the keys of config.json are checked."""
        for key, value in (
            ("eos_token_id", 11),
            ("eos_token_id", [0, 11]),
            ("eos_token_id", "0"),
            ("pad_token_id", -1),
            ("decoder_start_token_id", 11),
        ):
            fixture = self.changed("config", **{key: value})
            fixture.generation = None
            self.refuse(fixture, "config.json", key, json.dumps(value))
        fixture = self.changed("config", decoder_start_token_id=None, bos_token_id=None)
        fixture.generation = None
        self.refuse(
            fixture,
            "config.json",
            "decoder_start_token_id",
            "here or as bos_token_id",
            "found nothing",
        )
        for generation in (
            {},
            {"eos_token_id": 0, "num_beams": 4},
            {"decoder_start_token_id": None},
        ):
            fixture = Fixture()
            fixture.generation = generation
            self.refuse(
                fixture,
                "generation_config.json",
                "decoder_start_token_id",
                "here or as bos_token_id",
                "(config.json's, 10, does not count where generation_config.json is there)",
                "found nothing",
            )

    def test_added_tokens(self):
        for value, what in (
            (3, "added_tokens_decoder"),
            ({"2": 3}, "added_tokens_decoder"),
            ({"x": {"content": "a"}}, "added_tokens_decoder"),
            ({"-1": {"content": "a"}}, "added_tokens_decoder"),
            ({"2": {}}, "added token"),
            ({"2": {"content": 3}}, "added token"),
            ({"2": {"content": "<A>", "lstrip": 1}}, '"<A>"'),
            ({"2": {"content": "a" * 1025}}, "added token"),
            ({"11": {"content": "<A>"}}, '"<A>"'),
            ({"3": {"content": "<A>"}}, '"<A>"'),
        ):
            self.refuse(
                self.changed("tokenizer", added_tokens_decoder=value), "tokenizer_config.json", what
            )
        self.refuse(
            self.changed("tokenizer", added_tokens_decoder={"11": {"content": "<A>"}}),
            "tokenizer_config.json",
            '"<A>"',
            "resize_token_embeddings",
            "found 11",
        )
        self.refuse(
            self.changed("tokenizer", sp_model_kwargs={"enable_sampling": True}),
            "tokenizer_config.json",
            "sp_model_kwargs",
        )
        for name, data, what in (
            ("added_tokens.json", b'{"<A>": "2"}', '"<A>"'),
            ("added_tokens.json", b"[]", "JSON"),
            ("added_tokens.json", b'{"\\ud800": 2}', r'"\ud800"'),
            ("tokenizer.json", b'{"added_tokens": [3]}', "added_tokens"),
        ):
            fixture = Fixture()
            fixture.files[name] = data
            self.refuse(fixture, name, what)

    def test_stored_positions_of_another_shape(self):
        for shape in ((511, 8), (513, 8), (512, 7), (512,)):
            fixture = Fixture()
            fixture.tensors["model.decoder.embed_positions.weight"] = fixture.values(*shape)
            self.refuse(
                fixture,
                "model.safetensors",
                "model.decoder.embed_positions.weight",
                "[512, 8]",
                str(list(shape)),
            )

    def test_sizes_against_tensors(self):
        fixture = self.changed("config", vocab_size=12)
        self.refuse(
            fixture, "model.safetensors", SHARED, "12 rows (vocab_size of config.json)", "found 11"
        )
        self.refuse(
            self.changed("config", encoder_layers=4),
            "model.safetensors",
            "model.encoder.layers.3.self_attn.q_proj.weight",
            "[8, 8]",
            "found none",
        )
        self.refuse(
            self.changed("config", encoder_layers=2),
            "model.safetensors",
            "model.encoder.layers.2.fc1.bias",
            "no such",
        )
        self.refuse(
            self.changed("config", decoder_ffn_dim=21),
            "model.safetensors",
            "model.decoder.layers.0.fc1.weight",
            "[21, 8]",
            "[20, 8]",
        )
        self.refuse(
            self.changed("config", d_model=16), "model.safetensors", SHARED, "[11, 16]", "[11, 8]"
        )

    def test_tensors(self):
        name = "model.decoder.layers.1.encoder_attn.v_proj.bias"
        fixture = Fixture()
        values = fixture.tensors.pop(name)
        self.refuse(fixture, "model.safetensors", name, "[8]", "none")
        for other in (
            values[:7],
            values.reshape(1, 8),
            values.reshape(2, 2, 2),
            values[:0],
            values[0].reshape(()),
        ):
            fixture.tensors[name] = other
            self.refuse(fixture, "model.safetensors", name, "[8]", str(list(other.shape)))
        for extra in (
            "model.encoder.layer_norm.weight",
            "model.encoder.layernorm_embedding.weight",
            "junk",
            "a\nb\x1b[1m\ud800",
        ):
            fixture = Fixture()
            fixture.tensors[extra] = fixture.values(8)
            shown = extra if extra.isprintable() else r"a\nb\x1b[1m\ud800"
            self.refuse(fixture, "model.safetensors", shown, "no such tensor")
        fixture = Fixture()
        fixture.tensors["final_logits_bias"] = fixture.values(1, 12)
        self.refuse(fixture, "model.safetensors", "final_logits_bias", "[1, 11]", "[1, 12]")
        fixture = Fixture()
        del fixture.tensors[SHARED]
        self.refuse(fixture, "model.safetensors", SHARED, "found none")
        # The checkpoint has one of three matrices that are not tied, and the others are missing.
        for stored in (
            (ENCODER,),
            (DECODER,),
        ):
            fixture = Fixture()
            fixture.config["tie_word_embeddings"] = False
            fixture.tie(*stored, HEAD)
            self.refuse(fixture, "model.safetensors", SHARED, "found none")

    def test_safetensors(self):
        whole = encode_safetensors(Fixture().tensors, lambda name: "F16")
        start = 8 + int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8:start])
        name = "model.encoder.layers.0.fc1.weight"
        begin, end = header[name]["data_offsets"]

        def edited(**changes):
            other = copy.deepcopy(header)
            other[name].update(changes)
            text = json.dumps({k: v for k, v in other.items()}).encode()
            return struct.pack("<Q", len(text)) + text + whole[start:]

        for data, what in (
            (b"", "header"),
            (whole[:7], "header"),
            (struct.pack("<Q", 1 << 63) + whole[8:], "header"),
            (whole[: start - 1], "header"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "file"),
            (whole + b"\0\0", "data"),
            (struct.pack("<Q", 2) + b"[]", "JSON"),
            (struct.pack("<Q", 4) + b"\xff\xfe{}", "JSON"),
            (struct.pack("<Q", 200_000) + b"[" * 200_000, "JSON"),
            (edited(dtype="I8"), name),
            (edited(dtype=["F16"]), name),
            (edited(shape=[12, 9]), name),
            (edited(shape=[-12, -8]), name),
            (edited(shape="x"), name),
            (edited(shape=[1e1, 8]), name),
            (edited(data_offsets=[begin + 1, end]), name),
            (edited(data_offsets=[begin, 1 << 70]), name),
            (edited(data_offsets=[end, begin]), name),
            (edited(data_offsets=[begin]), name),
            (edited(data_offsets=None), name),
            (edited(data_offsets=[begin + 2, end + 2]), name),
            (edited(data_offsets=[-2, end - begin - 2]), name),
        ):
            fixture = Fixture()
            fixture.files["model.safetensors"] = data
            self.refuse(fixture, "model.safetensors", what)
        for cut, texts in (
            (
                5,
                (
                    "header",
                    "its length in the first 8 bytes",
                    "found 5 bytes: the file is cut short",
                ),
            ),
            (
                start - 9,
                ("header", f"{start - 8} bytes", f"found {start - 17}: the file is cut short"),
            ),
            (start + 9, ("data", f"{len(whole) - start} bytes", "found 9: the file is cut short")),
        ):
            fixture.files["model.safetensors"] = whole[:cut]
            self.refuse(fixture, "model.safetensors", *texts)
        # The data overlaps another tensor.
        fixture.files["model.safetensors"] = edited(data_offsets=[0, end - begin])
        self.refuse(fixture, "model.safetensors", name, "data at offset", "found 0")
        fixture.files["model.safetensors"] = whole[:8] + whole[8:].replace(
            b'"model.encoder.layers.0.fc2.bias"', b'"model.encoder.layers.0.fc1.bias"', 1
        )
        self.refuse(fixture, "model.safetensors", "model.encoder.layers.0.fc1.bias", "several")

    def test_vocabularies(self):
        for key, value in (
            ("▁s5", 11),
            ("▁s5", -1),
            ("▁s5", 3),
            ("▁s5", "5"),
            ("▁s5", 5.0),
            ("▁s5", True),
            ("▁s5", None),
        ):
            self.refuse(self.changed("vocab", **{key: value}), "vocab.json", '"▁s5"')
        for key in ("</s>", "<unk>"):
            fixture = Fixture()
            del fixture.vocab[key]
            self.refuse(fixture, "vocab.json", key, "found nothing")
        fixture = Fixture()
        fixture.files["vocab.json"] = b'{"</s>": 0, "<unk>": 1, "x": 3, "x": 4}'
        self.refuse(fixture, "vocab.json", "x", "several")
        fixture.files["vocab.json"] = b'{"</s>": 0, "<unk>": 1, "\\ud800": 3}'
        self.refuse(fixture, "vocab.json", r'"\ud800"', "surrogate")
        fixture = Fixture(target=13)
        fixture.target_vocab["▁more"] = 13
        self.refuse(fixture, "target_vocab.json", '"▁more"', "13 rows")
        fixture.target_vocab = None
        self.refuse(fixture, "target_vocab.json", "file", "No such file")

    def test_sentencepiece(self):
        field = lambda number, data: bytes([number << 3 | 2, len(data)]) + data
        piece = lambda data: sentencepiece_model() + field(1, data)
        map_of = lambda data: sentencepiece_model() + field(3, field(2, data))
        trie = struct.pack("<II", 4, 0)
        for data, *found in (
            (piece(field(1, b"a"))[:-1], "a SentencePiece model", "field 1 that is cut short"),
            (piece(field(1, b"a")[:-1]), "field 1 that is cut short"),
            (piece(b"\x18"), "a number that is cut short"),
            (piece(b"\x18" + b"\xff" * 10), "a number of more than ten bytes"),
            (piece(b"\x0b"), "field 1 of wire type 3"),
            (piece(b""), "piece 1, which is empty"),
            (piece(b"\x08\x01"), "a number where bytes are expected"),
            (piece(field(1, b"a") + field(2, b"abc")), "a score that has not 4 bytes"),
            (piece(field(1, b"a") + b"\x10\x01"), "a number where bytes are expected"),
            (piece(field(1, b"a") + b"\x18\x07"), "a piece's type 7"),
            (piece(field(1, b"a") + b"\x18\x00"), "a piece's type 0"),
            (sentencepiece_model() + field(2, b"\x18\x05"), "the model's type 5"),
            (sentencepiece_model() + field(2, b"\x07"), "field 0 of wire type 7"),
            (sentencepiece_model() + field(3, b"\x12\x02a"), "field 2 that is cut short"),
            (field(1, field(1, b"a")), "1 pieces, none for what is unknown"),
        ):
            fixture = Fixture()
            fixture.files["target.spm"] = data
            self.refuse(fixture, "target.spm", "file", *found)
        for data, *found in (
            (piece(field(1, b"<unk>")), '"<unk>"', "one piece", "two, 0 and 1"),
            (map_of(b"x"), "precompiled_charsmap", "a trie"),
            (map_of(trie), "precompiled_charsmap", "a NUL"),
            (map_of(trie + b"x"), "precompiled_charsmap", "a NUL"),
        ):
            fixture = Fixture()
            fixture.files["target.spm"] = data
            self.refuse(fixture, "target.spm", *found)
        whole = {
            **{"source.spm": sentencepiece_model("a") + field(2, b"\x18\x04") + field(9, b"x")},
            **{"target.spm": map_of(trie + b"x\0") + field(1, field(1, b"a") + b"\x18\x06")},
        }
        fixture = Fixture()
        fixture.files = whole
        self.convert(fixture)

    def test_files(self):
        for name in ("config.json", "vocab.json", "source.spm", "target.spm"):
            Fixture().write(self.checkpoint)
            os.remove(os.path.join(self.checkpoint, name))
            self.refuse(self.checkpoint, name, "file", "No such file")
            fixture = Fixture()
            fixture.files[name] = b""
            self.refuse(fixture, name, "file" if name.endswith("spm") else "JSON")
            fixture.files[name] = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
            self.refuse(fixture, name, "file", "Git LFS")
            Fixture().write(self.checkpoint)
            os.remove(os.path.join(self.checkpoint, name))
            os.mkdir(os.path.join(self.checkpoint, name))
            self.refuse(self.checkpoint, name, "file", "directory")
        Fixture().write(self.checkpoint)
        os.remove(os.path.join(self.checkpoint, "model.safetensors"))
        self.refuse(self.checkpoint, "", "weights", "neither")
        self.refuse(os.path.join(self.folder, "nowhere"), "", "checkpoint", "nothing")
        for name in (
            "config.json",
            "generation_config.json",
            "vocab.json",
            "tokenizer_config.json",
        ):
            for data in (
                b"[1]",
                b"{",
                b"\xff",
                b"1" * 5000,
                b'{"a": 1, "a": 2}',
                b"[" * 100_000,
                b"\x00",
            ):
                fixture = Fixture()
                fixture.files[name] = data
                self.refuse(fixture, name, "a" if b"a" in data else "JSON")

    def test_checkpoints_of_other_programs(self):
        for names, config, found in (
            (["model.npz", "vocab.yml"], None, "model.npz, as Marian writes it"),
            (["b.npz", "a.npz.best.npz"], None, "a.npz.best.npz, as Marian writes it"),
            (["a\nb.npz"], None, r"a\nb.npz, as Marian writes it"),
            (["a" * 200 + ".npz"], None, "a" * 27 + "..., as Marian writes it"),
            (
                ["dict.de.txt", "dict.en.txt", "model.pt", "code"],
                None,
                "model.pt and dict.de.txt, as fairseq writes them",
            ),
            (["averaged-10-epoch.pt"], None, "averaged-10-epoch.pt, as OpenNMT or fairseq"),
            (["model.bin", "shared_vocabulary.txt"], None, "model.bin, as CTranslate2 writes it"),
            (["model.bin", "source_vocabulary.json"], {}, "model.bin, as CTranslate2 writes it"),
            (["model.bin"], {"add_source_bos": False}, "model.bin, as CTranslate2 writes it"),
        ):
            os.mkdir(self.checkpoint)
            for name in names:
                with open(os.path.join(self.checkpoint, name), "wb"):
                    pass
            if config is not None:
                with open(os.path.join(self.checkpoint, "config.json"), "w") as file:
                    json.dump(config, file)
            self.refuse(self.checkpoint, "", "checkpoint", found, ": this format is not supported")
        for name, found in (("m.npz", "Marian"), ("m.pt", "OpenNMT or fairseq")):
            path = os.path.join(self.folder, name)
            with open(path, "wb"):
                pass
            self.refuse(path, "", "checkpoint", f"{name}, as {found} writes it: this format is not")

    def test_files_of_other_programs_beside_a_checkpoint(self):
        """Other files beside a Hugging Face checkpoint do not matter. A directory whose program
        cannot be told is refused because it has no config.json."""
        others = ("a.npz", "optimizer.pt", "dict.en.txt", "model.bin", "shared_vocabulary.json")
        fixture = Fixture()
        fixture.files.update(dict.fromkeys(others, b""))
        self.convert(fixture)
        os.remove(self.output)
        os.remove(os.path.join(self.checkpoint, "config.json"))
        self.refuse(self.checkpoint, "config.json", "file", "No such file")
        fixture.config["model_type"] = None
        self.refuse(fixture, "config.json", "model_type", "found nothing")
        for names in ([], ["model.bin"], ["dict.en.txt"], ["npz"], ["vocabulary.json"]):
            os.mkdir(self.checkpoint)
            for name in names:
                with open(os.path.join(self.checkpoint, name), "wb"):
                    pass
            self.refuse(self.checkpoint, "config.json", "file", "No such file")

    def test_several_settings_that_are_refused(self):
        several = {"num_beam_groups": 2, "encoder_no_repeat_ngram_size": 3}
        self.refuse(
            self.changed("generation", **several),
            "generation_config.json",
            "num_beam_groups, encoder_no_repeat_ngram_size",
            "expected 1, 0 (remove the keys to convert without them), found 2, 3\n",
        )
        fixture = self.changed("generation", **REFUSED_KEYS, bad_words_ids=[[2], [3, 4], [5, 6]])
        order = [key for key in generation_settings.NEUTRAL_GENERATION if key in REFUSED_KEYS]
        self.assertEqual(len(order), len(REFUSED_KEYS))
        self.refuse(
            fixture,
            "generation_config.json",
            ", ".join([*order, "bad_words_ids"]),
            "entries of one id each (remove the keys to convert without them)",
        )
        self.refuse(
            self.changed("generation", bad_words_ids=[[3, 4], [5, 6]]),
            "generation_config.json",
            "bad_words_ids",
            "expected entries of one id each (remove the key to convert without it), found [3, 4]",
        )

    def test_generation(self):
        for key, value in dict(REFUSED_KEYS).items():
            self.refuse(
                self.changed("generation", **{key: value}),
                "generation_config.json",
                key,
                json.dumps(value),
                "remove the key",
            )
        for key, value in (
            ("bad_words_ids", [[3, 4]]),
            ("bad_words_ids", [[]]),
            ("bad_words_ids", [3]),
            ("bad_words_ids", 3),
            ("bad_words_ids", [[11]]),
            ("bad_words_ids", [[[3]]]),
            ("suppress_tokens", [-1]),
            ("suppress_tokens", 3),
            ("suppress_tokens", ["3"]),
            ("num_beams", 0),
            ("num_beams", 2.5),
            ("num_beams", True),
            ("length_penalty", "1"),
            ("length_penalty", float("nan")),
            ("length_penalty", float("inf")),
            ("length_penalty", True),
            ("early_stopping", "sometimes"),
            ("early_stopping", 1),
            ("max_length", 1),
            ("max_length", "x"),
            ("max_new_tokens", 0),
            ("forced_bos_token_id", 11),
            ("forced_eos_token_id", [0, 1]),
            ("eos_token_id", [0, 11]),
            ("eos_token_id", 11),
            ("eos_token_id", list(range(9))),
            ("min_length", -1),
            ("min_length", 2.5),
            ("min_new_tokens", "3"),
            ("no_repeat_ngram_size", -1),
            ("no_repeat_ngram_size", True),
            ("repetition_penalty", 0),
            ("repetition_penalty", "1.2"),
            ("repetition_penalty", True),
            ("repetition_penalty", float("nan")),
            ("pad_token_id", 11),
            ("do_sample", 1),
            ("decoder_start_token_id", 11),
            ("renormalize_logits", 1),
        ):
            self.refuse(self.changed("generation", **{key: value}), "generation_config.json", key)


if __name__ == "__main__":
    unittest.main()
