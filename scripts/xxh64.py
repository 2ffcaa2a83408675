"""Computes XXH64 with seed 0 (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md), the
hash of model.bin.

start() returns the fastest implementation that is available: the Python package, the C library, or
plain Python. Each has update(bytes) and intdigest().
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import struct

import numpy as np


class LibraryXXH64:
    """Computes the hash with the C library libxxhash."""

    def __init__(self):
        self.library = find_library()
        self.state = self.library.XXH64_createState()
        self.library.XXH64_reset(self.state, 0)

    def update(self, data):
        if len(data):
            address = np.frombuffer(data, np.uint8).ctypes.data
            self.library.XXH64_update(self.state, address, len(data))

    def intdigest(self):
        return self.library.XXH64_digest(self.state)

    def __del__(self):
        if getattr(self, "state", None):
            self.library.XXH64_freeState(self.state)


@functools.lru_cache(None)
def find_library():
    """Returns libxxhash with its signatures declared, or None."""
    for name in ("libxxhash.so.0", "libxxhash.dylib", ctypes.util.find_library("xxhash")):
        try:
            library = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if library is not None:
            library.XXH64_createState.restype = ctypes.c_void_p
            library.XXH64_digest.restype = ctypes.c_uint64
            library.XXH64_digest.argtypes = library.XXH64_freeState.argtypes = [ctypes.c_void_p]
            library.XXH64_reset.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
            library.XXH64_update.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        return library
    return None


class PythonXXH64:
    """Computes the hash in plain Python at about 10 MB/s, for machines that have neither of the
    others."""

    P1, P2, P3, P4, P5 = (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x27D4EB2F165667C5,
    )
    MASK = (1 << 64) - 1

    def __init__(self):
        self.lanes = (self.P1 + self.P2) & self.MASK, self.P2, 0, -self.P1 & self.MASK
        self.rest, self.length = b"", 0

    def update(self, data):
        data = self.rest + bytes(data)
        whole = len(data) // 32 * 32
        self.length += len(data) - len(self.rest)
        a, b, c, d = self.lanes
        p1, p2, mask = self.P1, self.P2, self.MASK
        # The loop is written out, because calls would double the time.
        for w, x, y, z in struct.iter_unpack("<4Q", data[:whole]):
            a = (a + w * p2) & mask
            b = (b + x * p2) & mask
            c = (c + y * p2) & mask
            d = (d + z * p2) & mask
            a = (a << 31 | a >> 33) * p1 & mask
            b = (b << 31 | b >> 33) * p1 & mask
            c = (c << 31 | c >> 33) * p1 & mask
            d = (d << 31 | d >> 33) * p1 & mask
        self.lanes, self.rest = (a, b, c, d), data[whole:]

    def rotate(self, value, bits):
        return (value << bits | value >> (64 - bits)) & self.MASK

    def mix(self, word):
        return self.rotate(word * self.P2 & self.MASK, 31) * self.P1 & self.MASK

    def intdigest(self):
        value, rest, mask = self.P5, self.rest, self.MASK
        if self.length >= 32:
            value = sum(map(self.rotate, self.lanes, (1, 7, 12, 18))) & mask
            for lane in self.lanes:
                value = ((value ^ self.mix(lane)) * self.P1 + self.P4) & mask
        value = (value + self.length) & mask
        while len(rest) >= 8:
            value = (
                self.rotate(value ^ self.mix(int.from_bytes(rest[:8], "little")), 27) * self.P1
                + self.P4
            ) & mask
            rest = rest[8:]
        if len(rest) >= 4:
            value = (
                self.rotate(value ^ int.from_bytes(rest[:4], "little") * self.P1 & mask, 23)
                * self.P2
                + self.P3
            ) & mask
            rest = rest[4:]
        for byte in rest:
            value = self.rotate(value ^ byte * self.P5 & mask, 11) * self.P1 & mask
        value = (value ^ value >> 33) * self.P2 & mask
        value = (value ^ value >> 29) * self.P3 & mask
        return value ^ value >> 32


def start():
    try:
        import xxhash

        return xxhash.xxh64(seed=0)
    except ImportError:
        return LibraryXXH64() if find_library() else PythonXXH64()
