"""Batch normalisation: x^ = (x - mean) / sqrt(variance + eps) for each channel, y = scale x^ + bias."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import Access, maybe, read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.channels import ChannelSums, images_channels_inner
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.in_place import same


@final
class BatchNorm:
    """bottom (N, C, ...), or (N,) as one channel -> top of the same shape; both may be one array.

    As kernels/cpu/batch_norm.py says; everything stays on the device.
    """

    def __init__(
        self,
        backend: CudaBackend,
        eps: float,
        fraction: float,
        use_global_stats: bool,
        bottom: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self._kernels = backend.kernels("channels.cu")
        self.eps = float(eps)
        self.fraction = float(fraction)
        self.use_global_stats = use_global_stats
        images, self._channels, self._inner = images_channels_inner(bottom.shape)
        self._sums = ChannelSums(backend, images, self._channels, self._inner)
        self._center = backend.empty(self._channels)
        self._inverse = backend.empty(self._channels)  # 1 / sqrt(variance + eps)
        self._spread = backend.empty(self._channels)
        self._sum = backend.empty(self._channels)  # of dy
        self._dot = backend.empty(self._channels)  # of dy x^
        # x^, kept where the top overwrites the bottom
        self._normalized: Buffer | None = backend.empty(bottom.size) if same(bottom, top) else None
        self.implementation = "cuda"

    def forward(
        self,
        bottom: SyncedArray,
        mean: SyncedArray,
        variance: SyncedArray,
        factor: SyncedArray,
        scale: SyncedArray | None,
        bias: SyncedArray | None,
        top: SyncedArray,
    ) -> None:
        if self.use_global_stats:
            gathered = read(mean), read(variance), read(factor)
            self._kernels.each(
                "batch_norm_gathered", self._channels, *gathered, self._center, self._inverse, self.eps
            )
        else:
            self._take_statistics(bottom, mean, variance, factor)
        self._kernels.each(
            "batch_norm_forward",
            bottom.size,
            read(bottom),
            write(top),
            self._normalized,
            self._center,
            self._inverse,
            maybe(read, scale),
            maybe(read, bias),
            self._channels,
            self._inner,
        )

    def _take_statistics(
        self, bottom: SyncedArray, mean: SyncedArray, variance: SyncedArray, factor: SyncedArray
    ) -> None:
        m = self._sums.count
        self._sums.run("channel_sum", self._center, 1 / m, read(bottom))
        self._sums.run("channel_squares", self._spread, 1 / m, read(bottom), self._center)
        self._kernels.each(
            "batch_norm_gather",
            self._channels,
            self._center,
            self._spread,
            update(mean),
            update(variance),
            update(factor),
            self._inverse,
            self.fraction,
            m / (m - 1) if m > 1 else 1.0,
            self.eps,
        )

    def backward(
        self,
        top_diff: SyncedArray,
        bottom: SyncedArray,
        scale: SyncedArray | None,
        bottom_diff: SyncedArray | None,
        scale_diff: SyncedArray | None,
        bias_diff: SyncedArray | None,
    ) -> None:
        """Overwrites `bottom_diff`, which may be `top_diff`; adds to the others; None is not computed."""
        through_statistics = bottom_diff is not None and not self.use_global_stats
        if bias_diff is not None:
            self._sums.run("channel_sum", update(bias_diff), 1.0, read(top_diff))
        if scale_diff is not None:
            self._dot_normalized(top_diff, bottom, update(scale_diff))
        if bottom_diff is None:
            return
        if through_statistics:
            self._sums.run("channel_sum", self._sum, 1.0, read(top_diff))
            self._dot_normalized(top_diff, bottom, self._dot)
        kept = self._normalized is not None
        self._kernels.each(
            "batch_norm_backward",
            top_diff.size,
            read(top_diff),
            self._normalized if kept else read(bottom),
            write(bottom_diff),
            None if kept else self._center,
            self._inverse,
            maybe(read, scale),
            self._sum if through_statistics else None,
            self._dot if through_statistics else None,
            float(self._sums.count),
            self._channels,
            self._inner,
        )

    def _dot_normalized(self, top_diff: SyncedArray, bottom: SyncedArray, total: Access | Buffer) -> None:
        """The sum of dy x^ for each channel."""
        if self._normalized is not None:
            self._sums.run("channel_dot", total, 1.0, read(top_diff), self._normalized)
        else:
            args = read(top_diff), read(bottom), self._center, self._inverse
            self._sums.run("channel_dot_normalized", total, 1.0, *args)
