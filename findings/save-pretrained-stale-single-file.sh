#!/usr/bin/env bash
# transformers 5.17.0 (torch 2.11.0, CPU): a model saved in shards where one in a single file was.
# Guess: save_pretrained replaces the model in the folder, as it deletes shards of an earlier save.
# Seen: it deletes only files that are named like shards. model.safetensors stays beside the new
#   shards and their index, and from_pretrained takes it: the folder still loads as the old model,
#   and nothing tells. In the other order the shards are deleted, but their index stays and names
#   files that are gone.
# Matters: a fine-tuned model that passed the limit of one shard, or was saved with a smaller limit,
#   loads as the one before it. A reader that takes the index first reads another model than
#   transformers here, and in the other order it reads none.
# Needs about 6 GB in the temp folder (torch), some minutes.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=warning HF_HUB_DISABLE_PROGRESS_BARS=1
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q --no-compile torch==2.11.0 numpy==2.4.6 safetensors==0.8.0 \
  transformers==5.17.0 tokenizers==0.23.3
cat > "$t/a.py" <<'P'
import json, os, sys, torch, warnings
from transformers import LlamaConfig, LlamaForCausalLM
def make(seed):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48,
        num_hidden_layers=2, num_attention_heads=4))
def loaded(folder):
    m = LlamaForCausalLM.from_pretrained(folder)
    return [name for name, other in (("old", old), ("new", new)) if all(
        torch.equal(x, y) for x, y in zip(m.state_dict().values(), other.state_dict().values()))]
old, new = make(0), make(1)
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
a, b = sys.argv[1] + "/a", sys.argv[1] + "/b"
with warnings.catch_warnings():
    warnings.simplefilter("error")
    old.save_pretrained(a)
    new.save_pretrained(a, max_shard_size="40KB")
    first = loaded(a)
    old.save_pretrained(b, max_shard_size="20KB")
    shards = [n for n in os.listdir(b) if n.endswith(".safetensors")]
    new.save_pretrained(b, max_shard_size="40KB")
    between = loaded(b)
    assert not set(shards) & set(os.listdir(b))
    new.save_pretrained(b)
print("one file, then shards:", sorted(os.listdir(a)), "loads", first)
print("shards, then one file:", sorted(os.listdir(b)), "loads", loaded(b))
assert first == ["old"] and {SINGLE, INDEX} < set(os.listdir(a))
assert between == ["new"] and loaded(b) == ["new"]
named = set(json.load(open(f"{b}/{INDEX}"))["weight_map"].values())
assert named and not named & set(os.listdir(b))
P
"$t/v/bin/python" "$t/a.py" "$t" 2>"$t/err" || { cat "$t/err" >&2; exit 1; }
! grep -iE "warn|shard.*(old|stale)" "$t/err" || exit 1
echo "as described"
