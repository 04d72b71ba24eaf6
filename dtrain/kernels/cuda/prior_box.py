"""Default boxes around every position of a feature map.

The host works them out once; they are a constant of the net.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu.prior_box import Pair
from dtrain.kernels.cpu.prior_box import PriorBox as HostPriorBox
from dtrain.kernels.cuda.backend import CudaBackend


@final
class PriorBox:
    """top (1, 2, W * H * boxes * 4): corners as shares of the image, and the variances of the four."""

    def __init__(
        self,
        backend: CudaBackend,
        feature: tuple[int, int],
        image: Pair,
        step: Pair,
        offset: float,
        sizes: Sequence[Pair],
        variance: Sequence[float],
        clip: bool,
        top: SyncedArray,
    ) -> None:
        self._host = HostPriorBox(backend, feature, image, step, offset, sizes, variance, clip, top)
        self.implementation = "host numpy"

    def forward(self, top: SyncedArray) -> None:
        self._host.forward(top)
