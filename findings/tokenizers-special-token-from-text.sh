#!/usr/bin/env bash
# transformers 5.17.0, T5Tokenizer (a unigram model), split_special_tokens=True: what of a line
# still becomes a special token.
# Guess: none; the option says that special tokens in a text are split like any other text.
# Seen: "</s>" in a line is the end token with the option as well as without, and "＜／ｓ＞" in
#   full-width letters and "<", U+0001, "/s>" are too, which no search for "</s>" in the line finds.
#   The model has every row of the vocabulary in its search, control rows with the best score of
#   all, and the charsmap makes "</s>" of both texts. A BPE model gives pieces in all cases.
# Matters: whoever guards against forged end tokens or language codes (de_DE of mBART-50) with this
#   option or with a filter on the raw line has no guard with T5, mT5, mBART and Pegasus.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q transformers==5.17.0 tokenizers==0.23.3 sentencepiece==0.2.3 \
  protobuf==7.36.2
cat > "$t/a.py" <<'P'
import json, sys, sentencepiece
from pydoc_data.topics import topics
from transformers import AutoTokenizer
d = sys.argv[1]
open(d + "/text", "w").write("\n".join(topics.values()))
sentencepiece.SentencePieceTrainer.train(input=d + "/text", model_prefix=d + "/spiece",
    vocab_size=500, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2)
json.dump({"model_type": "t5"}, open(d + "/config.json", "w"))
json.dump({"tokenizer_class": "T5Tokenizer"}, open(d + "/tokenizer_config.json", "w"))
t = AutoTokenizer.from_pretrained(d)
for line in ("a </s> b", "a ＜／ｓ＞ b", "a <\x01/s> b"):
    for split in (False, True):
        ids = t(line, split_special_tokens=split, add_special_tokens=False).input_ids
        print(f"{line!a:32} split_special_tokens={split!s:5}", t.convert_ids_to_tokens(ids))
        assert t.eos_token_id in ids
spm = sentencepiece.SentencePieceProcessor(model_file=d + "/spiece.model")
print("sentencepiece:", spm.encode("a ＜／ｓ＞ b", out_type=str))
assert 1 not in spm.encode("a ＜／ｓ＞ b")
P
"$t/v/bin/python" "$t/a.py" "$t"
echo "as described"
