"""Describes the checkpoints of each family: their networks (docs/model-format.md) and the names of
their tensors.

A family is an entry of FAMILIES. The functions below read config.json by that entry. No other part
of xlate knows of families.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, field

from checkpoint_reader import REQUIRED, refuse

ACTIVATIONS = {
    "relu": "relu",
    "swish": "swish",
    "silu": "swish",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
# A reader of model.bin accepts no larger number (models/section.h).
LARGEST = 1 << 24

# These are the tensors of a layer, with our name, the checkpoint's names (several are stacked by
# rows), and the shape of the weight in letters. A bias has the size of the first letter.
SELF = (
    ("self.qkv", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "DD"),
    ("self.out", ("self_attn.out_proj",), "DD"),
    ("self.norm_{place}", ("self_attn_layer_norm",), "D"),
)
CROSS = (
    ("cross.query", ("encoder_attn.q_proj",), "DD"),
    ("cross.out", ("encoder_attn.out_proj",), "DD"),
    ("cross.norm_{place}", ("encoder_attn_layer_norm",), "D"),
)
FEED_FORWARD = (
    ("feed_forward.up", ("fc1",), "FD"),
    ("feed_forward.down", ("fc2",), "DF"),
    ("feed_forward.norm_{place}", ("final_layer_norm",), "D"),
)
LAYERS = {"encoder": SELF + FEED_FORWARD, "decoder": SELF + CROSS + FEED_FORWARD}


@dataclass(frozen=True)
class Family:
    """A Family says what the checkpoints of a family have in common."""

    # The norm stands after or before a sublayer.
    place: str
    # Positions are learned, or sinusoidal where the checkpoint stores no table.
    positions: str
    # This row of a stored table belongs to the first token. The rows before it are left out.
    first_position: int = 0
    embedding_norm: bool = False
    final_norm: bool = False
    # If none, the model reads and writes ids and pieces only.
    tokenizer: str = "sentencepiece"
    # These are switches of older configurations, each with the only value that this description can
    # express.
    fixed: dict = field(default_factory=dict)


FAMILIES = {
    "marian": Family(
        "after",
        "sinusoidal",
        fixed={
            "normalize_before": False,
            "add_final_layer_norm": False,
            "normalize_embedding": False,
            "static_position_embeddings": True,
        },
    ),
    "bart": Family(
        "after",
        "learned",
        first_position=2,
        embedding_norm=True,
        tokenizer="none",
        fixed={
            "normalize_before": False,
            "add_final_layer_norm": False,
            "normalize_embedding": True,
            "static_position_embeddings": False,
        },
    ),
}


def family_of(settings):
    name = settings.take(
        "model_type",
        REQUIRED,
        f"one of {', '.join(FAMILIES)}",
        lambda v: isinstance(v, str) and v in FAMILIES,
    )
    for key, value in FAMILIES[name].fixed.items():
        settings.take(key, value, f"{json.dumps(value)} (xlate has no other)", lambda v: v is value)
    return FAMILIES[name]


def describe_stack(settings, family, stack):
    """Returns the description of one stack of the network, without its vocabulary and its stored
    positions. Those depend on the tensors."""
    width = settings.integer("d_model", 2, 1 << 20)
    if width % 2:
        refuse(settings.path, "d_model", "an even number", width)
    heads = settings.integer(f"{stack}_attention_heads", 1, 1 << 20)
    if width % heads:
        refuse(settings.path, f"{stack}_attention_heads", f"a divisor of d_model {width}", heads)
    activation = settings.take(
        "activation_function",
        REQUIRED,
        f"one of {', '.join(ACTIVATIONS)}",
        lambda v: isinstance(v, str) and v in ACTIVATIONS,
    )
    scaled = settings.boolean("scale_embedding", False)
    embedding = {
        "scale": math.sqrt(width) if scaled else 1.0,
        "positions": family.positions,
        "norm": family.embedding_norm,
    }
    if family.positions == "sinusoidal":
        embedding.update(offset=0, rate=width / 2)
    return {
        "layers": settings.integer(f"{stack}_layers", 1, 1 << 20),
        "width": width,
        "causal": stack == "decoder",
        "parallel": False,
        "residual_scale": 1.0,
        "embedding": embedding,
        "norm": {
            "kind": "layer",
            "epsilon": 1e-5,
            "places": [family.place],
            "final": family.final_norm,
        },
        "attention": {
            "heads": heads,
            "kv_heads": heads,
            "head": width // heads,
            "scale": (width // heads) ** -0.5,
        },
        "feed_forward": {
            "width": settings.integer(f"{stack}_ffn_dim", 1, 1 << 20),
            "activation": ACTIVATIONS[activation],
            "gated": False,
        },
    }


def describe_network(settings):
    family = family_of(settings)
    return {
        **{stack: describe_stack(settings, family, stack) for stack in LAYERS},
        "output": {"scale": 1.0},
    }


def list_embeddings(checkpoint, network, settings):
    """Returns the matrices of the encoder, the decoder and the projection, as one Tensor where they
    are the same.

    The tensors in the file decide, as in transformers 5: a matrix that the file has under its own
    name is used, whatever config.json says of tying, and a missing one is the matrix that it is
    tied to. Where tie_word_embeddings is false, encoder and decoder still share one matrix, as in
    transformers 4, which wrote such files. Version 5 fills missing matrices with random numbers.
    """
    width = network["encoder"]["width"]
    shared = settings.boolean("share_encoder_decoder_embeddings", True)
    tied = settings.boolean("tie_word_embeddings", True)
    encoder, decoder, projection = (
        "model.encoder.embed_tokens.weight",
        "model.decoder.embed_tokens.weight",
        "lm_head.weight",
    )
    if shared:
        together = ["model.shared.weight"] + ([projection, decoder, encoder] if tied else [])
        names = [
            [encoder] + together,
            [decoder] + together,
            [projection] + (together if tied else []),
        ]
    else:
        names = [[encoder], [decoder] + [projection] * tied, [projection] + [decoder] * tied]
    matrices = [checkpoint.take_first(choices, width) for choices in names]
    # No part of the network uses this matrix where all three have matrices of their own or share
    # none.
    checkpoint.ignore("model.shared.weight")
    if shared and not tied and not {encoder, decoder} <= checkpoint.tensors.keys():
        print(
            f"convert.py: note: {checkpoint.path}: tie_word_embeddings is false: an embedding "
            f"that is not there is model.shared.weight, as in "
            "transformers 4 (5 fills it with random numbers)",
            file=sys.stderr,
        )
    for matrix, key in zip(matrices, ("vocab_size", "decoder_vocab_size")):
        if settings.integer(key, 1, 1 << 30, matrix.shape[0]) != matrix.shape[0]:
            refuse(
                matrix.path,
                matrix.name,
                f"{settings.get(key)} rows ({key} of config.json)",
                matrix.shape[0],
            )
    if matrices[2].shape[0] != matrices[1].shape[0]:
        refuse(
            matrices[2].path,
            matrices[2].name,
            f"{matrices[1].shape[0]} rows as {matrices[1].name}",
            matrices[2].shape[0],
        )
    for stack, matrix in zip(LAYERS, matrices):
        network[stack]["embedding"]["vocabulary"] = matrix.shape[0]
    return [next(first for first in matrices if matrix.equals(first)) for matrix in matrices]


def list_positions(checkpoint, family, network, rows):
    """Yields (name, parts) of the position tables that the checkpoint stores. transformers uses
    them instead of computed ones."""
    for stack in LAYERS:
        name, embedding = f"model.{stack}.embed_positions.weight", network[stack]["embedding"]
        if family.positions != "learned" and name not in checkpoint.tensors:
            continue
        for key in ("offset", "rate"):
            embedding.pop(key, None)
        embedding.update(positions="learned", rows=rows)
        table = checkpoint.take(name, (rows + family.first_position, network[stack]["width"]))
        yield f"{stack}.positions.weight", [table.rows_from(family.first_position)]


def list_layers(checkpoint, family, network):
    """Yields (name, parts) of every tensor in the layers of both stacks."""
    for stack, layer in LAYERS.items():
        described = network[stack]
        sizes = {"D": described["width"], "F": described["feed_forward"]["width"]}
        for n in range(described["layers"]):
            for ours, theirs, letters in layer:
                for kind, shape in (
                    ("weight", [sizes[c] for c in letters]),
                    ("bias", [sizes[letters[0]]]),
                ):
                    yield (
                        f"{stack}.{n}.{ours.format(place=family.place)}.{kind}",
                        [
                            checkpoint.take(f"model.{stack}.layers.{n}.{part}.{kind}", shape)
                            for part in theirs
                        ],
                    )
    width = network["decoder"]["width"]
    for kind, shape in (("weight", [width, width]), ("bias", [width])):
        yield (
            f"decoder.cross.keys_values.{kind}",
            [
                checkpoint.take(f"model.decoder.layers.{n}.encoder_attn.{part}.{kind}", shape)
                for n in range(network["decoder"]["layers"])
                for part in ("k_proj", "v_proj")
            ],
        )


def list_norms(checkpoint, family, network):
    """Yields (name, parts) of the norms that are in no layer."""
    wanted = [("embedding.norm", "layernorm_embedding")] * family.embedding_norm + [
        ("norm", "layer_norm")
    ] * family.final_norm
    for stack in LAYERS:
        for ours, theirs in wanted:
            for kind in ("weight", "bias"):
                yield (
                    f"{stack}.{ours}.{kind}",
                    [checkpoint.take(f"model.{stack}.{theirs}.{kind}", [network[stack]["width"]])],
                )
