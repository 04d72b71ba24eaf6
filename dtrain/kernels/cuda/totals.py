"""Numbers that a loss kernel counts: each block writes its own, the host adds them in order."""

from __future__ import annotations

from typing import Final, final

import numpy as np

from dtrain.kernels.cuda.array import Argument
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.launch import THREADS

MOST_BLOCKS: Final = 512


@final
class Totals:
    """`numbers` totals of a kernel over n positions; reading them waits for the device."""

    def __init__(self, backend: CudaBackend, file: str, numbers: int) -> None:
        self._backend = backend
        self._kernels = backend.kernels(file)
        self._numbers = numbers
        self._room = backend.empty(MOST_BLOCKS * numbers, np.float64)

    def run(self, name: str, count: int, *args: Argument) -> list[float]:
        """The totals; the kernel's first arguments are the number of positions and where the totals go."""
        if count == 0:
            return [0.0] * self._numbers
        blocks = min(-(-count // THREADS), MOST_BLOCKS)
        room = self._room[: blocks * self._numbers]
        self._kernels.launch(name, (blocks,), (THREADS,), count, room, *args)
        rows = self._backend.fetch(room).reshape(blocks, self._numbers)
        return [float(total) for total in rows.sum(axis=0)]
