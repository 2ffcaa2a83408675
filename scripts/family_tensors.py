"""Finds the tensors of model.bin (docs/model-format.md) in a checkpoint, by the entry of its family
in families.py. The functions return or yield the name in model.bin and the parts, which are tensors
of the checkpoint that become one tensor by rows, one after another."""

from __future__ import annotations

import math
import sys

from checkpoint_reader import refuse
from families import SUBLAYERS


def list_matrix_names(family, settings):
    """Returns the names under which the encoder's, the decoder's and the output's matrix may be
    stored, in the order in which they are tried."""
    before = family.names["embeddings"]
    stored = {
        "S": f"{before}shared.weight",
        "E": f"{before}encoder.embed_tokens.weight",
        "D": f"{before}decoder.embed_tokens.weight",
        "H": "lm_head.weight",
    }
    tied = family.always_tied or settings.boolean("tie_word_embeddings", True)
    if family.two_vocabularies and not settings.boolean("share_encoder_decoder_embeddings", True):
        letters = ("E", "DH", "HD") if tied else ("E", "D", "H")
    elif tied:
        letters = ["E" + family.ties, "D" + family.ties, "H" + family.ties]
    else:
        letters = ("ES", "DS", "H")
    return [[stored[letter] for letter in dict.fromkeys(choices)] for choices in letters]


def list_embeddings(checkpoint, family, network, settings):
    """Returns the encoder's, the decoder's and the output's matrix. Equal matrices are one Tensor.

    The tensors in the file decide, as in transformers 5: a matrix that the file has under its own
    name is used, whatever config.json says of tying, and a missing one is the matrix that it is
    tied to. Where tie_word_embeddings is false, encoder and decoder still share one matrix, as in
    transformers 4, which wrote such files. Version 5 fills missing matrices with random numbers.
    """
    width, names = network["encoder"]["width"], list_matrix_names(family, settings)
    matrices = [checkpoint.take_first(choices, width) for choices in names]
    common = f"{family.names['embeddings']}shared.weight"
    # Only matrices that are not tied have two names to choose from.
    if len(names[0]) == 2 and common in (matrices[0].name, matrices[1].name):
        print(
            f"convert.py: note: {checkpoint.path}: tie_word_embeddings is false: an embedding "
            f"that is not there is {common}, as in "
            "transformers 4 (5 fills it with random numbers)",
            file=sys.stderr,
        )
    # Nobody uses the shared matrix where all three have their own, or where none is shared.
    checkpoint.ignore(common)
    check_rows(matrices, family, settings)
    for stack, matrix in zip(SUBLAYERS, matrices):
        network[stack]["embedding"]["vocabulary"] = matrix.shape[0]
    return [next(first for first in matrices if matrix.equals(first)) for matrix in matrices]


def check_rows(matrices, family, settings):
    """Refuses matrices of the embeddings that have other numbers of rows than config.json says."""
    keys = ("vocab_size", "decoder_vocab_size" if family.two_vocabularies else "vocab_size")
    for matrix, key in zip(matrices, keys):
        if settings.integer(key, 1, 1 << 30, matrix.shape[0]) != matrix.shape[0]:
            refuse(
                matrix.path,
                matrix.name,
                f"{settings.get(key)} rows ({key} of config.json)",
                matrix.shape[0],
            )
    _, decoder, output = matrices
    if output.shape[0] != decoder.shape[0]:
        expected = f"{decoder.shape[0]} rows as {decoder.name}"
        refuse(output.path, output.name, expected, output.shape[0])


def list_positions(checkpoint, family, network, rows):
    """Yields (name, parts) of the position tables that the checkpoint stores. Like transformers, it
    takes them in place of computed positions, except in families that ignore them."""
    if family.positions == "none":
        return
    for stack in SUBLAYERS:
        name = family.names["positions"].format(stack=stack)
        embedding = network[stack]["embedding"]
        if family.positions != "learned" and name not in checkpoint.tensors:
            continue
        if not family.stored_positions:
            checkpoint.ignore(name)
            continue
        for key in ("offset", "rate"):
            embedding.pop(key, None)
        embedding.update(positions="learned", rows=rows)
        table = checkpoint.take(name, (rows + family.first_position, network[stack]["width"]))
        yield f"{stack}.positions.weight", [table.rows_from(family.first_position)]


def list_kinds(family, shape):
    """Yields (kind, shape) of a product's or norm's tensors."""
    yield "weight", shape
    if family.biases:
        yield "bias", shape[:1]


def list_layers(checkpoint, family, network):
    """Yields (name, parts) of every tensor in the layers of both stacks."""
    for stack, sublayers in SUBLAYERS.items():
        for n in range(network[stack]["layers"]):
            layer = family.names["layer"].format(stack=stack, n=n)
            for sublayer in sublayers:
                yield from list_sublayer(checkpoint, family, network, stack, n, layer, sublayer)
    decoder = network["decoder"]
    attention = decoder["attention"]
    shape = [attention["heads"] * attention["head"], network["encoder"]["width"]]
    layers = [family.names["layer"].format(stack="decoder", n=n) for n in range(decoder["layers"])]
    for kind, shape in list_kinds(family, shape):
        yield (
            f"decoder.cross.keys_values.{kind}",
            [
                checkpoint.take(f"{layer}{part}.{kind}", shape)
                for layer in layers
                for part in family.names["cross_keys_values"]
            ],
        )


def list_sublayer(checkpoint, family, network, stack, n, layer, sublayer):
    """Yields (name, parts) of the products and the norm of a sublayer of layer `n`. `layer` is the
    beginning of the checkpoint's names."""
    described, last = network[stack], len(SUBLAYERS[stack]) - 1
    attention, feed_forward = described["attention"], described["feed_forward"]
    sizes = {
        "D": described["width"],
        "A": attention["heads"] * attention["head"],
        "F": feed_forward["width"],
    }
    for ours, theirs in family.names[sublayer].items():
        if ours == "up" and feed_forward["gated"]:
            theirs = family.names["gated_up"]
        if ours == "norm":
            ours, theirs = f"norm_{family.place}", ((theirs,), "D")
        parts, letters = theirs
        for kind, shape in list_kinds(family, [sizes[c] for c in letters]):
            names = [f"{layer}{part.format(last=last)}.{kind}" for part in parts]
            yield (
                f"{stack}.{n}.{sublayer}.{ours}.{kind}",
                [checkpoint.take(name, shape) for name in names],
            )


def list_norms(checkpoint, family, network):
    """Yields (name, parts) of the norms outside the layers."""
    wanted = [("embedding.norm", "embedding_norm")] * family.embedding_norm + [
        ("norm", "final_norm")
    ] * family.final_norm
    for stack in SUBLAYERS:
        for ours, key in wanted:
            theirs = family.names[key].format(stack=stack)
            for kind, shape in list_kinds(family, [network[stack]["width"]]):
                yield f"{stack}.{ours}.{kind}", [checkpoint.take(f"{theirs}.{kind}", shape)]


def bucket_of(distance, buckets, furthest, both_ways):
    """Returns T5's distance bucket of a key that stands `distance` positions after the query, or
    before it if `distance` is negative (Raffel et al., 2020). The first half of a side's distance
    buckets have one distance each. In the second half the number of the distance bucket grows with
    the logarithm of the distance."""
    first = 0
    if both_ways:
        buckets //= 2
        first = buckets if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    logarithmic = exact + int(
        math.log(distance / exact) / math.log(furthest / exact) * (buckets - exact)
    )
    return first + min(logarithmic, buckets - 1)


def list_biases(checkpoint, family, network, settings):
    """Yields (name, parts) of the tables of biases by distance, [heads, 2·distances + 1]. The
    checkpoint keeps the biases by distance buckets, and a table has them for every distance that
    can make a difference."""
    for name in family.names["unused"]:
        checkpoint.ignore(name)
    if "buckets" not in family.names:
        return
    buckets = settings.integer("relative_attention_num_buckets", 4, 1 << 16, 32)
    for stack in SUBLAYERS:
        attention = network[stack]["attention"]
        furthest = attention["distances"]
        table = checkpoint.take(
            family.names["buckets"].format(stack=stack), [buckets, attention["heads"]]
        )
        columns = [
            bucket_of(distance, buckets, furthest, stack == "encoder")
            for distance in range(-furthest, furthest + 1)
        ]
        yield f"{stack}.self.distance_bias", [table.columns_of_rows(columns)]
