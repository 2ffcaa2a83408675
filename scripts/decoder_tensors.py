"""Finds the tensors of model.bin (docs/model-format.md) in the checkpoint of a model that is a
decoder alone, by the entry of its family in decoder_families.py. The functions yield the name in
model.bin and the parts, which become one tensor by rows, one after another."""

from __future__ import annotations

import numpy as np

from changed_tensor import add_1, take_rows, transpose
from checkpoint_reader import Tensor, refuse
from decoder_network import read_flag


def rename_tensors(checkpoint, family, adapter=None):
    """Gives the tensors of a checkpoint and the modules of an adapter the names that the family's
    table has, and removes those that no text needs."""
    names = family.names
    unused = names.get("unused", ())
    checkpoint.tensors = {
        name: tensor
        for name, tensor in checkpoint.tensors.items()
        if not (unused and name.startswith(unused))
    }
    usual = names["prefixes"][0]
    found = (p for p in names["prefixes"] if p + names["embedding"] in checkpoint.tensors)
    prefix = next(found, usual)
    if prefix == usual:
        return
    outputs = tuple(name.removesuffix("weight") for name in names["output"])

    def rename(name):
        has_own = prefix == "" and (name + ".").startswith((usual, *outputs))
        if has_own or not name.startswith(prefix):
            return name
        return usual + name.removeprefix(prefix)

    checkpoint.tensors = {rename(name): t for name, t in checkpoint.tensors.items()}
    if adapter:
        adapter.pairs = {rename(module): pair for module, pair in adapter.pairs.items()}


class DecoderTensors:
    """Takes the tensors of a network from a checkpoint."""

    def __init__(self, checkpoint, family, network, settings):
        self.checkpoint, self.family, self.network = checkpoint, family, network
        self.settings, self.decoder = settings, network.header["decoder"]
        self.names = family.names
        attention = self.decoder["attention"]
        self.heads, self.head = attention["heads"], attention["head"]
        self.rows = {
            "query": self.heads * self.head,
            "key": attention["kv_heads"] * self.head,
        }

    def list(self):
        """Yields all tensors in the order of the file, and completes the description of the
        network."""
        yield from self.list_embeddings()
        if self.decoder["norm"]["final"]:
            yield from self.norm("decoder.norm", self.prefixed(self.names["final_norm"]))
        if self.network.rates is not None:
            yield "decoder.rotary.rates", [self.rates()]
        for n in range(self.decoder["layers"]):
            yield from self.list_layer(n, self.prefixed(self.names["layer"].format(n=n)))
        self.checkpoint.check_all_taken()

    def prefixed(self, name):
        return self.names["prefixes"][0] + name

    def list_embeddings(self):
        """Yields the embedding, the output matrix and the table of positions. Equal matrices are
        one Tensor. An output matrix that the file has is used, whatever tie_word_embeddings says,
        as in transformers 5."""
        width, described = self.decoder["width"], self.decoder["embedding"]
        name = self.prefixed(self.names["embedding"])
        embedding = self.checkpoint.take_first([name, name], width)
        tied = self.settings.boolean("tie_word_embeddings", self.family.tied)
        # take_first() names the second one if none is there.
        outputs = [*self.names["output"][:1] * 2, *self.names["output"][1:]]
        output = self.checkpoint.take_first([*outputs, name] if tied else outputs, width)
        rows = self.settings.integer("vocab_size", 1, 1 << 30, embedding.shape[0])
        for matrix in (embedding, output):
            if matrix.shape[0] != rows:
                expected = f"{rows} rows (vocab_size of config.json)"
                refuse(matrix.path, matrix.name, expected, matrix.shape[0])
        described["vocabulary"] = rows
        yield "decoder.embedding.weight", [embedding]
        yield "decoder.projection.weight", [embedding if output.equals(embedding) else output]
        if described["positions"] == "learned":
            first, name = self.family.first_position, self.prefixed(self.names["positions"])
            table = self.checkpoint.take(name, (described["rows"] + first, width))
            yield "decoder.positions.weight", [table.rows_from(first)]

    def rates(self):
        data = self.network.rates.astype("<f4")
        words = data.reshape(-1).view(np.uint8).data
        return Tensor(self.settings.path, "rates", "float32", data.shape, words)

    def norm(self, ours, theirs, width=None):
        """Yields the tensors of a norm."""
        shape = [width or self.decoder["width"]]
        gain = self.checkpoint.take(f"{theirs}.weight", shape)
        yield f"{ours}.weight", [add_1(gain) if self.family.gains_less_1 else gain]
        if self.family.shifts:
            yield f"{ours}.bias", [self.checkpoint.take(f"{theirs}.bias", shape)]

    def product(self, ours, names, rows, columns, bias, orders=None):
        """Yields the tensors of a product that is made of the named ones. `rows` has the number of
        rows of each of them, and `orders` the order of its rows, or None."""
        orders = orders or [None] * len(names)
        for kind in ["weight"] + ["bias"] * read_flag(self.settings, bias):
            yield (
                f"{ours}.{kind}",
                [
                    self.part(f"{name}.{kind}", *rest, columns)
                    for name, *rest in zip(names, rows, orders)
                ],
            )

    def part(self, name, rows, order, columns):
        shape = [rows, columns] if name.endswith(".weight") else [rows]
        swapped = self.family.swapped and len(shape) == 2
        tensor = self.checkpoint.take(name, shape[::-1] if swapped else shape)
        tensor = transpose(tensor) if swapped else tensor
        return tensor if order is None else take_rows(tensor, order)

    def list_qkv(self, ours, layer):
        width, names = self.decoder["width"], [layer + name for name in self.names["qkv"]]
        query, key = self.rows["query"], self.rows["key"]
        rows, orders = [query, key, key], None
        if len(names) == 1:
            rows = [sum(rows)]
        if self.family.interleaved:
            # [heads, 3, head] becomes [3, heads, head].
            order = np.arange(rows[0]).reshape(self.heads, 3, self.head).transpose(1, 0, 2)
            orders = [order.reshape(-1)]
        if self.family.neighbours:
            orders = [self.halves(query), self.halves(key), None]
        yield from self.product(ours, names, rows, width, self.family.qkv_bias, orders)

    def halves(self, rows):
        """Returns the order of rows in which the first and the second columns of each head's pairs
        lie together, where the pairs were neighbours."""
        columns = np.arange(self.head).reshape(-1, 2).T.reshape(-1)
        return (np.arange(rows).reshape(-1, self.head)[:, columns]).reshape(-1)

    def list_layer(self, n, layer):
        """Yields the tensors of layer `n`. `layer` is the beginning of the checkpoint's names."""
        ours, family = f"decoder.{n}", self.family
        width, inner = self.decoder["width"], self.decoder["feed_forward"]["width"]
        yield from self.list_qkv(f"{ours}.self.qkv", layer)
        if self.decoder["attention"]["query_key_norm"]:
            for name, theirs in zip(("query", "key"), self.names["query_key_norms"]):
                yield from self.norm(f"{ours}.self.{name}_norm", layer + theirs, self.head)
        out, query = [layer + self.names["out"]], self.rows["query"]
        yield from self.product(f"{ours}.self.out", out, [width], query, family.out_bias)
        up = [layer + name for name in self.names["up"]]
        rows = [(2 if family.gated else 1) * inner // len(up)] * len(up)
        bias = family.feed_forward_bias
        yield from self.product(f"{ours}.feed_forward.up", up, rows, width, bias)
        down = [layer + self.names["down"]]
        yield from self.product(f"{ours}.feed_forward.down", down, [width], inner, bias)
        places = self.decoder["norm"]["places"]
        for (sublayer, place), theirs in self.names["norms"].items():
            place = place if place in places else places[0]
            yield from self.norm(f"{ours}.{sublayer}.norm_{place}", layer + theirs)
