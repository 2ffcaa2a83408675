"""Reads the config.json of a model that is a decoder alone, and describes its network as
docs/model-format.md says. decoder_families.py says what the keys are in each family."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np

from checkpoint_reader import REQUIRED, Settings, refuse, show
from config_values import LARGEST, MOST, check_fixed, take_activation, take_number
from decoder_rotary import KINDS, read_rotations

FULL, SLIDING = KINDS


@dataclass
class DecoderNetwork:
    """Describes a network without its vocabulary, which only the tensors tell."""

    header: dict
    # A prompt and what follows it have at most this many tokens.
    context: int
    # [rows, columns / 2], float32, or None where nothing is rotated.
    rates: np.ndarray | None


def settings_of_network(settings, family):
    """Returns the settings that describe the network. In some families they are an object inside
    config.json, beside which other keys may stand."""
    if family.inside is not None:
        inner = settings.take(family.inside, REQUIRED, "an object", lambda v: isinstance(v, dict))
        settings = Settings.of(settings.values | inner, f"{settings.path}: {family.inside}")
    check_fixed(settings, family.fixed)
    return settings


def read_flag(settings, value):
    """Returns a flag of DecoderFamily, which is a value or the key that has it and its default."""
    return settings.boolean(*value) if isinstance(value, tuple) else value


def read_optional(settings, key, default, low, high):
    """Returns a number, or None where there is none. null is another thing here than an absent key,
    for which the default counts."""
    if key in settings.values and settings.get(key) is None:
        return None
    return take_number(settings, key, low, high, default)


def read_sizes(settings, family):
    """Returns the sizes of the network."""
    size = lambda name: settings.integer(
        family.keys[name], 1, MOST, family.defaults.get(name, REQUIRED)
    )
    layers, width, heads = (size(name) for name in ("layers", "width", "heads"))
    if width % 2:
        refuse(settings.path, family.keys["width"], "an even number", width)
    absent = lambda name: settings.get(family.keys[name]) is None
    head = family.defaults.get("head")
    if "head" in family.keys:
        head = settings.integer(family.keys["head"], 1, MOST, head)
    if head is None and width % heads:
        key = family.keys["heads"]
        refuse(settings.path, key, f"a divisor of {family.keys['width']} {width}", heads)
    kv_heads = heads
    if "kv_heads" in family.keys:
        key = family.keys["kv_heads"]
        # null stands for the number of heads, and an absent key for the default.
        default = heads if key in settings.values else family.defaults.get("kv_heads", heads)
        kv_heads = settings.integer(key, 1, MOST, default)
        if heads % kv_heads:
            refuse(settings.path, key, f"a divisor of {heads} heads", kv_heads)
    return {
        "layers": layers,
        "width": width,
        "heads": heads,
        "kv_heads": kv_heads,
        "head": width // heads if head is None else head,
        "inner": 4 * width if family.quadruple and absent("inner") else size("inner"),
    }


def list_kinds(settings, family, layers):
    """Returns the kind of each layer: whether it has a window. layer_types says so if it is there,
    as in transformers."""
    if family.windows is None:
        return [FULL] * layers
    window = read_window(settings, family)
    if family.windows == "all":
        implied = [FULL if window is None else SLIDING] * layers
    elif family.windows == "last":
        first = settings.integer("max_window_layers", 0, LARGEST, 28)
        implied = [SLIDING if window is not None and n >= first else FULL for n in range(layers)]
    else:
        every = family.windows
        if isinstance(every, tuple):
            every = settings.integer(every[0], 1, LARGEST, every[1])
        implied = [SLIDING if (n + 1) % every else FULL for n in range(layers)]
    kinds = settings.take(
        "layer_types",
        implied,
        f"{layers} times one of {', '.join(KINDS)}",
        lambda v: isinstance(v, list) and len(v) == layers and all(kind in KINDS for kind in v),
    )
    if family.windows == "all" and kinds != implied:
        # transformers gives such a model to another class.
        refuse(settings.path, "layer_types", f"{implied[0]} in all layers", show(kinds))
    if SLIDING in kinds and window is None:
        refuse(settings.path, "sliding_window", f"a number, as layers are {SLIDING}", "nothing")
    return kinds


def read_window(settings, family):
    """Returns the number of keys that a query sees in layers with a window, or None if no layer has
    one."""
    if family.windows == "last" and not settings.boolean("use_sliding_window", False):
        return None
    window = read_optional(settings, "sliding_window", family.window, 1, LARGEST)
    return None if window is None else int(window)


def describe_attention(settings, family, sizes, kinds, rotations, context):
    """Returns the description of attention, and the table of rates or None. `rotations` has the
    Rotation of each kind of layers, or is None."""
    scaled_by = sizes["head"]
    if family.scale_key:
        scaled_by = take_number(settings, family.scale_key, 1e-6, LARGEST, 256)
    attention = {
        **{key: sizes[key] for key in ("heads", "kv_heads", "head")},
        "scale": scaled_by**-0.5,
        "query_key_norm": family.query_key_norm,
    }
    if family.softcap:
        bound = read_optional(settings, *family.softcap, 1e-6, 1e6)
        attention |= {} if bound is None else {"softcap": float(bound)}
    # A window that is no shorter than the context hides nothing.
    window = read_window(settings, family) if SLIDING in kinds else None
    if window is not None and window < context:
        attention["windows"] = [window if kind == SLIDING else 0 for kind in kinds]
    if rotations is None:
        return attention, None
    rotated = [SLIDING] if family.window_rotation == "only" else dict.fromkeys(kinds)
    rows = list(
        {id(rotations[kind]): rotations[kind] for kind in rotated if kind in kinds}.values()
    )
    if not rows:
        return attention, None
    if len({row.factor for row in rows}) > 1:
        refuse(settings.path, "rope_parameters", "one attention_factor in all layers", "several")
    attention["scale"] *= rows[0].factor ** 2
    attention["rotary_dims"] = 2 * len(rows[0].rates)
    row_of = lambda kind: rows.index(rotations[kind]) if kind in rotated else -1
    rates = [row_of(kind) for kind in kinds]
    if any(rates):
        attention["rates"] = rates
    return attention, np.stack([row.rates for row in rows])


def describe_norm(settings, family):
    places = list(dict.fromkeys(place for _, place in family.names["norms"]))
    before = family.before_key is None or settings.boolean(family.before_key, True)
    epsilon = family.defaults.get("epsilon", 1e-6)
    if "epsilon" in family.keys:
        epsilon = take_number(settings, family.keys["epsilon"], 0, 1, epsilon)
    return {
        "kind": family.norm,
        "epsilon": float(epsilon),
        "places": places if before else ["after"],
        "final": before,
    }


def read_context(settings, family, rotations):
    """Returns the number of tokens that a prompt and what follows it may have in all."""
    context = settings.integer(family.keys["context"], 2, LARGEST, family.defaults["context"])
    for rotation in (rotations or {}).values():
        if rotation.longest is not None and rotation.longest < context:
            context = rotation.longest
            print(
                f"convert.py: note: {settings.path}: the context is {context} tokens: transformers "
                "rotates all positions of a longer text differently",
                file=sys.stderr,
            )
    return context


def describe_output(settings, family):
    output = {"scale": 1.0}
    if family.output_scale:
        key, default = family.output_scale
        output["scale"] = float(take_number(settings, key, -1e6, 1e6, default))
    if family.output_softcap:
        bound = read_optional(settings, *family.output_softcap, 1e-6, 1e6)
        output |= {} if bound is None else {"softcap": float(bound)}
    return output


def check_widths(settings, family, width):
    """Refuses embeddings of another width than the network's."""
    key = family.embedding_width_key
    if key and settings.integer(key, 1, MOST, width) != width:
        expected = f"{family.keys['width']} {width} (xlate has no other)"
        refuse(settings.path, key, expected, settings.get(key))


def describe_decoder(settings, family):
    """Returns the DecoderNetwork of a checkpoint. `settings` has what settings_of_network()
    returns."""
    sizes = read_sizes(settings, family)
    check_widths(settings, family, sizes["width"])
    kinds = list_kinds(settings, family, sizes["layers"])
    rotations = None
    longest = settings.integer(family.keys["context"], 2, LARGEST, family.defaults["context"])
    if family.positions == "none":
        rotations = read_rotations(settings, family, sizes["head"], longest)
    context = read_context(settings, family, rotations)
    attention, rates = describe_attention(settings, family, sizes, kinds, rotations, context)
    width = sizes["width"]
    embedding = {
        "scale": math.sqrt(width) if family.scales_embedding else 1.0,
        "positions": family.positions,
        "norm": False,
    }
    if family.positions == "learned":
        embedding["rows"] = context
    activation = take_activation(
        settings, family.keys["activation"], family.defaults.get("activation", "silu")
    )
    decoder = {
        "layers": sizes["layers"],
        "width": width,
        "causal": True,
        "parallel": read_flag(settings, family.parallel),
        "residual_scale": 1.0,
        "embedding": embedding,
        "norm": describe_norm(settings, family),
        "attention": attention,
        "feed_forward": {
            "width": sizes["inner"],
            "activation": activation,
            "gated": family.gated,
        },
    }
    header = {"decoder": decoder, "output": describe_output(settings, family)}
    return DecoderNetwork(header, context, rates)
