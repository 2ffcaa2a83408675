#!/usr/bin/env bash
# tokenizers 0.23.3: normalizer Strip before pre-tokenizer Metaspace(prepend_scheme="first").
# Guess: " a" and "a" are the same after Strip, so both are ▁a.
# Seen: " a" is a, without the word-start mark. "first" asks whether the word begins at offset 0 of
#   the line as it was given, not of the normalised one; what a normalizer or WhitespaceSplit takes
#   off the front moves it away from 0. Replace with an empty text does the same. "always" gives ▁a.
# Matters: an indented line begins with another token than the same line without blanks; a line
#   trimmed beforehand has other ids than the tokenizer's own trimming gives.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q tokenizers==0.23.3
cat > "$t/a.py" <<'P'
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
def tokens(normalizer, scheme, text, *before):
    t = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate("▁ab")}, merges=[]))
    t.normalizer = normalizer
    metaspace = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    t.pre_tokenizer = pre_tokenizers.Sequence([*before, metaspace])
    return "".join(t.encode(text).tokens)
strip, drop = normalizers.Strip(), normalizers.Replace(Regex("^ +"), "")
for text in ("a b", " a b", "\ta b"):
    found = {scheme: tokens(strip, scheme, text) for scheme in ("first", "always")}
    print(f"{text!a:8}", found)
    assert found["always"] == "▁a▁b"
    assert found["first"] == ("▁a▁b" if text[0] == "a" else "a▁b")
assert tokens(drop, "first", " a b") == "a▁b"
assert tokens(normalizers.Sequence([]), "first", " a", pre_tokenizers.WhitespaceSplit()) == "a"
P
"$t/v/bin/python" "$t/a.py"
echo "as described"
