#!/usr/bin/env python3
"""Tests scripts/generated_model.py: xlate reads a model of each family with random weights and
translates with it."""

import os
import random
import sys
import time

from program import IDS, ROOT, Case, main, require

sys.path.insert(0, os.path.join(ROOT, "scripts"))
sys.dont_write_bytecode = True

import numpy as np

from decoder_families import DECODERS
from families import FAMILIES
from generated_model import Random, ThreadedFile, write_model
from model_shapes import config_of, prompt_config_of, write_prompts, write_source

# Each entry is a family, its settings besides the sizes, and the dtype of the weights.
MODELS = (
    ("marian", {}, "float16"),
    ("bart", {"scale_embedding": False, "activation_function": "gelu"}, "float16"),
    ("mbart", {"decoder_layers": 1}, "float16"),
    ("m2m_100", {}, "float16"),
    ("pegasus", {}, "float32"),
    ("t5", {}, "bfloat16"),
    ("t5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, "bfloat16"),
    ("mt5", {"d_kv": 10}, "float16"),
)
setUpModule = require


class Generated(Case):
    def test_every_family(self):
        self.assertEqual({family for family, *_ in MODELS}, FAMILIES.keys())
        for family, more, dtype in MODELS:
            with self.subTest(family, **more):
                config = config_of(family, 24, 3, 2, 40, 150, **more)
                model, source = self.path("model.bin"), self.path("source.ids")
                write_model(model, config, dtype)
                write_source(source, [1, 7, 30, 12], config, random.Random(3))
                for beam in ("1", "4"):
                    limits = ["--max-length", "9", "--max-length-factor", "9"]
                    lines = self.ok("-i", source, "-b", beam, *IDS, *limits, model=model).lines
                    self.assertEqual(len(lines), 4)
                    ids = [int(number) for line in lines for number in line.split()]
                    self.assertTrue(set(ids) <= set(range(150)) - {config["pad_token_id"]}, ids)

    def test_logits_like_text(self):
        """The ids of outputs are mostly small ones, as the bias of the logits says."""
        for family, dtype in (("marian", "float16"), ("m2m_100", "float16"), ("t5", "bfloat16")):
            medians = []
            for like_text in (False, True):
                config = config_of(family, 24, 3, 2, 40, 4000)
                model, source = self.path("model.bin"), self.path("source.ids")
                write_model(model, config, dtype, like_text)
                write_source(source, [12] * 40, config, random.Random(3))
                limits = ["--max-length", "9", "--max-length-factor", "9"]
                lines = self.ok("-i", source, "-b", "1", *IDS, *limits, model=model).lines
                ids = [int(number) for line in lines for number in line.split()]
                medians.append(sorted(ids)[len(ids) // 2])
            with self.subTest(family):
                self.assertGreater(medians[0], 1500)
                self.assertLess(medians[1], 800)

    def test_every_decoder(self):
        """Nothing but the limit ends the continuations. They do not all repeat one token."""
        for family, entry in DECODERS.items():
            for kv_heads in (4, 2) if "kv_heads" in entry.keys else (4,):
                with self.subTest(family, kv_heads=kv_heads):
                    config = prompt_config_of(family, 64, 2, 4, 40, 150, 64, kv_heads, head_dim=16)
                    if entry.inside:
                        config[entry.inside] = dict(config)
                    model, source = self.path("model.bin"), self.path("source.ids")
                    write_model(model, config, "bfloat16")
                    write_prompts(source, [1, 7, 30, 12], config, random.Random(3))
                    for beam in ("1", "4"):
                        limit = ["--max-new-tokens", "9"]
                        lines = self.ok("-i", source, "-b", beam, *IDS, *limit, model=model).lines
                        self.assertEqual([len(line.split()) for line in lines], [9] * 4)
                        if not entry.scales_embedding:
                            self.assertGreater(len(set(" ".join(lines).split())), 3)

    def test_a_full_disk(self):
        """A thread's error reaches the caller."""
        for blocks in (1, 100):
            with self.assertRaises(OSError), ThreadedFile("/dev/full") as file:
                for _ in range(blocks):
                    file.write(b"block")

    def test_the_last_write_of_a_place_counts(self):
        """The Writer writes the hash over a part of the first block, which may be written late."""

        class Late(ThreadedFile):
            def write_at(self, data, at):
                time.sleep(0 if at else 0.05)
                super().write_at(data, at)

        path = self.path("file")
        with Late(path) as file:
            file.write(bytes(16))
            file.seek(8)
            file.write(b"hash")
        with open(path, "rb") as file:
            self.assertEqual(file.read(), bytes(8) + b"hash" + bytes(4))

    def test_rows_differ_and_blocks_join(self):
        """The matrix is larger than the array that its numbers are taken from."""
        matrix = Random("matrix", "float16", (9000, 1000), 0.5)
        blocks = list(matrix.blocks())
        self.assertGreater(len(blocks), 9_000_000 // (1 << 17))
        rows = np.concatenate(blocks).reshape(9000, 1000).view("<f2")
        self.assertEqual(len(np.unique(rows[:, :8], axis=0)), 9000)
        self.assertAlmostEqual(float(rows.astype("f4").std()), 0.5, places=2)


if __name__ == "__main__":
    main()
