#!/usr/bin/env bash
# sacrebleu 2.6.0, BLEU with its tokenizer zh: which characters become words of their own.
# Guess: every Chinese character, those beyond U+FFFF too (their range U+20000 to U+2A6D6 is in the
#   tokenizer's table), and nothing that is not Chinese or full width.
# Seen: "\u20000" in Python is U+2000 with a digit 0 after it, so that range holds U+2001 to U+2A6D
#   instead. Rare characters side by side stay one word. In return, curly quotes, dashes, the euro,
#   arrows and signs of mathematics are split off: "don't" is one word with ' and three with U+2019,
#   and "5€" is two words while "5¥" is one. 13a leaves them whole.
# Matters: a rare name is counted otherwise than all others, and a change of quotes moves the
#   borders of words. An own implementation that follows the table's comments finds other words.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q sacrebleu==2.6.0
cat > "$t/a.py" <<'P'
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh
zh, mteval = TokenizerZh(), Tokenizer13a()
for text, expected in (("山川", "山 川"), ("㐀㐁", "㐀 㐁"), ("𠀋𠀌", "𠀋𠀌"), ("𠮷野家", "𠮷 野 家"),
        ("don't", "don't"), ("don’t", "don ’ t"), ("“你好”", "“ 你 好 ”"), ("5€", "5 €"),
        ("5¥", "5¥"), ("a→b", "a → b"), ("naïve‑case", "naïve ‑ case")):
    found = zh(text)
    print(f"{text}: {found}")
    assert found == expected
assert mteval("don’t") == "don’t" and mteval("5€") == "5€" and mteval("a→b") == "a→b"
P
"$t/v/bin/python" "$t/a.py"
echo "as described"
