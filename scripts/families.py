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

# The parts of a layer, by the names of the checkpoint: a sublayer's products (several are stacked by
# rows), and its norm. Letters are the weight's shape: D width, A heads·head, F feed-forward width; a
# bias has the first.
FAIRSEQ = {
    "layer": "model.{stack}.layers.{n}.",
    "self": {
        "qkv": (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "AD"),
        "out": (("self_attn.out_proj",), "DA"),
        "norm": "self_attn_layer_norm",
    },
    "cross": {
        "query": (("encoder_attn.q_proj",), "AD"),
        "out": (("encoder_attn.out_proj",), "DA"),
        "norm": "encoder_attn_layer_norm",
    },
    "feed_forward": {
        "up": (("fc1",), "FD"),
        "down": (("fc2",), "DF"),
        "norm": "final_layer_norm",
    },
    "cross_keys_values": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "embedding_norm": "model.{stack}.layernorm_embedding",
    "final_norm": "model.{stack}.layer_norm",
    "positions": "model.{stack}.embed_positions.weight",
    "embeddings": "model.",
}
# The index of a block's feed-forward is 1 in the encoder and 2 in the decoder.
T5 = {
    "layer": "{stack}.block.{n}.layer.",
    "self": {
        "qkv": (("0.SelfAttention.q", "0.SelfAttention.k", "0.SelfAttention.v"), "AD"),
        "out": (("0.SelfAttention.o",), "DA"),
        "norm": "0.layer_norm",
    },
    "cross": {
        "query": (("1.EncDecAttention.q",), "AD"),
        "out": (("1.EncDecAttention.o",), "DA"),
        "norm": "1.layer_norm",
    },
    "feed_forward": {
        "up": (("{last}.DenseReluDense.wi",), "FD"),
        "down": (("{last}.DenseReluDense.wo",), "DF"),
        "norm": "{last}.layer_norm",
    },
    "gated_up": (("{last}.DenseReluDense.wi_0", "{last}.DenseReluDense.wi_1"), "FD"),
    "cross_keys_values": ("1.EncDecAttention.k", "1.EncDecAttention.v"),
    "final_norm": "{stack}.final_layer_norm",
    "buckets": "{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "embeddings": "",
}
SUBLAYERS = {
    "encoder": ("self", "feed_forward"),
    "decoder": ("self", "cross", "feed_forward"),
}


@dataclass(frozen=True)
class Family:
    """A Family says what the checkpoints of a family have in common."""

    names: dict  # of the tensors
    place: str  # of the norm: after or before a sublayer
    # Where the checkpoint stores no table: learned (then it must), sinusoidal, or none.
    positions: str
    # The row of a learned table, or the position of a computed one, of the first token.
    first_position: int = 0
    # Whether a stored table of positions is used where computed ones would do.
    stored_positions: bool = True
    # Of computed positions: pairs of columns less this is the rate.
    rate_less: int = 0
    norm: str = "layer"
    biases: bool = True  # of products and norms
    embedding_norm: bool = False
    final_norm: bool = False
    tokenizer: str = "none"  # sentencepiece; none: the model takes and gives ids and pieces only
    # Switches of older configurations, each with the only value that this description expresses.
    fixed: dict = field(default_factory=dict)


def switches(before, final, embedding_norm, static):
    return {
        "normalize_before": before,
        "add_final_layer_norm": final,
        "normalize_embedding": embedding_norm,
        "static_position_embeddings": static,
    }


FAMILIES = {
    "marian": Family(
        FAIRSEQ,
        "after",
        "sinusoidal",
        tokenizer="sentencepiece",
        fixed=switches(False, False, False, True),
    ),
    "bart": Family(
        FAIRSEQ,
        "after",
        "learned",
        first_position=2,
        embedding_norm=True,
        fixed=switches(False, False, True, False),
    ),
    "mbart": Family(
        FAIRSEQ,
        "before",
        "learned",
        first_position=2,
        embedding_norm=True,
        final_norm=True,
        fixed=switches(True, True, True, False),
    ),
    "m2m_100": Family(
        FAIRSEQ,
        "before",
        "sinusoidal",
        first_position=2,
        stored_positions=False,
        rate_less=1,
        final_norm=True,
    ),
    "pegasus": Family(
        FAIRSEQ,
        "before",
        "sinusoidal",
        final_norm=True,
        fixed=switches(True, True, False, True),
    ),
    "t5": Family(T5, "before", "none", norm="rms", biases=False, final_norm=True),
    "mt5": Family(T5, "before", "none", norm="rms", biases=False, final_norm=True),
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


def read_activation(settings, key, value):
    if value not in ACTIVATIONS:
        refuse(settings.path, key, f"one of {', '.join(ACTIVATIONS)}", value)
    return ACTIVATIONS[value]


def read_fairseq_sizes(settings, stack):
    """Sizes of a stack as the configurations of fairseq's descendants name them."""
    width = settings.integer("d_model", 2, 1 << 20)
    heads = settings.integer(f"{stack}_attention_heads", 1, 1 << 20)
    if width % heads:
        refuse(settings.path, f"{stack}_attention_heads", f"a divisor of d_model {width}", heads)
    activation = settings.take(
        "activation_function",
        REQUIRED,
        f"one of {', '.join(ACTIVATIONS)}",
        lambda v: isinstance(v, str) and v in ACTIVATIONS,
    )
    return {
        "layers": settings.integer(f"{stack}_layers", 1, 1 << 20),
        "width": width,
        "heads": heads,
        "head": width // heads,
        "attention_scale": (width // heads) ** -0.5,
        "inner": settings.integer(f"{stack}_ffn_dim", 1, 1 << 20),
        "activation": ACTIVATIONS[activation],
        "gated": False,
        "epsilon": 1e-5,
        "scale": math.sqrt(width) if settings.boolean("scale_embedding", False) else 1.0,
        "distances": 0,
    }


def read_t5_sizes(settings, stack):
    """Sizes of a stack as T5's configurations name them."""
    layers = settings.integer("num_layers", 1, 1 << 20)
    if stack == "decoder":
        layers = settings.integer("num_decoder_layers", 1, 1 << 20, layers)
    # "gated-gelu" means the tanh form, and "gated-silu" and plain names what they say.
    words = settings.take("feed_forward_proj", "relu", "text", lambda v: isinstance(v, str)).split(
        "-"
    )
    if len(words) > 2 or (len(words) == 2 and words[0] != "gated"):
        refuse(
            settings.path,
            "feed_forward_proj",
            "an activation, or gated-ACTIVATION",
            "-".join(words),
        )
    activation = "gelu_new" if words == ["gated", "gelu"] else words[-1]
    return {
        "layers": layers,
        "width": settings.integer("d_model", 2, 1 << 20),
        "heads": settings.integer("num_heads", 1, 1 << 20),
        "head": settings.integer("d_kv", 1, 1 << 20),
        "attention_scale": 1.0,
        "inner": settings.integer("d_ff", 1, 1 << 20),
        "activation": read_activation(settings, "feed_forward_proj", activation),
        "gated": len(words) == 2,
        "epsilon": float(
            settings.take(
                "layer_norm_epsilon",
                1e-6,
                "a number from 0 to 1",
                lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and 0 <= v <= 1,
            )
        ),
        "scale": 1.0,
        "distances": settings.integer("relative_attention_max_distance", 1, 1 << 20, 128),
    }


def describe_stack(settings, family, stack):
    """One stack of the network, but for its vocabulary and stored positions, which only the tensors
    tell."""
    sizes = (read_t5_sizes if family.names is T5 else read_fairseq_sizes)(settings, stack)
    if sizes["width"] % 2:
        refuse(settings.path, "d_model", "an even number", sizes["width"])
    embedding = {
        "scale": sizes["scale"],
        "positions": family.positions,
        "norm": family.embedding_norm,
    }
    if family.positions == "sinusoidal":
        embedding.update(offset=family.first_position, rate=sizes["width"] / 2 - family.rate_less)
    attention = {
        "heads": sizes["heads"],
        "kv_heads": sizes["heads"],
        "head": sizes["head"],
        "scale": sizes["attention_scale"],
    }
    if sizes["distances"]:
        attention["distances"] = sizes["distances"]
    return {
        "layers": sizes["layers"],
        "width": sizes["width"],
        "causal": stack == "decoder",
        "parallel": False,
        "residual_scale": 1.0,
        "embedding": embedding,
        "norm": {
            "kind": family.norm,
            "epsilon": sizes["epsilon"],
            "places": [family.place],
            "final": family.final_norm,
        },
        "attention": attention,
        "feed_forward": {
            "width": sizes["inner"],
            "activation": sizes["activation"],
            "gated": sizes["gated"],
        },
    }


def read_output_scale(settings, width):
    """What T5 multiplies its logits by. Its configuration says it by a key of its own, or else by
    whether the matrices are tied; mT5 never scales."""
    if settings.get("model_type") != "t5":
        return 1.0
    scaled = settings.boolean(
        "scale_decoder_outputs", settings.boolean("tie_word_embeddings", True)
    )
    return width**-0.5 if scaled else 1.0


def describe_network(settings):
    family = family_of(settings)
    network = {stack: describe_stack(settings, family, stack) for stack in SUBLAYERS}
    network["output"] = {"scale": read_output_scale(settings, network["decoder"]["width"])}
    return network


def list_embeddings(checkpoint, family, network, settings):
    """The encoder's, the decoder's and the projection's matrix: one Tensor where they are the same.

    The tensors in the file decide, as in transformers 5: a matrix that the file has under its own
    name is used, whatever config.json says of tying, and a missing one is the matrix that it is
    tied to. Where tie_word_embeddings is false, encoder and decoder still share one matrix, as in
    transformers 4, which wrote such files. Version 5 fills missing matrices with random numbers.
    """
    width = network["encoder"]["width"]
    shared = settings.boolean("share_encoder_decoder_embeddings", True)
    tied = settings.boolean("tie_word_embeddings", True)
    before = family.names["embeddings"]
    encoder, decoder, projection = (
        f"{before}encoder.embed_tokens.weight",
        f"{before}decoder.embed_tokens.weight",
        "lm_head.weight",
    )
    common = f"{before}shared.weight"
    if shared:
        together = [common] + ([projection, decoder, encoder] if tied else [])
        names = [
            [encoder] + together,
            [decoder] + together,
            [projection] + (together if tied else []),
        ]
    else:
        names = [[encoder], [decoder] + [projection] * tied, [projection] + [decoder] * tied]
    matrices = [checkpoint.take_first(choices, width) for choices in names]
    checkpoint.ignore(common)  # which nobody uses where all three have their own, or share none
    if shared and not tied and not {encoder, decoder} <= checkpoint.tensors.keys():
        print(
            f"convert.py: note: {checkpoint.path}: tie_word_embeddings is false: an embedding "
            f"that is not there is {common}, as in "
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
    for stack, matrix in zip(SUBLAYERS, matrices):
        network[stack]["embedding"]["vocabulary"] = matrix.shape[0]
    return [next(first for first in matrices if matrix.equals(first)) for matrix in matrices]


def list_positions(checkpoint, family, network, rows):
    """(name, parts) of the position tables that the checkpoint stores: transformers uses them in
    place of computed ones."""
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
    """(kind, shape) of a product's or norm's tensors."""
    yield "weight", shape
    if family.biases:
        yield "bias", shape[:1]


def list_layers(checkpoint, family, network):
    """(name, parts) of every tensor in the layers of both stacks."""
    for stack, sublayers in SUBLAYERS.items():
        described, last = network[stack], len(sublayers) - 1
        attention, feed_forward = described["attention"], described["feed_forward"]
        sizes = {
            "D": described["width"],
            "A": attention["heads"] * attention["head"],
            "F": feed_forward["width"],
        }
        for n in range(described["layers"]):
            layer = family.names["layer"].format(stack=stack, n=n)
            for sublayer in sublayers:
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


def list_norms(checkpoint, family, network):
    """(name, parts) of the norms that stand in no layer."""
    wanted = [("embedding.norm", "embedding_norm")] * family.embedding_norm + [
        ("norm", "final_norm")
    ] * family.final_norm
    for stack in SUBLAYERS:
        for ours, key in wanted:
            theirs = family.names[key].format(stack=stack)
            for kind, shape in list_kinds(family, [network[stack]["width"]]):
                yield f"{stack}.{ours}.{kind}", [checkpoint.take(f"{theirs}.{kind}", shape)]


def bucket_of(distance, buckets, furthest, both_ways):
    """T5's bucket of a key that stands `distance` behind the query (Raffel et al. 2020): as many
    as half of a side's buckets hold one distance each, the others grow like its logarithm."""
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
    """(name, parts) of the tables of biases by distance, [heads, 2·distances + 1]: what the
    checkpoint keeps by buckets, for every distance that can make a difference."""
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
