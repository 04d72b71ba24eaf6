"""Sums over the channels of an array seen as (images, channels, inner), always in the same order."""

from __future__ import annotations

from typing import Final, final

from dtrain.kernels.array import Shape
from dtrain.kernels.cuda.array import Access, Argument
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.launch import row_threads

CHUNK: Final = 4096  # values that one block sums, at least
MOST_PARTS: Final = 256


@final
class ChannelSums:
    """One block sums a part of a channel; a second kernel adds the parts up."""

    def __init__(self, backend: CudaBackend, images: int, channels: int, inner: int) -> None:
        self._kernels = backend.kernels("channels.cu")
        self._channels = channels
        self._images = images
        self._inner = inner
        self.count = images * inner
        parts = max(1, min(-(-self.count // CHUNK), MOST_PARTS))
        self._chunk = max(1, -(-self.count // parts))
        self._parts = max(1, -(-self.count // self._chunk))
        self._partial = backend.empty(self._parts * channels)

    def run(self, name: str, total: Access | Buffer, factor: float, *args: Argument) -> None:
        """`total` (channels,) = factor * the sums that the kernel takes of args; an `update` is added to."""
        if not self._channels:
            return
        self._kernels.launch(
            name,
            (self._channels, self._parts),
            (row_threads(self._chunk),),
            self._channels,
            self._images,
            self._inner,
            self._chunk,
            self._partial,
            *args,
        )
        adds = isinstance(total, Access) and total.reads
        self._kernels.each(
            "channel_finish", self._channels, self._partial, self._parts, total, factor, int(adds)
        )


def images_channels_inner(shape: Shape) -> tuple[int, int, int]:
    """(N, C, rest) of a shape; (N,) is one channel."""
    inner = 1
    for extent in shape[2:]:
        inner *= extent
    return shape[0], shape[1] if len(shape) > 1 else 1, inner
