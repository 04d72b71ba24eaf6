"""Device memory that arrays use one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from dtrain.kernels.array import Room
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.form import Form

if TYPE_CHECKING:
    from dtrain.kernels.cuda.storage import Storage


@final
class CudaRoom(Room):
    """One buffer for each form that its arrays take, as large as the largest of them.

    Whoever writes has it from then on, and what was in it is lost.
    """

    def __init__(self) -> None:
        self._owner: Storage | None = None
        self._buffers: dict[Form, Buffer] = {}

    def buffer(self, storage: Storage, form: Form) -> Buffer:
        """Memory for the storage, which owns the room now."""
        if self._owner is not storage:
            if self._owner is not None:
                self._owner.lose()
            self._owner = storage
        found = self._buffers.get(form)
        if found is None or found.size < storage.count:
            found = self._buffers[form] = storage.card.device.empty(storage.count, form.type.storage)
        return found[: storage.count]

    @property
    def num_bytes(self) -> int:
        return sum(int(buffer.nbytes) for buffer in self._buffers.values())
