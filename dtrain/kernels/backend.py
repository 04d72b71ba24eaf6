"""A device that nets are built on: it makes arrays and finds operators.

An operator is a class in a file of its name: `ops.InnerProduct(...)` is the class InnerProduct of a
file inner_product.py in one of the backend's folders. There is no list to edit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Set
from typing import Any, final

from numpy.typing import DTypeLike, NDArray

from dtrain.kernels.array import Plain, Room, Shape, SyncedArray


@final
class Unsupported(Exception):
    """An implementation does not compute an operator with these shapes or types; the next one may."""


class Later(ABC):
    """A number that a device has been asked to compute."""

    @abstractmethod
    def value(self) -> float:
        """The number; waits for the device if need be."""

    @property
    @abstractmethod
    def is_ready(self) -> bool:
        """Whether `value` would not wait."""

    @property
    @abstractmethod
    def met_bad_data(self) -> bool:
        """Whether anything up to it, data that an operator refuses, waits to be told by its `check`."""


@final
class Known(Later):
    """A number that is there already."""

    def __init__(self, value: float) -> None:
        self._value = value

    def value(self) -> float:
        return self._value

    @property
    def is_ready(self) -> bool:
        return True

    @property
    def met_bad_data(self) -> bool:
        return False  # it is told at once


class Replayer(ABC):
    """Runs the same work again and again, from some time on without asking Python what it was."""

    @abstractmethod
    def run(self, key: tuple[object, ...], work: Callable[[], None], refresh: Callable[[], None]) -> None:
        """Do the work that `key` names: call `work`, or replay what an earlier call queued.

        `refresh` sets the numbers that change from one time to the next; `work` does that by itself.
        """

    @abstractmethod
    def later(self, array: SyncedArray) -> Later:
        """The one value of an array, behind all that is queued; the array may then be overwritten."""

    @abstractmethod
    def forget(self) -> None:
        """Give back what is kept for replays; work that comes again begins anew."""

    @abstractmethod
    def place(self, name: str) -> None:
        """Tell, from within the work, what runs now: for messages."""


class Backend(ABC):
    """One device with its operators; owned by the nets that were built on it."""

    name: str
    precisions: tuple[str, ...]
    """What `operators` takes: of fp32, tf32, bf16 and fp16."""
    precision: str = "fp32"
    """Of layers for which neither they nor their net say one."""
    asked_precision: str = ""
    """What was asked for whatever a net says of itself, if anything."""
    fuses_sums: bool
    """Whether the operator SumReLU beats Sum and ReLU."""
    takes_pixels: bool
    """Whether the operator Pixels beats images that the host has transformed."""
    memory_format: str
    """How operators with a choice lay images out: "blocked" is each as it likes, or "channels_last"."""

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
    def host_memory(self, count: int, dtype: DTypeLike) -> NDArray[Any]:
        """A flat array in host memory from which batches reach the device fastest; any thread may ask."""

    @abstractmethod
    def operators(self, engine: str, precision: str = "") -> Operators:
        """The operators as a layer with this `engine` (a prototxt's value, or DEFAULT) sees them.

        precision: fp32, tf32, bf16 or fp16, or nothing for the backend's own. Raises BackendError.
        """

    @abstractmethod
    def format_for(self, precisions: Set[str]) -> str:
        """The better memory format for layers of these precisions; empty where only a trial can tell."""

    @abstractmethod
    def replayer(self) -> Replayer | None:
        """A new replayer, where replaying saves time."""

    @abstractmethod
    def room(self) -> Room | None:
        """Memory for arrays that are never needed at the same time, where memory is scarce."""

    @abstractmethod
    def memory_bytes(self) -> int | None:
        """What arrays take of the device's own memory; None where it has none."""

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
