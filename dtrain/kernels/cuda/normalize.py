"""L2 norm 1 for every position or every image, then a scale: y = scale x / sqrt(sum x^2 + eps)."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.channels import ChannelSums, images_channels_inner


@final
class Normalize:
    """bottom (N, C, spatial...), scale () or (C,) -> top. The sum runs over C, or with `across` also over
    the spatial axes."""

    def __init__(
        self,
        backend: CudaBackend,
        across: bool,
        eps: float,
        bottom: SyncedArray,
        scale: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self._backend = backend
        self._kernels = backend.kernels("channels.cu")
        self.across = across
        self.eps = float(eps)
        self._images, self._channels, self._inner = images_channels_inner(bottom.shape)
        self._positions = 1 if across else self._inner
        self._shared = int(not scale.shape)
        self._norm = backend.empty(self._images * self._positions)
        self._dot = backend.empty(self._norm.size)
        self._unit = backend.empty(bottom.size)
        self._sums = ChannelSums(backend, self._images, self._channels, self._inner)
        self._of_channels = backend.empty(self._channels)
        self.implementation = "cuda"

    def _take_norms(self, bottom: SyncedArray) -> None:
        if self.across:
            width = self._channels * self._inner
            self._kernels.rows("norm_rows", self._images, width, read(bottom), self._norm, self.eps)
        else:
            self._kernels.each(
                "norm_positions",
                self._norm.size,
                read(bottom),
                self._norm,
                self._channels,
                self._inner,
                self.eps,
            )

    def _sizes(self) -> tuple[int, int, int, int]:
        return self._channels, self._inner, self._positions, self._shared

    def forward(self, bottom: SyncedArray, scale: SyncedArray, top: SyncedArray) -> None:
        self._take_norms(bottom)
        sides = read(bottom), write(top), self._norm, read(scale)
        self._kernels.each("normalize_forward", bottom.size, *sides, *self._sizes())

    def backward(
        self,
        top_diff: SyncedArray,
        bottom: SyncedArray,
        scale: SyncedArray,
        bottom_diff: SyncedArray | None,
        scale_diff: SyncedArray | None,
    ) -> None:
        """With u = x / norm and g = scale dy: dx = (g - u sum(u g)) / norm; dscale = sum(u dy)."""
        self._take_norms(bottom)
        sides = read(bottom), self._unit, self._norm, None
        self._kernels.each("normalize_forward", bottom.size, *sides, *self._sizes())
        if scale_diff is not None:
            total = self._of_channels if self._shared else update(scale_diff)
            self._sums.run("channel_dot", total, 1.0, read(top_diff), self._unit)
            if self._shared:
                self._backend.sum_columns(self._channels, 1, self._of_channels, update(scale_diff))
        if bottom_diff is None:
            return
        args = self._unit, read(top_diff), read(scale), self._dot
        if self.across:
            width = self._channels * self._inner
            self._kernels.rows("normalize_dot_rows", self._images, width, *args, self._inner, self._shared)
        else:
            shape = self._channels, self._inner, self._shared
            self._kernels.each("normalize_dot_positions", self._dot.size, *args, *shape)
        sides = read(top_diff), self._unit, write(bottom_diff), self._norm
        self._kernels.each("normalize_backward", bottom.size, *sides, self._dot, read(scale), *self._sizes())
