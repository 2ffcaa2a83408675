#!/usr/bin/env bash
# tokenizers 0.23.3: the text of an added token under the ByteLevel decoder (GPT-2, BART, Llama 3).
# Guess: an added token is decoded to its own text.
# Seen: if all its characters are in the alphabet that stands for bytes, they are taken for bytes:
#   "<é>" becomes "<", U+FFFD, ">" and "Ġx" becomes " x". With one character outside, such as a
#   blank or 日, the token keeps its text: "<é 1>" is right.
# Matters: placeholders and names with Latin-1 letters, as in French, German or Spanish data, come
#   out broken, and only those; a decoder that prints added tokens as they are differs.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q tokenizers==0.23.3
cat > "$t/a.py" <<'P'
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
alphabet = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
t = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
t.decoder = decoders.ByteLevel()
expected = {"<é>": "<\ufffd>", "<STRAßE>": "<STRA\ufffdE>", "Ġx": " x", "<x>": "<x>",
    "<é 1>": "<é 1>", "<日é>": "<日é>"}
t.add_tokens(list(expected))
for text, seen in expected.items():
    ids = t.encode(f"a{text}b").ids
    print(f"{text!a:14} -> {t.decode(ids)!a}")
    assert len(ids) == 3 and t.decode(ids) == f"a{seen}b"
assert t.decode(t.encode("é ß").ids) == "é ß"
P
"$t/v/bin/python" "$t/a.py"
echo "as described"
