#!/usr/bin/env bash
# tokenizers 0.23.3: DecodeStream with the decoder of Llama, which has byte pieces.
# Guess: the steps of a stream give, one after another, what decode() gives for all tokens. A byte
#   that belongs to no character is U+FFFD in both.
# Seen: after a character made of byte pieces, one stray byte piece behind it makes step() raise
#   "Invalid prefix encountered", at the next token that is no byte piece, and at every token from
#   then on. The text before is not held back: it is out, and decode() of all tokens would take it
#   back, because it breaks the good character too. No step works again, though the same tokens
#   decode, and a new stream that begins behind them works.
# Matters: a model that samples byte pieces (emoji, rare scripts) makes such a byte now and then. A
#   server that streams with this class loses the rest of that answer. Steps must be recovered with
#   a new stream, or the text must be streamed by other rules.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q tokenizers==0.23.3
cat > "$t/a.py" <<'P'
from tokenizers import Tokenizer, decoders, models
from tokenizers.decoders import DecodeStream
pieces = ["<unk>"] + [f"<0x{b:02X}>" for b in range(256)] + ["▁I", "▁like", "▁it"]
t = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, [], unk_token="<unk>",
    byte_fallback=True))
t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
    decoders.Fuse(), decoders.Strip(" ", 1, 0)])
def ids(*tokens):
    return [t.token_to_id(p) for p in tokens]
def steps(stream, tokens):
    found = []
    for i in tokens:
        try:
            found.append(stream.step(t, i))
        except Exception as e:
            found.append(str(e).split(".")[0])
    return found
smile = [f"<0x{b:02X}>" for b in "🙂".encode()]
good = ids("▁I", *smile, "▁like", "▁it")
assert "".join(s or "" for s in steps(DecodeStream(), good)) == t.decode(good) == "I🙂 like it"
stray = ids("▁I", *smile, "<0xF0>", "▁like", "▁it", "▁it")
stream = DecodeStream()
found = steps(stream, stray)
print("decode:", repr(t.decode(stray)), "\nsteps:", found)
error = "Invalid prefix encountered while decoding stream"
assert found == ["I", None, None, None, "🙂", None, error, error, error]
assert t.decode(stray) == "I" + 5 * "\ufffd" + " like it it"
assert steps(stream, ids("▁it") * 20) == [error] * 20
assert steps(DecodeStream(), ids("<0xF0>", "▁like", "▁it")) == [None, "\ufffd like", " it"]
P
"$t/v/bin/python" "$t/a.py"
echo "as described"
