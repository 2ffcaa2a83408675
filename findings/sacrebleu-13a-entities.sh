#!/usr/bin/env bash
# sacrebleu 2.6.0, BLEU with its tokenizer 13a: translations with HTML entities left in them.
# Guess: "&lt;b&gt;" for "<b>" costs BLEU, "&amp;lt;" for "<" (escaped twice) more so, and a literal
#   "<skipped>" is a wrong word.
# Seen: all three score 100: &quot; &amp; &lt; &gt; are undone before counting, one after the other,
#   so twice-escaped text as well, and "<skipped>" is deleted. &#39; and &apos; are not undone and
#   cost. chrF and TER take nothing of it away and see each.
# Matters: a decoder that forgets to unescape, or escapes twice, cannot be found by BLEU; compare
#   bytes or chrF for markup.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q sacrebleu==2.6.0
cat > "$t/a.py" <<'P'
from sacrebleu.metrics import BLEU, CHRF, TER
cases = (("press &lt;b&gt; here and &amp; there now", "press <b> here and & there now", True),
         ("press &amp;lt;b&amp;gt; here and there now", "press <b> here and there now", True),
         ("press the <skipped> button here and there", "press the button here and there", True),
         ("it is &#39;right&#39; here and there now", "it is 'right' here and there now", False),
         ("it is &apos;right&apos; here and there now", "it is 'right' here and there now", False))
for hypothesis, reference, hidden in cases:
    b, c, e = (m.corpus_score([hypothesis], [[reference]]).score for m in (BLEU(), CHRF(), TER()))
    print(f"BLEU {b:6.2f}  chrF {c:6.2f}  TER {e:6.2f}  {hypothesis}")
    assert (b > 99.999) == hidden and c < 99 and e > 1
P
"$t/v/bin/python" "$t/a.py"
echo "as described"
