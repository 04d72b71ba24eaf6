"""Crop: a blob cut to the size of another from `axis` on. Source: Caffe's CropLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import TWO, Blobs, Layer
from dtrain.layers.sharing import refuse_in_place


@final
class Crop(Layer):
    """bottom[0], bottom[1] of which only the shape counts -> top[0] of its shape from `axis` on."""

    type_name = "Crop"
    num_bottoms = TWO

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        refuse_in_place(self, bottom, top)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape, wanted = bottom[0].shape, bottom[1].shape
        param = self.spec.crop_param
        axis = self.axis(param.axis, len(shape), "crop_param", "axis")
        if len(wanted) != len(shape):
            raise self.bad_shape("bottom[1]", f"{len(shape)} axes like bottom[0]", wanted)
        cropped = len(shape) - axis
        given = list(param.offset) or [0]
        if len(given) not in (1, cropped):
            raise self.bad_param(
                ("crop_param", "offset"),
                f"given once or {cropped} times, for each axis from {axis} on",
                f"{len(given)} times",
            )
        offsets = [0] * axis + (given if len(given) == cropped else given * cropped)
        out = (*shape[:axis], *wanted[axis:])
        for i, (extent, start, size) in enumerate(zip(shape, offsets, out, strict=True)):
            if start + size > extent:
                raise self.bad_param(
                    ("crop_param", "offset"),
                    f"at most {extent - size} at axis {i}, bottom[0] having {extent} and bottom[1] {size}",
                    start,
                )
        top[0].reshape(out)
        self.op = self.ops.Crop(offsets, bottom[0].data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self.op.backward(top[0].diff, bottom[0].diff)
        if propagate_down[1]:
            bottom[1].diff.clear()
