"""Labels that a kernel finds to be no class."""

from __future__ import annotations

from typing import final

from dtrain.kernels.cpu.labels import wrong_label
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer


@final
class LabelFault:
    """Noted by the place of the label, `inner` of them to a sample."""

    def __init__(self, backend: CudaBackend, ignore_label: int | None) -> None:
        self._backend = backend
        self._noted = backend.card.data_faults.new()
        self._ignore_label = ignore_label
        self._classes, self._inner = 1, 1

    def expect(self, classes: int, inner: int) -> Buffer:
        """Where a kernel notes a label outside of [0, classes) in this pass and those that replay it."""
        self._classes, self._inner = classes, inner
        return self._noted.buffer

    def check(self) -> None:
        """DataError, naming the sample, if one was noted; it is told once."""
        met, place, value = self._backend.fetch(self._noted.buffer)
        if met:
            self._backend.device.clear(self._noted.buffer)
            raise wrong_label(int(place) // self._inner, float(value), self._classes, self._ignore_label)
