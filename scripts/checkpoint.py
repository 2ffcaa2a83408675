"""Reads the tensors of a checkpoint directory, from one file or from several (shards)."""

from __future__ import annotations

import os
import re

from checkpoint_reader import FLOATS, REQUIRED, Settings, read_safetensors, refuse
from torch_reader import read_torch
from unsupported import WEIGHTS, refuse_tensors

# Checkpoints keep these buffers beside the weights. They are constants that the network's code
# makes anew, counters of training, and versions. transformers does not use them either.
BUFFERS = re.compile(
    r"(.*\.)?(position_ids|masked_bias|(attn|attention)\.bias|inv_freq|num_batches_tracked"
    r"|(encoder|decoder)\.version|embed_positions\.(weights|bias|_float_tensor))",
    re.DOTALL,
)


def read_shards(index, read):
    """Returns tensors by name from the files that an index names. `read` is read_safetensors or
    read_torch."""
    files = Settings(index).take("weight_map", REQUIRED, "an object", lambda v: isinstance(v, dict))
    tensors = {}
    for shard in dict.fromkeys(map(str, files.values())):
        if not re.fullmatch(r"[\w.-]+", shard, re.ASCII):
            refuse(index, "weight_map", "names of files beside it", shard)
        for name, tensor in read(os.path.join(os.path.dirname(index), shard)).items():
            if files.get(name) != shard:
                refuse(
                    tensor.path,
                    name,
                    f"tensors that {os.path.basename(index)} says are there",
                    "another",
                )
            tensors[name] = tensor
    for name in sorted(files.keys() - tensors.keys()):
        refuse(index, name, f"a tensor in {files[name]}", "none")
    return tensors


class Checkpoint:
    """Holds the tensors of a directory. It remembers which of them were taken, so that none is
    overlooked."""

    READERS = dict(zip(WEIGHTS, (read_safetensors, read_torch)))

    def __init__(self, directory):
        self.taken = set()
        self.tensors = self.read(directory)
        refuse_tensors(self.tensors)

    def read(self, directory):
        for name, read in self.READERS.items():
            self.path = os.path.join(directory, name)
            if os.path.exists(self.path):
                return read(self.path)
            self.path += ".index.json"
            if os.path.exists(self.path):
                return read_shards(self.path, read)
        refuse(directory, "weights", " or ".join(WEIGHTS), "neither")

    def ignore(self, name):
        self.taken.add(name)

    def take(self, name, shape):
        if name not in self.tensors:
            refuse(self.path, name, f"a tensor of shape {list(shape)}", "none")
        tensor = self.tensors[name]
        if tensor.dtype not in FLOATS:
            refuse(tensor.path, name, "float32, float16 or bfloat16", tensor.dtype)
        if tensor.shape != tuple(shape):
            refuse(tensor.path, name, f"shape {list(shape)}", list(tensor.shape))
        self.taken.add(name)
        return tensor

    def take_first(self, names, columns):
        """Takes the first of the named tensors that is stored, as a matrix [any, columns]. Error
        messages use the second name, which is the usual one."""
        name = next((name for name in names if name in self.tensors), None)
        if name is None:
            refuse(self.path, names[:2][-1], f"a tensor of shape [vocabulary, {columns}]", "none")
        matrix = self.tensors[name]
        if len(matrix.shape) != 2 or matrix.shape[0] == 0:
            refuse(matrix.path, name, f"shape [vocabulary, {columns}]", list(matrix.shape))
        return self.take(name, (matrix.shape[0], columns))

    def check_all_taken(self):
        """Refuses a tensor that nobody took, unless its name is that of a known buffer."""
        for name in sorted(self.tensors.keys() - self.taken):
            tensor = self.tensors[name]
            if not BUFFERS.fullmatch(name):
                shape = list(tensor.shape)
                refuse(
                    tensor.path,
                    name,
                    "no such tensor in a model of this config.json",
                    shape if tensor.dtype in FLOATS else f"{tensor.dtype} {shape}",
                )
