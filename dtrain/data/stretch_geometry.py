"""Images resized, stretched and cut at random. Source: NVCaffe's image_random_resize."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

from dtrain.data.geometry import Geometry, Rectangle, Size, placed

Range: TypeAlias = tuple[float, float]


@final
@dataclass(frozen=True, kw_only=True)
class Stretch(Geometry):
    """The crop of an image that was scaled, keeping its form or not; what is random is drawn evenly.

    No image gets smaller than the crop, nor, without `enlarges`, larger than it is otherwise.
    """

    short_side: tuple[int, int] | None = None
    """Least and most pixels of the shorter side; None keeps it."""
    ratio: Range | None = None
    """Longer side by shorter side; None keeps it."""
    vertical: Range = (1.0, 1.0)
    """By what the height is multiplied after that."""
    horizontal: Range = (1.0, 1.0)
    enlarges: bool = False

    def rectangle(self, image: Size, crop: Size, draws: Sequence[float]) -> Rectangle:
        scaled = self.scaled(image, crop, draws)
        height, width = (
            max(1, round(part * whole / target))
            for part, whole, target in zip(crop, image, scaled, strict=True)
        )
        return placed(image, height, width, draws)

    def scaled(self, image: Size, crop: Size, draws: Sequence[float]) -> Size:
        """The size that the whole image is scaled to before the crop is cut out."""
        short = float(min(image))
        if self.short_side is not None:
            least, most = self.short_side
            short = least + int(draws[2] * (most - least + 1))
        scale = short / min(image)
        height, width = image[0] * scale, image[1] * scale
        if self.ratio is not None:
            ratio = _between(self.ratio, draws[3])
            if image[1] > image[0] or (image[1] == image[0] and draws[4] >= 0.5):
                width = height * ratio
            else:
                height = width * ratio
        height *= _between(self.vertical, draws[5])
        width *= _between(self.horizontal, draws[6])
        if not self.enlarges:
            height, width = min(height, image[0]), min(width, image[1])
        return max(crop[0], round(height)), max(crop[1], round(width))

    def size(self, crop: Size) -> Size:
        return crop


def _between(bounds: Range, draw: float) -> float:
    return bounds[0] + draw * (bounds[1] - bounds[0])
