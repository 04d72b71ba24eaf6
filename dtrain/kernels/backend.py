"""A device that nets are built on: it makes arrays and finds operators.

An operator is a class in a file of its name: `ops.InnerProduct(...)` is the class InnerProduct of a
file inner_product.py in one of the backend's folders. There is no list to edit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, final

from dtrain.kernels.array import Plain, Shape, SyncedArray


@final
class Unsupported(Exception):
    """An implementation does not compute an operator with these shapes or types; the next one may."""


class Backend(ABC):
    """One device with its operators; owned by the nets that were built on it."""

    name: str

    @abstractmethod
    def array(self, shape: Shape) -> SyncedArray:
        """A cleared array; memory is taken on first use."""

    @abstractmethod
    def flat(self, count: int) -> Plain:
        """A flat buffer of zeros for parameters, their diffs or a solver's history."""

    @abstractmethod
    def flat_for_sums(self, count: int, allocate: Callable[[int], Plain]) -> Plain:
        """As `flat`, for gradients that a communicator sums; it gives host memory by `allocate`."""

    @abstractmethod
    def operators(self, engine: str, precision: str = "") -> Operators:
        """The operators as a layer with this `engine` (a prototxt's value, or DEFAULT) sees them.

        precision: fp32, tf32, bf16 or fp16, or nothing for the backend's own. Raises BackendError.
        """

    @abstractmethod
    def synchronize(self) -> None:
        """Return when all that operators have queued is done, for those who look at a clock."""

    @abstractmethod
    def describe(self) -> str:
        """One line for the start of a run: device, libraries, threads."""


class Operators(ABC):
    """Operators by name: `ops.Pooling(window, bottom, top)` builds one for these arrays."""

    @abstractmethod
    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The class of that name, bound to the backend."""
