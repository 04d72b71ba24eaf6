"""The way to a card through CuPy, which is imported when a lane is made."""

from __future__ import annotations

import importlib
from typing import Any, final

import numpy as np
import numpy.typing as npt

from dtrain.comm.communicator import Array
from dtrain.comm.lane import Lane, Stream

BESIDE = -1  # above the stream that computes: a sum that could run must not queue behind backward's blocks


@final
class CupyLane(Lane):
    """The calling thread's current card and, as `compute`, its current stream."""

    def __init__(self) -> None:
        self._cuda: Any = importlib.import_module("cupy").cuda
        self._empty: Any = importlib.import_module("cupy").empty
        self.compute = self._cuda.get_current_stream()
        self._card = self._cuda.Device()

    def use(self) -> None:
        self._card.use()

    def is_device(self, array: Any) -> bool:
        return not isinstance(array, np.ndarray)

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    def stream(self) -> Stream:
        made: Stream = self._cuda.Stream(non_blocking=True, priority=BESIDE)
        return made

    def event(self) -> Any:
        return self._cuda.Event(disable_timing=True)

    def constants(self, values: Array) -> Any:
        array = self._empty(values.size, values.dtype)
        self.upload(values, array)
        self.compute.synchronize()
        return array

    def pinned(self, count: int, dtype: npt.DTypeLike) -> Array:
        kind = np.dtype(dtype)
        array: Array = np.frombuffer(self._cuda.alloc_pinned_memory(count * kind.itemsize), kind, count)
        array.fill(0)
        return array

    def tell(self, source: Any, target: Array, stream: Stream) -> None:
        runtime = self._cuda.runtime
        runtime.memcpyAsync(
            target.ctypes.data, self.address(source), target.nbytes, runtime.memcpyDeviceToHost, stream.ptr
        )

    def download(self, source: Any, target: Array) -> None:
        assert source.nbytes == target.nbytes, "a copy keeps size and type"
        self.tell(source, target, self.compute)
        self.compute.synchronize()

    def upload(self, source: Array, target: Any) -> None:
        assert source.nbytes == target.nbytes, "a copy keeps size and type"
        runtime = self._cuda.runtime
        runtime.memcpyAsync(
            self.address(target),
            source.ctypes.data,
            source.nbytes,
            runtime.memcpyHostToDevice,
            self.compute.ptr,
        )

    def pin(self, array: Array) -> str:
        if not array.size:
            return ""
        try:
            self._cuda.runtime.hostRegister(array.ctypes.data, array.nbytes, 0)
        except self._cuda.runtime.CUDARuntimeError as error:
            return str(error)
        return ""
