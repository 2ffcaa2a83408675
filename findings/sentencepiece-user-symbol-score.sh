#!/usr/bin/env bash
# sentencepiece 0.2.1 and 0.2.3: what a user-defined symbol is worth in a unigram model.
# Guess: in both the same small constant, so that the symbol beats the pieces of its own text and
#   nothing else is decided by it.
# Seen: up to 0.2.1 it is worth -0.1 however long it is; from 0.2.2 on 0.1 * (bytes - 1), so 0 for a
#   one-byte symbol and more for a longer one. Found by letting symbol + "z" compete with a piece of
#   the same text whose score is moved until the choice turns.
# Matters: sums round otherwise, so lines with symbols such as 77 in 777 are cut elsewhere by an
#   otherwise equal model; and two symbols that overlap are weighed by their lengths only from 0.2.2
#   on. A tokenizer written after the older source differs from today's wheels.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
cat > "$t/a.py" <<'P'
import struct, sys, sentencepiece

def field(number, data):
    return bytes([number << 3 | 2, len(data)]) + data

def model(pieces):  # text, score, type: a unigram model whose text stays as it is
    entries = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3), *pieces]
    data = b"".join(
        field(1, field(1, p.encode()) + b"\x15" + struct.pack("<f", s) + bytes([0x18, t]))
        for p, s, t in entries)
    return sentencepiece.SentencePieceProcessor(
        model_proto=data + field(3, field(1, b"identity") + b"\x18\x00"))

def worth(symbol):
    low, high = -1.0, 2.5
    for _ in range(40):
        middle = (low + high) / 2
        pieces = [(symbol, 0, 4), ("z", -3, 1), (symbol + "z", middle - 3, 1), ("worst", -20, 1)]
        chosen = model(pieces).encode(symbol + "z", out_type=str)
        low, high = (middle, high) if chosen == [symbol, "z"] else (low, middle)
    return round(low, 4)

found = [worth(symbol) for symbol in ("a", "ab", "abc", "日本")]
print(sentencepiece.__version__, found)
assert found == {"0.2.1": [-0.1] * 4, "0.2.3": [0.0, 0.1, 0.2, 0.5]}[sentencepiece.__version__]
P
for package in sentencepiece==0.2.1 sentencepiece==0.2.3; do
  python3 -m venv "$t/$package"
  "$t/$package/bin/pip" install -q "$package"
  "$t/$package/bin/python" "$t/a.py"
done
echo "as described"
