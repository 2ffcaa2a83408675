"""Has what the scripts share that measure models with random weights (generated_model.py): their
configurations, the work of a token, and sources as long as those of a news text."""

import sys

from decoder_families import DECODERS

# These are the numbers of tokens of news.en's lines at the middle of each of 48 equal parts. Each
# is the number of words times the tokens per word in ende-base's vocabulary.
NEWS = (
    4,
    7,
    9,
    10,
    11,
    11,
    13,
    14,
    14,
    16,
    16,
    17,
    17,
    18,
    18,
    20,
    21,
    21,
    23,
    23,
    24,
    24,
    26,
    26,
    27,
    28,
    28,
    30,
    31,
    31,
    33,
    34,
    34,
    35,
    37,
    38,
    40,
    41,
    43,
    44,
    45,
    47,
    50,
    53,
    55,
    60,
    65,
    81,
)
# No special token has one of these ids or a larger one, except for the last id of the vocabulary.
FIRST_TEXT = 3


def config_of(family, d, heads, layers, ffn, vocabulary, **more):
    """Returns what config.json would say of a model whose stacks both have that many layers and
    heads. `more` has further settings. The special tokens are where the family's checkpoints
    usually have them."""
    if family in ("t5", "mt5"):
        start, end, pad = 0, 1, 0
        sizes = {"d_kv": d // heads, "d_ff": ffn, "num_heads": heads, "num_layers": layers}
    else:
        last = vocabulary - 1
        start, end, pad = (last, 0, last) if family == "marian" else (2, 2, 1)
        sizes = {"activation_function": "relu", "scale_embedding": True}
        for stack in ("encoder", "decoder"):
            sizes[stack + "_layers"] = layers
            sizes[stack + "_attention_heads"] = heads
            sizes[stack + "_ffn_dim"] = ffn
    return {
        "model_type": family,
        "d_model": d,
        "vocab_size": vocabulary,
        "decoder_start_token_id": start,
        "eos_token_id": end,
        "pad_token_id": pad,
        **sizes,
        **more,
    }


def prompt_config_of(family, d, layers, heads, ffn, vocabulary, context, kv_heads=None, **more):
    """Returns what config.json would say of a model that is a decoder alone. `context` is the
    number of tokens that a prompt and its continuation may have together. No token ends a text
    unless `more` has eos_token_id."""
    sizes = {"width": d, "layers": layers, "heads": heads, "inner": ffn, "context": context}
    sizes["kv_heads"] = kv_heads or heads
    keys = DECODERS[family].keys
    return {
        "model_type": family,
        "vocab_size": vocabulary,
        **{keys[name]: size for name, size in sizes.items() if name in keys},
        **more,
    }


def flops_of_token(d, layers, ffn, vocabulary, beam):
    """Returns the floating-point operations of a target token: of its rows in the decoder and the
    vocabulary, and of its source token in the encoder."""
    decoder, encoder = layers * (6 * d * d + 2 * d * ffn), layers * (4 * d * d + 2 * d * ffn)
    return 2 * beam * (decoder + vocabulary * d) + 2 * encoder


def write_source(path, lengths, config, numbers):
    """Writes a line of ids of each length, the end token included. `numbers` is a
    random.Random."""
    end = " %d" % config["eos_token_id"]
    write_lines(path, [length - 1 for length in lengths], config, numbers, end)


def write_prompts(path, lengths, config, numbers):
    """Writes a line of ids of each length, which nothing ends."""
    write_lines(path, lengths, config, numbers, "")


def write_lines(path, lengths, config, numbers, end):
    text = [str(number) for number in range(FIRST_TEXT, config["vocab_size"] - 1)]
    with open(path, "w") as file:
        for length in lengths:
            file.write((" ".join(numbers.choices(text, k=length)) + end).lstrip() + "\n")


def load_writer(script):
    """Returns generated_model.write_model. That module needs numpy, and the script is told where it
    is missing."""
    try:
        from generated_model import write_model
    except ImportError:
        sys.exit(
            "%s: numpy: expected the Python package, found none (try: apt install python3-numpy)"
            % script
        )
    return write_model
