"""Blobs and layers of a net as a script sees them."""

from __future__ import annotations

from typing import SupportsIndex, final

from dtrain import blob as core
from dtrain.errors import ConfigError
from dtrain.kernels.array import Plain, Shape
from dtrain.layers import layer as layers
from dtrain.layers.python import Python
from dtrain.layers.python_face import Layer as UserLayer


@final
class Blob:
    """`data` and `diff` as NumPy arrays in Caffe's order.

    Both may be kept and written to at any time: the net reads what stands there, and shows there what it
    computes, until the blob is reshaped to another number of elements.
    """

    __slots__ = ("__weakref__", "_blob", "_of_param")

    def __init__(self, blob: core.Blob, of_param: str = "") -> None:
        """`of_param` names the parameter that the blob is, whose shape stays as it is."""
        self._blob = blob
        self._of_param = of_param

    def __repr__(self) -> str:
        return f"Blob{self.shape}"

    @property
    def data(self) -> Plain:
        """The values."""
        return self._blob.data.lend_plain()

    @property
    def diff(self) -> Plain:
        """The gradient."""
        return self._blob.diff.lend_plain()

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
        if self._of_param and shape != self.shape:
            raise ConfigError(
                f"Blob.reshape: {self._of_param} must keep its shape {self.shape}, got {shape}; change the "
                f"layer in the prototxt"
            )
        self._blob.reshape(shape)


@final
class Layer:
    """A layer of a net: its type and its parameters."""

    def __init__(self, layer: layers.Layer) -> None:
        self._layer = layer
        self.type: str = layer.spec.type
        self.blobs = [Blob(blob, f"{layer.name}[{i}]") for i, blob in enumerate(layer.blobs)]

    def __repr__(self) -> str:
        return f'Layer("{self._layer.name}", {self.type})'


def layer_of(layer: layers.Layer) -> Layer | UserLayer:
    """What `net.layers` holds for a layer: of type Python, the object of the user's class."""
    return layer.user if isinstance(layer, Python) else Layer(layer)
