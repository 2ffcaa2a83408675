#!/usr/bin/env bash
# transformers 5.17.0, MarianTokenizer with separate_vocabs (source and target vocabularies of their
# own, <pad> last in each).
# Guess: target ids are looked up in target_vocab.json; <pad> of the target side is the special
#   token there.
# Seen: special and added tokens have the source vocabulary's ids on both sides and are looked up
#   first. The target piece whose id is the source's <pad> decodes to "<pad>", and with
#   skip_special_tokens=True the word is gone; the target's own <pad> is no special token and is
#   printed.
# Matters: with a target vocabulary larger than the source's one word can never be decoded, in every
#   translation, without a sign.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q transformers==5.17.0 tokenizers==0.23.3 \
  sentencepiece==0.2.3 sacremoses==0.1.1
cat > "$t/a.py" <<'P'
import json, os, sys, sentencepiece
from pydoc_data.topics import topics
from transformers import MarianTokenizer
d = sys.argv[1]; os.makedirs(d)
open(sys.argv[2], "w").write("\n".join(topics.values()))
def side(n, spm, vocab):
    sentencepiece.SentencePieceTrainer.train(input=sys.argv[2], model_prefix=sys.argv[2],
        vocab_size=n, minloglevel=2)
    os.rename(sys.argv[2] + ".model", d + "/" + spm)
    p = sentencepiece.SentencePieceProcessor(model_file=d + "/" + spm)
    v = {"</s>": 0, "<unk>": 1}
    for i in range(p.get_piece_size()): v.setdefault(p.id_to_piece(i), len(v))
    v["<pad>"] = len(v)
    json.dump(v, open(d + "/" + vocab, "w"))
    return v
source, target = side(300, "source.spm", "vocab.json"), side(600, "target.spm", "target_vocab.json")
json.dump({"separate_vocabs": True, "tokenizer_class": "MarianTokenizer"},
    open(d + "/tokenizer_config.json", "w"))
t = MarianTokenizer.from_pretrained(d)
piece = {i: p for p, i in target.items()}
i = source["<pad>"]
word = piece[i].replace("▁", "")
seq = [target["▁the"], i, target["▁of"]]
print("source <pad>", i, "| target piece of that id", piece[i], "| target <pad>", target["<pad>"])
print([piece[k] for k in seq], "->", repr(t.decode(seq)),
    "without special tokens", repr(t.decode(seq, skip_special_tokens=True)))
print("target's own <pad>, special tokens skipped:",
    repr(t.decode([target["▁the"], target["<pad>"]], skip_special_tokens=True)))
assert target[piece[i]] == i and piece[i] not in ("<pad>", "</s>", "<unk>")
assert "<pad>" in t.decode(seq)
assert word not in t.decode(seq, skip_special_tokens=True).replace("the of", "")
assert t.decode(seq, skip_special_tokens=True) == "the of"
assert t.decode([target["▁the"], target["<pad>"]], skip_special_tokens=True) == "the<pad>"
P
"$t/v/bin/python" "$t/a.py" "$t/m" "$t/text" 2>"$t/err" || { cat "$t/err" >&2; exit 1; }
echo "as described"
