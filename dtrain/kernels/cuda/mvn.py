"""Mean-variance normalisation: y = (x - mean) / (std + eps) over each channel or each image."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.in_place import same


@final
class MVN:
    """bottom -> top, both seen as rows of consecutive values; both may be one array.

    Without `normalize_variance` only the mean is taken off. Source: Caffe's MVNLayer, whose gradient
    counts eps as nothing beside the deviation.
    """

    def __init__(
        self,
        backend: CudaBackend,
        rows: int,
        normalize_variance: bool,
        eps: float,
        bottom: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self._kernels = backend.kernels("rows.cu")
        self.rows = rows
        self.normalize_variance = normalize_variance
        self.eps = float(eps)
        self._width = bottom.size // max(rows, 1)
        self._center = backend.empty(rows)
        self._deviation = backend.empty(rows)  # eps included
        # y, kept where the top overwrites the bottom
        self._normalized: Buffer | None = backend.empty(bottom.size) if same(bottom, top) else None
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._kernels.rows(
            "mvn_forward",
            self.rows,
            self._width,
            read(bottom),
            write(top),
            self._normalized,
            self._center,
            self._deviation,
            self.eps,
            int(self.normalize_variance),
        )

    def backward(self, top_diff: SyncedArray, bottom: SyncedArray, bottom_diff: SyncedArray) -> None:
        """`bottom_diff` may be `top_diff`."""
        kept = self._normalized is not None
        self._kernels.rows(
            "mvn_backward",
            self.rows,
            self._width,
            read(top_diff),
            self._normalized if kept else read(bottom),
            write(bottom_diff),
            None if kept else self._center,
            self._deviation,
            int(self.normalize_variance),
        )
