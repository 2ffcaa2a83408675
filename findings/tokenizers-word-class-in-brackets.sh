#!/usr/bin/env bash
# tokenizers 0.23.3, patterns of Split and Replace (Oniguruma): \w, [\w], \h and \s against those
# of Python's re.
# Guess: \w and [\w] are the same class, and that of Python's re: letters, digits, underscore.
# Seen: \w takes ² ³ ¹ ¼ ½ ¾ and [\w] does not; [^\W] does not take them either, though \W does not
#   match them. Both take combining marks and U+203F, which re does not, and leave out ① and ౸,
#   which re takes. \h is a hex digit. \s, \d, \p{L}, \p{N} are as elsewhere.
# Matters: a pattern with \w+ that is moved to another library, or from \w into brackets, splits
#   other words: "m²" is one word for \w+ and two for [\w]+; Hindi words are whole for \w+ here, and
#   fall apart at every vowel sign with re or PCRE2 10.42.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q tokenizers==0.23.3
cat > "$t/a.py" <<'P'
import re
from tokenizers import Regex, normalizers, pre_tokenizers
everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
def matched(pattern):
    return set(everything) - set(normalizers.Replace(Regex(pattern), "").normalize_str(everything))
bare, bracket, double = matched(r"\w"), matched(r"[\w]"), matched(r"[^\W]")
print("in \\w and not in [\\w]:", "".join(sorted(bare - bracket)))
assert bare - bracket == set("²³¹¼½¾") and bracket < bare and double == bracket
assert not bare & matched(r"\W")
python = set(re.findall(r"\w", everything))
for c in "\u093f\u0301\u203f": assert c in bare and c not in python
for c in "①౸": assert c not in bare and c in python
print(len(bare - python), "characters are in \\w here only,", len(python - bare), "in re only")
def words(pattern, text):
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return [text[a:b] for _, (a, b) in split.pre_tokenize_str(text)]
print(words(r"\w+", "5 m²"), words(r"[\w]+", "5 m²"))
print(words(r"\w+", "हिन्दी"), re.findall(r"\w+", "हिन्दी"))
assert words(r"\w+", "m²") == ["m²"] and words(r"[\w]+", "m²") == ["m", "²"]
assert words(r"\w+", "हिन्दी") == ["हिन्दी"] and len(re.findall(r"\w+", "हिन्दी")) == 3
assert matched(r"\h") == set("0123456789abcdefABCDEF")
assert matched(r"\s") == {c for c in everything if c.isspace()} - set("\x1c\x1d\x1e\x1f")
P
"$t/v/bin/python" "$t/a.py"
echo "as described"
