"""Reads and checks a model.bin. It is written from docs/model-format.md alone and shares nothing
with the converter but the hash."""

import json
import struct

import numpy as np

STORAGE = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "int8": "i1"}


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def sublayer_shapes(described, sublayer):
    """Returns the shapes of the products of one sublayer."""
    d, f = described["width"], described["feed_forward"]["width"]
    head = described["attention"]["head"]
    a, kv = (described["attention"][key] * head for key in ("heads", "kv_heads"))
    if sublayer == "feed_forward":
        gates = 2 if described["feed_forward"]["gated"] else 1
        return {"up": [gates * f, d], "down": [d, f]}
    first = {"qkv": [a + 2 * kv, d]} if sublayer == "self" else {"query": [a, d]}
    return {**first, "out": [d, a]}


def rotation_shapes(described, stack):
    """Returns the shapes of the tables for positions in attention, and those of the norms of
    queries and keys, which never have a shift."""
    attention, shapes = described["attention"], {}
    if attention.get("rotary_dims"):
        rows = 1 + max(attention.get("rates", [0]))
        shapes[f"{stack}.rotary.rates"] = [rows, attention["rotary_dims"] // 2]
    if attention.get("slope"):
        shapes[f"{stack}.self.slopes"] = [attention["heads"]]
    if attention.get("query_key_norm"):
        for n in range(described["layers"]):
            for part in ("query", "key"):
                shapes[f"{stack}.{n}.self.{part}_norm.weight"] = [attention["head"]]
    return shapes


def stack_shapes(described, stack, has_source):
    """Returns the shapes of the matrices of a stack and the sizes of its norms, by name."""
    d, embedding = described["width"], described["embedding"]
    matrices, tables, norms = {}, {}, {}
    tables[f"{stack}.embedding.weight"] = [embedding["vocabulary"], d]
    if embedding["positions"] == "learned":
        tables[f"{stack}.positions.weight"] = [embedding["rows"], d]
    if "distances" in described["attention"]:
        distances, heads = (described["attention"][key] for key in ("distances", "heads"))
        tables[f"{stack}.self.distance_bias"] = [heads, 2 * distances + 1]
    tables.update(rotation_shapes(described, stack))
    outside = ["embedding.norm"] * embedding["norm"] + ["norm"] * described["norm"]["final"]
    norms.update({f"{stack}.{name}": [d] for name in outside})
    for n in range(described["layers"]):
        for sublayer in ("self", "feed_forward") + ("cross",) * has_source:
            name = f"{stack}.{n}.{sublayer}"
            for product, shape in sublayer_shapes(described, sublayer).items():
                matrices[f"{name}.{product}"] = shape
            norms.update({f"{name}.norm_{place}": [d] for place in described["norm"]["places"]})
    return matrices, tables, norms


def expected_shapes(network):
    """Returns the shape of every tensor that the format requires, and those of biases, which are
    optional. Encoder-decoder models with layer norms have all biases, and those with RMS norms have
    none."""
    d, layers = network["decoder"]["width"], network["decoder"]["layers"]
    target = network["decoder"]["embedding"]["vocabulary"]
    attention, has_encoder = network["decoder"]["attention"], "encoder" in network
    shapes, matrices, norms, biases = {"decoder.projection.weight": [target, d]}, {}, {}, {}
    if has_encoder:
        rows = 2 * attention["heads"] * attention["head"] * layers
        matrices["decoder.cross.keys_values"] = [rows, d]
    for stack in ("encoder", "decoder") if has_encoder else ("decoder",):
        has_source = has_encoder and stack == "decoder"
        found, tables, more = stack_shapes(network[stack], stack, has_source)
        matrices.update(found)
        shapes.update(tables)
        norms.update(more)
    for name, shape in (matrices | norms).items():
        shapes[name + ".weight"] = shape
        biases[name + ".bias"] = shape[:1]
    if has_encoder and network["decoder"]["norm"]["kind"] == "layer":
        shapes.update(biases)
    return shapes, {} if has_encoder else biases


class ModelBin:
    """This is a model file. `header` is the JSON, `tensors` has float32 arrays by name (int8
    dequantized), `stored` has arrays by name as stored, and `files` has bytes by name."""

    def __init__(self, path, hash64):
        with open(path, "rb") as file:
            self.data = data = file.read()
        magic, digest, version, zero, header_bytes, total = struct.unpack("<8sQIIQQ", data[:40])
        check((magic, version, zero) == (b"XLATEMDL", 2, 0), "magic, version or zero")
        check(total == len(data), f"file size {len(data)}, said {total}")
        check(hash64(data[16:]) == digest, "hash")
        self.header = json.loads(data[40 : 40 + header_bytes].decode("utf-8"))
        self.start = -(-(40 + header_bytes) // 64) * 64
        check(not any(data[40 + header_bytes : self.start]), "gap after the header is not zero")
        self.check_places(total - self.start)
        self.stored = {e["name"]: self.stored_tensor(e) for e in self.header["tensors"]}
        self.files = {
            e["name"]: data[self.start + e["offset"] :][: e["bytes"]] for e in self.header["files"]
        }
        self.check_tensors()
        self.tensors = {
            name: self.values(name) for name in self.stored if not name.endswith(".scale")
        }

    def check_places(self, size):
        """Checks that offsets are aligned and in order, that data are shared entirely or not at
        all, and that gaps are zero."""
        entries, end, previous = self.header["tensors"] + self.header["files"], 0, None
        names = [e["name"] for e in entries]
        check(len(set(names)) == len(names), "a name occurs twice")
        for e in entries:
            place = (e["offset"], e["bytes"], e.get("dtype"), e.get("shape"))
            if place == previous:
                continue
            check(
                e["offset"] == -(-end // 64) * 64, f"{e['name']}: offset {e['offset']} after {end}"
            )
            check(
                not any(self.data[self.start + end : self.start + e["offset"]]),
                f"gap before {e['name']} is not zero",
            )
            end, previous = e["offset"] + e["bytes"], place
        check(end == size, f"data of {end} bytes in {size}")

    def stored_tensor(self, e):
        storage = np.dtype(STORAGE[e["dtype"]])
        check(e["bytes"] == storage.itemsize * int(np.prod(e["shape"])), f"{e['name']}: bytes")
        return np.frombuffer(
            self.data, storage, int(np.prod(e["shape"])), self.start + e["offset"]
        ).reshape(e["shape"])

    def check_tensors(self):
        shapes, optional = expected_shapes(self.header["network"])
        names = {e["name"] for e in self.header["tensors"]}
        shapes.update({name: shape for name, shape in optional.items() if name in names})
        if any(e["name"] == "decoder.projection.bias" for e in self.header["tensors"]):
            shapes["decoder.projection.bias"] = shapes["decoder.projection.weight"][:1]
        for e in self.header["tensors"]:
            if e["dtype"] == "int8":
                check(len(e["shape"]) == 2, f"{e['name']}: an int8 vector")
                shapes[e["name"] + ".scale"] = e["shape"][:1]
        found = {e["name"]: e["shape"] for e in self.header["tensors"]}
        check(found == shapes, f"tensors: {set(found) ^ set(shapes)} or their shapes")

    def values(self, name):
        entry, stored = (
            next(e for e in self.header["tensors"] if e["name"] == name),
            self.stored[name],
        )
        if entry["dtype"] == "bfloat16":
            return (stored.astype(np.uint32) << 16).view(np.float32)
        if entry["dtype"] == "int8":
            return stored.astype(np.float32) * self.stored[name + ".scale"][:, None]
        return stored.astype(np.float32)

    def offset(self, name):
        return next(
            e["offset"] for e in self.header["tensors"] + self.header["files"] if e["name"] == name
        )

    def pieces(self, side):
        """Returns one str or None for each id."""
        data, at, result = self.files[side + ".pieces"], 0, []
        while at < len(data):
            (length,) = struct.unpack_from("<I", data, at)
            at += 4
            if length == 0xFFFFFFFF:
                result.append(None)
            else:
                check(at + length <= len(data), "a piece runs over")
                result.append(data[at : at + length].decode("utf-8"))
                at += length
        check(
            len(result)
            == self.header["network"][
                "encoder" if side == "source" and "encoder" in self.header["network"] else "decoder"
            ]["embedding"]["vocabulary"],
            f"{len(result)} pieces",
        )
        return result
