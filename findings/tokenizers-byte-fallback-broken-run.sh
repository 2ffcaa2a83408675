#!/usr/bin/env bash
# tokenizers 0.23.3 and sentencepiece 0.2.3: the text of byte pieces that are not all valid UTF-8.
# Guess: valid characters are kept, and each bad byte (or bad part) is one U+FFFD, in both.
# Seen: sentencepiece does that. tokenizers' ByteFallback looks at the whole run of byte pieces: one
#   bad byte makes U+FFFD of every piece in it. An emoji and a stray byte are five U+FFFD, "a" as a
#   byte piece between them is lost too. The ByteLevel decoder keeps what is valid.
# Matters: a model with byte fallback that is cut in the middle of a character, as at a length
#   limit, loses the valid characters before it (a line of Chinese in bytes becomes nothing but
#   U+FFFD), and a streaming decoder sees text that it has printed turn into U+FFFD.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q tokenizers==0.23.3 sentencepiece==0.2.3
cat > "$t/a.py" <<'P'
import sys, sentencepiece
from pydoc_data.topics import topics
from tokenizers import decoders
d = sys.argv[1]
open(d + "/text", "w").write("\n".join(topics.values()))
sentencepiece.SentencePieceTrainer.train(input=d + "/text", model_prefix=d + "/m", vocab_size=500,
    byte_fallback=True, minloglevel=2)
spm = sentencepiece.SentencePieceProcessor(model_file=d + "/m.model")
decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
def both(data):
    pieces = [f"<0x{b:02X}>" for b in data]
    return decoder.decode(pieces), spm.decode([spm.piece_to_id(p) for p in pieces])
for data in ("🙂".encode(), "🙂".encode() + b"\xc3", b"a\xffb", "中文".encode()[:5]):
    theirs, sentencepieces = both(data)
    print(data, "tokenizers", ascii(theirs), "sentencepiece", ascii(sentencepieces))
    valid = data.decode(errors="ignore") == data.decode(errors="replace")
    assert theirs == (data.decode() if valid else "\ufffd" * len(data))
assert both("🙂".encode() + b"\xc3")[1] == "🙂\ufffd"
assert both(b"a\xffb")[1] == "a\ufffdb"
P
"$t/v/bin/python" "$t/a.py" "$t"
echo "as described"
