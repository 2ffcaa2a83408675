#!/usr/bin/env bash
# transformers 4.57.1 and 5.17.0 (torch 2.11.0, CPU): a Marian model with an output matrix of its
# own (tie_word_embeddings false).
# Guess: what 4.57 saves, 5.17 loads as the same model; the two embeddings are shared whatever the
#   flag of the output matrix says.
# Seen: 4.57 writes model.shared.weight and lm_head.weight, and reads them back exactly. 5.17 takes
#   "tie_word_embeddings": false for the embeddings too: encoder and decoder embeddings are fresh
#   random numbers, another model at each load; no error, a line in a report. (Seen beside it, not
#   checked here: with the flag true and a different lm_head.weight in the file, 4.57 ignores that
#   and 5.17 uses it; BART, mBART and M2M-100 saved so are random in 4.57.1 already, T5 in neither.)
# Matters: such a checkpoint "runs" in 5.x and translates noise; a reference made there compares
#   with nothing.
# Needs about 6 GB in the temp folder (torch), 2 minutes.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q torch==2.11.0 numpy==2.4.6 safetensors==0.8.0
"$t/v/bin/pip" install -q --target "$t/old" transformers==4.57.1 tokenizers==0.22.1 \
  "numpy==2.4.6" "safetensors==0.8.0"
"$t/v/bin/pip" install -q --target "$t/new" transformers==5.17.0 tokenizers==0.23.3 \
  "numpy==2.4.6" "safetensors==0.8.0"
cat > "$t/make.py" <<'P'
import sys, torch
from safetensors import safe_open
from transformers import MarianConfig, MarianMTModel
torch.manual_seed(0)
m = MarianMTModel(MarianConfig(vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1,
    encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
    max_position_embeddings=16, pad_token_id=19, eos_token_id=0,
    decoder_start_token_id=19, tie_word_embeddings=False))
m.save_pretrained(sys.argv[1])
names = [k for k in safe_open(sys.argv[1] + "/model.safetensors", "pt").keys()
    if "shared" in k or "embed_tokens" in k or "lm_head" in k]
print("4.57 wrote", sorted(names))
assert sorted(names) == ["lm_head.weight", "model.shared.weight"]
P
cat > "$t/load.py" <<'P'
import sys, torch, transformers
from safetensors.torch import load_file
from transformers import MarianMTModel
f = load_file(sys.argv[1] + "/model.safetensors")
def load():
    m = MarianMTModel.from_pretrained(sys.argv[1])
    return (m.model.encoder.embed_tokens.weight, m.model.decoder.embed_tokens.weight,
        m.lm_head.weight)
a, b = load(), load()
same = [torch.equal(x, f["model.shared.weight"]) for x in a[:2]]
same += [torch.equal(a[2], f["lm_head.weight"])]
print(transformers.__version__, "encoder and decoder embedding as stored, head as stored:", same,
    "| two loads alike:", torch.equal(a[0], b[0]))
old = transformers.__version__.startswith("4.")
assert same == ([True] * 3 if old else [False, False, True]) and torch.equal(a[0], b[0]) == old
P
PYTHONPATH="$t/old" "$t/v/bin/python" "$t/make.py" "$t/m"
PYTHONPATH="$t/old" "$t/v/bin/python" "$t/load.py" "$t/m" 2>/dev/null
PYTHONPATH="$t/new" "$t/v/bin/python" "$t/load.py" "$t/m" 2>/dev/null
echo "as described"
