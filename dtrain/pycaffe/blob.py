"""Blobs and layers of a net as a script sees them."""

from __future__ import annotations

from typing import SupportsIndex, final

from dtrain import blob as core
from dtrain.errors import ConfigError
from dtrain.kernels.array import Plain
from dtrain.layers import layer as layers
from dtrain.layers.python import Python
from dtrain.layers.python_face import BlobFace
from dtrain.layers.python_face import Layer as UserLayer


@final
class Blob(BlobFace):
    """What a script sees of a net.

    Its arrays may be kept and written to at any time: the net reads what stands there, and shows there what
    it computes, until the blob is reshaped to another number of elements.
    """

    __slots__ = ("_of_param",)

    def __init__(self, blob: core.Blob, of_param: str = "") -> None:
        """`of_param` names the parameter that the blob is, whose shape stays as it is."""
        super().__init__(blob)
        self._of_param = of_param

    @property
    def data(self) -> Plain:
        return self._blob.data.lend_plain()

    @property
    def diff(self) -> Plain:
        return self._blob.diff.lend_plain()

    def reshape(self, *dims: SupportsIndex) -> None:
        shape = tuple(dim.__index__() for dim in dims)
        if self._of_param and shape != self.shape:
            raise ConfigError(
                f"Blob.reshape: {self._of_param} must keep its shape {self.shape}, got {shape}; change the "
                f"layer in the prototxt"
            )
        super().reshape(*shape)


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
