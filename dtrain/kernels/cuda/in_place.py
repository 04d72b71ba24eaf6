"""What operators need where top and bottom may be one array."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import Access, CudaArray, read
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.form import Form


def same(a: SyncedArray, b: SyncedArray) -> bool:
    """Whether both are one array, or views of one."""
    assert isinstance(a, CudaArray) and isinstance(b, CudaArray), "an operator's arrays are of its backend"
    return a.storage is b.storage


@final
class Kept:
    """A bottom's values for backward: a copy of them, in one form, where forward overwrites the bottom."""

    def __init__(self, backend: CudaBackend, form: Form | None = None) -> None:
        self._backend = backend
        self._form = form or Form(backend.card.real)
        self._copy: Buffer | None = None

    def keep(self, bottom: SyncedArray, top: SyncedArray) -> None:
        """Call before forward writes the top."""
        if not same(bottom, top):
            self._copy = None
            return
        if self._copy is None or self._copy.size != bottom.size:
            self._copy = self._backend.empty(bottom.size, self._form.type.storage)
        self._backend.device.copy(read(bottom, form=self._form).buffer(), self._copy)

    def values(self, bottom: SyncedArray) -> Access | Buffer:
        """What the bottom held when forward began."""
        return read(bottom, form=self._form) if self._copy is None else self._copy
