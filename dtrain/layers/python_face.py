"""What a Python layer's own code sees of the framework: the `caffe.Layer` it derives from, and blobs.

Source of the names: Caffe's Python interface (python/caffe/_caffe.cpp). A fuller `caffe` module takes these
classes from here, so that a layer works the same under both.
"""

from __future__ import annotations

import importlib.util
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, SupportsIndex, TypeAlias, final, overload

from dtrain import blob as device
from dtrain.errors import ConfigError
from dtrain.kernels.array import Plain, Shape
from dtrain.proto import dtrain_pb2 as pb

AddBlob: TypeAlias = Callable[[Shape], device.Blob]


class BlobFace(ABC):
    """A blob by the names that Caffe's Python interface has for its extents."""

    __slots__ = ("__weakref__", "_blob")

    def __init__(self, blob: device.Blob) -> None:
        self._blob = blob

    def __repr__(self) -> str:
        return f"Blob{self.shape}"

    @property
    @abstractmethod
    def data(self) -> Plain:
        """The values, in Caffe's order, to read and to change in place."""

    @property
    @abstractmethod
    def diff(self) -> Plain:
        """The gradient, likewise."""

    @property
    def shape(self) -> Shape:
        """All extents."""
        return self._blob.shape

    @property
    def count(self) -> int:
        """Number of values."""
        return self._blob.count

    def _axis(self, index: int) -> int:
        return self.shape[index] if index < len(self.shape) else 1

    @property
    def num(self) -> int:
        """Extent of axis 0, 1 where there is none; so the next three for axes 1 to 3."""
        return self._axis(0)

    @property
    def channels(self) -> int:
        """Extent of axis 1."""
        return self._axis(1)

    @property
    def height(self) -> int:
        """Extent of axis 2."""
        return self._axis(2)

    @property
    def width(self) -> int:
        """Extent of axis 3."""
        return self._axis(3)

    def reshape(self, *dims: SupportsIndex) -> None:
        """Take another shape, one argument per axis; values are undefined if their number changes."""
        shape = tuple(dim.__index__() for dim in dims)
        if any(dim < 0 for dim in shape):
            raise ConfigError(f"Blob.reshape: extents must be at least 0, got {shape}")
        self._blob.reshape(shape)


@final
class Blob(BlobFace):
    """For a Python layer. An array is good until the next layer runs: ask again instead of keeping it."""

    __slots__ = ()

    @property
    def data(self) -> Plain:
        return self._blob.data.plain_mutable()

    @property
    def diff(self) -> Plain:
        return self._blob.diff.plain_mutable()


@final
class BlobVec(Sequence[Blob]):
    """A layer's parameters."""

    def __init__(self, blobs: device.Blobs, add: AddBlob) -> None:
        self._blobs = blobs
        self._add = add

    @overload
    def __getitem__(self, index: int) -> Blob: ...
    @overload
    def __getitem__(self, index: slice) -> list[Blob]: ...
    def __getitem__(self, index: int | slice) -> Blob | list[Blob]:
        if isinstance(index, slice):
            return [Blob(blob) for blob in self._blobs[index]]
        return Blob(self._blobs[index])

    def __len__(self) -> int:
        return len(self._blobs)

    def add_blob(self, *dims: SupportsIndex) -> None:
        """Append a parameter of this shape, filled with zeros; in `setup` only."""
        self._add(tuple(dim.__index__() for dim in dims))


class Layer(ABC):
    """The base class of a user's layer.

    When `setup` runs there are: `blobs`, `param_str` (and its old name `param_str_`), `phase` (0 TRAIN,
    1 TEST), and `rank` of `size` processes, among which a layer that reads data shares it out itself.
    `reshape` runs before every forward pass.
    """

    type = "Python"
    blobs: BlobVec
    param_str: str
    param_str_: str
    phase: int
    rank: int
    size: int

    def __init__(self, layer_param: pb.LayerParameter) -> None:
        self.layer_param = layer_param

    @abstractmethod
    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Once: read `param_str`, check the numbers of blobs, add parameters."""

    @abstractmethod
    def reshape(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Give the tops their shapes."""

    @abstractmethod
    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Fill the tops' data."""

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """Fill bottom[i].diff where propagate_down[i], add to the diffs of `blobs`."""
        raise NotImplementedError("a layer that a gradient reaches must define backward")


def provide_caffe() -> None:
    """Let `import caffe` find these classes, unless a caffe is imported already or installed."""
    if "caffe" in sys.modules:
        return
    spec = importlib.util.find_spec("caffe")
    if spec is not None and spec.origin is not None:  # without origin: just some folder of that name
        return
    module = ModuleType("caffe", "What Python layers of dtrain need of Caffe's Python interface.")
    names: dict[str, Any] = {"Layer": Layer, "Blob": Blob, "TRAIN": int(pb.TRAIN), "TEST": int(pb.TEST)}
    module.__dict__.update(names)
    sys.modules["caffe"] = module
