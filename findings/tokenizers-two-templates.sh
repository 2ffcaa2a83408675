#!/usr/bin/env bash
# tokenizers 0.23.3: a Sequence of two TemplateProcessing, "<s> $A" and "$A </s>".
# Guess: the second puts </s> behind what the first has made: <s> a b </s>.
# Seen: <s> a b, without </s> and without an error. What the first returns counts as two encodings
#   (<s>, and a b), so the second takes its PAIR template. With three or more, as after
#   "<s> $A </s>", it panics ("not yet implemented").
# Matters: adding an end token to a tokenizer by one more processor has no effect; training and
#   decoding then have no end token, or the wrong one of the pair template.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q tokenizers==0.23.3
cat > "$t/a.py" <<'P'
from tokenizers import Tokenizer, models, processors
t = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "<s>": 2, "</s>": 3, "<pair>": 4}, merges=[]))
special = [("<s>", 2), ("</s>", 3), ("<pair>", 4)]
def template(single, pair="$A $B"):
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
def tokens(*parts):
    t.post_processor = processors.Sequence(list(parts))
    return t.encode("ab").tokens
print(tokens(template("<s> $A"), template("$A </s>")))
assert tokens(template("<s> $A")) == ["<s>", "a", "b"]
assert tokens(template("<s> $A"), template("$A </s>")) == ["<s>", "a", "b"]
with_pair = tokens(template("<s> $A"), template("$A </s>", "$A $B <pair>"))
print(with_pair)
assert with_pair == ["<s>", "a", "b", "<pair>"]
try: tokens(template("<s> $A </s>"), template("$A <pair>"))
except BaseException as error: print(type(error).__name__, error)
else: raise SystemExit("no panic")
P
"$t/v/bin/python" "$t/a.py" 2> "$t/err" || { cat "$t/err"; exit 1; }
echo "as described"
