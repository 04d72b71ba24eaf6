"""Stand-ins for CuPy, cuBLASLt and cuDNN: on them the tests of the card show their own mistakes."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, final

import pytest

from tests.kernels.cuda.numpy_cudnn import NumpyCudnn, NumpyGraph
from tests.kernels.cuda.numpy_cupy import GIB, Cupy
from tests.kernels.cuda.numpy_streams import Machine


@final
class QueuedCudnn:
    """The stand-in for cuDNN, its graphs queued on the stream that its handle has."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._cudnn = NumpyCudnn()
        self._stream = machine.streams[0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cudnn, name)

    def set_stream(self, handle: object, stream: int) -> None:
        self._cudnn.set_stream(handle, stream)
        self._stream = self._machine.streams[stream]

    def pygraph(self, **settings: Any) -> NumpyGraph:
        graph = self._cudnn.pygraph(**settings)
        for name in ("execute", "execute_plan_at_index"):
            setattr(graph, name, partial(self._queue, getattr(graph, name), self._stream))
        return graph

    def _queue(self, run: Any, stream: Any, *args: Any, handle: object) -> None:
        self._machine.queue(stream, partial(run, *args, handle=handle))


def install(patch: pytest.MonkeyPatch) -> None:
    """Let imports of this process find them, until the patch is undone."""
    cupy = Cupy(memory=4 * GIB)
    cupy.pool.free_all_blocks = lambda: None
    machine = cupy.machine
    cupy.cuda.get_current_stream = machine.current
    cupy.cuda.runtime.streamSynchronize = lambda address: machine.streams[address].synchronize()
    del cupy._missing["cudnn"]
    cupy.install(patch)
    found = sys.modules["importlib"].import_module
    cudnn = QueuedCudnn(machine)
    patch.setattr(
        "importlib.import_module",
        lambda name, package=None: cudnn if name == "cudnn" else found(name, package),
    )
    patch.setitem(sys.modules, "cupy", cupy)
