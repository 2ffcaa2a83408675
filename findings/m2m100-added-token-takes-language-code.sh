#!/usr/bin/env bash
# transformers 5.17.0, M2M100Tokenizer (4.57.1 gave the same): a folder of vocab.json and
# sentencepiece.bpe.model, then add_tokens.
# Guess: the new token gets an id past the 100 language codes, which stand behind the vocabulary.
# Seen: it gets the id of the first code: len(vocab.json), which is __af__'s. Both have it
#   afterwards: Afrikaans lines begin with <NUM>'s id, and that id decodes to <NUM>. A second added
#   token takes __am__'s, and so on. Saved and loaded again it is the same.
# Matters: fine-tuning with one placeholder trains the embedding of Afrikaans; a decoder that
#   computes codes by len(vocab) + index and added tokens by added_tokens.json finds one id under
#   two names.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q transformers==5.17.0 tokenizers==0.23.3 sentencepiece==0.2.3
cat > "$t/a.py" <<'P'
import json, os, sys, sentencepiece
from pydoc_data.topics import topics
from transformers import M2M100Tokenizer
d = sys.argv[1]; os.makedirs(d)
open(sys.argv[2], "w").write("\n".join(topics.values()))
sentencepiece.SentencePieceTrainer.train(input=sys.argv[2], model_prefix=sys.argv[2],
    vocab_size=500, minloglevel=2)
os.rename(sys.argv[2] + ".model", d + "/sentencepiece.bpe.model")
p = sentencepiece.SentencePieceProcessor(model_file=d + "/sentencepiece.bpe.model")
v = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
for i in range(p.get_piece_size()): v.setdefault(p.id_to_piece(i), len(v))
json.dump(v, open(d + "/vocab.json", "w"))
t = M2M100Tokenizer.from_pretrained(d, src_lang="af", tgt_lang="en")
print("vocabulary", len(v), "| codes", t.get_lang_id("af"), "to", t.get_lang_id("zu"),
    "| len(tokenizer)", len(t))
assert t.decode([len(v)]) == "__af__"
t.add_tokens(["<NUM>", "<URL>"])
t.save_pretrained(d + "/saved")
for name, x in (("added", t), ("loaded again", M2M100Tokenizer.from_pretrained(d + "/saved"))):
    x.src_lang = "af"
    ids = x("the name").input_ids
    print(name, "<NUM>", x.convert_tokens_to_ids("<NUM>"),
        "<URL>", x.convert_tokens_to_ids("<URL>"), "| an Afrikaans line", ids, repr(x.decode(ids)))
    assert x.convert_tokens_to_ids("<NUM>") == x.get_lang_id("af") == ids[0] == len(v)
    assert x.convert_tokens_to_ids("<URL>") == x.get_lang_id("am") == len(v) + 1
    assert x.decode(ids).startswith("<NUM>")
P
"$t/v/bin/python" "$t/a.py" "$t/m" "$t/text"
echo "as described"
