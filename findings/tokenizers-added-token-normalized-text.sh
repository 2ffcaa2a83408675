#!/usr/bin/env bash
# tokenizers 0.23.3: the text of an added token that is "normalized", as add_tokens makes them.
# Guess: whatever is looked for in a line, decoding gives the token as it was added; a special one
#   is skipped.
# Seen: decode and id_to_token give the normalised text: "ﬁ Å" under NFKC becomes "fi Å", <NUM>
#   under Prepend and Replace (the older Llama kind) "▁<NUM>", and "Straße" in lower case "straße".
#   token_to_id knows only the text as it was added. A special token with normalized=True is not
#   skipped, because its normalised text is compared with the names of special tokens.
# Matters: placeholders do not survive: who looks for <NUM> or a name in the output does not find it
#   as it was; "skip_special_tokens" leaves such tokens in the text.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q tokenizers==0.23.3
cat > "$t/a.py" <<'P'
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
def texts(normalizer, token, special=False, normalized=True):
    t = Tokenizer(models.BPE(vocab={"▁": 0, "a": 1}, merges=[]))
    t.normalizer, t.decoder = normalizer, decoders.Fuse()
    t.add_tokens([AddedToken(token, normalized=normalized, special=special)])
    id = t.token_to_id(token)
    assert t.encode(token).ids == [id]
    text = t.decode([id])
    assert text in ("", t.id_to_token(id))
    return text
marks = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
for normalizer, token, seen in ((normalizers.NFKC(), "ﬁ Å", "fi Å"), (marks, "<NUM>", "▁<NUM>"),
        (normalizers.Lowercase(), "Straße", "straße")):
    print(token, "->", texts(normalizer, token), "; special:", repr(texts(normalizer, token, True)),
        "; normalized=False:", texts(normalizer, token, normalized=False))
    assert texts(normalizer, token) == texts(normalizer, token, special=True) == seen
    assert texts(normalizer, token, normalized=False) == token
    assert texts(normalizer, token, True, False) == ""
P
"$t/v/bin/python" "$t/a.py"
echo "as described"
