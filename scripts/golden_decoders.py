#!/usr/bin/env python3
"""Makes tiny random checkpoints of the families that are a decoder alone, with the outputs of
transformers for them: folders random-NAME of tests/data/families. It needs torch, transformers and
sentencepiece.

Usage: scripts/golden_decoders.py FOLDER [NAME...]

The sizes are awkward on purpose, as those of golden.py, which says what the files hold. There are
fewer key heads than heads, and heads that are not the width over their number. The prompts are
longer than every window, and than the original context of every scaling of rotations. source.ids
has prompts, and target.ids the last prompt with its best continuation, after each token of which
logits.npy has the logits.
"""

from __future__ import annotations

import os
import random
import re

import torch
import transformers

from golden import BEAMS, LIMIT, is_telling, main, write_ids, write_lists, write_logits

VOCABULARY = 97
PROMPT_LENGTHS = (1, 2, 5, 9, 17, 26, 33, 40)
# No end token and no pad is among the ids of a prompt.
FIRST_ID = 4
# A hypothesis has more than so many different tokens on average.
LEAST_DISTINCT = 5
TOKENS = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
TWO_ENDS = dict(eos_token_id=[2, 3])
COMMON = dict(
    vocab_size=VOCABULARY,
    hidden_size=30,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    intermediate_size=34,
    max_position_embeddings=64,
)
# This width of a head is not the width of the network over the number of heads.
HEAD = dict(head_dim=10)
LAYERS = dict(layer_types=["sliding_attention", "full_attention"], sliding_window=7)
GEMMA = COMMON | HEAD | LAYERS | TWO_ENDS | dict(query_pre_attn_scalar=24)
SCALED = COMMON | dict(head_dim=16, attention_bias=True, mlp_bias=True)


def scaled(kind, **parameters):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=10000.0, **parameters))


# Each checkpoint has its model_type and its settings.
RECIPES = {
    "gpt2": (
        "gpt2",
        dict(vocab_size=VOCABULARY, n_embd=30, n_layer=2, n_head=3, n_inner=34, n_positions=64),
    ),
    "opt": (
        "opt",
        dict(
            vocab_size=VOCABULARY,
            hidden_size=30,
            num_hidden_layers=2,
            num_attention_heads=3,
            ffn_dim=34,
            max_position_embeddings=64,
            word_embed_proj_dim=30,
        ),
    ),
    "llama": (
        "llama",
        SCALED
        | scaled(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=16,
        ),
    ),
    "llama-linear": ("llama", COMMON | HEAD | scaled("linear", factor=4.0)),
    "llama-yarn": (
        "llama",
        SCALED | scaled("yarn", factor=4.0, original_max_position_embeddings=16),
    ),
    "mistral": ("mistral", COMMON | HEAD | dict(sliding_window=7)),
    "qwen2": (
        "qwen2",
        COMMON
        | dict(num_attention_heads=5, num_key_value_heads=1, tie_word_embeddings=True)
        | dict(use_sliding_window=True, sliding_window=7, max_window_layers=1),
    ),
    "qwen3": ("qwen3", COMMON | dict(head_dim=8) | TWO_ENDS),
    "gemma2": (
        "gemma2",
        GEMMA | dict(attn_logit_softcapping=4.0, final_logit_softcapping=9.0),
    ),
    "gemma3_text": (
        "gemma3_text",
        GEMMA
        | dict(
            rope_parameters={
                "full_attention": dict(rope_type="linear", factor=8.0, rope_theta=1000000.0),
                "sliding_attention": dict(rope_type="default", rope_theta=10000.0),
            }
        ),
    ),
    "phi3": (
        "phi3",
        COMMON
        | dict(hidden_size=48, sliding_window=7)
        | scaled("default", partial_rotary_factor=0.75),
    ),
    "gpt_neox": (
        "gpt_neox",
        dict(
            vocab_size=VOCABULARY,
            hidden_size=36,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=34,
            max_position_embeddings=64,
        )
        | scaled("default", partial_rotary_factor=0.5),
    ),
    "starcoder2": ("starcoder2", COMMON | dict(hidden_size=36, sliding_window=7)),
    "cohere": ("cohere", COMMON | dict(hidden_size=36, logit_scale=0.75)),
    "cohere2": ("cohere2", COMMON | LAYERS | dict(hidden_size=36, logit_scale=0.75)),
}
# These are the weights of queries and keys, some of which hold those of values as well.
QUERIES = re.compile(r".*(q_proj|k_proj|qkv_proj|c_attn|query_key_value)\.weight")


def draw(name, tensor, model, generator):
    """Fills a weight with random numbers as golden.draw() does, by the names of these families."""
    noise = torch.randn(tensor.shape, generator=generator)
    # GPT-2 stores its products as [in, out].
    inputs = tensor.shape[0] if model.config.model_type == "gpt2" else tensor.shape[-1]
    if "norm" in name or ".ln_" in name:
        # Gemma stores gains less 1. What its sublayers add has a norm of its own, with a gain that
        # exceeds what the residual stream holds.
        gain = 2
        if "gemma" in model.config.model_type:
            gain = 5 if "post_" in name else 1
        tensor.copy_(0.3 * noise + gain if name.endswith("weight") else 0.1 * noise)
    elif name.endswith("bias"):
        tensor.copy_(0.3 * noise)
    elif re.search(r"embed_tokens|embed_in|embed_out|lm_head|wte", name):
        tensor.copy_(0.2 * noise)
    elif re.search(r"embed_positions|wpe", name):
        tensor.copy_(0.4 * noise)
    elif QUERIES.fullmatch(name):
        tensor.copy_(1.3 * noise / inputs**0.5)
    else:
        tensor.copy_(3 * noise / inputs**0.5)


def ends_of(model):
    ends = model.generation_config.eos_token_id
    return ends if isinstance(ends, list) else [ends]


def make_model(name, seed):
    """Returns a model in float16 with random weights."""
    kind, settings = RECIPES[name]
    config = transformers.AutoConfig.for_model(kind, **TOKENS | settings)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter, tensor in model.named_parameters():
            draw(parameter, tensor, model, generator)
        # End tokens become likely enough to occur.
        model.get_output_embeddings().weight[ends_of(model)] *= 2
    return model.half()


def search(model, prompt):
    """Yields the n-best list of a prompt as (ids, whether it ended, score), best first."""
    found = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=BEAMS,
        num_return_sequences=BEAMS,
        do_sample=False,
        length_penalty=1.0,
        early_stopping=False,
        max_new_tokens=LIMIT,
        return_dict_in_generate=True,
        output_scores=True,
    )
    for sequence, score in zip(found.sequences.tolist(), found.sequences_scores.tolist()):
        ids = sequence[len(prompt) : len(prompt) + LIMIT]
        at = next((at for at, token in enumerate(ids) if token in ends_of(model)), None)
        yield ids[:at], at is not None, score


def write_outputs(folder, model, prompts, lists):
    write_lists(folder, lists)
    target = [*prompts[-1], *lists[-1][0][0]]
    with torch.no_grad():
        output = model(input_ids=torch.tensor([target]))
    write_ids(folder, "source.ids", prompts)
    write_ids(folder, "target.ids", [target])
    write_logits(folder, output.logits)


def make(root, name, seed):
    """Makes a checkpoint and its outputs. Returns whether they are good as references."""
    folder = os.path.join(root, f"random-{name}")
    os.makedirs(folder, exist_ok=True)
    make_model(name, seed).save_pretrained(folder)
    load = transformers.AutoModelForCausalLM.from_pretrained
    model = load(folder, dtype=torch.float32, attn_implementation="eager").eval()
    generator = random.Random(seed)
    prompts = [
        [generator.randrange(FIRST_ID, VOCABULARY) for _ in range(length)]
        for length in PROMPT_LENGTHS
    ]
    lists = [list(search(model, prompt)) for prompt in prompts]
    write_outputs(folder, model, prompts, lists)
    exact = [list(search(model.double(), prompt)) for prompt in prompts]
    return is_telling(lists, exact, LEAST_DISTINCT)


if __name__ == "__main__":
    main("Makes tiny random decoders with outputs.", RECIPES, make)
