#!/usr/bin/env python3
"""Tests how the converter reads PyTorch's files without PyTorch, and that it calls no function that
they name. All payloads are harmless."""

import io
import json
import os
import random
import struct
import sys
import tracemalloc
import unittest
import zipfile
from unittest import mock

from checkpoint_fixture import ConvertTest, Fixture, STORE, encode_safetensors
from torch_file import (
    ORDERED,
    archive,
    describe,
    dictionary,
    integer,
    old_file,
    parameter,
    row,
    storage,
    tensor,
    text,
    torch_save,
)
from checkpoint_reader import InputError, read_safetensors
import pickle_reader
from torch_reader import read_torch

NAME = "pytorch_model.bin"
FLOAT = storage("0", "FloatStorage", 4)
FOUR = {"0": bytes(16)}
ONE = dictionary({"a": tensor(FLOAT, [2, 2])})


class TorchTest(ConvertTest):
    def put(self, data, name=NAME):
        os.makedirs(self.checkpoint, exist_ok=True)
        path = os.path.join(self.checkpoint, name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def fault(self, data):
        """Returns the one line that a file is refused with."""
        path = self.put(data)
        with self.assertRaises(InputError) as caught:
            read_torch(path)
        message = str(caught.exception)
        self.assertTrue(message.startswith(path + ": "), message)
        self.assertEqual(message.count("\n"), 0, message)
        return message[len(path) + 2 :]

    def assert_fault(self, data, *texts):
        message = self.fault(data)
        for part in texts:
            self.assertIn(part, message)


class WeightsTest(TorchTest):
    def both(self, fixture):
        """Returns the model.bin of a fixture, and removes its model.safetensors."""
        plain = self.convert(fixture).data
        os.remove(os.path.join(self.checkpoint, "model.safetensors"))
        return plain

    def test_every_type_and_form(self):
        for dtype, item in (("F32", 4), ("F16", 2), ("BF16", 2)):
            fixture = Fixture(dtype=dtype)
            plain = self.both(fixture)
            tensors = fixture.tensors
            as_parameter = lambda *given: parameter(tensor(*given))
            for data in (
                torch_save(tensors, dtype),
                archive(*describe(tensors, dtype, as_parameter), byteorder=b"little"),
                archive(*describe(tensors, dtype), folder="any name"),
                old_file(*describe(tensors, dtype, old=True), item),
            ):
                self.put(data)
                with mock.patch.dict(sys.modules, torch=None):
                    self.assertEqual(self.convert(self.checkpoint).data, plain)

    def test_metadata_of_modules_is_left_out(self):
        fixture = Fixture()
        plain = self.both(fixture)
        pickle, storages = describe(fixture.tensors, "F16")
        versions = b"}" + text("") + b"}" + text("version") + b"K\x01ss"
        state = b"}" + text("_metadata") + versions + b"s"
        ordered = pickle[:2] + ORDERED + pickle[3:-1] + state + b"b."
        self.put(archive(ordered, storages))
        self.assertEqual(self.convert(self.checkpoint).data, plain)

    def test_views_of_storages(self):
        fixture = Fixture(dtype="F32")
        plain = self.both(fixture)
        items, data, whole = {}, b"", sum(v.size for v in fixture.tensors.values())
        for number, (name, values) in enumerate(fixture.tensors.items()):
            place = (storage("one", "FloatStorage", whole), list(values.shape))
            strides, turned = None, values
            # Every other matrix is stored with its columns one after another.
            if values.ndim == 2 and number % 2:
                strides, turned = [1, values.shape[0]], values.T
            items[name] = tensor(*place, strides, len(data) // 4)
            data += STORE["F32"](turned).tobytes()
        self.put(archive(dictionary(items), {"one": data}))
        self.assertEqual(self.convert(self.checkpoint).data, plain)
        with mock.patch.object(sys.modules["checkpoint_reader"], "BLOCK", 48):
            self.assertEqual(self.convert(self.checkpoint).data, plain)

    def test_shards(self):
        fixture = Fixture()
        plain = self.both(fixture)
        names, weight_map = sorted(fixture.tensors), {}
        for i in range(2):
            shard = f"pytorch_model-0000{i + 1}-of-00002.bin"
            self.put(
                torch_save({name: fixture.tensors[name] for name in names[i::2]}, "F16"), shard
            )
            weight_map.update(dict.fromkeys(names[i::2], shard))
        self.put(json.dumps({"weight_map": weight_map}).encode(), NAME + ".index.json")
        self.assertEqual(self.convert(self.checkpoint).data, plain)

    def test_a_pipe_is_no_checkpoint(self):
        self.both(Fixture())
        path = os.path.join(self.checkpoint, NAME)
        os.mkfifo(path)
        code, message = self.run_main(self.checkpoint)
        self.assertEqual(code, 1)
        self.assertIn("expected a regular file", message)

    def test_safetensors_are_preferred(self):
        fixture = Fixture()
        fixture.files[NAME] = b"junk"
        self.convert(fixture)


class RefusalTest(TorchTest):
    def test_nothing_is_run(self):
        made = os.path.join(self.folder, "made")
        command = text(f"touch {made}") + b"\x85R"
        for module, name in (
            ("os", "system"),
            ("posix", "system"),
            ("builtins", "eval"),
            ("builtins", "getattr"),
            ("torch", "load"),
            ("torch._utils", "_rebuild_tensor"),
            ("torch", "DoubleStorage"),
            ("torch.storage", "FloatStorage"),
            ("collections", "Counter"),
            ("os\x1b", "system"),
        ):
            named = f"c{module}\n{name}\n".encode()
            for pickle in (
                b"\x80\x02" + named + command + b".",
                dictionary({"a": named + command}),
            ):
                self.assert_fault(archive(pickle, {}), f"found the global {module}.{name}")
        for opcode, known in (
            (b"\x80\x02" + text("os") + text("system") + b"\x93" + command, "STACK_GLOBAL"),
            (b"(" + text("echo") + b"ios\nsystem\n", "INST"),
            (b"(" + ORDERED + b"o", "OBJ"),
            (b"ccollections\nOrderedDict\n)\x81", "NEWOBJ"),
            (b"\x82\x01", "EXT1"),
            (b"Pa\n", "PERSID"),
            (b"S'a'\n", "STRING"),
            (b"]", "EMPTY_LIST"),
            (b"\xfe", "0xfe"),
        ):
            self.assert_fault(archive(opcode + b".", {}), f"found the opcode {known}")
        self.assertFalse(os.path.exists(made))

    def test_calls_of_known_globals(self):
        rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
        cases = (
            (rebuild + b")R", "other arguments than those of _rebuild_tensor_v2"),
            (parameter(b"K\x01"), "other arguments than those of _rebuild_parameter"),
            (b"ccollections\nOrderedDict\nK\x01\x85R", "other arguments than those of OrderedDict"),
            (tensor(b"K\x01", [2]), "other arguments"),
            (tensor(FLOAT, [-2]), "other arguments"),
            (tensor(FLOAT, [2], [-1]), "other arguments"),
            (tensor(FLOAT, [2], [1, 1]), "other arguments"),
            (tensor(FLOAT, [1] * 9), "other arguments"),
            (tensor(FLOAT, [1], [1], -1), "other arguments"),
            (tensor(FLOAT, [1 << 62], [1]), "other arguments"),
            (b"K\x01)R", "a call of what is no function"),
            (b"ctorch\nFloatStorage\n)R", "a call of what is no function"),
            (text("a") + b"Q", "a reference to what is no storage"),
            (storage("0", "FloatStorage", -1), "a reference to what is no storage"),
            (FLOAT + storage("0", "HalfStorage", 4), "two descriptions of the storage 0"),
            (FLOAT + b"}b", "a state for what is no dictionary"),
            (b"}K\x01b", "a state for what is no dictionary"),
        )
        for pushed, found in cases:
            self.assert_fault(archive(dictionary({"a": pushed}), FOUR), found)

    def test_broken_pickles(self):
        deep = b"\x80\x02" + (b"}" + text("a")) * 9 + b"K\x01" + b"s" * 9 + b"."
        itself = b"\x80\x02}q\x00" + text("a") + b"h\x00s."
        changed = b"\x80\x02}" + text("a") + b"}q\x01sq\x02" + text("b") + b"h\x01"
        changed += text("c") + b"K\x01ss."
        for pickle, found in (
            (b"", "ends too early"),
            (b"\x80\x02}", "ends too early"),
            (b"\x80\x05}.", "protocol 5"),
            (b"\x80\x02.", "0 values at its end"),
            (b"}}.", "2 values at its end"),
            (b"s.", "an opcode without its operand"),
            (b"(s.", "an opcode without its operand"),
            (b"}u.", "an opcode without its mark"),
            (b"}(K\x01u.", "items for what is no dictionary"),
            (b"K\x01(u.", "items for what is no dictionary"),
            (b"}K\x01K\x02s.", "a key of type int"),
            (b"h\x07.", "number 7 of its memo"),
            (text(b"\xff\xfe") + b".", "a text that is not UTF-8"),
            (b"X\xff\xff\xff\xff.", "ends too early"),
            (b"\x8a\xff" + bytes(255) + b".", "an integer of 255 bytes"),
            (b"c" + b"a" * 300 + b"\nb\n.", "a name of more than 255 bytes"),
            (row(range(17)) + b".", "a tuple of more than 16 items"),
            (b")\x85\x85\x85.", "three levels"),
            (deep, "dictionaries of more than 8 levels"),
            (itself, "dictionaries of more than 8 levels"),
            (b"}0.", "the opcode POP"),
            (changed, "items for what is no dictionary"),
            (b"}" * 5000 + b".", "more than 4096 values on its stack"),
        ):
            self.assert_fault(archive(pickle, {}), found)
        with mock.patch.object(pickle_reader, "MOST_OPCODES", 3):
            self.assert_fault(archive(b"K\x01" * 4 + b".", {}), "more than 3 opcodes")
        self.assert_fault(archive(ONE + b"x", FOUR), "data.pkl", f"found {len(ONE) + 1}")

    def test_tensors_beyond_their_storage(self):
        for pushed, found in (
            (tensor(FLOAT, [5]), "[5] with strides [1] from 0"),
            (tensor(FLOAT, [2, 2], [3, 1]), "[2, 2] with strides [3, 1] from 0"),
            (tensor(FLOAT, [4], [1], 1), "[4] with strides [1] from 1"),
            (tensor(FLOAT, [0], [1], 5), "[0] with strides [1] from 5"),
            # These would take memory that the file has no bytes for.
            (tensor(FLOAT, [1 << 40], [0]), "with strides [0] from 0"),
            (tensor(FLOAT, [1 << 40, 4], [0, 1]), "with strides [0, 1] from 0"),
            (tensor(FLOAT, [1 << 61] * 8, [1 << 61] * 8), f"found [{1 << 61}, "),
        ):
            message = "a: expected a tensor within the 4 numbers of its storage"
            self.assert_fault(archive(dictionary({"a": pushed}), FOUR), message, found)
        for storages, found in (
            ({"0": bytes(15)}, "found 15"),
            ({"0": bytes(17)}, "found 17"),
            ({}, "found none"),
            ({"1": bytes(16)}, "found none"),
        ):
            self.assert_fault(archive(ONE, storages), "storage 0", found)
        huge = dictionary({"a": tensor(storage("0", "FloatStorage", 1 << 50), [2])})
        self.assert_fault(archive(huge, FOUR), f"{4 << 50} bytes", "found 16")

    def test_what_is_no_dictionary_of_tensors(self):
        for pickle, found in (
            (b"K\x01.", "found type int"),
            (tensor(FLOAT, [2]) + b".", "found type View"),
            (dictionary({"a": b"K\x03"}), "a: expected a tensor, found type int"),
            (dictionary({"a": b"}"}), "a: expected a tensor, found type Dictionary"),
        ):
            self.assert_fault(archive(pickle, FOUR), found)

    def test_archives(self):
        whole = archive(ONE, FOUR)
        compressed, encrypted = io.BytesIO(), bytearray(whole)
        with zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr("archive/data.pkl", bytes(1 << 20))
        encrypted[whole.index(b"PK\1\2") + 8] |= 1
        for data, *found in (
            (b"", "a file of torch.save", "save_pretrained"),
            (b"junk" * 50, "a file of torch.save", "save_pretrained"),
            (whole[:-40], "a file of torch.save"),
            (compressed.getvalue(), "archive/data.pkl: expected a stored member"),
            (bytes(encrypted), "archive/data.pkl: expected a stored member"),
            (whole.replace(b"\x80\x02}", b"\x80\x02N", 1), "the checksum"),
            (archive(ONE, FOUR, **{"constants.pkl": b"."}), "a TorchScript archive"),
            (archive(ONE, FOUR, byteorder=b"big"), "byteorder: expected little"),
            (archive(ONE, FOUR, folder="a/b"), "an archive with 0 data.pkl"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ):
            self.assert_fault(data, *found)

    def test_old_files(self):
        stored = storage("0", "FloatStorage", 4, old=True)
        whole = old_file(dictionary({"a": tensor(stored, [2, 2])}), FOUR, 4)
        self.assertEqual(list(read_torch(self.put(whole))), ["a"])
        for data, *found in (
            (whole[:20], "another version", "save_pretrained"),
            (whole.replace(b"M\xe9\x03", b"M\xe9\x04", 1), "another version"),
            (whole.replace(b"endian\x88", b"endian\x89", 1), "little_endian: expected true"),
            (whole[:-1], "storage 0", f"an end within {len(whole) - 1} bytes"),
            (whole.replace(struct.pack("<q", 4), struct.pack("<q", 5)), "storage 0", "found 5"),
            (whole.replace(text("0") + b"e.", text("1") + b"e."), "storage 1"),
            (whole.replace(text("0") + b"e.", b"e."), "a: expected the storage 0"),
            (whole.replace(text("0") + b"e.", integer(3) + b"e."), "the opcode BININT1"),
            (whole.replace(b"](" + text("0"), text("0"), 1), "an opcode without its mark"),
        ):
            self.assert_fault(data, *found)


class FuzzTest(TorchTest):
    MOST = 8 << 20

    def outcome(self, path, read):
        """Expects tensors within the file (0) or an error (1), in bounded memory. Returns which."""
        tracemalloc.reset_peak()
        try:
            for found in read(path).values():
                self.assertLessEqual(len(found.data), os.path.getsize(path))
            code = 0
        except InputError as error:
            self.assertTrue(str(error).startswith(path), error)
            code = 1
        self.assertLess(tracemalloc.get_traced_memory()[1], self.MOST)
        return code

    def flip(self, rng, data, limit):
        data = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(limit)
            data[at] = rng.choice((rng.randrange(256), data[at] ^ 1 << rng.randrange(8), 0xFF, 0))
        return bytes(data)

    def test_byte_flips(self):
        rng, fixture = random.Random(9), Fixture(layers=(1, 1))
        pickle, storages = describe(fixture.tensors, "F16")
        old = old_file(*describe(fixture.tensors, "F16", old=True), 2)
        safe = encode_safetensors(fixture.tensors, lambda name: "F16")
        whole, header = archive(pickle, storages), 8 + int.from_bytes(safe[:8], "little")
        made = (
            lambda: (archive(self.flip(rng, pickle, len(pickle)), storages), read_torch),
            lambda: (self.flip(rng, whole, len(whole)), read_torch),
            lambda: (self.flip(rng, old, len(pickle)), read_torch),
            lambda: (self.flip(rng, safe, header), read_safetensors),
        )
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for make in made:
            codes = set()
            for _ in range(250):
                data, read = make()
                codes.add(self.outcome(self.put(data), read))
            self.assertEqual(codes, {0, 1})

    def test_cut_files(self):
        pickle, storages = describe(Fixture(layers=(1, 1)).tensors, "F16")
        for whole in (archive(pickle, storages), old_file(pickle, storages, 2)):
            for percent in range(100):
                self.assertTrue(self.fault(whole[: len(whole) * percent // 100]))


if __name__ == "__main__":
    unittest.main()
