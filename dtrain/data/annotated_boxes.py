"""Boxes of objects in images, as rows (xmin, ymin, xmax, ymax): shares of the image's width and height.

Source: the definitions of SSD's bbox_util.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias, final

import numpy as np
import numpy.typing as npt

Boxes: TypeAlias = npt.NDArray[np.float64]
"""(N, 4)"""
Window: TypeAlias = tuple[float, float, float, float]
"""One box; it may reach beyond the image."""

UNIT: Final[Window] = (0.0, 0.0, 1.0, 1.0)
ROW_VALUES = 8  # of an object in a batch: image, label, instance, the box, whether it is difficult


def areas(boxes: Boxes) -> npt.NDArray[np.float64]:
    """(N,); 0 for a box whose corners are the wrong way round."""
    extents = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return np.asarray(extents[:, 0] * extents[:, 1])


def common(boxes: Boxes, others: Boxes) -> npt.NDArray[np.float64]:
    """(N, M) areas that each box has in common with each other one."""
    least = np.maximum(boxes[:, None, :2], others[None, :, :2])
    most = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    extents = np.maximum(most - least, 0)
    return np.asarray(extents[..., 0] * extents[..., 1])


def jaccard(boxes: Boxes, others: Boxes) -> npt.NDArray[np.float64]:
    """(N, M) common area over the area that either covers; 0 where nothing is in common."""
    shared = common(boxes, others)
    either = areas(boxes)[:, None] + areas(others)[None] - shared
    return np.divide(shared, either, out=np.zeros_like(shared), where=shared > 0)


def coverage(boxes: Boxes, others: Boxes) -> npt.NDArray[np.float64]:
    """(N, M) share of each box that lies inside each other one."""
    shared = common(boxes, others)
    own = np.broadcast_to(areas(boxes)[:, None], shared.shape)
    return np.divide(shared, own, out=np.zeros_like(shared), where=shared > 0)


def clipped(boxes: Boxes) -> Boxes:
    """What of the boxes lies in the image."""
    return np.asarray(np.clip(boxes, 0, 1))


def mirrored(boxes: Boxes) -> Boxes:
    """The boxes in the image with left and right exchanged."""
    changed = boxes.copy()
    changed[:, 0], changed[:, 2] = 1 - boxes[:, 2], 1 - boxes[:, 0]
    return changed


def projected(boxes: Boxes, window: Window) -> Boxes:
    """The boxes as shares of the window, not clipped."""
    left, top, right, bottom = window
    start = np.array([left, top, left, top])
    extent = np.array([right - left, bottom - top] * 2)
    return np.asarray((boxes - start) / extent)


@final
@dataclass(frozen=True)
class Emit:
    """Which objects stay when an image is cut; with neither rule all that the window touches."""

    by_centre: bool = False
    """Those whose centre lies in the window, its border included."""
    overlap: float | None = None
    """Those of which more than this share lies in the window."""

    def __call__(self, boxes: Boxes, window: Window) -> npt.NDArray[np.bool_]:
        left, top, right, bottom = window
        stays = np.ones(len(boxes), np.bool_)
        if self.by_centre:
            x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
            stays &= (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
        if self.overlap is not None:
            stays &= coverage(boxes, np.array([window]))[:, 0] > self.overlap
        return stays


@final
@dataclass(frozen=True)
class Objects:
    """The objects of one image."""

    tags: npt.NDArray[np.float64]
    """(N, 3): label of the group, instance, whether it is difficult."""
    boxes: Boxes

    def inside(self, window: Window, emit: Emit) -> Objects:
        """What of them is seen in the window, clipped to it and told as shares of it."""
        found = clipped(projected(self.boxes, window))
        left, top, right, bottom = window
        touches = (
            (self.boxes[:, 0] < right)
            & (self.boxes[:, 2] > left)
            & (self.boxes[:, 1] < bottom)
            & (self.boxes[:, 3] > top)
        )
        stays = touches & (areas(found) > 0) & emit(self.boxes, window)
        return Objects(self.tags[stays], found[stays])

    def moved(self, boxes: Boxes) -> Objects:
        """The same objects with other boxes."""
        return Objects(self.tags, boxes)

    def rows(self, item: int) -> npt.NDArray[np.float32]:
        """(N, 8) as MultiBoxLoss takes them, of image `item` of the batch."""
        table = np.empty((len(self.boxes), ROW_VALUES), np.float32)
        table[:, 0] = item
        table[:, 1:3] = self.tags[:, :2]
        table[:, 3:7] = self.boxes
        table[:, 7] = self.tags[:, 2]
        return table
