"""Reads what a checkpoint asks of search, from generation_config.json, or from config.json where
there is no such file."""

from __future__ import annotations

import json

from checkpoint_reader import is_integer, refuse, show
from config_values import LARGEST
from special_tokens import read_ends

# model.bin has no keys for these generation settings. Each has here the value at which it has no
# effect.
NEUTRAL_GENERATION = {
    "num_beam_groups": 1,
    "diversity_penalty": 0,
    "num_return_sequences": 1,
    "encoder_repetition_penalty": 1,
    "encoder_no_repeat_ngram_size": 0,
    "begin_suppress_tokens": [],
    "forced_decoder_ids": [],
    "sequence_bias": {},
    "force_words_ids": [],
    "constraints": [],
    "exponential_decay_length_penalty": None,
    "guidance_scale": 1,
    "penalty_alpha": 0,
    "dola_layers": None,
    "stop_strings": [],
    "max_time": None,
    "watermarking_config": None,
    "token_healing": False,
}
# In a decoder alone, these settings count the tokens of the prompt, or look at its length, so that
# they mean something else than the keys of model.bin.
NEUTRAL_FOR_PROMPTS = {"forced_bos_token_id": None}
HINT = "(remove the key to convert without it)"
HINT_FOR_SEVERAL = "(remove the keys to convert without them)"


def read_never_chosen(generation, rows, pad, ends):
    words = generation.take("bad_words_ids", [], "a list of lists", lambda v: isinstance(v, list))
    words = [word[0] for word in words]  # refuse_settings() has looked at their lengths.
    suppressed = generation.take(
        "suppress_tokens", [], "a list of ids", lambda v: isinstance(v, list)
    )
    for key, ids in (("bad_words_ids", words), ("suppress_tokens", suppressed)):
        for value in ids:
            if not is_integer(value) or not 0 <= value < rows:
                refuse(generation.path, key, f"ids below {rows}", show(value))
    # generate() drops the end token from bad_words_ids, but not from suppress_tokens. A pad that is
    # also an end token may be chosen.
    return sorted(set(suppressed) | set(words + ([] if pad is None else [pad])) - set(ends))


def list_refused(generation, neutrals):
    """Yields (key, what is expected, what is found) for each setting that is present and that
    model.bin has no key for."""
    for key, neutral in neutrals.items():
        value = generation.get(key)
        if value is not None and (
            value != neutral or isinstance(value, bool) != isinstance(neutral, bool)
        ):
            yield key, json.dumps(neutral), show(value)
    words = generation.get("bad_words_ids")
    for word in words if isinstance(words, list) else []:
        if not isinstance(word, list) or len(word) != 1:
            yield "bad_words_ids", "entries of one id each", show(word)
            return


def refuse_settings(generation, has_encoder):
    """Refuses all settings that model.bin has no key for, in one line that names every one."""
    neutrals = NEUTRAL_GENERATION
    if not has_encoder:
        neutrals = neutrals | NEUTRAL_FOR_PROMPTS
        # generate() counts the tokens of a prompt in min_length, and not in min_new_tokens.
        if generation.get("min_new_tokens") is None:
            neutrals = neutrals | {"min_length": 0}
    refused = list(list_refused(generation, neutrals))
    if not refused:
        return
    keys, expected, found = (", ".join(texts) for texts in zip(*refused))
    hint = HINT if len(refused) == 1 else HINT_FOR_SEVERAL
    refuse(generation.path, keys, f"{expected} {hint}", found)


def read_row_rules(generation):
    """Returns the row rules (docs/search.md). Those that are not in use are None."""
    # min_length counts the start token. min_new_tokens does not, and it takes precedence.
    least = generation.integer("min_length", 0, LARGEST, 0)
    penalty = generation.take(
        "repetition_penalty",
        1,
        "a number from 0.01 to 100",
        lambda v: (isinstance(v, (int, float)) and not isinstance(v, bool) and 0.01 <= v <= 100),
    )
    return {
        "min_length": generation.integer("min_new_tokens", 0, LARGEST, max(0, least - 1)) or None,
        "no_repeat_ngram": generation.integer("no_repeat_ngram_size", 0, LARGEST, 0) or None,
        "repetition_penalty": None if penalty == 1 else float(penalty),
    }


def read_sampling(generation):
    """Returns the settings of random draws. Those that mean nothing to xlate are left out: they
    matter with --sample alone, which can be given others."""

    def number(key, least, most):
        value = generation.get(key)
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        return value if good and least <= value <= most else None

    top_k = number("top_k", 0, LARGEST)
    return {
        "temperature": number("temperature", 0.01, 100),
        "top_k": top_k if isinstance(top_k, int) else None,
        "top_p": number("top_p", 1e-6, 1),
    }


def read_limits(generation, has_encoder):
    """Returns the limits of a hypothesis. max_length counts the start token or the prompt.
    max_new_tokens does not, and it takes precedence."""
    longest = generation.integer("max_length", 2, LARGEST, None)
    most = generation.integer("max_new_tokens", 1, LARGEST, None)
    if has_encoder:
        return {"max_length": longest - 1 if most is None and longest is not None else most}
    return {"max_length": most, "max_total_length": longest if most is None else None}


def read_generation(generation, rows, tokens, has_encoder=True):
    """Returns the defaults of search, as far as the checkpoint has any."""
    refuse_settings(generation, has_encoder)
    penalty = generation.take(
        "length_penalty",
        None,
        "a number",
        lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) <= 100,
    )
    stopping = generation.take(
        "early_stopping",
        None,
        'true, false or "never"',
        lambda v: isinstance(v, bool) or v == "never",
    )
    ends = read_ends(generation, rows)
    # generate() may choose the pad, which the encoder-decoder families never learn to.
    pad = generation.token("pad_token_id", rows, None) if has_encoder else None
    values = {
        "beam_size": generation.integer("num_beams", 1, 256, None),
        "length_penalty": None if penalty is None else float(penalty),
        "early_stopping": json.dumps(stopping) if isinstance(stopping, bool) else stopping,
        **read_limits(generation, has_encoder),
        **read_row_rules(generation),
        **read_sampling(generation),
        "forced_first": generation.token("forced_bos_token_id", rows, None),
        "forced_end": generation.token("forced_eos_token_id", rows, None),
        "ends": None if ends == [tokens.get("end")] else ends,
        "never_chosen": read_never_chosen(generation, rows, pad, ends),
        "renormalize": generation.boolean("renormalize_logits", None),
        "do_sample": generation.boolean("do_sample", False) or None,
    }
    return {key: value for key, value in values.items() if value is not None}
