"""Describes the checkpoints of each family of models that are a decoder alone: the names of their
tensors and of their settings. decoder_network.py reads config.json by these entries, and
decoder_tensors.py finds the tensors. No other part of xlate depends on the family.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# These tables hold the names of a checkpoint's tensors. The tensors of the network begin with the
# first of `prefixes`, or in some checkpoints with another one. `output` has the names that the
# output matrix may have. The product `qkv` has three names, or one where queries, keys and values
# are one matrix, and `up` has two where a gate is a matrix of its own. A norm has its sublayer and
# its place.
LLAMA = {
    "prefixes": ("model.", ""),
    "embedding": "embed_tokens.weight",
    "output": ("lm_head.weight",),
    "final_norm": "norm",
    "layer": "layers.{n}.",
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": "self_attn.o_proj",
    "up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": "mlp.down_proj",
    "query_key_norms": ("self_attn.q_norm", "self_attn.k_norm"),
    "norms": {
        ("self", "before"): "input_layernorm",
        ("feed_forward", "before"): "post_attention_layernorm",
    },
}
GEMMA = LLAMA | {
    "norms": {
        ("self", "before"): "input_layernorm",
        ("self", "inside"): "post_attention_layernorm",
        ("feed_forward", "before"): "pre_feedforward_layernorm",
        ("feed_forward", "inside"): "post_feedforward_layernorm",
    },
}
# This is the text model inside a model that also reads images.
GEMMA_WITH_IMAGES = GEMMA | {
    "prefixes": ("model.", "language_model.model.", "model.language_model."),
    "output": ("lm_head.weight", "language_model.lm_head.weight"),
    "unused": (
        "vision_tower.",
        "multi_modal_projector.",
        "model.vision_tower.",
        "model.multi_modal_projector.",
    ),
}
COHERE = LLAMA | {
    "norms": {
        ("self", "before"): "input_layernorm",
        ("feed_forward", "before"): "input_layernorm",
    },
}
PHI = LLAMA | {"qkv": ("self_attn.qkv_proj",), "up": ("mlp.gate_up_proj",)}
STARCODER = LLAMA | {"up": ("mlp.c_fc",), "down": "mlp.c_proj"}
GPT2 = {
    "prefixes": ("transformer.", ""),
    "embedding": "wte.weight",
    "positions": "wpe.weight",
    "output": ("lm_head.weight",),
    "final_norm": "ln_f",
    "layer": "h.{n}.",
    "qkv": ("attn.c_attn",),
    "out": "attn.c_proj",
    "up": ("mlp.c_fc",),
    "down": "mlp.c_proj",
    "norms": {("self", "before"): "ln_1", ("feed_forward", "before"): "ln_2"},
}
OPT = {
    "prefixes": ("model.decoder.", "decoder."),
    "embedding": "embed_tokens.weight",
    "positions": "embed_positions.weight",
    "output": ("lm_head.weight",),
    "final_norm": "final_layer_norm",
    "layer": "layers.{n}.",
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": "self_attn.out_proj",
    "up": ("fc1",),
    "down": "fc2",
    "norms": {
        ("self", "before"): "self_attn_layer_norm",
        ("feed_forward", "before"): "final_layer_norm",
    },
}
NEOX = {
    "prefixes": ("gpt_neox.", ""),
    "embedding": "embed_in.weight",
    "output": ("embed_out.weight", "lm_head.weight"),
    "final_norm": "final_layer_norm",
    "layer": "layers.{n}.",
    "qkv": ("attention.query_key_value",),
    "out": "attention.dense",
    "up": ("mlp.dense_h_to_4h",),
    "down": "mlp.dense_4h_to_h",
    "norms": {
        ("self", "before"): "input_layernorm",
        ("feed_forward", "before"): "post_attention_layernorm",
    },
}

# These are the keys of config.json.
KEYS = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head": "head_dim",
    "inner": "intermediate_size",
    "activation": "hidden_act",
    "epsilon": "rms_norm_eps",
    "context": "max_position_embeddings",
}
GEMMA_KEYS = KEYS | {"activation": "hidden_activation"}


def without(*names, **others):
    """Returns the keys without some of them, and with others."""
    return {name: key for name, key in (KEYS | others).items() if name not in names}


@dataclass(frozen=True)
class DecoderFamily:
    """Describes what the checkpoints of a family have in common. Where a comment says "or the key",
    a field is a value, or the pair of the key in config.json that has it and the default of
    transformers."""

    # This table has the names of the tensors, and that one the keys of the sizes in config.json.
    names: dict
    keys: dict = field(default_factory=lambda: KEYS)
    # These are transformers' defaults for sizes that config.json may leave out. Without an entry,
    # kv_heads is the number of heads, and head is the width over that number.
    defaults: dict = field(default_factory=dict)
    norm: str = "rms"
    # True if norms have a shift.
    shifts: bool = False
    # True if the stored gains of norms are less by 1 than those that are applied.
    gains_less_1: bool = False
    # The norms are "before" sublayers and perhaps "inside". This key, if it is there and false,
    # puts those before sublayers after them, without a final norm.
    before_key: str | None = None
    query_key_norm: bool = False
    # This is the key of the width of embeddings, in families where it may be another than the
    # network's.
    embedding_width_key: str | None = None
    # True if feed-forward layers are four times as wide as the network where config.json does not
    # say how wide they are.
    quadruple: bool = False
    # These say whether products have biases, or have the key.
    qkv_bias: bool | tuple = False
    out_bias: bool | tuple = False
    feed_forward_bias: bool | tuple = False
    # True if the weights of products are stored as [in, out].
    swapped: bool = False
    # True if the rows of the one matrix of queries, keys and values are [heads, 3, head].
    interleaved: bool = False
    gated: bool = True
    # It says whether both sublayers read the same x, or has the key.
    parallel: bool | tuple = False
    # Positions are "learned", or "none" where queries and keys are rotated.
    positions: str = "none"
    # A learned table has the first token's position in this row.
    first_position: int = 0
    # These fields say how queries and keys are rotated (decoder_rotary.py). They are the default of
    # the base and its key, and the default of the share of a head's columns and its key, if the
    # family has one. In the last one, True means that pairs of columns are neighbours, not halves.
    base: float = 10000.0
    base_key: str = "rope_theta"
    share: float = 1.0
    share_key: str | None = None
    neighbours: bool = False
    # transformers accepts these types of scaling in this family. None stands for all.
    scalings: tuple | None = None
    # This is the default of original_max_position_embeddings beside the parameters of the scaling,
    # which takes precedence over the one inside them.
    original_context: int | None = None
    # These layers have windows: "all", those that use_sliding_window and max_window_layers say
    # ("last"), or all but each so many-th (a number, or a key and its default). None stands for
    # none.
    windows: str | int | tuple | None = None
    # This is the default of sliding_window.
    window: int | None = None
    # "local" if layers with windows are rotated by a base of their own, and "only" if the others
    # are not rotated.
    window_rotation: str | None = None
    # The scores are divided by the root of a head's columns, or of the value of this key, whose
    # default is 256.
    scale_key: str | None = None
    # These are the key and the default of a bound of the scores, and those of a bound of the
    # logits.
    softcap: tuple | None = None
    output_softcap: tuple | None = None
    # These are the key and the default of the factor of the logits.
    output_scale: tuple | None = None
    # True if embeddings are multiplied by the root of the width.
    scales_embedding: bool = False
    # This is the default of tie_word_embeddings.
    tied: bool = False
    # The network is described by this object of config.json, if there is one.
    inside: str | None = None
    # True if the family's models were trained in bfloat16, so that their values overflow float16
    # whatever type a checkpoint is stored in.
    overflows_float16: bool = False
    # Another value of these keys would be another network than this entry describes.
    fixed: dict = field(default_factory=dict)
    tokenizer: str = "any"


ATTENTION_BIAS = ("attention_bias", False)
GEMMA_3 = dict(
    keys=GEMMA_KEYS,
    # The models that read images leave most of these out.
    defaults={
        "layers": 26,
        "width": 2304,
        "heads": 8,
        "kv_heads": 4,
        "head": 256,
        "inner": 9216,
        "context": 131072,
        "activation": "gelu_pytorch_tanh",
    },
    gains_less_1=True,
    query_key_norm=True,
    qkv_bias=ATTENTION_BIAS,
    out_bias=ATTENTION_BIAS,
    base=1000000.0,
    windows=("sliding_window_pattern", 6),
    window=4096,
    window_rotation="local",
    scale_key="query_pre_attn_scalar",
    output_softcap=("final_logit_softcapping", None),
    scales_embedding=True,
    tied=True,
    overflows_float16=True,
    # transformers reads attn_logit_softcapping and does not apply it in this family.
    fixed={"use_bidirectional_attention": False, "attn_logit_softcapping": None},
)
QWEN = dict(
    defaults={"kv_heads": 32, "context": 32768},
    windows="last",
    window=4096,
)
COHERE_COMMON = dict(
    keys=KEYS | {"epsilon": "layer_norm_eps"},
    defaults={"context": 8192, "epsilon": 1e-5},
    norm="layer",
    qkv_bias=ATTENTION_BIAS,
    out_bias=ATTENTION_BIAS,
    parallel=True,
    neighbours=True,
    output_scale=("logit_scale", 0.0625),
    tied=True,
)

DECODERS = {
    "gpt2": DecoderFamily(
        GPT2,
        keys=without(
            "kv_heads",
            "head",
            width="n_embd",
            layers="n_layer",
            heads="n_head",
            inner="n_inner",
            activation="activation_function",
            epsilon="layer_norm_epsilon",
            context="n_positions",
        ),
        defaults={"context": 1024, "epsilon": 1e-5, "activation": "gelu_new"},
        norm="layer",
        shifts=True,
        qkv_bias=True,
        out_bias=True,
        feed_forward_bias=True,
        swapped=True,
        gated=False,
        quadruple=True,
        positions="learned",
        tied=True,
        fixed={
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
    ),
    "opt": DecoderFamily(
        OPT,
        keys=without(
            "kv_heads", "head", "epsilon", inner="ffn_dim", activation="activation_function"
        ),
        defaults={"context": 2048, "epsilon": 1e-5, "activation": "relu"},
        norm="layer",
        shifts=True,
        before_key="do_layer_norm_before",
        embedding_width_key="word_embed_proj_dim",
        qkv_bias=("enable_bias", True),
        out_bias=("enable_bias", True),
        feed_forward_bias=("enable_bias", True),
        gated=False,
        positions="learned",
        first_position=2,
        tied=True,
        fixed={"layer_norm_elementwise_affine": True, "_remove_final_layer_norm": False},
    ),
    "llama": DecoderFamily(
        LLAMA,
        defaults={"context": 2048},
        qkv_bias=ATTENTION_BIAS,
        out_bias=ATTENTION_BIAS,
        feed_forward_bias=("mlp_bias", False),
    ),
    "mistral": DecoderFamily(
        LLAMA,
        defaults={"kv_heads": 8, "context": 131072},
        windows="all",
        window=4096,
    ),
    "qwen2": DecoderFamily(LLAMA, **QWEN, qkv_bias=True),
    "qwen3": DecoderFamily(
        LLAMA,
        **QWEN | {"defaults": QWEN["defaults"] | {"head": 128}},
        query_key_norm=True,
        qkv_bias=ATTENTION_BIAS,
        out_bias=ATTENTION_BIAS,
    ),
    "gemma2": DecoderFamily(
        GEMMA,
        keys=GEMMA_KEYS,
        defaults={"kv_heads": 4, "head": 256, "context": 8192, "activation": "gelu_pytorch_tanh"},
        gains_less_1=True,
        qkv_bias=ATTENTION_BIAS,
        out_bias=ATTENTION_BIAS,
        windows=2,
        window=4096,
        scale_key="query_pre_attn_scalar",
        softcap=("attn_logit_softcapping", 50.0),
        output_softcap=("final_logit_softcapping", 30.0),
        scales_embedding=True,
        tied=True,
        overflows_float16=True,
        fixed={"use_bidirectional_attention": False},
    ),
    "gemma3_text": DecoderFamily(GEMMA, **GEMMA_3),
    "gemma3": DecoderFamily(GEMMA_WITH_IMAGES, **GEMMA_3, inside="text_config"),
    "phi3": DecoderFamily(
        PHI,
        defaults={"context": 4096, "epsilon": 1e-5},
        share_key="partial_rotary_factor",
        scalings=("default", "longrope"),
        original_context=4096,
        windows="all",
    ),
    "gpt_neox": DecoderFamily(
        NEOX,
        keys=without("kv_heads", "head", epsilon="layer_norm_eps"),
        defaults={"context": 2048, "epsilon": 1e-5, "activation": "gelu"},
        norm="layer",
        shifts=True,
        qkv_bias=("attention_bias", True),
        out_bias=("attention_bias", True),
        feed_forward_bias=True,
        interleaved=True,
        gated=False,
        parallel=("use_parallel_residual", True),
        base_key="rotary_emb_base",
        share=0.25,
        share_key="rotary_pct",
    ),
    "starcoder2": DecoderFamily(
        STARCODER,
        keys=KEYS | {"epsilon": "norm_epsilon"},
        defaults={
            "kv_heads": 2,
            "context": 4096,
            "epsilon": 1e-5,
            "activation": "gelu_pytorch_tanh",
        },
        norm="layer",
        shifts=True,
        qkv_bias=("use_bias", True),
        out_bias=("use_bias", True),
        feed_forward_bias=("use_bias", True),
        gated=False,
        windows="all",
        tied=True,
    ),
    # The norms of queries and keys that use_qk_norm asks for have a gain for each head.
    "cohere": DecoderFamily(COHERE, **COHERE_COMMON, base=500000.0, fixed={"use_qk_norm": False}),
    "cohere2": DecoderFamily(
        COHERE,
        **COHERE_COMMON | {"keys": without("head", epsilon="layer_norm_eps")},
        windows=("sliding_window_pattern", 4),
        window=4096,
        window_rotation="only",
    ),
}
