"""What a transform_param asks for, checked once when the layer is set up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import numpy as np
import numpy.typing as npt

from dtrain.data.colour_jitter import ColourJitter
from dtrain.data.decode import Colour
from dtrain.data.geometry import Geometry, Warp
from dtrain.data.geometry_settings import Interpolation, geometry_of
from dtrain.data.mean_file import read_mean
from dtrain.errors import ConfigError
from dtrain.proto import dtrain_pb2 as pb

_SIZES = ("crop_size", "crop_h", "crop_w")
_HONOURED = (
    *_SIZES,
    "force_color",
    "force_gray",
    "mean_file",
    "mean_value",
    "mirror",
    "random_seed",
    "scale",
    "img_rand_resize_lower",
    "img_rand_resize_upper",
    "rand_resize_ratio_lower",
    "rand_resize_ratio_upper",
    "vertical_stretch_lower",
    "vertical_stretch_upper",
    "horizontal_stretch_lower",
    "horizontal_stretch_upper",
    "allow_upscale",
    "interpolation_algo_down",
    "interpolation_algo_up",
    "resize_param",
    "random_resize_param",
    "random_aspect_ratio_param",
    "distort_param",
)
HARMLESS = ("use_gpu_transform", "display", "num_labels")
"""Fields that change where a transform runs or what is shown, and no value of an image."""


def _no_mean() -> npt.NDArray[np.float32]:
    return np.empty((0, 0, 0), np.float32)


@final
@dataclass(frozen=True, kw_only=True)
class TransformSettings:
    """Crop, mirror, mean, scale, colour and size; crop_h and crop_w of 0 keep the whole image."""

    train: bool
    """TRAIN crops at random, TEST in the middle; mirror is random in both, as in Caffe."""
    seed: int = 0
    crop_h: int = 0
    crop_w: int = 0
    mirror: bool = False
    scale: float = 1.0
    mean_image: npt.NDArray[np.float32] = field(default_factory=_no_mean)
    """(C, H, W), or empty."""
    mean_values: tuple[float, ...] = ()
    colour: Colour = "as stored"
    geometry: Geometry | None = None
    """What part of an image to take, and its size."""
    interpolation: Interpolation = (1, 1)
    """OpenCV's numbers for making images smaller and larger; bilinear by default."""
    jitter: ColourJitter | None = None

    @classmethod
    def from_param(
        cls, param: pb.TransformationParameter, *, train: bool, seed: int, where: str
    ) -> TransformSettings:
        """Settings of the layer that `where` names in errors; random_seed, if given, replaces seed."""
        for descriptor, value in param.ListFields():
            name = descriptor.name
            if name not in _HONOURED and name not in HARMLESS and value != descriptor.default_value:
                shown = "a message" if descriptor.message_type else f"{value}"
                raise ConfigError(
                    f"{where}: transform_param.{name} must be absent, got {shown}; "
                    f"this transform is not offered (offered: {', '.join(_HONOURED)})"
                )
        if param.force_color and param.force_gray:
            raise ConfigError(f"{where}: at most one of force_color and force_gray must be true, got both")
        if param.HasField("mean_file") and param.mean_value:
            raise ConfigError(f"{where}: at most one of mean_file and mean_value must be given, got both")
        if (param.crop_h > 0) != (param.crop_w > 0):
            raise ConfigError(
                f"{where}: crop_h and crop_w must be given together, got {param.crop_h} and {param.crop_w}"
            )
        if param.crop_size and param.crop_h:
            raise ConfigError(
                f"{where}: at most one of crop_size and crop_h with crop_w must be given, got both"
            )
        geometry, interpolation = geometry_of(param, train, where)
        if geometry is not None and param.HasField("mean_file") and not isinstance(geometry, Warp):
            raise ConfigError(
                f"{where}: mean_file must be absent where images are cut out at other scales, got one; "
                "give mean_value"
            )
        jitter = None
        if train and param.HasField("distort_param"):
            jitter = ColourJitter.from_param(param.distort_param, where)
        colour: Colour = "colour" if param.force_color else "grey" if param.force_gray else "as stored"
        return cls(
            train=train,
            seed=param.random_seed if param.random_seed >= 0 else seed,
            crop_h=param.crop_size or param.crop_h,
            crop_w=param.crop_size or param.crop_w,
            mirror=param.mirror,
            scale=param.scale,
            mean_image=read_mean(param.mean_file) if param.HasField("mean_file") else _no_mean(),
            mean_values=tuple(param.mean_value),
            colour=colour,
            geometry=geometry,
            interpolation=interpolation,
            jitter=jitter,
        )
