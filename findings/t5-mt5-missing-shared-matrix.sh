#!/usr/bin/env bash
# transformers 5.17.0 (torch 2.11.0, CPU): T5, mT5 and UMT5 files without shared.weight that hold
# several of the matrices tied to it, with different values.
# Guess: a missing matrix is taken from the same stored one in all three. They have the same names
#   and the same tied weights, and it would be an embedding before it would be lm_head.
# Seen: every stored matrix is kept and the missing ones are taken from the first stored one of a
#   list, and the list of T5 differs from that of the other two. For T5 the order is lm_head,
#   encoder, decoder. For mT5 and UMT5 it is encoder, decoder, lm_head. A file with lm_head and
#   encoder therefore takes the decoder embedding from lm_head as T5, and from the encoder as mT5.
#   A file with encoder and decoder gets lm_head from the encoder, not from the decoder. No error is
#   raised, and nothing is random. (A warning says that stored matrices are not tied. 4.57.1 ties
#   the embeddings to one matrix and does not keep the others. This script does not check that.)
# Matters: the matrices of such a file depend on model_type, and a reader with one rule for the T5
#   family decodes another model.
# Needs about 6 GB in the temp folder (torch), some minutes.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q torch==2.11.0 numpy==2.4.6 safetensors==0.8.0 \
  transformers==5.17.0 tokenizers==0.23.3
cat > "$t/a.py" <<'P'
import itertools, sys, torch
from safetensors.torch import load_file, save_file
from transformers import (MT5Config, MT5ForConditionalGeneration, T5Config,
    T5ForConditionalGeneration, UMT5Config, UMT5ForConditionalGeneration)
NAMES = {"shared": "shared.weight", "lm_head": "lm_head.weight",
    "encoder": "encoder.embed_tokens.weight", "decoder": "decoder.embed_tokens.weight"}
VALUES = {name: torch.full((20, 8), float(i)) for i, name in enumerate(NAMES)}
def source(weight):
    return next((n for n, v in VALUES.items() if torch.equal(weight, v)), "random")
for config, model, order in (
        (T5Config, T5ForConditionalGeneration, ("lm_head", "encoder", "decoder")),
        (MT5Config, MT5ForConditionalGeneration, ("encoder", "decoder", "lm_head")),
        (UMT5Config, UMT5ForConditionalGeneration, ("encoder", "decoder", "lm_head"))):
    d = sys.argv[1] + config.model_type
    torch.manual_seed(0)
    model(config(vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2,
        decoder_start_token_id=0)).save_pretrained(d)
    rest = {k: v for k, v in load_file(d + "/model.safetensors").items()
        if k not in NAMES.values()}
    for count in (1, 2, 3):
        for stored in itertools.combinations(order, count):
            held = rest | {NAMES[n]: VALUES[n] for n in stored}
            save_file(held, d + "/model.safetensors", metadata={"format": "pt"})
            m = model.from_pretrained(d)
            seen = {n: source(m.get_parameter(name).detach()) for n, name in NAMES.items()}
            if count == 2:
                print("%-4s stored %-19s" % (config.model_type, ", ".join(stored)),
                    *(f"{n} is {s}," for n, s in seen.items() if n not in stored))
            assert seen == {n: n if n in stored else stored[0] for n in NAMES}
P
"$t/v/bin/python" "$t/a.py" "$t/" 2>"$t/err" || { cat "$t/err" >&2; exit 1; }
echo "as described"
