"""Batch normalisation: x^ = (x - mean) / sqrt(variance + eps) for each channel, y = scale x^ + bias."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import Access, follow, maybe, own, read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.image_channels import ImageChannels
from dtrain.kernels.cuda.in_place import same


@final
class BatchNorm:
    """bottom (N, C, ...), or (N,) as one channel -> top of the same shape; both may be one array.

    As kernels/cpu/batch_norm.py says; everything stays on the device, in the form of the bottom. With `relu`,
    which a plan sets for a pass, the top is max(y, 0), and the backward pass after it starts from the diff
    behind that.
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
        self.relu = False
        self.eps = float(eps)
        self.fraction = float(fraction)
        self.use_global_stats = use_global_stats
        self._form = form = follow(bottom, top)
        self._kernels = backend.kernels("batch_norm.cu", form.type)
        self._images = images = ImageChannels(backend, bottom.shape, form, self._kernels)
        self._center = backend.empty(images.channels)
        self._inverse = backend.empty(images.channels)  # 1 / sqrt(variance + eps)
        self._gain = backend.empty(images.channels)  # times scale
        self._shift = backend.empty(images.channels)  # bias
        self._sum = backend.empty(images.channels)  # of dy
        self._dot = backend.empty(images.channels)  # of dy x^
        # x, kept where the top overwrites the bottom
        self._kept: Buffer | None = (
            backend.empty(bottom.size, form.type.storage) if same(bottom, top) else None
        )
        self._was_rectified = False
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
        images, x = self._images, read(bottom, form=self._form)
        if not images.count:
            return
        affine = maybe(read, scale), maybe(read, bias)
        channels = self._center, self._inverse, self._gain, self._shift
        if self.use_global_stats:
            gathered = read(mean), read(variance), read(factor)
            self._kernels.each(
                "gathered_statistics", images.channels, *gathered, self.eps, *affine, *channels
            )
        else:
            m = images.count
            images.launch("statistics", x, images.partial)
            images.finish(
                "finish_statistics",
                x,
                1 if images.are_rows else images.inner,
                float(m),
                update(mean),
                update(variance),
                update(factor),
                self.fraction,
                m / (m - 1) if m > 1 else 1.0,
                self.eps,
                *affine,
                *channels,
            )
        self._was_rectified = self.relu
        images.launch(
            "normalize",
            x,
            write(top, form=self._form),
            self._kept,
            self._center,
            self._gain,
            self._shift,
            int(self.relu),
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
        images, dy = self._images, read(top_diff, form=self._form)
        if not images.count:
            return
        x: Access | Buffer = read(bottom, form=self._form) if self._kept is None else self._kept
        channels = self._center, self._inverse, self._gain, self._shift, int(self._was_rectified)
        through_statistics = bottom_diff is not None and not self.use_global_stats
        if through_statistics or scale_diff is not None or bias_diff is not None:
            images.launch("dots", dy, x, *channels, images.partial)
            diffs = maybe(update, scale_diff), maybe(update, bias_diff)
            images.finish("finish_dots", self._sum, self._dot, *diffs)
        if bottom_diff is not None:
            own(bottom_diff).offer(self._form)
            sums = (self._sum, self._dot) if through_statistics else (None, None)
            target = write(bottom_diff, form=self._form)
            images.launch("hand_back", dy, x, target, *channels, *sums, float(images.count))
