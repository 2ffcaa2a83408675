"""Takes model files apart, changes them and gives them a valid hash again. It is written from
docs/model-format.md alone."""

import json
import struct


def xxh64(data):
    p1, p2, p3, p4, p5, mask = (
        11400714785074694791,
        14029467366897019727,
        1609587929392839161,
        9650029242287828579,
        2870177450012600261,
        (1 << 64) - 1,
    )
    rotate = lambda x, r: ((x << r) | (x >> (64 - r))) & mask
    step = lambda v, lane: rotate((v + lane * p2) & mask, 31) * p1 & mask
    at, n = 0, len(data)
    if n >= 32:
        a, b, c, d = (p1 + p2) & mask, p2, 0, -p1 & mask
        for la, lb, lc, ld in struct.iter_unpack("<4Q", memoryview(data)[: n - n % 32]):
            a, b, c, d = step(a, la), step(b, lb), step(c, lc), step(d, ld)
        at = n - n % 32
        h = (rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18)) & mask
        for v in (a, b, c, d):
            h = ((h ^ step(0, v)) * p1 + p4) & mask
    else:
        h = p5
    h = (h + n) & mask
    while at + 8 <= n:
        h = (rotate(h ^ step(0, struct.unpack_from("<Q", data, at)[0]), 27) * p1 + p4) & mask
        at += 8
    if at + 4 <= n:
        h = (rotate(h ^ (struct.unpack_from("<I", data, at)[0] * p1 & mask), 23) * p2 + p3) & mask
        at += 4
    for byte in data[at:]:
        h = rotate(h ^ (byte * p5 & mask), 11) * p1 & mask
    h = (h ^ (h >> 33)) * p2 & mask
    h = (h ^ (h >> 29)) * p3 & mask
    return h ^ (h >> 32)


def sealed(data):
    """Returns the same model file with the hash of its bytes, so that a fault in it is not found by
    the hash."""
    return data[:8] + struct.pack("<Q", xxh64(data[16:])) + data[16:]


class ModelFile:
    def __init__(self, path):
        with open(path, "rb") as file:
            raw = file.read()
        size = struct.unpack_from("<Q", raw, 24)[0]
        self.version, self.header = (
            struct.unpack_from("<I", raw, 16)[0],
            json.loads(raw[40 : 40 + size].decode("utf-8")),
        )
        self.data = bytearray(raw[(40 + size + 63) // 64 * 64 :])

    def tensor(self, name):
        return next(entry for entry in self.header["tensors"] if entry["name"] == name)

    def file(self, name):
        return next(entry for entry in self.header["files"] if entry["name"] == name)

    def bytes(self):
        text = json.dumps(self.header, ensure_ascii=False).encode("utf-8")
        start = (40 + len(text) + 63) // 64 * 64
        head = struct.pack(
            "<8sQIIQQ", b"XLATEMDL", 0, self.version, 0, len(text), start + len(self.data)
        )
        return sealed((head + text).ljust(start, b"\0") + bytes(self.data))

    def replace_piece(self, side, id, text):
        """Replaces the piece of an id by another one with the same number of bytes."""
        entry = self.file(side + ".pieces")
        at = entry["offset"]
        for _ in range(id):
            length = struct.unpack_from("<I", self.data, at)[0]
            at += 4 + (0 if length == 0xFFFFFFFF else length)
        length = struct.unpack_from("<I", self.data, at)[0]
        assert length == len(text), (length, text)
        self.data[at + 4 : at + 4 + length] = text
