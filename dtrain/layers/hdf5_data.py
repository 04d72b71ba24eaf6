"""HDF5Data: arrays from the HDF5 files of a list, a dataset for each top. Source: Caffe's HDF5DataLayer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import final

from dtrain.data.hdf5_rows import Hdf5Rows
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
        self.stream = SampleStream(self.scope, len(self.rows), self.batch_size)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for blob, shape in zip(top, self.rows.shapes, strict=True):
            blob.reshape((self.batch_size, *shape))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        begun = time.perf_counter()
        shuffles = self.spec.hdf5_data_param.shuffle and not self.stream.is_dealt_by_batch
        rows = self.rows.in_order(self.stream.next().samples, self.scope.seed if shuffles else None)
        self.rows.read(rows, [blob.data.plain_overwrite() for blob in top])
        self.waited_s += time.perf_counter() - begun

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """There is nothing to propagate to."""

    def position(self) -> int:
        return self.stream.position()

    def seek(self, samples: int) -> None:
        self.stream.seek(samples)

    def close(self) -> None:
        """Give back the open file."""
        self.rows.close()
