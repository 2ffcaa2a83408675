"""Merges a LoRA adapter (Hu et al., 2021) of the library PEFT into the weights of a checkpoint:
W + scale·B·A, computed in float32. The scale is alpha/r, or alpha/√r (Kalajdzievski, 2023)."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass

import numpy as np

from checkpoint_reader import (
    BLOCK,
    FLOATS,
    REQUIRED,
    Settings,
    Tensor,
    read_safetensors,
    refuse,
    show,
)
from model_writer import to_float32

BEGINNING = "base_model.model."
PAIR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight", re.DOTALL)
# These settings change what is computed. Each has the values at which it has no effect.
NEUTRAL = {
    "peft_type": ("LORA",),
    "use_dora": (None, False),
    "bias": (None, "none"),
    "lora_bias": (None, False),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, {}, []),
    "layer_replication": (None, []),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None, []),
    **dict.fromkeys(("arrow_config", "kasa_config", "monteclora_config", "velora_config"), (None,)),
    "lora_ga_config": (None,),
    "use_qalora": (None, False),
    "use_bdlora": (None, False, {}),
    # Other initializations, such as "pissa", subtract something from the base model's weights.
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal"),
}


@dataclass(eq=False)
class Merged(Tensor):
    """This is a matrix of the base model to which a product of two narrow matrices is added.
    blocks() computes it in blocks of rows, so that the memory does not grow with the matrix."""

    base: Tensor | None = None
    # Both are float32, of shape [rows, r] and [r, columns]. `left` includes the scale.
    left: np.ndarray | None = None
    right: np.ndarray | None = None

    def merge(self, words, first):
        values = to_float32(words, self.base.dtype)
        return (values + self.left[first : first + len(words)] @ self.right).view("<u4")

    def blocks(self):
        rows = max(1, BLOCK // (4 * self.shape[1]))
        words = self.base.words()
        for first in range(0, self.shape[0], rows):
            yield self.merge(np.ascontiguousarray(words[first : first + rows]), first)
        self.base.release()

    def words(self):
        return self.merge(np.ascontiguousarray(self.base.words()), 0)


class Adapter:
    """Holds the settings of adapter_config.json, and the pairs of narrow matrices of
    adapter_model.safetensors by the module that they change."""

    def __init__(self, directory):
        path = os.path.join(directory, "adapter_config.json")
        self.settings = Settings(path)
        for key, neutral in NEUTRAL.items():
            value = self.settings.get(key)
            if not any(value == n and type(value) is type(n) for n in neutral):
                expected = " or ".join(show(n) for n in neutral if n is not None) or "nothing"
                refuse(path, key, f"{expected} (xlate merges no other adapter)", show(value))
        self.rank = self.settings.integer("r", 1, 1 << 20)
        self.alpha = self.number("lora_alpha", 8)
        self.ranks, self.alphas = self.pattern("rank_pattern"), self.pattern("alpha_pattern")
        self.root = self.settings.boolean("use_rslora", False)
        self.swapped = self.settings.boolean("fan_in_fan_out", False)
        self.targets = self.read_targets()
        self.path = os.path.join(directory, "adapter_model.safetensors")
        self.pairs = self.read_pairs(read_safetensors(self.path))

    def number(self, key, default):
        good = lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and 0 < v < 1e9
        return self.settings.take(key, default, "a number above 0", good)

    def pattern(self, key):
        """Returns an object that has numbers by the ends of modules' names. PEFT takes its keys as
        regular expressions. Only keys of letters, digits, underscores and dots are accepted,
        because they also work as plain names."""
        values = self.settings.take(key, {}, "an object", lambda v: isinstance(v, dict))
        for name, value in values.items():
            if not re.fullmatch(r"[\w.]+", name):
                refuse(self.settings.path, key, "names of modules", show(name))
            if (
                not isinstance(value, (int, float))
                or isinstance(value, bool)
                or not 0 < value < 1e9
            ):
                refuse(self.settings.path, key, f"a number above 0 for {name}", show(value))
        return values

    def read_targets(self):
        """Returns the names in target_modules. The list is empty if target_modules is a text,
        because a text is a regular expression or a word for all products."""
        targets = self.settings.take(
            "target_modules",
            REQUIRED,
            "a text or a list of names",
            lambda v: isinstance(v, (str, list)) and v and all(isinstance(t, str) for t in v),
        )
        return [] if isinstance(targets, str) else targets

    def read_pairs(self, tensors):
        pairs = {}
        for name, tensor in tensors.items():
            parts = PAIR.fullmatch(name)
            if not parts:
                expected = f"{BEGINNING}MODULE.lora_A.weight or lora_B.weight"
                refuse(self.path, name, expected, "another tensor")
            if tensor.dtype not in FLOATS or len(tensor.shape) != 2 or 0 in tensor.shape:
                found = f"{tensor.dtype} {list(tensor.shape)}"
                refuse(self.path, name, "a matrix of float32, float16 or bfloat16", found)
            pairs.setdefault(parts[1], {})[parts[2]] = tensor
        for module, pair in pairs.items():
            for letter in sorted({"A", "B"} - pair.keys()):
                refuse(self.path, f"{BEGINNING}{module}.lora_{letter}.weight", "a tensor", "none")
        if not pairs:
            refuse(self.path, "tensors", "pairs of lora_A and lora_B", "none")
        return pairs

    def merge_into(self, checkpoint, swapped):
        """Replaces the weights that the adapter changes. `swapped` says that the model stores its
        weights as [in, out]. Like PEFT, it follows the model where fan_in_fan_out says
        otherwise."""
        for key, names in (("target_modules", self.targets), ("rank_pattern", self.ranks)):
            for name in names:
                if not any(ends_with(module, name) for module in self.pairs):
                    expected = f"tensors in {os.path.basename(self.path)} for each module"
                    refuse(self.settings.path, key, expected, f"{show(name)} without any")
        for module, pair in self.pairs.items():
            name = f"{module}.weight"
            if name not in checkpoint.tensors:
                expected = f"the tensor {name} in {os.path.basename(checkpoint.path)}"
                refuse(pair["A"].path, pair["A"].name, expected, "none")
            checkpoint.tensors[name] = self.merge(module, pair, checkpoint.tensors[name], swapped)

    def merge(self, module, pair, base, swapped):
        """Returns a weight with its pair of matrices, A [r, in] and B [out, r]."""
        narrow, wide = pair["A"], pair["B"]
        key = self.key_of(module)
        rank = self.ranks.get(key, self.rank)
        shape = (narrow.shape[1], wide.shape[0]) if swapped else (wide.shape[0], narrow.shape[1])
        for tensor, found in ((narrow, narrow.shape[0]), (wide, wide.shape[1])):
            if found != rank:
                refuse(tensor.path, tensor.name, f"rank {rank} of adapter_config.json", found)
        if base.shape != shape or base.dtype not in FLOATS:
            found = f"{base.dtype} {list(base.shape)}"
            refuse(base.path, base.name, f"a matrix {list(shape)} as the adapter has", found)
        scale = self.alphas.get(key, self.alpha) / (math.sqrt(rank) if self.root else rank)
        factors = [to_float32(t.words(), t.dtype) for t in (wide, narrow)]
        left, right = [factor.T for factor in factors[::-1]] if swapped else factors
        left = left * np.float32(scale)
        described = (base.path, base.name, "float32", base.shape)
        return Merged(*described, memoryview(b""), base=base, left=left, right=right)

    def key_of(self, module):
        """Returns the first key of both patterns that a module's name ends with, or None."""
        keys = [*self.ranks, *self.alphas]
        return next((key for key in keys if ends_with(module, key)), None)


def ends_with(module, name):
    """Returns whether the last parts of a module's name are this name."""
    return module == name or module.endswith("." + name)
