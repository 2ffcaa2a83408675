#!/usr/bin/env bash
# tokenizers 0.23.3: normalizers.NFC against Python's unicodedata.
# Guess: the same for all text that Python's tables know; at most newly added characters differ.
# Seen: the tables are those of Unicode 9 (2016). Marks that came later keep their place and stop
#   composition: Arabic U+08D3 before U+0650 is not put into order, and a, U+1ABF, U+0301 stays as
#   it is. Two texts that are canonically equal have two outputs, which NFC is there to prevent.
#   unicode-normalization-alignments 0.1.12 is the crate.
# Matters: Qwen's tokenizers normalise with NFC. A tokenizer written with another library (ICU,
#   utf8proc, Python's) gives other ids for such Arabic, Lao, Bengali or Telugu text.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q tokenizers==0.23.3
cat > "$t/a.py" <<'P'
import unicodedata
from tokenizers import normalizers
show = lambda s: " ".join(f"{ord(c):04X}" for c in s)
nfc = normalizers.NFC()
late = [("\u0628\u08d3\u0650", "\u0628\u0650\u08d3"), ("\u0e81\u0ec8\u0eba", "\u0e81\u0eba\u0ec8"),
    ("a\u1abf\u0301", "\u00e1\u1abf")]
for text, expected in late:
    print(show(text), "-> tokenizers", show(nfc.normalize_str(text)), ", expected", show(expected))
    assert nfc.normalize_str(text) == text
    if unicodedata.unidata_version >= "14":
        assert unicodedata.normalize("NFC", text) == expected
line = lambda c: f"a{c}\u0323\u0301"
late = {c for c in map(chr, range(0x110000)) if unicodedata.combining(c)
    and nfc.normalize_str(line(c)) != unicodedata.normalize("NFC", line(c))}
print(len(late), "marks of Unicode", unicodedata.unidata_version, "are unknown to tokenizers,",
    "the first are", show(sorted(late)[:5]))
assert min(late) == "\u07fd" and len(late) > 80  # U+07FD is of Unicode 11.
for text in ("e\u0301", "\u1100\u1161", "a\u0323\u0301"):  # Older marks are in order.
    assert nfc.normalize_str(text) == unicodedata.normalize("NFC", text)
P
"$t/v/bin/python" "$t/a.py"
echo "as described"
