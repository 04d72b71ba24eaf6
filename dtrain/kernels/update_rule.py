"""What an update rule is to a device: arithmetic on a slice of the weights, and what it keeps for later."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

Slice: TypeAlias = NDArray[np.floating[Any]]


class UpdateRule(ABC):
    """How a weight follows its gradient.

    `update` is the definition, on NumPy or CuPy arrays. A device may compute the same in one pass of its own,
    which it finds by the rule's `name`, from the numbers that `scalars` gives it.
    """

    name: ClassVar[str]
    slots: ClassVar[tuple[str, ...]]
    """Arrays of the weights' shape that go from step to step, zero at first, in Caffe's order."""

    @abstractmethod
    def update(self, w: Slice, g: Slice, slot: dict[str, Slice], lr: float, it: int) -> None:
        """Change w and the slots in place; g may be overwritten."""

    @abstractmethod
    def scalars(self, it: int) -> tuple[float, ...]:
        """The rule's constants in iteration `it`."""


@final
@dataclass(frozen=True)
class Place:
    """One parameter in the flat buffers: [start, stop), its share of the rate, and its weight decay."""

    start: int
    stop: int
    lr_mult: float
    decay: float
