"""Where a place in one blob lies in another, for layers that keep images in place: what Crop needs.

A map is (axis, scale, shift): the place c in the earlier blob is scale * c + shift in the later one, on all
axes behind `axis`. None for the axis is any.

Source of names and formulas: python/caffe/coord_map.py of BVLC Caffe 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtrain.pycaffe.net_spec import Function, Top
from dtrain.pycaffe.net_spec import layers as L

Numbers: TypeAlias = NDArray[Any]
CoordMap: TypeAlias = tuple[int | None, Any, Any]

PASS_THROUGH_LAYERS: Final = (
    *("AbsVal", "BatchNorm", "Bias", "BNLL", "Clip", "Dropout", "Eltwise", "ELU", "Exp", "Log", "LRN", "MVN"),
    *("Power", "PReLU", "ReLU", "ReLU6", "Scale", "Sigmoid", "Split", "Swish", "TanH", "Threshold"),
)
LEGACY_FIELDS: Final = frozenset(f"{what}_{side}" for what in ("pad", "kernel", "stride") for side in "hw")
IDENTITY: Final[CoordMap] = (None, 1, 0)


class UndefinedMapException(Exception):
    """The layer moves its values in a way that no map tells."""


class AxisMismatchException(Exception):
    """Two maps begin at different axes."""


def _numbers(params: Mapping[str, Any], name: str, default: int) -> Numbers:
    return np.array(params.get(name, default), ndmin=1)


def conv_params(fn: Function) -> tuple[int, Numbers, Numbers, Numbers]:
    """(axis, stride, extent of the dilated kernel, pad) of a convolution or pooling."""
    params: Mapping[str, Any] = fn.params.get("convolution_param", fn.params.get("pooling_param", fn.params))
    legacy = sorted(LEGACY_FIELDS & set(params))
    if legacy:
        raise AssertionError(f"{fn.type_name}: a map must not be asked with {', '.join(legacy)}, got them")
    if "kernel_size" not in params:
        raise UndefinedMapException(f"{fn.type_name}: kernel_size must be given, got none")
    kernel = _numbers(params, "kernel_size", 1)
    extent = (kernel - 1) * _numbers(params, "dilation", 1) + 1
    return params.get("axis", 1), _numbers(params, "stride", 1), extent, _numbers(params, "pad", 0)


def crop_params(fn: Function) -> tuple[int, Numbers]:
    """(axis, offset) of a Crop."""
    params: Mapping[str, Any] = fn.params.get("crop_param", fn.params)
    return params.get("axis", 2), _numbers(params, "offset", 0)


def coord_map(fn: Function) -> CoordMap:
    """The map from a layer's bottom to its top."""
    if fn.type_name in ("Convolution", "Pooling", "Im2col"):
        axis, stride, extent, pad = conv_params(fn)
        return axis, 1 / stride, (pad - (extent - 1) / 2) / stride
    if fn.type_name == "Deconvolution":
        axis, stride, extent, pad = conv_params(fn)
        return axis, stride, (extent - 1) / 2 - pad
    if fn.type_name in PASS_THROUGH_LAYERS:
        return IDENTITY
    if fn.type_name == "Crop":
        axis, offset = crop_params(fn)
        return axis - 1, 1, -offset
    raise UndefinedMapException(f"{fn.type_name} must keep images in place, got a layer that may not")


def compose(base_map: CoordMap, next_map: CoordMap) -> CoordMap:
    """First `next_map`, then `base_map`."""
    base_axis, base_scale, base_shift = base_map
    next_axis, next_scale, next_shift = next_map
    if base_axis is not None and next_axis is not None and base_axis != next_axis:
        raise AxisMismatchException(f"axes must be equal, got {base_axis} and {next_axis}")
    axis = next_axis if base_axis is None else base_axis
    return axis, base_scale * next_scale, base_scale * next_shift + base_shift


def inverse(coord_map: CoordMap) -> CoordMap:
    """The way back."""
    axis, scale, shift = coord_map
    return axis, 1 / scale, -shift / scale


def _bottoms(top: Top) -> tuple[Top, ...]:
    """Those whose places the top has; a Crop's second bottom gives its size alone."""
    return top.fn.inputs[:1] if top.fn.type_name == "Crop" else top.fn.inputs


def coord_map_from_to(top_from: Top, top_to: Top) -> CoordMap:
    """The map from one top to another, by way of the nearest blob that both are computed from."""
    from_maps = dict(_walk(top_from))
    for top, to_map in _walk(top_to):
        if top in from_maps:
            return compose(to_map, inverse(from_maps[top]))
    raise RuntimeError("tops must be connected by layers that keep images in place, got two that are not")


def _walk(start: Top) -> list[tuple[Top, CoordMap]]:
    """All ancestors, nearest first, each with the map from it to `start`."""
    found: list[tuple[Top, CoordMap]] = [(start, IDENTITY)]
    seen = {start}
    for top, so_far in found:
        try:
            step = coord_map(top.fn)
        except UndefinedMapException:
            continue
        for bottom in _bottoms(top):
            if bottom not in seen:
                seen.add(bottom)
                found.append((bottom, compose(so_far, step)))
    return found


def crop(top_from: Top, top_to: Top) -> Top:
    """A Crop of one top to the size and the place of another."""
    axis, scale, shift = coord_map_from_to(top_from, top_to)
    told = f"crop from {top_from} to {top_to}"
    if not np.all(scale == 1):
        raise AssertionError(f"{told}: scale must be 1, got {scale}")
    if not np.all(np.asarray(shift) <= 0):
        raise AssertionError(f"{told}: offset must be at least 0, got {-shift}")
    if not np.all(np.round(shift) == shift):
        raise AssertionError(f"{told}: offset must be a whole number, got {-shift}")
    if axis is None:
        raise AssertionError(f"{told}: a layer on the way must have spatial parameters, got none")
    offset = [int(-value) for value in np.round(np.atleast_1d(shift))]
    made: Top = L.Crop(top_from, top_to, crop_param={"axis": axis + 1, "offset": offset})
    return made
