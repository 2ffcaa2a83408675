#!/usr/bin/env bash
# transformers 5.17.0 (without torch): the original context of a Phi-3 configuration with LongRoPE.
# Guess: original_max_position_embeddings inside rope_scaling (or rope_parameters) counts, as for
#   llama3 and yarn. "su", the first name of the scaling, is read too: the class has a line for it.
# Seen: the class has a field of that name with the default 4096, and the field always wins. 8192
#   inside rope_scaling becomes 4096, and a save writes 4096 in both places. No message says so (the
#   one that comes asks for a factor instead). Llama with the same object keeps 8192. "su" raises a
#   KeyError, even where the file has the field: the value is filled in for known types, and su is
#   renamed after that. So the files that Phi-3 models had at first are refused. "yarn" is a known
#   type, and is then renamed to longrope.
# Matters: beyond the original context all positions have other rates, and the factor of the scores
#   comes from it as well. A reader that takes the object's value has another model from 4097 tokens
#   on, and another factor at every length.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=warning
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q --no-compile transformers==5.17.0 tokenizers==0.23.3 safetensors==0.8.0 \
  numpy==2.4.6
cat > "$t/a.py" <<'P'
import json, os, sys
from transformers import AutoConfig
KEY = "original_max_position_embeddings"
folder = sys.argv[1]
os.makedirs(folder)
def read(model_type, scaling, **beside):
    """Returns the value that counts, and the config.json of a save."""
    with open(f"{folder}/config.json", "w") as file:
        json.dump({"model_type": model_type, "hidden_size": 32, "num_attention_heads": 4,
            "num_hidden_layers": 2, "max_position_embeddings": 16384, "rope_theta": 10000.0,
            "rope_scaling": {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4} | scaling}
            | beside, file)
    config = AutoConfig.from_pretrained(folder)
    config.save_pretrained(f"{folder}/again")
    with open(f"{folder}/again/config.json") as file:
        return config.rope_parameters[KEY], json.load(file)
longrope = {"type": "longrope", KEY: 8192}
for model_type, beside, expected in (("llama", {}, 8192), ("phi3", {}, 4096),
        ("phi3", {KEY: 2048}, 2048)):
    found, saved = read(model_type, longrope, **beside)
    print(f"{model_type}, 8192 inside, {beside.get(KEY)} beside: {found} counts,",
        f"saved {saved['rope_parameters'][KEY]} and {saved.get(KEY)}")
    assert found == saved["rope_parameters"][KEY] == expected
    assert saved.get(KEY) == (expected if model_type == "phi3" else None)
try:
    read("phi3", {"type": "su"}, **{KEY: 4096})
    raise SystemExit("su was read")
except KeyError as e:
    print("su: KeyError", str(e)[:200])
    assert KEY in str(e)
found, saved = read("phi3", {"type": "yarn", KEY: 8192}, **{KEY: 2048})
print("yarn:", saved["rope_parameters"]["rope_type"], found)
assert found == 2048 and saved["rope_parameters"]["rope_type"] == "longrope"
P
"$t/v/bin/python" "$t/a.py" "$t/m" 2>"$t/err" || { cat "$t/err" >&2; exit 1; }
! grep -E "4096|8192|2048" "$t/err" || exit 1
echo "as described"
