"""Makes random networks of Llama and Qwen 3 around tokenizers, as checkpoints and as model.bin."""

import json
import os

import numpy as np

from checkpoint_fixture import convert, encode_safetensors, read


def llama_tensors(config):
    """Returns random tensors of a checkpoint of Llama or Qwen 3, by name."""
    random = np.random.RandomState(5)
    width, inner = config["hidden_size"], config["intermediate_size"]
    heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head = config.get("head_dim", width // heads)
    vocabulary = config["vocab_size"]
    shapes = {"model.embed_tokens": (vocabulary, width), "model.norm": (width,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head"] = (vocabulary, width)
    for layer in range(config["num_hidden_layers"]):
        parts = {
            "input_layernorm": (width,),
            "post_attention_layernorm": (width,),
            "self_attn.q_proj": (heads * head, width),
            "self_attn.k_proj": (key_heads * head, width),
            "self_attn.v_proj": (key_heads * head, width),
            "self_attn.o_proj": (width, heads * head),
            "mlp.gate_proj": (inner, width),
            "mlp.up_proj": (inner, width),
            "mlp.down_proj": (width, inner),
        }
        if config["model_type"] == "qwen3":
            parts.update({"self_attn.q_norm": (head,), "self_attn.k_norm": (head,)})
        shapes.update(("model.layers.%d.%s" % (layer, name), parts[name]) for name in parts)
    return {
        name + ".weight": (
            np.ones(shape) if len(shape) == 1 else random.normal(0, shape[1] ** -0.5, shape)
        ).astype("f4")
        for name, shape in shapes.items()
    }


def write_model(checkpoint, model):
    """Completes a directory that has config.json and a tokenizer, writes model.bin and returns its
    header. No token ends the output of the model."""
    config = json.loads(read(checkpoint, "config.json"))
    tensors = llama_tensors(config)
    with open(os.path.join(checkpoint, "model.safetensors"), "wb") as file:
        file.write(encode_safetensors(tensors, lambda name: "F32"))
    with open(os.path.join(checkpoint, "generation_config.json"), "w", encoding="utf-8") as file:
        json.dump({"bos_token_id": config["bos_token_id"]}, file)
    return convert.convert(checkpoint, model)
