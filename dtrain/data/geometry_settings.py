"""The fields of transform_param that resize, in the words of SSD, NVCaffe and Intel Caffe."""

from __future__ import annotations

from typing import TypeAlias

from dtrain.data.geometry import Geometry, Middle, RandomArea, ShortSide, Warp
from dtrain.errors import ConfigError
from dtrain.proto import dtrain_pb2 as pb

Interpolation: TypeAlias = tuple[int, int]
"""OpenCV's numbers: for making images smaller, and larger."""

_LINEAR = 1
_BY_NAME = {"NEAREST": 0, "LINEAR": 1, "CUBIC": 2, "AREA": 3, "LANCZOS4": 4}
_NVIDIA = ("img_rand_resize_lower", "img_rand_resize_upper")
_MESSAGES = ("resize_param", "random_resize_param", "random_aspect_ratio_param")


def geometry_of(
    param: pb.TransformationParameter, train: bool, where: str
) -> tuple[Geometry | None, Interpolation]:
    """What the fields ask for; None if none is given. Images are resized bilinearly unless a field says how.

    What is random in TRAIN takes the middle of its range in TEST.
    """
    given = [name for name in _MESSAGES if param.HasField(name)]
    given += ["img_rand_resize_lower and _upper"] if any(getattr(param, name) for name in _NVIDIA) else []
    if len(given) > 1:
        raise ConfigError(f"{where}: at most one way to resize must be given, got {' and '.join(given)}")
    interpolation = _interpolation(param)
    if not given:
        return None, interpolation
    geometry: Geometry
    if param.HasField("resize_param"):
        geometry = _resize(param.resize_param, where)
        interpolation = _of_resize(param.resize_param, where) or interpolation
    elif param.HasField("random_resize_param"):
        sizes = param.random_resize_param
        geometry = _short_side(sizes.min_size, sizes.max_size, "random_resize_param", where)
        interpolation = _of_resize(sizes.resize_param, where) or interpolation
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
        interpolation = _of_resize(area.resize_param, where) or interpolation
    else:
        lower, upper = param.img_rand_resize_lower, param.img_rand_resize_upper
        geometry = _short_side(lower, upper, "img_rand_resize", where)
    if not isinstance(geometry, Warp) and not (param.crop_size or param.crop_h):
        raise ConfigError(
            f"{where}: crop_size must be given where images keep their form when resized, got none"
        )
    short = min(param.crop_size or param.crop_h, param.crop_size or param.crop_w)
    if isinstance(geometry, ShortSide) and geometry.least < short:
        raise ConfigError(
            f"{where}: crop_size must be at most the shorter side ({geometry.least}), got {short}"
        )
    return geometry, interpolation


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
    if param.resize_mode == pb.ResizeParameter.WARP:
        return Warp(param.height, param.width)
    if param.resize_mode == pb.ResizeParameter.FIT_SMALL_SIZE:
        return ShortSide(min(param.height, param.width), min(param.height, param.width))
    raise ConfigError(
        f"{where}: resize_param.resize_mode must be WARP or FIT_SMALL_SIZE, got FIT_LARGE_SIZE_AND_PAD"
    )


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
