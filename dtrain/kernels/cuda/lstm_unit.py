"""One time step of an LSTM for a batch of streams.

c = cont s(f) c_prev + s(i) tanh(g), h = s(o) tanh(c), s the logistic function; the gates lie in the order
i, f, o, g. Source: Caffe's LSTMUnitLayer.
"""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import maybe, read, write
from dtrain.kernels.cuda.backend import CudaBackend


@final
class LSTMUnit:
    """c_prev (1, N, D), gates (1, N, 4 D), cont (1, N) -> c, h (1, N, D)."""

    def __init__(self, backend: CudaBackend, c_prev: SyncedArray, c: SyncedArray, h: SyncedArray) -> None:
        self._kernels = backend.kernels("recurrent.cu")
        self._width = c.shape[2]
        self._activated = backend.empty(4 * c.size)  # (N, 4 D) of the last forward pass
        self.implementation = "cuda"

    def forward(
        self, c_prev: SyncedArray, gates: SyncedArray, cont: SyncedArray, c: SyncedArray, h: SyncedArray
    ) -> None:
        sides = read(c_prev), read(gates), read(cont), self._activated, write(c), write(h)
        self._kernels.each("lstm_forward", c.size, *sides, self._width)

    def backward(
        self,
        c_diff: SyncedArray,
        h_diff: SyncedArray,
        c_prev: SyncedArray,
        cont: SyncedArray,
        c: SyncedArray,
        c_prev_diff: SyncedArray | None,
        gates_diff: SyncedArray | None,
    ) -> None:
        """Overwrites the last two; None is not wanted."""
        inputs = read(c_prev), self._activated, read(cont), read(c), read(c_diff), read(h_diff), None
        outputs = maybe(write, gates_diff), maybe(write, c_prev_diff)
        self._kernels.each("lstm_backward", c.size, *inputs, *outputs, self._width)
