"""When a top may be its bottom: layers that never run in place, and layers that only rename axes."""

from __future__ import annotations

from dtrain.blob import Blob, Blobs
from dtrain.kernels.array import Shape
from dtrain.layers.layer import Layer


def refuse_in_place(layer: Layer, bottom: Blobs, top: Blobs) -> None:
    """ConfigError where a top is the bottom of the same place."""
    for i, (x, y) in enumerate(zip(bottom, top, strict=False)):
        if x is y:
            raise layer.error(
                f"top[{i}] must be another blob than bottom[{i}], because {layer.type_name} does not run in "
                f'place, got "{layer.spec.top[i]}" for both',
                "top",
            )


def show_as(shape: Shape, bottom: Blob, top: Blob) -> None:
    """Make the top the bottom's data and diff under another shape of as many elements.

    Views even where the shapes are equal, so that reshaping the top leaves the bottom's arrays alone.
    """
    top.data = bottom.data.view(shape)
    top.diff = bottom.diff.view(shape)
    top.reshape(shape)
