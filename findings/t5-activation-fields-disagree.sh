#!/usr/bin/env bash
# transformers 5.17.0 (torch 2.11.0, CPU): the fields feed_forward_proj, dense_act_fn and
# is_gated_act of a T5 configuration that disagree.
# Guess: feed_forward_proj wins, because it is the only one of the three in the documentation and
#   the other two are computed from it.
# Seen: dense_act_fn and is_gated_act win, each for itself, and nothing is reported.
#   feed_forward_proj fills in those that are missing. save_pretrained writes all three. After that
#   from_pretrained(..., feed_forward_proj="gated-silu") and a change of feed_forward_proj in
#   config.json have no effect on the model. save_pretrained keeps the disagreement in the file.
#   Without any of the three, T5 has relu without a gate, and mT5 and UMT5 have a gated gelu_new.
# Matters: a reader of config.json that takes feed_forward_proj decodes another model. Someone who
#   sets it to switch the activation gets the old one.
# Needs about 6 GB in the temp folder (torch), some minutes.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q torch==2.11.0 numpy==2.4.6 safetensors==0.8.0 \
  transformers==5.17.0 tokenizers==0.23.3
cat > "$t/a.py" <<'P'
import itertools, json, sys, torch
from transformers import MT5Config, T5Config, T5ForConditionalGeneration, UMT5Config
KEYS = ("feed_forward_proj", "dense_act_fn", "is_gated_act")
OF = {"relu": ("relu", False), "gated-gelu": ("gelu_new", True), "gated-silu": ("silu", True)}
for config, default in ((T5Config, "relu"), (MT5Config, "gated-gelu"), (UMT5Config, "gated-gelu")):
    c = config.from_dict({})
    print(config.model_type, "without any:", c.dense_act_fn, c.is_gated_act)
    for values in itertools.product((None, *OF), (None, "relu", "gelu_new"), (None, True, False)):
        c = config.from_dict({k: v for k, v in zip(KEYS, values) if v is not None})
        act, gated = OF[values[0] or default]
        assert c.dense_act_fn == (act if values[1] is None else values[1])
        assert c.is_gated_act == (gated if values[2] is None else values[2])
d = sys.argv[1]
torch.manual_seed(0)
T5ForConditionalGeneration(T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=1,
    num_heads=2, decoder_start_token_id=0, feed_forward_proj="gated-gelu")).save_pretrained(d)
def stored(**changes):
    c = json.load(open(d + "/config.json")) | changes
    json.dump(c, open(d + "/config.json", "w"))
    return [c[k] for k in KEYS]
def show(what, **settings):
    m = T5ForConditionalGeneration.from_pretrained(d, **settings)
    layer = m.encoder.block[0].layer[1].DenseReluDense
    seen = m.config.feed_forward_proj, type(layer.act).__name__, hasattr(layer, "wi_1")
    print("%-43s proj %-10s activation %s, gate %s" % (what, *seen))
    m.save_pretrained(d)
    assert seen[1:] == ("NewGELUActivation", True)
    return seen[0]
assert stored() == ["gated-gelu", "gelu_new", True]
assert show("as saved:") == "gated-gelu"
assert show("from_pretrained with gated-silu:", feed_forward_proj="gated-silu") == "gated-silu"
stored(feed_forward_proj="relu")
assert show("config.json with relu:") == "relu"
print("saved again:", dict(zip(KEYS, stored())))
assert stored() == ["relu", "gelu_new", True]
P
"$t/v/bin/python" "$t/a.py" "$t/m" 2>"$t/err" || { cat "$t/err" >&2; exit 1; }
echo "as described"
