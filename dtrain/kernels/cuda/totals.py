"""A sum over positions and what it is divided by, on the device from beginning to end."""

from __future__ import annotations

from typing import Final, final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import Access, Argument, maybe, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.label_fault import LabelFault
from dtrain.kernels.cuda.launch import THREADS
from dtrain.kernels.normalizer import Normalizer

MOST_BLOCKS: Final = 512


@final
class Totals:
    """What the kernels of a file sum: each block writes its row, one more block adds them up in order."""

    def __init__(
        self, backend: CudaBackend, file: str, normalizer: Normalizer, fault: LabelFault | None = None
    ) -> None:
        self._backend = backend
        self._kernels = backend.kernels(file)
        self._ends = backend.kernels("totals.cu")
        self._room = backend.empty(3 * MOST_BLOCKS, np.float64)
        self._constant = np.float64(0 if normalizer.constant is None else normalizer.divisor(0))
        self._fault = fault
        self._sums = backend.empty(3, np.float64)
        backend.device.clear(self._sums)

    def run(
        self,
        name: str,
        count: int,
        quotient: SyncedArray,
        *args: Argument,
        labels: SyncedArray | None = None,
        classes: int = 1,
        inner: int = 1,
    ) -> None:
        """Fill `quotient` (); the kernel's first arguments are the number of positions and the rows.

        Where `labels` are looked at, a sample has `inner` of them. Outside of a trace one that is no class is
        told at once, by a DataError.
        """
        blocks = min(-(-count // THREADS), MOST_BLOCKS)
        if blocks:
            self._kernels.launch(name, (blocks,), (THREADS,), count, self._room, *args)
        noted = None if self._fault is None else self._fault.expect(classes, inner)
        ends = self._constant, write(quotient), self._sums, maybe(read, labels), noted
        self._ends.launch("conclude", (1,), (THREADS,), blocks, self._room, *ends)
        if self._fault is not None and self._backend.card.trace is None:
            self._fault.check()

    def slope(self, loss_diff: SyncedArray) -> tuple[Access, Buffer]:
        """The arguments of slope_of_sum in losses.cuh."""
        return read(loss_diff), self._sums[2:]

    def counts(self) -> tuple[int, int]:
        """Of a sum of ones: (sum, positions counted) of the last run; waits for the device."""
        amount, counted, _ = self._backend.fetch(self._sums)
        return int(amount), int(counted)
