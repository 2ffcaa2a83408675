"""Has what the tests of checkpoints that are a decoder alone share: the random checkpoints of
tests/data/families, and changes of copies of them."""

import json
import os
import shutil

from checkpoint_fixture import ConvertTest, decode_safetensors, encode_safetensors, read
from program import ROOT

FAMILIES = os.path.join(ROOT, "tests", "data", "families")
WEIGHTS = "model.safetensors"


def ids_of(*path):
    return [[int(word) for word in line.split()] for line in read(*path).decode().splitlines()]


def folder_of(name):
    """Returns the folder of a checkpoint that scripts/golden_decoders.py made."""
    return os.path.join(FAMILIES, f"random-{name}")


def weights_of(name):
    """Returns the weights of a checkpoint in float32, by name."""
    stored = decode_safetensors(read(folder_of(name), WEIGHTS))
    return {tensor: values for tensor, (values, _) in stored.items()}


class DecoderCase(ConvertTest):
    def copy_of(self, name, config=None, generation=None):
        """Returns a copy of a checkpoint with other values in its configurations. A key whose value
        is None is removed."""
        shutil.rmtree(self.checkpoint, ignore_errors=True)
        shutil.copytree(folder_of(name), self.checkpoint)
        for file, changes in (("config.json", config), ("generation_config.json", generation)):
            values = json.loads(read(self.checkpoint, file)) | (changes or {})
            values = {key: value for key, value in values.items() if value is not None}
            self.write_json(file, values)
        return self.checkpoint

    def write_json(self, file, values):
        with open(os.path.join(self.checkpoint, file), "w", encoding="utf-8") as out:
            json.dump(values, out)

    def write_weights(self, weights, dtype="F16", file=None):
        with open(file or os.path.join(self.checkpoint, WEIGHTS), "wb") as out:
            out.write(encode_safetensors(weights, lambda name: dtype))
