"""How an image with boxes is brought to a size, and where its boxes come to lie.

Source: SSD's ResizeParameter. Sizes are computed in single precision, as there, since it decides roundings.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

import numpy as np

from dtrain.data.annotated_boxes import Boxes, Window
from dtrain.data.decode import opencv
from dtrain.errors import ConfigError
from dtrain.proto import dtrain_pb2 as pb

Image: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
"""(H, W, C)"""
Size: TypeAlias = tuple[int, int]
"""Height and width."""

_INTERPOLATIONS: Final = {"NEAREST": 0, "LINEAR": 1, "CUBIC": 2, "AREA": 3, "LANCZOS4": 4}  # OpenCV's
BORDERS: Final = {"CONSTANT": 0, "REPEAT_NEAREST": 1, "MIRRORED": 4}  # OpenCV's; 4 leaves out the edge


@final
class Fit(enum.Enum):
    """What gives way where the image's form is not the size's."""

    WARP = "the image's form"
    FIT_SMALL_SIZE = "the size: the image covers it and goes beyond"
    FIT_LARGE_SIZE_AND_PAD = "nothing: the image lies inside and a border is added"


@final
@dataclass(frozen=True, kw_only=True)
class Resize:
    """`interpolations` are OpenCV's numbers, one of which a sample draws."""

    fit: Fit
    height: int
    width: int
    interpolations: tuple[int, ...] = (_INTERPOLATIONS["LINEAR"],)
    border: int = BORDERS["CONSTANT"]
    pad_values: tuple[float, ...] = ()
    """Of a CONSTANT border: one, or one a channel; none is black."""
    box_size: tuple[float, float] | None = None
    """Height and width that FIT_SMALL_SIZE tells boxes as shares of, in place of the image's."""

    @classmethod
    def from_param(cls, param: pb.ResizeParameter, where: str) -> Resize:
        """Raises ConfigError for what has no effect in SSD, as for sizes of 0."""
        if not (param.height and param.width):
            raise ConfigError(
                f"{where}: resize_param must have height and width above 0, "
                f"got {param.height} and {param.width}"
            )
        if param.prob != 1:
            raise ConfigError(f"{where}: resize_param.prob must be 1, got {param.prob:g}")
        fit = Fit[pb.ResizeParameter.Resize_mode.Name(param.resize_mode)]
        if (param.height_scale > 0) != (param.width_scale > 0):
            raise ConfigError(
                f"{where}: resize_param must have height_scale and width_scale together, "
                f"got {param.height_scale} and {param.width_scale}"
            )
        if param.height_scale and fit is not Fit.FIT_SMALL_SIZE:
            raise ConfigError(
                f"{where}: resize_param.height_scale must be absent unless resize_mode is FIT_SMALL_SIZE, "
                f"got {param.height_scale} for {fit.name}"
            )
        if fit is not Fit.FIT_LARGE_SIZE_AND_PAD and (param.pad_value or param.pad_mode != param.CONSTANT):
            name = "pad_value" if param.pad_value else "pad_mode"
            raise ConfigError(
                f"{where}: resize_param.{name} must be absent unless resize_mode is FIT_LARGE_SIZE_AND_PAD, "
                f"got one for {fit.name}"
            )
        names = [pb.ResizeParameter.Interp_mode.Name(mode) for mode in param.interp_mode] or ["LINEAR"]
        return cls(
            fit=fit,
            height=param.height,
            width=param.width,
            interpolations=tuple(_INTERPOLATIONS[name] for name in names),
            border=BORDERS[pb.ResizeParameter.Pad_mode.Name(param.pad_mode)],
            pad_values=tuple(param.pad_value),
            box_size=(param.height_scale, param.width_scale) if param.height_scale else None,
        )

    def output_size(self, image: Size) -> Size:
        """Of an image of that size."""
        return self._scaled(image) if self.fit is Fit.FIT_SMALL_SIZE else (self.height, self.width)

    def __call__(self, image: Image, draw: float) -> Image:
        """The resized image, by the interpolation that draw in [0, 1) chooses."""
        cv2 = opencv()
        height, width = self._scaled(image.shape[:2])
        way = self.interpolations[int(draw * len(self.interpolations))]
        changed: Image = cv2.resize(image, (width, height), interpolation=way)
        if self.fit is Fit.FIT_LARGE_SIZE_AND_PAD:
            top, left = (self.height - height) // 2, (self.width - width) // 2
            values = self.pad_values or (0.0,)
            fill = values * image.shape[2] if len(values) == 1 else values
            changed = cv2.copyMakeBorder(
                changed,
                top,
                self.height - height - top,
                left,
                self.width - width - left,
                self.border,
                value=fill,
            )
        return changed[:, :, None] if changed.ndim == 2 else changed

    def moved(self, boxes: Boxes, image: Size) -> Boxes:
        """The boxes of an image of that size after it was resized; ends beyond the image are cut off."""
        least, most = np.maximum(boxes[:, :2], 0), np.minimum(boxes[:, 2:], 1)
        if self.fit is Fit.FIT_LARGE_SIZE_AND_PAD:
            form = image[1] / image[0]
            if form > self.width / self.height:
                share = np.array([1, self.width / form / self.height])
            else:
                share = np.array([form * self.height / self.width, 1])
            least, most = (1 - share) / 2 + least * share, (1 - share) / 2 + most * share
        return np.concatenate([least, most], axis=1)

    def told(self, boxes: Boxes, image: Size, crop: Window) -> Boxes:
        """Boxes of the crop of the resized image, as shares of box_size if that is given."""
        if self.box_size is None:
            return boxes
        form = image[1] / image[0]
        height, width = float(self.height), float(self.width)
        if form < width / height:
            height = width / form
        else:
            width = height * form
        height, width = height * (crop[3] - crop[1]), width * (crop[2] - crop[0])
        factors = width / self.box_size[1], height / self.box_size[0]
        return np.asarray(boxes * np.array(factors * 2))

    def _scaled(self, image: Size) -> Size:
        """What an image of that size is scaled to, before a border is added."""
        if self.fit is Fit.WARP:
            return self.height, self.width
        form = np.float32(image[1]) / np.float32(image[0])
        wanted = np.float32(self.width) / np.float32(self.height)
        fits_width = form > wanted if self.fit is Fit.FIT_LARGE_SIZE_AND_PAD else form < wanted
        if fits_width:
            return max(1, math.floor(np.float32(self.width) / form)), self.width
        return self.height, max(1, math.floor(form * np.float32(self.height)))
