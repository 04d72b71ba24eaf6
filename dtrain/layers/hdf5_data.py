"""HDF5Data: arrays from the HDF5 files of a list, a dataset for each top. Source: Caffe's HDF5DataLayer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import final

import numpy as np

from dtrain.data.hdf5_rows import Hdf5Rows
from dtrain.data.sampler import Draw
from dtrain.kernels.array import Plain
from dtrain.layers.data_source import DataSource
from dtrain.layers.layer import AT_LEAST_ONE, Blobs
from dtrain.layers.sample_stream import SampleStream


@final
class HDF5Data(DataSource):
    """top[i] (batch_size, ...) <- rows of the dataset that has the top's name; batch_size is per rank.

    A batch goes on into the next file. With `shuffle` every epoch of training mixes the files and the
    rows inside each.
    """

    type_name = "HDF5Data"
    num_tops = AT_LEAST_ONE

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.hdf5_data_param
        self.waited_s = 0.0
        if self.spec.HasField("transform_param"):
            raise self.bad_param("transform_param", "absent: rows are served as they are", "one")
        if not param.source:
            raise self.bad_param(("hdf5_data_param", "source"), "the path of a list of HDF5 files", "none")
        if param.batch_size < 1:
            raise self.bad_param(("hdf5_data_param", "batch_size"), "at least 1", param.batch_size)
        self.rows = Hdf5Rows(param.source, list(self.spec.top))
        if len(self.rows) == 0:
            raise self.bad_param(
                ("hdf5_data_param", "source"), "a list of files with at least one row", param.source
            )
        self.batch_size = param.batch_size
        self.num_records, self.source_name = len(self.rows), param.source
        self.stream = SampleStream(self.scope, len(self.rows), self.batch_size)
        # One batch is read while the step before it runs.
        self._stream_ahead = SampleStream(self.scope, len(self.rows), self.batch_size)
        self._reader: ThreadPoolExecutor | None = None
        self._ahead: Future[None] | None = None
        self._buffers: list[Plain] = []

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for blob, shape in zip(top, self.rows.shapes, strict=True):
            blob.reshape((self.batch_size, *shape))
        self._settle()
        self._buffers = []

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        begun = time.perf_counter()
        targets = [blob.data.plain_overwrite() for blob in top]
        self._buffers = self._buffers or [np.empty_like(target) for target in targets]
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, thread_name_prefix=self.name)
        ahead = self._ahead or self._reader.submit(self._read, self._stream_ahead.next())
        self._ahead = None
        ahead.result()
        self.stream.next()
        for target, buffer in zip(targets, self._buffers, strict=True):
            target[...] = buffer
        self._ahead = self._reader.submit(self._read, self._stream_ahead.next())
        self.waited_s += time.perf_counter() - begun

    def _read(self, draw: Draw) -> None:
        shuffles = self.spec.hdf5_data_param.shuffle and not self.stream.is_dealt_by_batch
        self.rows.read(self.rows.in_order(draw.samples, self.scope.seed if shuffles else None), self._buffers)

    def _settle(self) -> None:
        """Give up the batch that is read ahead, so that the next one is where the stream is."""
        if self._ahead is not None:
            self._ahead.exception()
            self._ahead = None
        self._stream_ahead.seek(self.stream.consumed)
        self._stream_ahead.served = self.stream.served

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """There is nothing to propagate to."""

    def position(self) -> int:
        return self.stream.position()

    def seek(self, samples: int) -> None:
        self.stream.seek(samples)
        self._settle()

    def close(self) -> None:
        self._settle()
        if self._reader is not None:
            self._reader.shutdown()
            self._reader = None
        self.rows.close()
