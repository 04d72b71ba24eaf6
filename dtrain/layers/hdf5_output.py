"""HDF5Output: write two blobs into an HDF5 file, batch after batch. Source: Caffe's HDF5OutputLayer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, final

from dtrain.data.hdf5_rows import hdf5
from dtrain.errors import DataError
from dtrain.kernels.array import Plain
from dtrain.layers.layer import NONE, TWO, Blobs, Layer

NAMES = ("data", "label")


@final
class HDF5Output(Layer):
    """bottom[0], bottom[1] (N, ...) -> rows of the datasets "data" and "label", with 4 axes at least.

    The first batch of a run begins the file anew; the rows of every further one are added at its end,
    where Caffe would stop. Several ranks write a file each: out.h5 becomes out.rank0.h5, out.rank1.h5 ...
    """

    type_name = "HDF5Output"
    num_bottoms = TWO
    num_tops = NONE

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        name = self.spec.hdf5_output_param.file_name
        if not name:
            raise self.bad_param(("hdf5_output_param", "file_name"), "the path of a file", "none")
        root, extension = os.path.splitext(name)
        self.file_name = name if self.scope.size == 1 else f"{root}.rank{self.scope.rank}{extension}"
        self.has_begun = False

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for i, blob in enumerate(bottom):
            if not blob.shape:
                raise self.bad_shape(f"bottom[{i}]", "at least 1 axis", blob.shape)
        if bottom[0].shape[0] != bottom[1].shape[0]:
            raise self.bad_shape(
                "bottom[1]", f"{bottom[0].shape[0]} rows, as bottom[0]", f"{bottom[1].shape[0]}"
            )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        try:
            with hdf5().File(self.file_name, "a" if self.has_begun else "w") as file:
                for name, blob in zip(NAMES, bottom, strict=True):
                    self._append(file, name, blob.data.plain())
        except OSError as error:
            raise DataError(f"{self.file_name}: must be a writable HDF5 file, got {error}") from error
        self.has_begun = True

    def _append(self, file: Any, name: str, values: Plain) -> None:
        rows = values.reshape(*values.shape, *[1] * (4 - values.ndim))
        if name not in file:
            file.create_dataset(name, data=rows, maxshape=(None, *rows.shape[1:]))
            return
        dataset = file[name]
        if dataset.shape[1:] != rows.shape[1:]:
            raise self.bad_shape(f'rows of "{name}"', f"shape {dataset.shape[1:]}, as before", rows.shape[1:])
        start = dataset.shape[0]
        dataset.resize(start + len(rows), axis=0)
        dataset[start:] = rows

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        for blob, wanted in zip(bottom, propagate_down, strict=True):
            if wanted:
                blob.diff.clear()
