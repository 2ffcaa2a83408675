#!/usr/bin/env bash
# torch 2.11.0 (CPU): the bytes that torch.save writes in its zip format for a copy of a transposed
# matrix.
# Guess: only views need their strides. A copy (clone, a cast, w + 0, a result of torch.linalg) is
#   stored row by row, so a reader that takes the shape and the data file gets it right.
# Seen: w.t().clone(), deepcopy, casts and w.t() + 0 keep the strides (1, rows), and the file holds
#   the matrix column by column, with as many bytes as a plain one. torch.linalg.qr, inv and svd
#   give such matrices too. Only contiguous() stores rows. A copy of a slice, in contrast, is stored
#   row by row and is small, while the slice itself stores all of the matrix. Tied names share one
#   data file, and torch.load keeps the strides. safetensors refuses such a copy with a ValueError.
# Matters: a square weight is read transposed by a reader that looks at shapes alone, and neither
#   the shape nor the size of the data shows it. Converters that transpose weights and then cast
#   them write such files.
# Needs about 6 GB in the temp folder (torch), some minutes.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/v"
"$t/v/bin/pip" install -q torch==2.11.0 numpy==2.4.6 safetensors==0.8.0
cat > "$t/a.py" <<'P'
import copy, io, numpy as np, torch, zipfile
from safetensors.torch import save
def stored(tensors):
    f = io.BytesIO()
    torch.save(tensors, f)
    z = zipfile.ZipFile(f)
    data = [z.read(n) for n in sorted(z.namelist()) if "/data/" in n]
    f.seek(0)
    return data, torch.load(f)
w = torch.arange(9.).reshape(3, 3) + 4 * torch.eye(3)
for what, x, by_rows, numbers in (
        ("w.t().contiguous()", w.t().contiguous(), True, 9),
        ("w.t()", w.t(), False, 9),
        ("w.t().clone()", w.t().clone(), False, 9),
        ("copy.deepcopy(w.t())", copy.deepcopy(w.t()), False, 9),
        ("w.t().half().float()", w.t().half().float(), False, 9),
        ("w.t() + 0", w.t() + 0, False, 9),
        ("torch.linalg.inv(w)", torch.linalg.inv(w), False, 9),
        ("torch.linalg.qr(w).Q", torch.linalg.qr(w).Q, False, 9),
        ("torch.linalg.svd(w).Vh", torch.linalg.svd(w).Vh, False, 9),
        ("w[:, :2]", w[:, :2], False, 9),
        ("w[:, :2].clone()", w[:, :2].clone(), True, 6)):
    data, loaded = stored({"w": x})
    seen = np.frombuffer(data[0], np.float32)
    same = np.array_equal(seen[:x.numel()].reshape(x.shape), x.numpy())
    print(f"{what:23} strides {x.stride()}, {seen.size} numbers, read by shape alone:",
        "right" if same else "wrong")
    assert len(data) == 1 and same == by_rows and seen.size == numbers
    assert torch.equal(loaded["w"], x) and loaded["w"].stride() == x.stride()
data, loaded = stored({"a": w, "b": w, "c": w[1:]})
print("three names of one matrix:", len(data), "data file")
assert len(data) == 1 and torch.equal(loaded["c"], w[1:])
try:
    save({"w": w.t().clone()})
    raise SystemExit("safetensors took it")
except ValueError as e:
    print("safetensors:", str(e).split(".")[0])
P
"$t/v/bin/python" "$t/a.py"
echo "as described"
