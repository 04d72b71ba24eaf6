"""Concatenation of arrays along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import best, own
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.blocks import Blocks


@final
class Concat:
    """bottoms, equal except at `axis` -> top."""

    def __init__(
        self, backend: CudaBackend, axis: int, bottoms: Sequence[SyncedArray], top: SyncedArray
    ) -> None:
        form = own(top).offer(best([own(bottom).form for bottom in bottoms]))
        self._blocks = Blocks(backend, axis, [bottom.shape for bottom in bottoms], form)
        self.implementation = "cuda"

    def forward(self, bottoms: Sequence[SyncedArray], top: SyncedArray) -> None:
        self._blocks.join(bottoms, top)

    def backward(self, top_diff: SyncedArray, bottom_diffs: Sequence[SyncedArray | None]) -> None:
        """None is not computed."""
        self._blocks.part(top_diff, bottom_diffs)
