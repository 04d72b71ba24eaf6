"""MemoryData: batches of arrays that a script hands over. Source: Caffe's MemoryDataLayer."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dtrain.blob import MAX_COUNT
from dtrain.errors import DataError
from dtrain.layers.data_source import DataSource
from dtrain.layers.layer import TWO, Blobs

logger = logging.getLogger(__name__)


@final
class MemoryData(DataSource):
    """top[0] (N, C, H, W), top[1] (N,) <- the next batch of what `reset` was given, again and again.

    Every rank is given its own arrays.
    """

    type_name = "MemoryData"
    num_tops = TWO

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.memory_data_param
        self.waited_s = 0.0
        for name in ("batch_size", "channels", "height", "width"):
            if getattr(param, name) < 1:
                raise self.bad_param(("memory_data_param", name), "at least 1", getattr(param, name))
        self.batch_size = param.batch_size
        self.num_records, self.source_name = 0, ""
        self.shape = (param.channels, param.height, param.width)
        if self.batch_size * math.prod(self.shape) > MAX_COUNT:
            raise self.error(
                f"a batch must have at most {MAX_COUNT} values, got {self.batch_size} of {self.shape}",
                "memory_data_param",
            )
        self.data: NDArray[Any] = np.empty((0, *self.shape), np.float32)
        self.labels: NDArray[Any] = np.empty(0, np.float32)
        self.served = 0  # samples of this rank

    def reset(self, data: NDArray[Any], labels: NDArray[Any]) -> None:
        """Serve these from now on: data (n, C, H, W), one label each, n a multiple of batch_size.

        The arrays are not copied: what changes in them later is served so.
        """
        given = np.asarray(data)
        if given.ndim != 4 or given.shape[1:] != self.shape or len(given) % self.batch_size or not len(given):
            raise self.bad_shape(
                "data",
                f"shape (n, {', '.join(map(str, self.shape))}) with n a multiple of batch_size "
                f"({self.batch_size})",
                given.shape,
            )
        flat = np.asarray(labels).reshape(-1)
        if len(flat) != len(given):
            raise self.bad_shape("labels", f"one value for each of the {len(given)} images", np.shape(labels))
        if self.spec.HasField("transform_param"):
            logger.warning("layer %r: MemoryData does not transform the arrays that it is given", self.name)
        self.data, self.labels, self.served = given, flat, 0

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape((self.batch_size, *self.shape))
        top[1].reshape((self.batch_size,))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if not len(self.data):
            raise DataError(
                f'{self.where()}: layer "{self.name}" (MemoryData): arrays must be given before the first '
                "forward pass, got none; call set_input_arrays(data, labels)"
            )
        start = self.served % len(self.data)
        top[0].data.plain_overwrite()[...] = self.data[start : start + self.batch_size]
        top[1].data.plain_overwrite()[...] = self.labels[start : start + self.batch_size]
        self.served += self.batch_size

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """There is nothing to propagate to."""

    def position(self) -> int:
        return self.served * self.scope.size

    def seek(self, samples: int) -> None:
        self.served = samples // self.scope.size // self.batch_size * self.batch_size

    def close(self) -> None:
        """The arrays are the script's."""
