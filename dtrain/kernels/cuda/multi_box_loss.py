"""SSD's loss: how far the boxes of matched priors are off, and what classes priors take.

The host computes it: matching and mining are chains of decisions over a few thousand boxes, each of which
depends on the ones before.
"""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.boxes import MultiBox
from dtrain.kernels.cpu.multi_box_loss import MultiBoxLoss as HostMultiBoxLoss
from dtrain.kernels.cuda.backend import CudaBackend


@final
class MultiBoxLoss:
    """loc (N, P * L * 4), conf (N, P * C), priors (1, 2, P * 4), truth (1, 1, objects, 8) -> two sums."""

    def __init__(self, backend: CudaBackend, settings: MultiBox, num_priors: int) -> None:
        self._host = HostMultiBoxLoss(backend, settings, num_priors)
        self.implementation = "host numpy"

    def forward(
        self, loc: SyncedArray, conf: SyncedArray, priors: SyncedArray, truth: SyncedArray
    ) -> tuple[float, float, int]:
        """(sum over boxes, sum over classes, matched priors); keeps what backward needs."""
        return self._host.forward(loc, conf, priors, truth)

    def backward(
        self,
        loc_diff: SyncedArray | None,
        conf_diff: SyncedArray | None,
        loc_scale: float,
        conf_scale: float,
    ) -> None:
        """Scaled slopes at the priors of the last forward pass, zero elsewhere."""
        self._host.backward(loc_diff, conf_diff, loc_scale, conf_scale)
