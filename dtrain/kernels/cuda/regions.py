"""Bins of regions on the device. The host works them out: they are few, and rounded as the CPU does."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer

Table: TypeAlias = NDArray[np.integer[Any]]
Bins: TypeAlias = tuple[Buffer, Buffer, Buffer, Buffer, Buffer]


def on_device(
    backend: CudaBackend, images: Table, rows: tuple[Table, Table], columns: tuple[Table, Table]
) -> Bins:
    """(image of each region, first and past-the-last rows of its bins, then columns) for the kernels."""
    first, last, left, right = (backend.constants(table, np.int32) for table in (*rows, *columns))
    return backend.constants(images, np.int32), first, last, left, right
