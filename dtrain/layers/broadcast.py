"""Factors and biases that are the same along some axes: what Scale and Bias share."""

from __future__ import annotations

from dtrain.kernels.array import Shape
from dtrain.layers.layer import Layer


def param_shape(layer: Layer, message: str, index: int, num_axes: int, shape: Shape) -> Shape:
    """The shape of a parameter that covers num_axes axes (-1: all) of a bottom of `shape` from `index` on."""
    axis = layer.axis(index, len(shape), message, "axis")
    if not -1 <= num_axes <= len(shape) - axis:
        raise layer.bad_param(
            (message, "num_axes"),
            f"in [-1, {len(shape) - axis}], the axes of bottom[0] {shape} from axis {axis} on",
            num_axes,
        )
    return shape[axis:] if num_axes == -1 else shape[axis : axis + num_axes]


def first_axis(layer: Layer, message: str, index: int, shape: Shape, covered: Shape, what: str) -> int:
    """Where `covered` lies in a bottom of `shape`; a scalar counts as lying at axis 0."""
    if not covered:
        return 0
    axis = layer.axis(index, len(shape), message, "axis")
    if shape[axis : axis + len(covered)] != covered:
        raise layer.bad_shape(what, f"the shape of bottom[0] {shape} from axis {axis} on", covered)
    return axis
