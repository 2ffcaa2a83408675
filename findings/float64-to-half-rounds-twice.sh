#!/usr/bin/env bash
# numpy 2.4.6 and ml_dtypes 0.6.0: float64 to float16, bfloat16 and float8.
# Guess: astype rounds a number once, to the nearest; the types differ only in their grid.
# Seen: numpy's own float16 does. ml_dtypes' bfloat16 and float8 go by way of float32 and round
#   twice: a number just above the middle of two neighbours becomes the middle in float32, then goes
#   down to the even one. int64 and int32 to bfloat16 have it too. (torch 2.11.0: double to bfloat16
#   and to half both round twice, so numpy and torch give other halves for the same doubles.)
# Matters: checkpoints whose weights were computed in float64 (averaged, merged, folded scales)
#   differ in last bits by the way they were cut to 16 or 8 bits; a byte-for-byte reference must
#   name it.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q numpy==2.4.6 ml_dtypes==0.6.0
cat > "$t/a.py" <<'P'
import numpy as np, ml_dtypes
def case(kind, bits):  # bits of the fraction: 1 + half a step + a hair
    x = np.array([1 + 2.0 ** -(bits + 1) + 2.0 ** -40])
    right = 1 + 2.0 ** -bits
    got = float(x.astype(kind).astype(np.float64)[0])
    print(f"{np.dtype(kind).name:16} nearest {right}, got {got}")
    return got == right
assert case(np.float16, 10)
assert not case(ml_dtypes.bfloat16, 7)
assert not case(ml_dtypes.float8_e4m3fn, 3)
assert not case(ml_dtypes.float8_e5m2, 2)
n = 2 ** 24 + 2 ** 16 + 1
for kind in (np.int32, np.int64):
    got = float(np.array([n], kind).astype(ml_dtypes.bfloat16).astype(np.float64)[0])
    print(np.dtype(kind).name, n, "to bfloat16: nearest", 2 ** 24 + 2 ** 17, "got", int(got))
    assert got == 2 ** 24
P
"$t/v/bin/python" "$t/a.py"
echo "as described"
