"""Local response normalisation: y = x s^-beta, s = k + alpha / |window| * (sum of x^2 over the window)."""

from __future__ import annotations

from math import prod
from typing import Final, final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import own, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.form import Form

HALVES: Final = (1, 2)  # of windows that lrn_forward_last knows


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
        self.across = region == "ACROSS_CHANNELS"
        self.alpha = alpha / (size if self.across else size**2)
        self.beta = float(beta)
        self.k = float(k) if self.across else 1.0
        self._region = "across" if self.across else "within"
        self._form = own(top).offer(own(bottom).form if self.across else Form(backend.card.real))
        self._kernels = backend.kernels("pooling.cu", self._form.type)
        channels, inner, half = bottom.shape[1], prod(bottom.shape[2:]), size // 2
        if self._form.channels_last:
            inner = 1
        self._window = (channels, inner, half) if self.across else (*bottom.shape[2:], half)
        self._in_registers = (
            self._form.channels_last and channels % self._kernels.together == 0 and half in HALVES
        )
        # s of the last forward pass
        self._scale: Buffer = None if self._in_registers else backend.empty(bottom.size)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        n, x, y = bottom.size, read(bottom, form=self._form), write(top, form=self._form)
        if self._in_registers:
            settings = *self._channels_and_half, self.alpha, self.k, self.beta
            self._kernels.packed("lrn_forward_last", n, x, y, *settings)
            return
        name = f"lrn_scale_{self._region}"
        self._kernels.each(name, n, x, self._scale, *self._window, self.alpha, self.k)
        self._kernels.each("lrn_forward", n, x, self._scale, y, self.beta)

    @property
    def _channels_and_half(self) -> tuple[int, int]:
        return self._window[0], self._window[2]

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        """dx = dy s^-beta - 2 alpha beta / |window| x * (sum of dy x s^(-beta - 1) over the window)."""
        n, factor = bottom.size, 2 * self.alpha * self.beta
        dy, x = read(top_diff, form=self._form), read(bottom, form=self._form)
        dx = write(bottom_diff, form=self._form)
        if self._in_registers:
            settings = *self._channels_and_half, self.alpha, self.k, factor, self.beta
            self._kernels.packed("lrn_backward_last", n, dy, x, dx, *settings)
            return
        ratio = self._backend.workspace(n)
        self._kernels.each("lrn_ratio", n, dy, x, self._scale, ratio, self.beta)
        sides = dy, x, self._scale, ratio, dx
        self._kernels.each(f"lrn_backward_{self._region}", n, *sides, *self._window, factor, self.beta)
