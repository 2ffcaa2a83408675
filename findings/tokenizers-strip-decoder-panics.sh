#!/usr/bin/env bash
# tokenizers 0.23.3: decoders.Strip(" ", 0, 1), which cuts a blank off the end of each token.
# Guess: a token that is too short, or empty, stays as it is.
# Seen: an empty token panics, and so does " " with Strip(" ", 0, 2). With Strip(" ", 1, 1) " "
#   panics as well, because both ends are cut of one character. PanicException is no Exception, so
#   "except Exception" does not catch it. Strip(" ", 1, 0) of the Llama kind is safe.
# Matters: one line of a batch ends the whole process.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q tokenizers==0.23.3
cat > "$t/a.py" <<'P'
from tokenizers import decoders
def outcome(left, right, *tokens):
    try: return repr(decoders.Strip(" ", left, right).decode(list(tokens)))
    except Exception as error: return "Exception"
    except BaseException as error: return type(error).__name__
cases = ((0, 1, "a "), (0, 1, ""), (0, 2, " "), (1, 1, " "), (1, 0, ""), (1, 0, " "))
for left, right, token in cases:
    print(left, right, repr(token), outcome(left, right, token))
assert outcome(0, 1, "a ") == "'a'" and outcome(1, 0, "") == outcome(1, 0, " ") == "''"
assert outcome(0, 1, "") == outcome(0, 2, " ") == outcome(1, 1, " ") == "PanicException"
P
"$t/v/bin/python" "$t/a.py" 2> "$t/err" || { cat "$t/err"; exit 1; }
echo "as described"
