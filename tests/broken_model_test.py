"""Tests that a broken model file gives one clear message that names what is wrong with it."""

import gzip
import os
import random
import struct

import program
from model_bytes import ModelFile, sealed
from program import (
    EN_DE,
    GREEDY,
    SEPARATE,
    SHARED,
    Case,
    xlate,
)

setUpModule = program.require


class BrokenModel(Case):
    @classmethod
    def setUpClass(cls):
        with open(SHARED, "rb") as file:
            cls.whole = file.read()
        cls.header_size = struct.unpack_from("<Q", cls.whole, 24)[0]

    def refused(self, data, *words, name="broken.bin"):
        path = self.path(name, bytes(data))
        result = self.fails(*GREEDY, model=path, input="Yes.\n", names=[name, *words], timeout=30)
        self.assertEqual(result.out, b"", result.story())
        return result

    def test_it_works_when_it_is_whole(self):
        self.ok(*GREEDY, model=self.path("whole.bin", self.whole), input="Yes.\n", lines=1)
        self.ok(
            *GREEDY,
            model=self.path("rewritten.bin", ModelFile(SHARED).bytes()),
            input="Yes.\n",
            lines=1,
        )

    def test_a_missing_file(self):
        self.fails(*GREEDY, model=self.path("nowhere.bin"), input="Yes.\n", names="nowhere.bin")

    def test_a_folder(self):
        os.mkdir(self.path("folder.bin"))
        self.fails(*GREEDY, model=self.path("folder.bin"), input="Yes.\n", names="folder.bin")

    def test_an_empty_file(self):
        self.refused(b"")

    def test_a_text_file(self):
        self.refused(b"This is not a model.\n" * 200)

    def test_foreign_files(self):
        for name in ("model.safetensors", "source.spm", "vocab.json", "config.json"):
            with self.subTest(name), open(os.path.join(program.DATA, "shared", name), "rb") as file:
                self.refused(file.read(), name="foreign-" + name)
        self.refused(gzip.compress(self.whole, 1), name="packed.bin")
        self.refused(bytes(100000), name="zeros.bin")

    def test_a_checkpoint_folder_in_its_place(self):
        self.fails(
            *GREEDY, model=os.path.join(program.DATA, "shared"), input="Yes.\n", names="shared"
        )

    def test_a_truncated_file_at_any_point(self):
        every_percent = [len(self.whole) * percent // 100 for percent in range(100)]
        for size in (
            1,
            7,
            8,
            15,
            16,
            20,
            39,
            40,
            41,
            100,
            40 + self.header_size,
            41 + self.header_size,
            *every_percent,
            len(self.whole) - 1,
        ):
            with self.subTest(size):
                self.refused(self.whole[:size])

    def test_bytes_too_many(self):
        self.refused(self.whole + b"\0")
        self.refused(self.whole + self.whole)

    def test_one_bit_flipped_anywhere_is_noticed(self):
        for at in (
            0,
            7,
            8,
            15,
            16,
            20,
            24,
            31,
            32,
            39,
            40,
            41,
            40 + self.header_size // 2,
            39 + self.header_size,
            64 + self.header_size,
            len(self.whole) // 2,
            len(self.whole) * 3 // 4,
            len(self.whole) - 1,
        ):
            with self.subTest(at):
                data = bytearray(self.whole)
                data[at] ^= 4
                self.refused(data)

    def test_damaged_weights_leave_no_output(self):
        """The hash is verified while other things are done already."""
        data = bytearray(self.whole)
        data[-1] ^= 1
        for more in ([], ["--score-pairs"], ["--line-buffered"], ["-o", self.path("out.txt")]):
            with self.subTest(more):
                path = self.path("damaged.bin", bytes(data))
                names = [path, "damaged"]
                result = self.fails("-b", "1", *more, model=path, input="Yes.\tJa.\n", names=names)
                self.assertEqual(result.out, b"", result.story())
        self.assertEqual(os.listdir(os.path.dirname(path)), ["damaged.bin"])

    def test_random_damage_never_crashes(self):
        chance = random.Random(7)
        for round in range(25):
            data = bytearray(self.whole)
            for _ in range(chance.choice([1, 3, 50])):
                at = chance.randrange(chance.choice([64, 40 + self.header_size, len(data)]))
                data[at] = chance.randrange(256)
            if chance.random() < 0.3:
                del data[chance.randrange(len(data)) :]
            if bytes(data) != self.whole:
                with self.subTest(round):
                    self.refused(data)

    def test_damage_that_the_hash_does_not_tell_never_crashes(self):
        chance = random.Random(8)
        for round in range(25):
            data = bytearray(self.whole)
            for _ in range(chance.choice([1, 2, 5])):
                at = chance.choice(
                    [
                        chance.randrange(16, 40),
                        chance.randrange(40, 40 + self.header_size),
                        chance.randrange(40, 40 + self.header_size),
                        chance.randrange(16, len(data)),
                    ]
                )
                data[at] = chance.choice([0, 255, 48, 57, 45, 34, 123, 93, chance.randrange(256)])
            with self.subTest(round):
                path = self.path("damaged.bin", sealed(bytes(data)))
                result = xlate(
                    "-q", *GREEDY, "--max-length", "5", model=path, input="Yes.\n", timeout=30
                )
                self.assertIn(result.code, (0, 1), "round %d\n%s" % (round, result.story()))
                if result.code:
                    self.says(result, "damaged.bin")
                    self.assertEqual(len(result.error_lines), 1, result.story())

    def test_another_version_is_named(self):
        model = ModelFile(SHARED)
        model.version = 77
        self.refused(model.bytes(), "77")

    def test_a_wrong_shape_names_the_tensor_and_both_values(self):
        model = ModelFile(SHARED)
        model.tensor("encoder.1.feed_forward.up.weight")["shape"] = [161, 64]
        self.refused(model.bytes(), "encoder.1.feed_forward.up.weight", "161", "160")
        path = self.path("broken.bin")
        result = self.fails("--score-pairs", model=path, input="Yes.\tYes.\n", names=["161", "160"])
        self.assertNotIn("no room", result.errors)

    def test_a_missing_tensor_is_named(self):
        model = ModelFile(SHARED)
        model.header["tensors"] = [
            entry
            for entry in model.header["tensors"]
            if entry["name"] != "decoder.1.cross.query.bias"
        ]
        self.refused(model.bytes(), "decoder.1.cross.query.bias")

    def test_a_tensor_beyond_the_end_of_the_file_is_named(self):
        for offset in (1 << 40, (1 << 63) - 64, 1 << 63):
            with self.subTest(offset):
                model = ModelFile(SHARED)
                model.tensor("decoder.0.self.qkv.weight")["offset"] = offset
                self.refused(model.bytes())

    def test_values_that_make_no_sense(self):
        encoder = ("network", "encoder")
        for *path, key, value in (
            (*encoder, "width", 0),
            (*encoder, "width", -64),
            (*encoder, "width", 1 << 40),
            (*encoder, "width", "64"),
            (*encoder, "attention", "heads", 7),
            (*encoder, "layers", 10**9),
            (*encoder, "norm", None),
            (*encoder, "feed_forward", "activation", "sparkle"),
            ("tokens", "start", 999999),
            ("tokens", "end", -1),
            ("generation", "beam_size", 0),
            ("generation", "never_chosen", [10**9]),
        ):
            with self.subTest((path, key, value)):
                model = ModelFile(SHARED)
                section = model.header
                for name in path:
                    section = section[name]
                section[key] = value
                self.refused(model.bytes())

    def test_what_cannot_be_computed_is_named(self):
        model = ModelFile(SHARED)
        model.header["network"]["decoder"]["attention"]["softcap"] = 30
        self.refused(model.bytes(), "network.decoder.attention.softcap", "none")

    def test_vocabulary_and_embedding_that_disagree_are_told_at_load(self):
        model = ModelFile(SEPARATE)
        embedding = model.header["network"]["decoder"]["embedding"]
        rows = embedding["vocabulary"]
        embedding["vocabulary"] = rows + 1
        self.refused(model.bytes(), str(rows), str(rows + 1))

    def test_a_missing_tokenizer_file_is_named(self):
        model = ModelFile(SEPARATE)
        model.header["files"] = [
            entry for entry in model.header["files"] if entry["name"] != "source.spm"
        ]
        self.refused(model.bytes(), "source.spm")

    def test_a_broken_tokenizer_file(self):
        model = ModelFile(SEPARATE)
        entry = model.file("target.spm")
        model.data[entry["offset"] : entry["offset"] + 2000] = bytes(range(250)) * 8
        self.refused(model.bytes())

    def test_a_header_that_is_not_json(self):
        data = bytearray(self.whole)
        data[40] = ord("[")
        self.refused(sealed(bytes(data)))

    def test_nothing_is_read_before_the_model_is_known_to_be_broken(self):
        # stdin stays open and silent.
        running = self.start("-q", *GREEDY, model=self.path("broken.bin", self.whole[:1000]))
        self.check(running.wait(20), 1)

    def test_the_small_real_model_translates(self):
        result = self.ok(
            "-b", "4", model=EN_DE, input="Where is the station?\nI am tired.\n", lines=2
        )
        self.assertTrue(all(len(line) > 3 for line in result.lines), result.story())


if __name__ == "__main__":
    program.main()
