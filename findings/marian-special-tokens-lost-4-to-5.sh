#!/usr/bin/env bash
# transformers 4.57.1 and 5.17.0, MarianTokenizer: additional special tokens saved by 4.57, read by
# 5.17.
# Guess: the same ids and the same text; 5.x renames additional_special_tokens to
#   extra_special_tokens and reads the old name.
# Seen: the same ids, but <ADD> is no longer special: 4.57 wrote "extra_special_tokens": {} beside
#   "additional_special_tokens": ["<ADD>"], and 5.17 takes the new, empty key.
#   decode(skip_special_tokens=True) prints it. "special": true in added_tokens_decoder says so
#   still and does not count. Besides, 4.57 writes blanks around an added token in decoded text,
#   5.17 none before it.
# Matters: whoever decodes such a checkpoint has two texts to agree with; which tokens are dropped
#   cannot be read off the flag.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
for v in "old transformers==4.57.1 tokenizers==0.22.1" \
  "new transformers==5.17.0 tokenizers==0.23.3"; do
  set -- $v
  python3 -m venv "$t/$1"
  "$t/$1/bin/pip" install -q "$2" "$3" sentencepiece==0.2.1 sacremoses==0.1.1
done
cat > "$t/make.py" <<'P'
import json, os, shutil, sys, sentencepiece
from pydoc_data.topics import topics
d = sys.argv[1]; os.makedirs(d)
open(d + "/text", "w").write("\n".join(topics.values()))
sentencepiece.SentencePieceTrainer.train(input=d + "/text", model_prefix=d + "/m",
    vocab_size=500, minloglevel=2)
p = sentencepiece.SentencePieceProcessor(model_file=d + "/m.model")
v = {"</s>": 0, "<unk>": 1}
for i in range(p.get_piece_size()): v.setdefault(p.id_to_piece(i), len(v))
v["<pad>"] = len(v)
json.dump(v, open(d + "/vocab.json", "w"))
for s in ("source.spm", "target.spm"): shutil.copy(d + "/m.model", d + "/" + s)
from transformers import MarianTokenizer
tok = MarianTokenizer.from_pretrained(d)
tok.add_tokens(["<NUM>"])
tok.add_special_tokens({"additional_special_tokens": ["<ADD>"]})
tok.save_pretrained(d + "/saved")
P
cat > "$t/read.py" <<'P'
import sys, transformers
from transformers import MarianTokenizer
tok = MarianTokenizer.from_pretrained(sys.argv[1] + "/saved")
ids = tok("the value <NUM> of <ADD> the name").input_ids
print(transformers.__version__, ids, "special:", tok.all_special_tokens,
    repr(tok.decode(ids, skip_special_tokens=True)), file=sys.stderr)
print(ids, "|", tok.decode(ids, skip_special_tokens=True))
P
"$t/old/bin/python" "$t/make.py" "$t/m"
a=$("$t/old/bin/python" "$t/read.py" "$t/m"); b=$("$t/new/bin/python" "$t/read.py" "$t/m")
[ "${a%%|*}" = "${b%%|*}" ] || { echo "other ids"; exit 1; }
[ "${a##*| }" = "the value <NUM> of the name" ] &&
  [ "${b##*| }" = "the value<NUM> of<ADD> the name" ] || { echo "other text"; exit 1; }
echo "as described"
