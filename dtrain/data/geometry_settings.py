"""The fields of transform_param that resize, in the words of SSD, NVCaffe and Intel Caffe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from dtrain.data.geometry import Geometry, Middle, RandomArea, ShortSide, Warp
from dtrain.data.stretch_geometry import Stretch
from dtrain.errors import ConfigError
from dtrain.proto import dtrain_pb2 as pb

Interpolation: TypeAlias = tuple[int, int]
"""OpenCV's numbers: for making images smaller, and larger."""

_LINEAR = 1
_BY_NAME = {"NEAREST": 0, "LINEAR": 1, "CUBIC": 2, "AREA": 3, "LANCZOS4": 4}
_NVIDIA = (
    "img_rand_resize_lower",
    "img_rand_resize_upper",
    "rand_resize_ratio_lower",
    "rand_resize_ratio_upper",
    "vertical_stretch_lower",
    "vertical_stretch_upper",
    "horizontal_stretch_lower",
    "horizontal_stretch_upper",
)
_MESSAGES = ("resize_param", "random_resize_param", "random_aspect_ratio_param")


def geometry_of(
    param: pb.TransformationParameter, train: bool, where: str
) -> tuple[Geometry | None, Interpolation]:
    """What the fields ask for; None if none is given. Images are resized bilinearly unless a field says how.

    What is random in TRAIN takes the middle of its range in TEST.
    """
    given = [name for name in _MESSAGES if param.HasField(name)]
    stretches = [name for name in _NVIDIA if _differs(param, name)]
    given += stretches[:1]
    if len(given) > 1:
        raise ConfigError(f"{where}: at most one way to resize must be given, got {' and '.join(given)}")
    interpolation = _interpolation(param)
    if param.allow_upscale and not stretches:
        raise ConfigError(
            f"{where}: allow_upscale must be absent unless {_NVIDIA[0]}, {_NVIDIA[2]} or a stretch is given, "
            "got true"
        )
    if not given:
        return None, interpolation
    geometry: Geometry
    if param.HasField("resize_param"):
        geometry = _resize(param.resize_param, where)
        interpolation = _of_resize(param.resize_param, where) or interpolation
    elif param.HasField("random_resize_param"):
        sizes = param.random_resize_param
        geometry = _short_side(sizes.min_size, sizes.max_size, "random_resize_param", where)
        interpolation = _only_of_resize(sizes.resize_param, "random_resize_param", where) or interpolation
    elif param.HasField("random_aspect_ratio_param"):
        area = param.random_aspect_ratio_param
        if not 0 < area.min_area_ratio <= area.max_area_ratio <= 1 or area.aspect_ratio_change < 1:
            raise ConfigError(
                f"{where}: random_aspect_ratio_param must have 0 < min_area_ratio <= max_area_ratio <= 1 and "
                f"aspect_ratio_change >= 1, got {area.min_area_ratio:g}, {area.max_area_ratio:g} and "
                f"{area.aspect_ratio_change:g}"
            )
        change = area.aspect_ratio_change
        geometry = (
            RandomArea(area.min_area_ratio, area.max_area_ratio, change, area.max_attempt)
            if train
            else Middle()
        )
        interpolation = (
            _only_of_resize(area.resize_param, "random_aspect_ratio_param", where) or interpolation
        )
    else:
        geometry = _stretch(param, where)
    if not isinstance(geometry, Warp) and not (param.crop_size or param.crop_h):
        raise ConfigError(
            f"{where}: crop_size must be given where images keep their form when resized, got none"
        )
    short = min(param.crop_size or param.crop_h, param.crop_size or param.crop_w)
    least = _least_side(geometry)
    if least is not None and least < short:
        raise ConfigError(f"{where}: crop_size must be at most the shorter side ({least}), got {short}")
    return geometry, interpolation


def _differs(param: pb.TransformationParameter, name: str) -> bool:
    return bool(getattr(param, name) != param.DESCRIPTOR.fields_by_name[name].default_value)


def _least_side(geometry: Geometry) -> int | None:
    """The fewest pixels of a resized image's shorter side, if the settings alone tell."""
    if isinstance(geometry, ShortSide):
        return geometry.least
    if isinstance(geometry, Stretch) and geometry.short_side is not None:
        return geometry.short_side[0]
    return None


def _stretch(param: pb.TransformationParameter, where: str) -> Stretch:
    sides = param.img_rand_resize_lower, param.img_rand_resize_upper
    if any(sides):
        _short_side(*sides, "img_rand_resize", where)
    ratio = param.rand_resize_ratio_lower, param.rand_resize_ratio_upper
    if any(ratio) and not 1 <= ratio[0] <= ratio[1] < math.inf:
        raise ConfigError(
            f"{where}: rand_resize_ratio must have 1 <= lower <= upper, got {ratio[0]:g} and {ratio[1]:g}"
        )
    vertical = param.vertical_stretch_lower, param.vertical_stretch_upper
    horizontal = param.horizontal_stretch_lower, param.horizontal_stretch_upper
    for name, (lower, upper) in {"vertical_stretch": vertical, "horizontal_stretch": horizontal}.items():
        if not 0 < lower <= upper < math.inf:
            raise ConfigError(f"{where}: {name} must have 0 < lower <= upper, got {lower:g} and {upper:g}")
    return Stretch(
        short_side=sides if any(sides) else None,
        ratio=ratio if any(ratio) else None,
        vertical=vertical,
        horizontal=horizontal,
        enlarges=param.allow_upscale,
    )


def _short_side(least: int, most: int, name: str, where: str) -> ShortSide:
    if not 0 < least <= most:
        raise ConfigError(f"{where}: {name} must have 0 < lower <= upper, got {least} and {most}")
    return ShortSide(least, most)


def _resize(param: pb.ResizeParameter, where: str) -> Geometry:
    if param.prob != 1:
        raise ConfigError(f"{where}: resize_param.prob must be 1, got {param.prob:g}")
    if not (param.height and param.width):
        raise ConfigError(
            f"{where}: resize_param must have height and width, got {param.height} and {param.width}"
        )
    if param.resize_mode == pb.ResizeParameter.FIT_LARGE_SIZE_AND_PAD:
        raise ConfigError(
            f"{where}: resize_param.resize_mode must be WARP or FIT_SMALL_SIZE where images have no boxes, "
            "got FIT_LARGE_SIZE_AND_PAD"
        )
    names = ("height_scale", "width_scale", "pad_mode", "pad_value")
    _refuse(param, names, "resize_param", "absent where images have no boxes", where)
    if param.resize_mode == pb.ResizeParameter.WARP:
        return Warp(param.height, param.width)
    return ShortSide(min(param.height, param.width), min(param.height, param.width))


def _only_of_resize(param: pb.ResizeParameter, outer: str, where: str) -> Interpolation | None:
    """The one thing that a resize_param within another message says."""
    others = [field.name for field in param.DESCRIPTOR.fields if field.name != "interp_mode"]
    _refuse(param, others, f"{outer}.resize_param", "absent, where interp_mode alone acts", where)
    return _of_resize(param, where)


def _refuse(param: pb.ResizeParameter, names: Sequence[str], outer: str, rule: str, where: str) -> None:
    """Raise if a field of these is given another value than its default."""
    for descriptor, value in param.ListFields():
        if descriptor.name in names and value != descriptor.default_value:
            shown = descriptor.enum_type.values_by_number[value].name if descriptor.enum_type else value
            raise ConfigError(f"{where}: {outer}.{descriptor.name} must be {rule}, got {shown}")


def _of_resize(param: pb.ResizeParameter, where: str) -> Interpolation | None:
    if len(param.interp_mode) > 1:
        raise ConfigError(
            f"{where}: resize_param.interp_mode must be given at most once, got {len(param.interp_mode)}"
        )
    if not param.interp_mode:
        return None
    way = _BY_NAME[pb.ResizeParameter.Interp_mode.Name(param.interp_mode[0])]
    return way, way


def _interpolation(param: pb.TransformationParameter) -> Interpolation:
    names = pb.TransformationParameter.InterpolationAlgo
    down, up = _LINEAR, _LINEAR
    if param.HasField("interpolation_algo_down"):
        down = _BY_NAME[names.Name(param.interpolation_algo_down).removeprefix("INTER_")]
    if param.HasField("interpolation_algo_up"):
        up = _BY_NAME[names.Name(param.interpolation_algo_up).removeprefix("INTER_")]
    return down, up
