"""Says in a few lines what the converter has understood of a checkpoint."""

from __future__ import annotations

import math
import os


def both(network, value):
    """Returns a value of encoder and decoder as one text, which names both if they differ."""
    encoder, decoder = (value(network[stack]) for stack in ("encoder", "decoder"))
    return str(encoder) if encoder == decoder else f"{encoder} and {decoder}"


def describe_decoder(header):
    decoder = header["network"]["decoder"]
    attention = decoder["attention"]
    heads, kv_heads = attention["heads"], attention["kv_heads"]
    return (
        f"{decoder['layers']} layers, width {decoder['width']}, "
        f"heads {heads}{'' if kv_heads == heads else f' and {kv_heads} for keys'}, "
        f"vocabulary {decoder['embedding']['vocabulary']}, "
        f"context {header['generation']['max_source_length']}"
    )


def describe_network(header):
    network = header["network"]
    if "encoder" not in network:
        return describe_decoder(header)
    layers = [network[stack]["layers"] for stack in ("encoder", "decoder")]
    return (
        f"{layers[0]} + {layers[1]} layers, "
        f"width {both(network, lambda s: s['width'])}, "
        f"heads {both(network, lambda s: s['attention']['heads'])}, "
        f"vocabulary {both(network, lambda s: s['embedding']['vocabulary'])}"
    )


NO_TOKENIZER = "ids only, without a tokenizer for text"
KINDS = {"unigram": "unigram", "bpe": "BPE", "sentencepiece": "SentencePiece"}


def describe_tokenizer(header):
    """Describes how a text becomes ids, with the tokens before and behind it."""
    tokenizer = header.get("tokenizer")
    if tokenizer is None:
        models = any(file["name"].endswith(".spm") for file in header["files"])
        return "SentencePiece tokenizer" if models else NO_TOKENIZER
    names = {"source_language": "source language", header["tokens"].get("end"): "end token"}
    before, after = (
        [names.get(item, f"token {item}") for item in tokenizer["template"][side]]
        for side in ("before", "after")
    )
    return (
        f"{KINDS[tokenizer['model']['kind']]} tokenizer ({header['provenance']['tokenizer']}), "
        f"{'source' if 'encoder' in header['network'] else 'prompt'}: "
        f"{' + '.join([*before, 'text', *after])}"
    )


def describe_text(header):
    """Describes the tokenizer, the languages and the output matrix."""
    offsets = {entry["name"]: entry["offset"] for entry in header["tensors"]}
    own = offsets["decoder.projection.weight"] != offsets["decoder.embedding.weight"]
    languages = len(header["tokens"].get("languages", ()))
    codes = f"{languages} languages, " if languages else "no language codes, "
    return (
        f"{describe_tokenizer(header)}, {codes if 'encoder' in header['network'] else ''}"
        f"{'own output matrix' if own else 'output matrix tied to the embedding'}"
    )


def shorten(text):
    """Returns the text on one line, without its middle if it is long."""
    text = repr(text)[1:-1]
    return f"'{text if len(text) <= 64 else text[:30] + ' ... ' + text[-30:]}'"


def describe_chat(chat):
    """Describes what --chat puts around a line, and which messages there can be."""
    texts = {(step["from"], step["to"]): step["text"] for step in chat["transitions"]}
    roles = [role for role in ("system", "user", "assistant") if any(role in k for k in texts)]
    return (
        f"--chat puts a line between {shorten(texts['start', 'user'])} and "
        f"{shorten(texts['user', 'answer'])}; its messages are of {', '.join(roles)}"
    )


def count_parameters(header):
    """Counts the weights as xlate's report does: those of tied tensors once, and no scales."""
    sizes = {
        entry["offset"]: math.prod(entry["shape"])
        for entry in header["tensors"]
        if not entry["name"].endswith(".scale")
    }
    return sum(sizes.values())


def describe_file(header, path):
    """Says what was written."""
    return (
        f"{path}: {os.path.getsize(path):,} bytes, {header['provenance']['family']}, "
        f"{count_parameters(header):,} parameters"
    )


def summarise(header, path):
    """Returns the lines for a model.bin with this header and path."""
    lines = [describe_file(header, path), describe_network(header), describe_text(header)]
    if describe_tokenizer(header) == NO_TOKENIZER:
        lines.append("without a tokenizer xlate reads and writes ids and pieces only, but no text")
    if "chat" in header:
        lines.append(describe_chat(header["chat"]))
    if "chat" in header["provenance"]:
        lines.append(header["provenance"]["chat"])
    if "adapter" in header["provenance"]:
        lines.append(f"the adapter {header['provenance']['adapter']} is merged into the weights")
    if header["network"].get("overflows_float16"):
        lines.append("its values may overflow float16: a GPU computes in bfloat16 by default")
    return lines
