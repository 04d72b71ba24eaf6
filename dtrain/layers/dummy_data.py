"""DummyData: blobs filled with constants or random numbers. Source: Caffe's DummyDataLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, final

import numpy as np

from dtrain import fillers
from dtrain.errors import ConfigError
from dtrain.kernels.array import Plain, Shape
from dtrain.layers.layer import AT_LEAST_ONE, NONE, Blobs, Layer
from dtrain.proto import dtrain_pb2 as pb

T = TypeVar("T")

LEGACY = ("num", "channels", "height", "width")


@final
class DummyData(Layer):
    """No bottoms -> tops of the shapes given, filled once with a constant or anew in every forward pass.

    Random values of a sample (an index of the first axis) are drawn as for a blob of one sample, from its
    place in the whole job's stream: ranks times batch does not change them.
    """

    type_name = "DummyData"
    num_bottoms = NONE
    num_tops = AT_LEAST_ONE

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.dummy_data_param
        given = list(param.data_filler) or [pb.FillerParameter(type="constant", value=0)]
        self.fillers = self._one_each(given, len(top), "data_filler")
        self.shapes = self._shapes(len(top))
        for shape in self.shapes:
            if min(shape, default=1) < 1:
                raise self.bad_param(("dummy_data_param", "shape"), "positive", list(shape))

    def _one_each(self, values: Sequence[T], num_tops: int, name: str) -> list[T]:
        if len(values) not in (1, num_tops):
            raise self.bad_param(
                ("dummy_data_param", name), f"given once or once per top ({num_tops})", f"{len(values)} times"
            )
        return list(values) * num_tops if len(values) == 1 else list(values)

    def _shapes(self, num_tops: int) -> list[Shape]:
        param = self.spec.dummy_data_param
        lists = [list(getattr(param, name)) for name in LEGACY]
        if not any(lists):
            return [tuple(s.dim) for s in self._one_each(list(param.shape), num_tops, "shape")]
        if param.shape:
            raise self.bad_param(
                ("dummy_data_param", "shape"), "given without num, channels, height and width", "both"
            )
        each = [self._one_each(values, num_tops, name) for name, values in zip(LEGACY, lists, strict=True)]
        return list(zip(*each, strict=True))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for i, (blob, shape) in enumerate(zip(top, self.shapes, strict=True)):
            blob.reshape(shape)
            blob.data.plain_overwrite()[...] = self._filled(i, shape, np.random.default_rng(0))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        key = self.random_key()
        for i, blob in enumerate(top):
            if self.fillers[i].type != "constant":
                self._refill(i, blob.data.plain_overwrite(), key)

    def _refill(self, i: int, values: Plain, key: int) -> None:
        samples = values if values.ndim else values.reshape(1)
        for k in range(len(samples)):
            place = k * self.scope.size + self.scope.rank
            bits = np.random.Philox(key=np.array([key, i], np.uint64), counter=[0, 0, 0, place])
            samples[k : k + 1] = self._filled(i, (1, *samples.shape[1:]), np.random.Generator(bits))

    def _filled(self, i: int, shape: Shape, rng: np.random.Generator) -> fillers.Values:
        try:
            return fillers.fill(self.fillers[i], shape, rng)
        except ConfigError as error:
            index = i if len(self.spec.dummy_data_param.data_filler) > 1 else 0
            raise self.error(str(error), "dummy_data_param", "data_filler", index) from None

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """There is nothing to propagate to."""
