"""Recognises checkpoints that xlate does not support, and refuses them with a message that says
what to do instead. These are the checkpoints of other programs, quantised ones, mixtures of experts
and adapters without their base model."""

from __future__ import annotations

import os
import re

from checkpoint_reader import is_integer, refuse, show

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# The tensors that programs for quantisation put beside a weight or in its place: AWQ and GPTQ,
# bitsandbytes, fp8, compressed-tensors and mxfp4, in this order.
QUANTISED = re.compile(
    r"(.*\.)?(qweight|qzeros|scales|g_idx"
    r"|SCB|weight_format|(weight\.)?(nested_)?(absmax|quant_map)|weight\.quant_state\..*"
    r"|(weight|input|output)_scale(_inv|_2)?"
    r"|weight_packed|weight_shape|weight_zero_point|weight_global_scale"
    r"|\w+_(blocks|scales))",
    re.DOTALL,
)
EXPERTS = re.compile(
    r"(.*\.)?(router|experts|block_sparse_moe|shared_expert|gate\.wg)\..*", re.DOTALL
)
# Configurations have the number of experts under one of these keys. One expert is no mixture.
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
DENSE = "a dense model (xlate has no mixtures of experts)"
PLAIN = (
    "weights of 16 or 32 bits (convert the original checkpoint, or one that was dequantised and "
    "saved again; --dtype int8 stores 8 bits)"
)
BASE = (
    "a whole model (convert the base model with --adapter and this directory, or save a model into "
    "which the adapter was merged)"
)


def name_other_format(names, config=None):
    """Returns a text that says which of the named files are a checkpoint of another program, and
    which program writes such files. Returns None where that cannot be told. `config` is the
    directory's config.json as Settings, or None if there is none."""

    def matching(pattern):
        return [name for name in sorted(names) if re.fullmatch(pattern, name)]

    def shorten(name):
        return name if len(name) <= 30 else name[:27] + "..."

    if any(name.startswith(weights) for name in names for weights in WEIGHTS):
        return None  # A training folder of Hugging Face has an optimizer.pt beside its weights.
    if found := matching(r"(?s).*\.npz"):
        return f"{shorten(found[0])}, as Marian writes it"
    # The config.json of CTranslate2 has no model_type. Older releases write no config.json.
    knows_marks = config is not None and config.get("add_source_bos") is not None
    if "model.bin" in names and (knows_marks or matching(r"(\w+_)?vocabulary\.(json|txt)")):
        return "model.bin, as CTranslate2 writes it"
    if found := matching(r"(?s).*\.pt"):
        dictionaries = matching(r"(?s)dict\..*\.txt")
        if dictionaries:
            return f"{shorten(found[0])} and {shorten(dictionaries[0])}, as fairseq writes them"
        return f"{shorten(found[0])}, as OpenNMT or fairseq writes it"
    return None


def refuse_other_format(path, names, config=None):
    """Refuses the checkpoint of another program if the names of its files tell which one it is."""
    if other := name_other_format(names, config):
        refuse(
            path,
            "checkpoint",
            "a Hugging Face directory with config.json and its weights",
            f"{other}: this format is not supported",
        )


def refuse_quantised(config):
    """Refuses the settings of a quantised checkpoint. `config` has config.json."""
    for key in ("quantization_config", "compression_config"):
        value = config.get(key)
        if value is not None:
            method = value.get("quant_method") if isinstance(value, dict) else None
            refuse(config.path, key, PLAIN, show(value if method is None else method))


def refuse_experts(config):
    """Refuses the settings of a mixture of experts. `config` has config.json."""
    kind = config.get("model_type")
    if isinstance(kind, str) and re.search(
        r"(?i)(^|[-_\d])moe|^switch_transformers$|^mixtral", kind
    ):
        refuse(config.path, "model_type", DENSE, show(kind))
    for key in EXPERT_COUNTS:
        value = config.get(key)
        if is_integer(value) and value > 1:
            refuse(config.path, key, DENSE, value)


def refuse_tensors(tensors):
    """Refuses tensors whose names show a quantised checkpoint or a mixture of experts."""
    for name in sorted(tensors):
        tensor = tensors[name]
        found = f"{tensor.dtype} {list(tensor.shape)}"
        if QUANTISED.fullmatch(name):
            refuse(tensor.path, name, PLAIN, f"{found}, as quantised checkpoints have it")
        if EXPERTS.fullmatch(name):
            refuse(tensor.path, name, DENSE, f"{found}, as mixtures of experts have it")


def refuse_adapter(directory, adapter=None):
    """Refuses a directory that has an adapter, unless it is the one that is merged. Where it has a
    whole model as well, transformers would load the base model that the adapter names instead."""
    path = os.path.join(directory, "adapter_config.json")
    if os.path.exists(path) and not (
        adapter and os.path.realpath(adapter) == os.path.realpath(directory)
    ):
        whole = any(
            os.path.exists(os.path.join(directory, name + end))
            for name in WEIGHTS
            for end in ("", ".index.json")
        )
        found = "an adapter beside a model" if whole else "an adapter without a base model"
        refuse(path, "checkpoint", BASE, found)
