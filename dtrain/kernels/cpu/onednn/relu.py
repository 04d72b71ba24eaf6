"""Rectified linear unit by oneDNN."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cpu.onednn import library as dnnl
from dtrain.kernels.cpu.onednn.eltwise import EltwisePrimitive


@final
class ReLU:
    """As kernels/cpu/relu.py says."""

    def __init__(self, backend: CpuBackend, slope: float, bottom: SyncedArray, top: SyncedArray) -> None:
        self._primitive = EltwisePrimitive(
            backend, dnnl.ELTWISE_RELU, dnnl.ELTWISE_RELU, float(slope), bottom, top
        )
        self.implementation = self._primitive.implementation

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._primitive.forward()

    def backward(self, top_diff: SyncedArray, bottom: SyncedArray, bottom_diff: SyncedArray) -> None:
        self._primitive.backward(top_diff, bottom, bottom_diff)
