"""PriorBox: SSD's default boxes for every position of a feature map. Source: PriorBoxLayer of SSD's Caffe.

As there, sizes are cut to whole pixels, and of an aspect ratio given twice the second is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt
from typing import final

from dtrain.layers.layer import TWO, Blobs, Layer

CLOSE = 1e-6  # aspect ratios that differ by less are one


@final
class PriorBox(Layer):
    """bottom[0] features (N, C, H, W), bottom[1] images (N, C, h, w) -> top[0] (1, 2, H * W * boxes * 4)."""

    type_name = "PriorBox"
    num_bottoms = TWO

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.boxes = self._boxes()
        param = self.spec.prior_box_param
        self.variance = list(param.variance) or [0.1]
        if len(self.variance) not in (1, 4) or min(self.variance) <= 0:
            raise self.bad_param(
                ("prior_box_param", "variance"), "one or four numbers above 0", list(param.variance)
            )
        self.image = self._pair("img_size", "img_w", "img_h")
        self.step = self._pair("step", "step_w", "step_h")

    def _boxes(self) -> list[tuple[float, float]]:
        """Widths and heights in pixels, in SSD's order."""
        param = self.spec.prior_box_param
        small, large = list(param.min_size), list(param.max_size)
        if not small or not all(0 < size < inf for size in small):
            raise self.bad_param(("prior_box_param", "min_size"), "given, above 0", small or "none")
        if large and len(large) != len(small):
            raise self.bad_param(
                ("prior_box_param", "max_size"), f"given {len(small)} times, as min_size is", len(large)
            )
        ratios = [1.0]
        for i, ratio in enumerate(param.aspect_ratio):
            if not 0 < ratio < inf:
                raise self.error(
                    f"aspect_ratio must be above 0, got {ratio}", "prior_box_param", "aspect_ratio", i
                )
            if all(abs(ratio - known) >= CLOSE for known in ratios):
                ratios += [ratio, 1 / ratio] if param.flip else [ratio]
        boxes = []
        for i, size in enumerate(small):
            side = float(int(size))
            boxes.append((side, side))
            if large:
                if not size < large[i] < inf:
                    raise self.error(
                        f"max_size must be more than min_size ({size:g}), got {large[i]:g}",
                        "prior_box_param",
                        "max_size",
                        i,
                    )
                mean = sqrt(side * int(large[i]))
                boxes.append((mean, mean))
            boxes += [(side * sqrt(r), side / sqrt(r)) for r in ratios if abs(r - 1) >= CLOSE]
        return boxes

    def _pair(self, both: str, along_x: str, along_y: str) -> tuple[float, float] | None:
        """A field for both directions or one for each; None if neither is given."""
        param = self.spec.prior_box_param
        given = [name for name in (along_x, along_y) if param.HasField(name)]
        if param.HasField(both):
            if given:
                raise self.bad_param(
                    ("prior_box_param", both), f"given without {along_x} and {along_y}", "both"
                )
            given = [both, both]
        if not given:
            return None
        names = (both, both) if given[0] == both else (along_x, along_y)
        values = (float(getattr(param, names[0])), float(getattr(param, names[1])))
        if min(values) <= 0:
            raise self.bad_param(
                ("prior_box_param", names[values.index(min(values))]), "above 0", min(values)
            )
        return values

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for i, blob in enumerate(bottom):
            if len(blob.shape) != 4:
                raise self.bad_shape(f"bottom[{i}]", "4 axes (N, C, H, W)", blob.shape)
        height, width = bottom[0].shape[2:]
        image = self.image or (float(bottom[1].shape[3]), float(bottom[1].shape[2]))
        step = self.step or (image[0] / width, image[1] / height)
        top[0].reshape((1, 2, height * width * len(self.boxes) * 4))
        param = self.spec.prior_box_param
        self.op = self.ops.PriorBox(
            (width, height), image, step, param.offset, self.boxes, self.variance, param.clip, top[0].data
        )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """The boxes do not depend on the bottoms' values."""
        for blob, wanted in zip(bottom, propagate_down, strict=True):
            if wanted:
                blob.diff.clear()

    def allows_force_backward(self, bottom_index: int) -> bool:
        return False
