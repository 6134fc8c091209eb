"""How large a model is: parameters in all, and in the layers that a prompt goes through."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from .._ffi import NativeFile, TensorInfo

_LAYER = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True)
class ModelSize:
    """Parameters of a model.

    Attributes:
        n_params: all of them; a matrix that is embedding and output both counts once, as the file has it once.
        by_layer: those of each layer's tensors: what reading one token takes.
    """

    n_params: int
    by_layer: tuple[int, ...]

    def work(self, n_layer: Optional[int] = None) -> int:
        """Parameters that a token meets in the first ``n_layer`` layers, in all for None."""
        return sum(self.by_layer[:n_layer])


def size_of(file: NativeFile) -> ModelSize:
    """The size of an open model file."""
    return size_of_tensors(file.tensors)


def size_of_tensors(tensors: Iterable[TensorInfo]) -> ModelSize:
    """The size of a model by its tensors."""
    n_params, by_layer = 0, dict[int, int]()
    for tensor in tensors:
        n = math.prod(tensor.ne)
        n_params += n
        match = _LAYER.match(tensor.name)
        if match:
            by_layer[int(match[1])] = by_layer.get(int(match[1]), 0) + n
    return ModelSize(n_params, tuple(by_layer[il] for il in sorted(by_layer)))
