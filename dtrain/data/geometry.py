"""What part of an image a sample takes and the size that it gets: resizing, and crops of random scale.

All of them cut a rectangle out of the image and scale just that, so no pixel is computed that is not used.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, final

Size: TypeAlias = tuple[int, int]
"""Height and width."""

DRAWS = 24
"""Numbers in [0, 1) that a rectangle may need, of which the first two are of its place."""

MIDDLE = math.nextafter(0.5, 0)
"""The draw that puts a rectangle where Caffe's central crop lies, half of the spare pixels rounded down."""


@final
class Rectangle(NamedTuple):
    """Rows top to top + height of an image, and columns alike."""

    top: int
    left: int
    height: int
    width: int


class Geometry(ABC):
    """From the size of an image to the rectangle of it that becomes the sample."""

    @abstractmethod
    def rectangle(self, image: Size, crop: Size, draws: Sequence[float]) -> Rectangle:
        """crop: the size of the batch's images, or zeros. draws: random numbers, or MIDDLE."""

    @abstractmethod
    def size(self, crop: Size) -> Size:
        """What the rectangle is scaled to; a crop follows where that is larger."""


def placed(image: Size, height: int, width: int, draws: Sequence[float]) -> Rectangle:
    """A rectangle of that size somewhere in the image."""
    height, width = min(height, image[0]), min(width, image[1])
    top, left = int(draws[0] * (image[0] - height + 1)), int(draws[1] * (image[1] - width + 1))
    return Rectangle(top, left, height, width)


@final
@dataclass(frozen=True)
class Warp(Geometry):
    """The whole image as height x width, whatever its form."""

    height: int
    width: int

    def rectangle(self, image: Size, crop: Size, draws: Sequence[float]) -> Rectangle:
        return Rectangle(0, 0, *image)

    def size(self, crop: Size) -> Size:
        return self.height, self.width


@final
@dataclass(frozen=True)
class ShortSide(Geometry):
    """The crop of an image whose shorter side was made `least` to `most` pixels long, at random."""

    least: int
    most: int

    def rectangle(self, image: Size, crop: Size, draws: Sequence[float]) -> Rectangle:
        short = self.least + int(draws[2] * (self.most - self.least + 1))
        scale = min(image) / short
        return placed(image, max(1, round(crop[0] * scale)), max(1, round(crop[1] * scale)), draws)

    def size(self, crop: Size) -> Size:
        return crop


@final
@dataclass(frozen=True)
class RandomArea(Geometry):
    """A part of random area and form; where `attempts` of them do not fit, the largest of the crop's form.

    Source: the scale augmentation of Szegedy et al., Going Deeper with Convolutions, 2015, section 6.
    """

    least: float
    """Share of the image's area."""
    most: float
    form: float
    """The greatest ratio of width to height, and of height to width."""
    attempts: int

    def rectangle(self, image: Size, crop: Size, draws: Sequence[float]) -> Rectangle:
        for n in range(min(self.attempts, (DRAWS - 2) // 2)):
            area = image[0] * image[1] * (self.least + draws[2 + 2 * n] * (self.most - self.least))
            form = math.exp((2 * draws[3 + 2 * n] - 1) * math.log(self.form))
            height, width = round(math.sqrt(area / form)), round(math.sqrt(area * form))
            if 0 < height <= image[0] and 0 < width <= image[1]:
                return placed(image, height, width, draws)
        return Middle().rectangle(image, crop, draws)

    def size(self, crop: Size) -> Size:
        return crop


@final
@dataclass(frozen=True)
class Middle(Geometry):
    """The largest part of the crop's form, in the middle."""

    def rectangle(self, image: Size, crop: Size, draws: Sequence[float]) -> Rectangle:
        scale = min(image[0] / crop[0], image[1] / crop[1])
        return placed(image, max(1, int(crop[0] * scale)), max(1, int(crop[1] * scale)), (MIDDLE, MIDDLE))

    def size(self, crop: Size) -> Size:
        return crop


def reduction(rectangle: Rectangle, size: Size) -> int:
    """By how much (1, 2, 4, 8) an image may be shrunk while it is decoded and still be scaled down after."""
    for factor in (8, 4, 2):
        if rectangle.height >= factor * size[0] and rectangle.width >= factor * size[1]:
            return factor
    return 1
