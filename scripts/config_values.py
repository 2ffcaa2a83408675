"""Reads values of config.json that many families have, and the bounds of such values."""

from __future__ import annotations

import json

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
    "gelu_python_tanh": "gelu_tanh",
}
# A reader of model.bin accepts no larger number (models/section.h).
LARGEST = 1 << 24

# No network has more layers, heads or columns than this number.
MOST = 1 << 20


def check_fixed(settings, fixed):
    """Refuses other values of keys than these."""
    for key, value in fixed.items():
        settings.take(key, value, f"{json.dumps(value)} (xlate has no other)", lambda v: v is value)


def read_activation(settings, key, value):
    if value not in ACTIVATIONS:
        refuse(settings.path, key, f"one of {', '.join(ACTIVATIONS)}", value)
    return ACTIVATIONS[value]


def take_activation(settings, key, default=REQUIRED):
    """Returns the activation under a key, by its name in model.bin."""
    name = settings.take(
        key,
        default,
        f"one of {', '.join(ACTIVATIONS)}",
        lambda v: isinstance(v, str) and v in ACTIVATIONS,
    )
    return ACTIVATIONS[name]


def take_text(settings, key, default=REQUIRED):
    return settings.take(key, default, "text", lambda value: isinstance(value, str))


def take_number(settings, key, low, high, default=REQUIRED):
    """Returns a number from `low` to `high`, which must not be whole."""
    good = lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and low <= v <= high
    return settings.take(key, default, f"a number from {low:g} to {high:g}", good)


def overflows_float16(settings, family, tensors):
    """Returns whether values of the network may exceed what float16 can hold: in the families that
    say so, and in every model that was trained in bfloat16. dtype or torch_dtype in config.json
    names the type of training, or else the stored matrices. `tensors` has (name, parts)."""
    if family.overflows_float16:
        return True
    for key in ("dtype", "torch_dtype"):
        value = settings.get(key)
        if isinstance(value, str) and value != "auto":
            return value.removeprefix("torch.") == "bfloat16"
    return any(
        part.dtype == "bfloat16" for _, parts in tensors for part in parts if len(part.shape) == 2
    )
