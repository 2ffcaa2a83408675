"""Computes the rates by which queries and keys are rotated (Su et al., 2021), with every scaling
that stays the same for all lengths of a text. The numbers are those of modeling_rope_utils.py of
transformers 5, in float32 and in its order of operations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from checkpoint_reader import Settings, refuse, show
from config_values import LARGEST, take_number, take_text

KINDS = ("full_attention", "sliding_attention")


# Two layers are rotated alike if they have the same object.
@dataclass(eq=False)
class Rotation:
    """Says how a layer is rotated."""

    # [columns / 2], float32; the angle of pair j at position p is p·rates[j].
    rates: np.ndarray
    # Sines and cosines are multiplied by this factor.
    factor: float = 1.0
    # Beyond this length of a text, transformers uses other rates. None stands for no such length.
    longest: int | None = None


def read_parameters(settings, family, context):
    """Returns the parameters of rotation as Settings, with their defaults. rope_scaling takes
    precedence over rope_parameters, as in transformers 5, and both over keys beside them."""
    key = "rope_scaling" if settings.get("rope_scaling") else "rope_parameters"
    values = settings.take(key, {}, "an object", lambda v: isinstance(v, dict))
    for kind in KINDS:
        if kind in values:
            refuse(settings.path, f"{key}.{kind}", "the same rotation in all layers", "its own")
    return complete(settings, family, f"{settings.path}: {key}", values, context)


def complete(settings, family, path, values, context):
    """Returns the parameters `values` as Settings, in which what is missing has the value of
    config.json or of transformers."""
    values = {key: value for key, value in values.items() if value is not None}
    base = settings.get(family.base_key)
    values.setdefault("rope_theta", family.base if base is None else base)
    share_key = family.share_key or "partial_rotary_factor"
    share = settings.get(share_key)
    values.setdefault("partial_rotary_factor", family.share if share is None else share)
    values.setdefault("rope_type", values.get("type", "default"))
    # Phi-3 has the original context beside the parameters.
    key = "original_max_position_embeddings"
    original = settings.get(key)
    original = family.original_context if original is None else original
    if original is not None:
        values[key] = original
    values.setdefault(key, context)
    return Settings.of(values, path)


def read_columns(parameters, family, head):
    """Returns the number of columns of a head that are rotated."""
    share = take_number(parameters, "partial_rotary_factor", 0, 1)
    columns = int(head * share)
    if share != 1 and not family.share_key:
        refuse(parameters.path, "partial_rotary_factor", "1 in this family", show(share))
    if columns < 2 or columns % 2:
        expected = f"an even number of the {head} columns of a head"
        refuse(parameters.path, "partial_rotary_factor", expected, f"{columns} of them")
    return columns


def read_rotation(parameters, family, head, context):
    """Returns the Rotation that the parameters ask for."""
    kind = take_text(parameters, "rope_type")
    if family.scalings and kind in ("su", "yarn"):
        kind = "longrope"  # Phi-3 has called its scaling by these names.
    known = {name: SCALINGS[name] for name in family.scalings or SCALINGS}
    if kind not in known:
        refuse(parameters.path, "rope_type", f"one of {', '.join(known)}", kind)
    columns = read_columns(parameters, family, head)
    base = np.float32(take_number(parameters, "rope_theta", 1.001, 1e30))
    # numpy and PyTorch raise to powers in float32 with different last bits. A power in float64 that
    # is rounded once is nearest to both.
    exponents = np.arange(0, columns, 2, dtype=np.float32) / np.float32(columns)
    powers = (np.float64(base) ** exponents.astype(np.float64)).astype(np.float32)
    rotation = known[kind](parameters, powers, columns, context)
    if rotation.factor != 1 and columns != head:
        # The factor goes into the scale of the scores, which is that of all columns.
        expected = "1 where a part of a head is rotated (xlate has no other)"
        refuse(parameters.path, "attention_factor", expected, show(round(rotation.factor, 6)))
    return rotation


def unscaled(parameters, powers, columns, context):
    return Rotation(np.float32(1) / powers)


def linear(parameters, powers, columns, context):
    return Rotation(np.float32(1) / powers / np.float32(read_factor(parameters)))


def dynamic(parameters, powers, columns, context):
    """The rates change with the length of a text beyond the context, which no text exceeds."""
    read_factor(parameters)
    return Rotation(np.float32(1) / powers, longest=context)


def read_factor(parameters):
    return take_number(parameters, "factor", 1e-6, 1e6)


def read_original(parameters):
    return parameters.integer("original_max_position_embeddings", 2, LARGEST)


def llama3(parameters, powers, columns, context):
    """Wavelengths that are long in relation to the original context are stretched by a factor,
    short ones are not, and those between them are interpolated."""
    rates = np.float32(1) / powers
    factor, original = read_factor(parameters), read_original(parameters)
    low = take_number(parameters, "low_freq_factor", 1e-6, 1e6)
    high = take_number(parameters, "high_freq_factor", 1e-6, 1e6)
    if not low < high:
        refuse(parameters.path, "high_freq_factor", f"more than low_freq_factor {low}", show(high))
    lengths = np.float32(2 * math.pi) / rates
    scaled = np.where(lengths > original / low, rates / np.float32(factor), rates)
    smooth = (np.float32(original) / lengths - np.float32(low)) / np.float32(high - low)
    between = (1 - smooth) * scaled / np.float32(factor) + smooth * scaled
    is_between = (lengths >= original / high) & (lengths <= original / low)
    return Rotation(np.where(is_between, between, scaled).astype(np.float32))


def yarn_factor(parameters, factor):
    """Returns the factor of sines and cosines (Peng et al., 2023)."""
    given = parameters.get("attention_factor")
    if given is not None:
        return take_number(parameters, "attention_factor", 1e-6, 1e6)
    scale = lambda m: 1.0 if factor <= 1 else 0.1 * m * math.log(factor) + 1
    above = take_number(parameters, "mscale", 0, 1e6, 0)
    below = take_number(parameters, "mscale_all_dim", 0, 1e6, 0)
    return scale(above) / scale(below) if above and below else scale(1)


def yarn(parameters, powers, columns, context):
    """The rates go over from those of the original context to those that are divided by a factor
    (Peng et al., 2023)."""
    original, base = read_original(parameters), parameters.get("rope_theta")
    factor = take_number(parameters, "factor", 1e-6, 1e6, context / original)
    fast = take_number(parameters, "beta_fast", 0, 1e6, 32) or 32
    slow = take_number(parameters, "beta_slow", 0, 1e6, 1) or 1

    def pair_of(turns):
        return columns * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = pair_of(fast), pair_of(slow)
    if parameters.boolean("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, columns - 1)
    if low == high:
        high += 0.001
    pairs = np.arange(columns // 2, dtype=np.float32)
    ramp = np.clip((pairs - np.float32(low)) / np.float32(high - low), 0, 1)
    kept = np.float32(1) - ramp
    divided = np.float32(1) / (np.float32(factor) * powers)
    rates = divided * (1 - kept) + np.float32(1) / powers * kept
    return Rotation(rates.astype(np.float32), yarn_factor(parameters, factor))


def longrope(parameters, powers, columns, context):
    """A text longer than the original context has other rates than a shorter one, for all of its
    positions (Ding et al., 2024). xlate has those of the shorter ones."""
    original = read_original(parameters)
    good = (
        lambda v: isinstance(v, list)
        and len(v) == columns // 2
        and all(isinstance(n, (int, float)) and not isinstance(n, bool) and 0 < n < 1e9 for n in v)
    )
    factors = parameters.take("short_factor", None, f"{columns // 2} numbers", good)
    if factors is None:
        refuse(parameters.path, "short_factor", f"{columns // 2} numbers", "nothing")
    factor = take_number(parameters, "factor", 1e-6, 1e6, context / original)
    implied = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    rates = np.float32(1) / (np.array(factors, np.float32) * powers)
    factor = take_number(parameters, "attention_factor", 1e-6, 1e6, implied)
    return Rotation(rates, factor, longest=original)


SCALINGS = {
    "default": unscaled,
    "linear": linear,
    "dynamic": dynamic,
    "yarn": yarn,
    "longrope": longrope,
    "llama3": llama3,
}


def read_rotations(settings, family, head, context):
    """Returns the Rotation of each kind of layers. Both are the same object in families whose
    layers are all rotated alike."""
    if family.window_rotation != "local":
        rotation = read_rotation(read_parameters(settings, family, context), family, head, context)
        return dict.fromkeys(KINDS, rotation)
    return {
        kind: read_rotation(parameters, family, head, context)
        for kind, parameters in read_by_kind(settings, family, context).items()
    }


def read_by_kind(settings, family, context):
    """Returns the parameters of each kind of layers in a family where they differ (Gemma 3).
    rope_parameters has an object for each. Older configurations have rope_theta and rope_scaling
    for layers without windows, and rope_local_base_freq for the others."""
    is_object = lambda v: isinstance(v, dict)
    values = settings.take("rope_parameters", {}, "an object", is_object)
    if values and not any(kind in values for kind in KINDS):
        refuse(
            settings.path, "rope_parameters", f"an object for each of {', '.join(KINDS)}", values
        )
    result = {}
    for kind, base_key, base in zip(
        KINDS, ("rope_theta", "rope_local_base_freq"), (family.base, 10000.0)
    ):
        inner = Settings.of(values, f"{settings.path}: rope_parameters")
        found = dict(inner.take(kind, {}, "an object", is_object))
        if kind == KINDS[0]:
            found |= settings.take("rope_scaling", {}, "an object", is_object)
        given = settings.get(base_key)
        found.setdefault("rope_theta", base if given is None else given)
        result[kind] = complete(settings, family, f"{inner.path}.{kind}", found, context)
    return result
