"""Changes a tensor of a checkpoint while it is written: moves its elements, or adds 1 to them. A
tensor is in memory only while it is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from checkpoint_reader import BLOCK, ITEM_SIZE, Tensor
from model_writer import to_float32


@dataclass(eq=False)
class Changed(Tensor):
    """This is a tensor whose words are those of another one after a change."""

    base: Tensor | None = None
    # The function makes an array of unsigned words of another one.
    change: Callable | None = None

    def words(self):
        return np.ascontiguousarray(self.change(self.base.words()))

    def blocks(self):
        words = self.words()
        rows = max(1, BLOCK // (ITEM_SIZE[self.dtype] * math.prod(self.shape[1:])))
        for first in range(0, self.shape[0], rows):
            yield words[first : first + rows]
        self.base.release()


def change(base, shape, function):
    described = (base.path, base.name, base.dtype, tuple(shape), memoryview(b""))
    return Changed(*described, base=base, change=function)


def transpose(matrix):
    return change(matrix, matrix.shape[::-1], lambda words: words.T)


def take_rows(tensor, order):
    """Returns the tensor with its rows in another order."""
    return change(tensor, tensor.shape, lambda words: words[order])


def add_1(vector):
    """Returns 1 + the vector in float32, where 16 bits would round it anew."""
    function = lambda words: (to_float32(words, vector.dtype) + np.float32(1)).view("<u4")
    changed = change(vector, vector.shape, function)
    changed.dtype, changed.keeps_dtype = "float32", True
    return changed
