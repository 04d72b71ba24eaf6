"""Slices of one array along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import own
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.blocks import Blocks


@final
class Slice:
    """bottom -> tops, which put together along `axis` are the bottom."""

    def __init__(
        self, backend: CudaBackend, axis: int, bottom: SyncedArray, tops: Sequence[SyncedArray]
    ) -> None:
        form = own(bottom).form
        for top in tops:
            own(top).offer(form)
        self._blocks = Blocks(backend, axis, [top.shape for top in tops], form)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, tops: Sequence[SyncedArray]) -> None:
        self._blocks.part(bottom, tops)

    def backward(self, top_diffs: Sequence[SyncedArray], bottom_diff: SyncedArray) -> None:
        self._blocks.join(top_diffs, bottom_diff)
