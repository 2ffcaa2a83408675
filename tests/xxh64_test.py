#!/usr/bin/env python3
"""Tests scripts/xxh64.py with known vectors, and that all its implementations agree."""

import os
import random
import sys
import unittest
from unittest import mock

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "scripts")
)
sys.dont_write_bytecode = True

import xxh64


class HashTest(unittest.TestCase):
    IMPLEMENTATIONS = [xxh64.PythonXXH64] + ([xxh64.LibraryXXH64] if xxh64.find_library() else [])

    def implementations(self):
        try:
            import xxhash

            return self.IMPLEMENTATIONS + [xxhash.xxh64]
        except ImportError:
            return self.IMPLEMENTATIONS

    def digest(self, make, *parts):
        state = make()
        for part in parts:
            state.update(part)
        return state.intdigest()

    def test_known_vectors(self):
        generator, sanity = 2654435761, bytearray()
        for _ in range(222):
            sanity.append(generator >> 56)
            generator = generator * 11400714785074694797 % (1 << 64)
        vectors = (
            (b"", 0xEF46DB3751D8E999),
            (b"a", 0xD24EC4F1A98C6E5B),
            (b"abc", 0x44BC2CF5AD770999),
            (bytes(sanity[:1]), 0xE934A84ADB052768),
            (bytes(sanity[:4]), 0x9136A0DCA57457EE),
            (bytes(sanity[:14]), 0x8282DCC4994E35C8),
            (bytes(sanity), 0xB641AE8CB691C174),
        )
        for make in self.implementations():
            for data, digest in vectors:
                self.assertEqual(self.digest(make, data), digest, (make, data))

    def test_all_agree_however_the_data_is_cut(self):
        rng = random.Random(5)
        for size in [*range(0, 100), 1000, 4096, 100_003]:
            data = rng.randbytes(size)
            cuts = sorted(rng.randrange(size + 1) for _ in range(4))
            parts = [data[a:b] for a, b in zip([0] + cuts, cuts + [size])]
            digests = {
                self.digest(make, *p)
                for make in self.implementations()
                for p in ([data], parts, [memoryview(data)])
            }
            self.assertEqual(len(digests), 1, size)

    def test_falls_back(self):
        with mock.patch.dict(sys.modules, xxhash=None):
            self.assertIsInstance(
                xxh64.start(), xxh64.LibraryXXH64 if xxh64.find_library() else xxh64.PythonXXH64
            )
            with mock.patch.object(xxh64, "find_library", lambda: None):
                self.assertIsInstance(xxh64.start(), xxh64.PythonXXH64)


if __name__ == "__main__":
    unittest.main()
