#!/usr/bin/env python3
"""Makes tiny random checkpoints of every family with the outputs of transformers for them: the
folders tests/data/families/random-NAME. It needs torch, transformers and sentencepiece.

Usage: scripts/golden.py FOLDER [NAME...]

The sizes are awkward on purpose: odd vocabularies, heads whose width is no multiple of 4 and, where
the family allows it, is not the width of the model over the number of heads, and an encoder that
differs from the decoder. The weights are so large that scores of hypotheses are far apart.

A folder gets the checkpoint in float16, and for it, computed in float32 from the files:
  source.ids                           source sentences of different lengths
  beam5.nbest5.limit24.stop-false.txt  the n-best list of each, as `line ||| ids ||| end ||| score`;
                                       a hypothesis that the limit has cut has `cut` for `end`
  target.ids                           what the decoder reads for the last source: the start token
                                       and the ids of its best hypothesis
  logits.npy                           the logits after each of these ids, float32
                                       [tokens, vocabulary]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
from dataclasses import dataclass, field

import numpy
import sentencepiece
import torch
import transformers

VOCABULARY = 131
SOURCE_LENGTHS = (1, 2, 5, 9, 17, 26, 33, 40)
BEAMS, LIMIT = 5, 24
SETTING = f"beam{BEAMS}.nbest{BEAMS}.limit{LIMIT}.stop-false"
# Seeds are tried until the n-best lists are better than these figures: the smallest gap between the
# scores of neighbours, the number of different tokens of a hypothesis on average, and the largest
# difference of a score from the one that is computed in float64.
LEAST_GAP, LEAST_DISTINCT, MOST_ERROR = 3e-5, 2, 1e-5
# The ids below this one are special in all families.
FIRST_ID = 4
FAIRSEQ = dict(
    vocab_size=VOCABULARY,
    d_model=18,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=3,
    decoder_attention_heads=2,
    encoder_ffn_dim=34,
    decoder_ffn_dim=26,
    max_position_embeddings=64,
)
# A decoder may not have more layers than its encoder, because the cache of transformers 5.17 has
# room for as many layers as the encoder has.
T5 = dict(
    vocab_size=VOCABULARY,
    d_model=18,
    d_kv=7,
    num_heads=3,
    d_ff=34,
    num_layers=2,
    num_decoder_layers=1,
    relative_attention_num_buckets=12,
    relative_attention_max_distance=20,
    decoder_start_token_id=0,
    pad_token_id=0,
    eos_token_id=1,
)
# The ids of M2M-100's 100 languages follow those of vocab.json.
M2M_PIECES = VOCABULARY - 102
CODES = ("de_DE", "en_XX", "nl_XX")


@dataclass(frozen=True)
class Recipe:
    """Says how to make a checkpoint of a family."""

    config: type
    model: type
    settings: dict
    # These are the code of the target language and the id of its token.
    target: tuple | None = None
    tokenizer: dict = field(default_factory=dict)  # tokenizer_config.json


RECIPES = {
    "marian": Recipe(
        transformers.MarianConfig,
        transformers.MarianMTModel,
        FAIRSEQ
        | dict(
            activation_function="swish",
            scale_embedding=True,
            pad_token_id=VOCABULARY - 1,
            eos_token_id=0,
            decoder_start_token_id=VOCABULARY - 1,
            forced_eos_token_id=0,
        ),
        tokenizer={"source_lang": "xx", "target_lang": "yy"},
    ),
    "bart": Recipe(
        transformers.BartConfig,
        transformers.BartForConditionalGeneration,
        FAIRSEQ | dict(activation_function="gelu", forced_bos_token_id=0, forced_eos_token_id=2),
    ),
    "mbart": Recipe(
        transformers.MBartConfig,
        transformers.MBartForConditionalGeneration,
        FAIRSEQ | dict(activation_function="relu", scale_embedding=True, decoder_start_token_id=2),
        target=("de_DE", VOCABULARY - len(CODES)),
        tokenizer={"tokenizer_class": "MBart50Tokenizer"},
    ),
    "m2m_100": Recipe(
        transformers.M2M100Config,
        transformers.M2M100ForConditionalGeneration,
        FAIRSEQ | dict(activation_function="relu", scale_embedding=True),
        target=("de", M2M_PIECES + 16),
        tokenizer={"tokenizer_class": "M2M100Tokenizer"},
    ),
    "pegasus": Recipe(
        transformers.PegasusConfig,
        transformers.PegasusForConditionalGeneration,
        FAIRSEQ | dict(activation_function="gelu_new", scale_embedding=True, forced_eos_token_id=1),
    ),
    "t5": Recipe(transformers.T5Config, transformers.T5ForConditionalGeneration, T5),
    "t5-gated": Recipe(
        transformers.T5Config,
        transformers.T5ForConditionalGeneration,
        T5 | dict(num_decoder_layers=2, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    ),
    "mt5": Recipe(
        transformers.MT5Config,
        transformers.MT5ForConditionalGeneration,
        T5 | dict(feed_forward_proj="gated-silu", tie_word_embeddings=False),
    ),
}
# These settings of a configuration belong in generation_config.json.
GENERATION = (
    "bos_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "pad_token_id",
)


def draw(name, tensor, generator):
    """Fills a weight with random numbers. Embeddings and norms are so large that the logits differ
    by some units. Sublayers add more to the residual stream than it holds, because a model would
    otherwise only repeat its last token. Cross-attention adds less, because it adds nearly the same
    in each step."""
    noise = torch.randn(tensor.shape, generator=generator)
    if "norm" in name:
        tensor.copy_(0.3 * noise + 2 if name.endswith("weight") else 0.1 * noise)
    elif name.endswith("bias"):
        tensor.copy_(0.3 * noise)
    elif "shared" in name or "embed_tokens" in name or "lm_head" in name:
        tensor.copy_(0.2 * noise)
    elif "relative_attention_bias" in name or "embed_positions" in name:
        tensor.copy_(0.8 * noise)
    elif name.endswith(("q_proj.weight", "k_proj.weight", ".q.weight", ".k.weight")):
        tensor.copy_(1.3 * noise / tensor.shape[-1] ** 0.5)
    elif name.endswith(("encoder_attn.out_proj.weight", "EncDecAttention.o.weight")):
        tensor.copy_(noise / tensor.shape[-1] ** 0.5)
    else:
        tensor.copy_(3 * noise / tensor.shape[-1] ** 0.5)


def make_model(recipe, seed):
    """Returns a model in float16 with random weights."""
    settings = {k: v for k, v in recipe.settings.items() if not k.startswith("forced_")}
    config = recipe.config(**settings)
    model = recipe.model(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            # Computed positions are parameters in some families.
            if tensor.requires_grad:
                draw(name, tensor, generator)
        # End tokens become likely enough to occur.
        model.get_output_embeddings().weight[config.eos_token_id] *= 2
        if getattr(model, "final_logits_bias", None) is not None:
            bias = model.final_logits_bias
            bias.copy_(0.3 * torch.randn(bias.shape, generator=generator))
        if recipe.settings is T5:
            # The logits of this tied model are multiplied by d_model^-0.5.
            model.decoder.final_layer_norm.weight *= config.d_model**0.5
    values = {key: recipe.settings.get(key, getattr(config, key, None)) for key in GENERATION}
    model.generation_config = transformers.GenerationConfig(
        **{key: value for key, value in values.items() if value is not None}
    )
    return model.half()


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False)
        file.write("\n")


def write_sentencepiece(folder, seed):
    """Trains a SentencePiece model on made-up words, and writes it for both sides with its
    vocabulary. It has one piece fewer than the embedding has rows, because the last row is
    padding."""
    choice = random.Random(seed).choice
    words = ["".join(choice("bdgklmnprst") + choice("aeiou") for _ in range(3)) for _ in range(900)]
    path = os.path.join(folder, "source.spm")
    with open(path, "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(words),
            model_writer=file,
            vocab_size=VOCABULARY - 1,
            normalization_rule_name="identity",
            bos_id=-1,
            eos_id=0,
            unk_id=1,
            minloglevel=2,
        )
    with open(path, "rb") as file, open(os.path.join(folder, "target.spm"), "wb") as copy:
        copy.write(file.read())
    model = sentencepiece.SentencePieceProcessor(model_file=path)
    vocabulary = {model.id_to_piece(i): i for i in range(len(model))}
    write_json(folder, "vocab.json", vocabulary | {"<pad>": VOCABULARY - 1})


def write_tokenizer(folder, name, recipe, seed):
    """Writes the files of a tokenizer that the converter reads."""
    if recipe.tokenizer:
        write_json(folder, "tokenizer_config.json", recipe.tokenizer)
    if name == "marian":
        write_sentencepiece(folder, seed)
    if name == "m2m_100":
        write_json(folder, "vocab.json", {f"piece{i}": i for i in range(M2M_PIECES)})
    if name == "mbart":
        tokens = [
            {"id": VOCABULARY - len(CODES) + i, "content": code} for i, code in enumerate(CODES)
        ]
        write_json(folder, "tokenizer.json", {"added_tokens": tokens})


def make_sources(end, seed):
    generator = random.Random(seed)
    return [
        [generator.randrange(FIRST_ID, M2M_PIECES) for _ in range(length - 1)] + [end]
        for length in SOURCE_LENGTHS
    ]


def write_ids(folder, name, sentences):
    with open(os.path.join(folder, name), "w", encoding="ascii") as file:
        file.writelines(" ".join(map(str, ids)) + "\n" for ids in sentences)


def search(model, source, first):
    """Yields the n-best list of a source as (ids, whether it ended, score), best first. `first` is
    the forced first token, or None for the one that the checkpoint names, if any."""
    config = model.generation_config
    found = model.generate(
        input_ids=torch.tensor([source]),
        num_beams=BEAMS,
        num_return_sequences=BEAMS,
        do_sample=False,
        length_penalty=1.0,
        early_stopping=False,
        max_new_tokens=LIMIT,
        forced_bos_token_id=config.forced_bos_token_id if first is None else first,
        bad_words_ids=[[config.pad_token_id]],
        return_dict_in_generate=True,
        output_scores=True,
    )
    for sequence, score in zip(found.sequences.tolist(), found.sequences_scores.tolist()):
        ids = sequence[1 : LIMIT + 1]
        ended = config.eos_token_id in ids
        yield ids[: ids.index(config.eos_token_id)] if ended else ids, ended, score


def is_telling(lists, exact, least_distinct=LEAST_DISTINCT):
    """Returns whether `lists` are good as references. The hypotheses must have different tokens, no
    two neighbours of an n-best list may be nearly tied, and `exact`, which was computed in float64,
    must have the same ids and nearly the same scores."""
    scores = [[score for _, _, score in hypotheses] for hypotheses in lists]
    gaps = [a - b for line in scores for a, b in zip(line, line[1:])]
    distinct = [len(set(ids)) for hypotheses in lists for ids, _, _ in hypotheses]
    pairs = [pair for both in zip(lists, exact) for pair in zip(*both)]
    return (
        min(gaps) > LEAST_GAP
        and sum(distinct) / len(distinct) > least_distinct
        and all(a[0] == b[0] and abs(a[2] - b[2]) < MOST_ERROR for a, b in pairs)
    )


def write_lists(folder, lists):
    """Writes the n-best list of each line, as search() yields it."""
    with open(os.path.join(folder, SETTING + ".txt"), "w", encoding="ascii") as file:
        for number, hypotheses in enumerate(lists):
            for ids, ended, score in hypotheses:
                text = " ".join(map(str, ids))
                file.write(f"{number} ||| {text} ||| {'end' if ended else 'cut'} ||| {score:.6f}\n")


def write_logits(folder, logits):
    """Writes the logits of one sentence, [1, tokens, vocabulary]."""
    numpy.save(os.path.join(folder, "logits.npy"), logits[0].numpy().astype("<f4"))


def write_outputs(folder, model, sources, lists):
    write_lists(folder, lists)
    target = [model.generation_config.decoder_start_token_id, *lists[-1][0][0]]
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor(sources[-1:]), decoder_input_ids=torch.tensor([target])
        )
    write_ids(folder, "target.ids", [target])
    write_logits(folder, output.logits)


def make(root, name, seed):
    """Makes a checkpoint and its outputs. Returns whether they are good as references."""
    folder, recipe = os.path.join(root, f"random-{name}"), RECIPES[name]
    os.makedirs(folder, exist_ok=True)
    make_model(recipe, seed).save_pretrained(folder)
    write_tokenizer(folder, name, recipe, seed)
    model = recipe.model.from_pretrained(folder, dtype=torch.float32).eval()
    sources = make_sources(model.generation_config.eos_token_id, seed)
    first = recipe.target and recipe.target[1]
    lists = [list(search(model, source, first)) for source in sources]
    write_ids(folder, "source.ids", sources)
    write_outputs(folder, model, sources, lists)
    exact = [list(search(model.double(), source, first)) for source in sources]
    return is_telling(lists, exact)


def main(description, recipes, make):
    """Makes the checkpoints that the command line names, or all. make(folder, name, seed) returns
    whether a checkpoint is good as a reference, and is called with other seeds until it is."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("names", metavar="NAME", nargs="*", help="default: " + ", ".join(recipes))
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for name in options.names or recipes:
        if name not in recipes:
            parser.error(f"{name}: expected one of {', '.join(recipes)}")
        seed = next(seed for seed in itertools.count(1) if make(options.folder, name, seed))
        print(f"random-{name}: seed {seed}", flush=True)


if __name__ == "__main__":
    main("Makes tiny random checkpoints with outputs.", RECIPES, make)
