"""Describes the checkpoints of each family of encoder-decoder models: their networks
(docs/model-format.md) and the names of their tensors. decoder_families.py has the other families.

A family is an entry of FAMILIES. The functions below read config.json by that entry, and
family_tensors.py finds the tensors by it. languages.py knows the language tokens of the
multilingual families. No other part of xlate depends on the family.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from checkpoint_reader import REQUIRED, refuse
from config_values import (
    LARGEST,
    MOST,
    check_fixed,
    read_activation,
    take_activation,
    take_text,
)
from decoder_families import DECODERS

# A table of biases has a column for every distance up to this one, in both directions.
MOST_DISTANCES = 1 << 16

# FAIRSEQ and T5 hold the names of a checkpoint's tensors. Each sublayer has its products and its
# norm. A product with several names is made of their matrices, which are stacked by rows. The two
# letters are the shape of a weight, where D is the width, A is heads·head and F is the width of the
# feed-forward layer. {stack} is encoder or decoder, and {n} is the number of a layer.
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
    "unused": (),
}
# {last} is the index of the feed-forward layer in a block: 1 in the encoder and 2 in the decoder.
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
    # The first T5 checkpoints have this table, which transformers ignores as well.
    "unused": ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),
}
SUBLAYERS = {
    "encoder": ("self", "feed_forward"),
    "decoder": ("self", "cross", "feed_forward"),
}


@dataclass(frozen=True)
class Family:
    """Describes what the checkpoints of a family have in common."""

    # This table has the names of the tensors.
    names: dict
    # Norms stand "before" or "after" a sublayer.
    place: str
    # With "learned" the checkpoint must store a table of positions. With "sinusoidal" they are
    # computed where it stores none. With "none" the network has no positions.
    positions: str
    # A learned table has the first token's position in this row, and a computed table begins with
    # this position. None stands for the position after config.json's pad_token_id, as in M2M-100.
    first_position: int | None = 0
    # True if a stored table is used even where the positions could be computed.
    stored_positions: bool = True
    # The rate of computed positions is the number of pairs of columns less this number.
    rate_less: int = 0
    norm: str = "layer"
    # True if products and norms have biases.
    biases: bool = True
    embedding_norm: bool = False
    final_norm: bool = False
    # True if the checkpoint may have final_logits_bias.
    output_bias: bool = True
    # Where a matrix of the embeddings is not stored, the first of these that is stored is used: the
    # shared matrix S, or that of the encoder E, the decoder D or the output H.
    ties: str = "SHDE"
    # True if the matrices are tied whatever tie_word_embeddings says.
    always_tied: bool = False
    # True if encoder and decoder may have vocabularies of their own.
    two_vocabularies: bool = False
    # True if the logits are multiplied by 1/√width unless config.json says otherwise.
    scales_output: bool = False
    # These are the defaults of transformers for scale_embedding and feed_forward_proj, which
    # config.json may leave out.
    scales_embedding: bool = False
    feed_forward: str = "relu"
    # The first element is the key in config.json of the number of source tokens that the model was
    # made for. The second one is this number where the key is absent.
    longest: tuple = ("max_position_embeddings", 1024)
    # True if the weights of products are stored as [in, out].
    swapped: bool = False
    # True if the family's models were trained in bfloat16, so that their values overflow float16
    # whatever type a checkpoint is stored in.
    overflows_float16: bool = False
    # The tokenizer is "sentencepiece" in Marian, and otherwise "any" that AutoTokenizer takes.
    tokenizer: str = "any"
    # Older configurations have these switches. Another value than this one is refused, because it
    # would be another network than this entry describes.
    fixed: dict = field(default_factory=dict)


def switches(before, final, embedding_norm, static):
    """Returns the switches of older configurations with these values."""
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
        two_vocabularies=True,
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
        first_position=None,
        stored_positions=False,
        rate_less=1,
        final_norm=True,
        output_bias=False,
        scales_embedding=True,
    ),
    "pegasus": Family(
        FAIRSEQ,
        "before",
        "sinusoidal",
        final_norm=True,
        fixed=switches(True, True, False, True),
    ),
    "t5": Family(
        T5,
        "before",
        "none",
        norm="rms",
        biases=False,
        final_norm=True,
        output_bias=False,
        ties="SHED",
        always_tied=True,
        longest=("n_positions", 512),
        scales_output=True,
        overflows_float16=True,
    ),
    "mt5": Family(
        T5,
        "before",
        "none",
        norm="rms",
        biases=False,
        final_norm=True,
        output_bias=False,
        ties="SEDH",
        always_tied=True,
        longest=("n_positions", 512),
        feed_forward="gated-gelu",
        overflows_float16=True,
    ),
}


def family_of(settings):
    """Returns the entry of FAMILIES, or that of DECODERS for a model that is a decoder alone."""
    known = FAMILIES | DECODERS
    name = settings.take(
        "model_type",
        REQUIRED,
        f"one of {', '.join(known)}",
        lambda v: isinstance(v, str) and v in known,
    )
    family = known[name]
    if name in FAMILIES:
        check_fixed(settings, family.fixed)
    return family


def read_longest(settings, family):
    """Returns the number of source tokens that the model was made for."""
    key, default = family.longest
    return settings.integer(key, 2, LARGEST, default)


def read_width(settings):
    width = settings.integer("d_model", 2, MOST)
    if width % 2:
        refuse(settings.path, "d_model", "an even number", width)
    return width


def read_fairseq_sizes(settings, family, stack):
    """Returns the sizes of a stack as the configurations of fairseq's descendants name them."""
    width = read_width(settings)
    heads = settings.integer(f"{stack}_attention_heads", 1, MOST)
    if width % heads:
        refuse(settings.path, f"{stack}_attention_heads", f"a divisor of d_model {width}", heads)
    scaled = settings.boolean("scale_embedding", family.scales_embedding)
    return {
        "layers": settings.integer(f"{stack}_layers", 1, MOST),
        "width": width,
        "heads": heads,
        "head": width // heads,
        "attention_scale": (width // heads) ** -0.5,
        "inner": settings.integer(f"{stack}_ffn_dim", 1, MOST),
        "activation": take_activation(settings, "activation_function"),
        "gated": False,
        "epsilon": 1e-5,
        "scale": math.sqrt(width) if scaled else 1.0,
        "distances": 0,
    }


def read_t5_activation(settings, family):
    """Returns the activation of T5's feed-forward layers, and whether they have a gate. Both follow
    from feed_forward_proj, unless config.json has them under their own names. "gated-gelu" means
    the tanh form of GELU, and every other name means what it says."""
    text = take_text(settings, "feed_forward_proj", family.feed_forward)
    words = text.split("-")
    if len(words) > 2 or (len(words) == 2 and words[0] != "gated"):
        refuse(settings.path, "feed_forward_proj", "an activation, or gated-ACTIVATION", text)
    implied = "gelu_new" if text == "gated-gelu" else words[-1]
    gated = settings.boolean("is_gated_act", words[0] == "gated")
    if settings.get("dense_act_fn") is None:
        return read_activation(settings, "feed_forward_proj", implied), gated
    return read_activation(settings, "dense_act_fn", take_text(settings, "dense_act_fn")), gated


def read_t5_sizes(settings, family, stack):
    """Returns the sizes of a stack as T5's configurations name them."""
    layers = settings.integer("num_layers", 1, MOST)
    if stack == "decoder":
        layers = settings.integer("num_decoder_layers", 1, MOST, layers)
    activation, gated = read_t5_activation(settings, family)
    epsilon = settings.take(
        "layer_norm_epsilon",
        1e-6,
        "a number from 0 to 1",
        lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and 0 <= v <= 1,
    )
    return {
        "layers": layers,
        "width": read_width(settings),
        "heads": settings.integer("num_heads", 1, MOST),
        "head": settings.integer("d_kv", 1, MOST),
        "attention_scale": 1.0,
        "inner": settings.integer("d_ff", 1, MOST),
        "activation": activation,
        "gated": gated,
        "epsilon": float(epsilon),
        "scale": 1.0,
        "distances": read_distances(settings),
    }


def read_distances(settings):
    """Returns the distance from which on T5's biases are the same. It must be greater than the
    number of distance buckets that hold one distance each, which is half the number of distance
    buckets in the decoder."""
    buckets = settings.integer("relative_attention_num_buckets", 4, 1 << 16, 32)
    return settings.integer(
        "relative_attention_max_distance", buckets // 2 + 1, MOST_DISTANCES, 128
    )


def describe_stack(settings, family, stack):
    """Returns the description of a stack. Its vocabulary and stored positions are missing, because
    only the tensors tell them."""
    sizes = (read_t5_sizes if family.names is T5 else read_fairseq_sizes)(settings, family, stack)
    embedding = {
        "scale": sizes["scale"],
        "positions": family.positions,
        "norm": family.embedding_norm,
    }
    if family.positions == "sinusoidal":
        first = family.first_position
        if first is None:
            # Then padding has no position, also where it stands inside a source, and the position
            # of the first token is the id of padding and 1.
            pad = settings.integer("pad_token_id", 0, LARGEST, 1)
            first = pad + 1
            if stack == "encoder":
                embedding["unplaced"] = pad
        embedding.update(offset=first, rate=sizes["width"] / 2 - family.rate_less)
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


def read_output_scale(settings, family, width):
    """Returns the factor of T5's logits. scale_decoder_outputs in config.json says whether they are
    scaled. If it is absent, tie_word_embeddings says so, which means nothing else in this family.
    mT5 never scales its logits."""
    if not family.scales_output:
        return 1.0
    tied = settings.boolean("tie_word_embeddings", True)
    return width**-0.5 if settings.boolean("scale_decoder_outputs", tied) else 1.0


def describe_network(settings):
    """Returns the description of an encoder-decoder network."""
    family = family_of(settings)
    network = {stack: describe_stack(settings, family, stack) for stack in SUBLAYERS}
    scale = read_output_scale(settings, family, network["decoder"]["width"])
    network["output"] = {"scale": scale}
    return network
