"""Local response normalisation: y = x s^-beta, s = k + alpha / |window| * (sum of x^2 over the window)."""

from __future__ import annotations

from math import prod
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend


@final
class LRN:
    """bottom (N, C, H, W) -> top of the same shape, another array.

    ACROSS_CHANNELS sums over `size` channels; WITHIN_CHANNEL over size x size positions, with k = 1
    whatever is given. The divisor is the whole window's even where it hangs over the edge, as Caffe pads.
    Source: Caffe's LRNLayer.
    """

    def __init__(
        self,
        backend: CudaBackend,
        region: str,
        size: int,
        alpha: float,
        beta: float,
        k: float,
        bottom: SyncedArray,
        top: SyncedArray,
    ) -> None:
        assert bottom is not top
        self._backend = backend
        self._kernels = backend.kernels("pooling.cu")
        self.across = region == "ACROSS_CHANNELS"
        self.alpha = alpha / (size if self.across else size**2)
        self.beta = float(beta)
        self.k = float(k) if self.across else 1.0
        self._region = "across" if self.across else "within"
        extents = (bottom.shape[1], prod(bottom.shape[2:])) if self.across else bottom.shape[2:]
        self._window = (*extents, size // 2)
        self._scale = backend.empty(bottom.size)  # s of the last forward pass
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        n = bottom.size
        sides = read(bottom), self._scale
        self._kernels.each(f"lrn_scale_{self._region}", n, *sides, *self._window, self.alpha, self.k)
        self._kernels.each("lrn_forward", n, *sides, write(top), self.beta)

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        """dx = dy s^-beta - 2 alpha beta / |window| x * (sum of dy x s^(-beta - 1) over the window)."""
        n = bottom.size
        ratio = self._backend.workspace(n)
        sides = read(top_diff), read(bottom), self._scale, ratio
        self._kernels.each("lrn_ratio", n, *sides, self.beta)
        settings = *self._window, 2 * self.alpha * self.beta, self.beta
        self._kernels.each(f"lrn_backward_{self._region}", n, *sides, write(bottom_diff), *settings)
