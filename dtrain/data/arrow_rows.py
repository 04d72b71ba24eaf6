"""The rows of one chunk of an Arrow source: encoded images or tensors of pixels, and labels."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtrain.data.arrow_files import Chunk
from dtrain.data.record import Pixels
from dtrain.errors import DataError


@final
class Rows:
    """Views into a record batch, made once so that reading a row takes no call into Arrow."""

    def __init__(self, chunk: Chunk) -> None:
        try:
            batch = chunk.load()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"{chunk.path}: rows {chunk.first_row} to {chunk.first_row + chunk.num_rows - 1} must be "
                f"readable, got {error}"
            ) from error
        self._chunk = chunk
        self._batch = batch  # keeps the memory alive
        self.num_bytes: int = batch.nbytes
        self.labels = self._read_labels(batch.column("label"))
        """(rows, L); the row of a null is NaN."""
        self.pixels: Pixels | None = None
        """(rows, C, H, W), in memory one row after the other."""
        image = batch.column("image")
        self.usable = np.asarray(image.is_valid()) & ~np.isnan(self.labels).any(axis=1)
        """(rows,): image and labels are there."""
        self.shape: tuple[int, ...] = ()
        """(C, H, W) of all rows; () where images are encoded."""
        self.address = self.row_bytes = 0
        self.is_bytes = False  # pixels of uint8, `row_bytes` a row from `address` on
        if isinstance(image.type, pa.FixedShapeTensorType):
            self.pixels = np.ascontiguousarray(image.to_numpy_ndarray())
            self.shape = tuple(self.pixels.shape[1:])
            self.is_bytes = self.pixels.dtype == np.uint8
            self.address, self.row_bytes = self.pixels.ctypes.data, self.pixels.strides[0]
        else:
            if pa.types.is_struct(image.type):  # {bytes, path}, as Hugging Face's datasets write images
                image = image.field("bytes")
                self.usable &= np.asarray(image.is_valid())
            kind = np.int64 if pa.types.is_large_binary(image.type) else np.int32
            _, offsets, data = image.buffers()
            starts = np.frombuffer(offsets, kind)[image.offset : image.offset + len(image) + 1]
            self._starts = starts.astype(np.int64)
            self._data = np.frombuffer(data if data is not None else b"", np.uint8)

    def _read_labels(self, column: Any) -> npt.NDArray[np.float32]:
        width = 1
        valid = np.asarray(column.is_valid())
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            lengths = np.unique(np.asarray(column.value_lengths().drop_null()))
            if len(lengths) > 1:
                raise DataError(
                    f"{self._chunk.path}: all rows must have the same number of labels, "
                    f"got {lengths[0]} and {lengths[1]}"
                )
            width = int(lengths[0]) if len(lengths) else 1
            column = column.flatten()
        elif pa.types.is_fixed_size_list(column.type):
            width = column.type.list_size
            column = column.drop_null().flatten()
        else:
            column = column.drop_null()
        labels = np.full((len(valid), width), np.nan, np.float32)
        labels[valid] = np.asarray(column.to_numpy(zero_copy_only=False), np.float32).reshape(-1, width)
        return labels

    @property
    def form(self) -> str:
        """What all chunks of a source have in common."""
        images = "encoded images" if self.pixels is None else f"{self.pixels.dtype} pixels {self.shape}"
        return f"{images} with {self.labels.shape[1]} labels"

    def check(self, row: int, where: str) -> None:
        """Raise unless the row has an image and labels."""
        if not self.usable[row]:
            raise DataError(f"{where}: image and label must have values, got null")

    def encoded(self, row: int) -> npt.NDArray[np.uint8]:
        """The bytes of an encoded image."""
        return self._data[self._starts[row] : self._starts[row + 1]]
