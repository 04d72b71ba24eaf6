"""How values lie in a device's memory: their type and the order of their axes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from dtrain.kernels.array import Shape


@final
class ValueType(Enum):
    """A type of values in device memory; those of 16 bits are held in buffers of uint16."""

    FLOAT64 = "double"
    FLOAT32 = "float"
    FLOAT16 = "Half"
    BFLOAT16 = "Bfloat16"

    @property
    def c_name(self) -> str:
        """In kernel.cuh."""
        return self.value

    @property
    def storage(self) -> np.dtype[Any]:
        """NumPy's type of a buffer that holds such values."""
        kinds = {ValueType.FLOAT64: np.float64, ValueType.FLOAT32: np.float32}
        return np.dtype(kinds.get(self, np.uint16))

    @property
    def is_16_bit(self) -> bool:
        return self in (ValueType.FLOAT16, ValueType.BFLOAT16)


TYPE_OF: Final = {np.dtype(np.float32): ValueType.FLOAT32, np.dtype(np.float64): ValueType.FLOAT64}


@final
@dataclass(frozen=True)
class Form:
    """A type, and whether an image's channels are its last axis in memory: (N, H, W, C).

    Only arrays of four axes can have their channels last; for all others `of` gives Caffe's order.
    """

    type: ValueType
    channels_last: bool = False

    def of(self, shape: Shape) -> Form:
        """This form as an array of that shape can have it: where both orders are one, Caffe's."""
        if not self.channels_last:
            return self
        if len(shape) != 4 or shape[1] == 1 or shape[2] * shape[3] == 1:
            return Form(self.type)
        return self


def to_floats(values: NDArray[Any], kind: ValueType) -> NDArray[np.floating[Any]]:
    """A host copy of a buffer's values as numbers: 16-bit ones become float32."""
    if kind is ValueType.BFLOAT16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    if kind is ValueType.FLOAT16:
        return values.view(np.float16).astype(np.float32)
    return values
