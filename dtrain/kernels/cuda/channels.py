"""Sums over the channels of an array seen as (images, channels, inner), always in the same order."""

from __future__ import annotations

from math import prod
from typing import Final, final

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.cuda.array import Access, Argument, own
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.form import Form
from dtrain.kernels.cuda.launch import MOST_BLOCKS, THREADS, row_threads

CHUNK: Final = 4096  # values that one block sums, at least
MOST_PARTS: Final = 256
ROWS: Final = 8  # that a thread sums, at least, where the channels are the last axis
BLOCKS: Final = 512  # that fill a card
WARP: Final = 32


@final
class ChannelSums:
    """One block sums a part of a channel, or of several; a second kernel adds the parts up.

    Arrays are in `form`, or the base form, which says where the channels are.
    """

    def __init__(
        self, backend: CudaBackend, images: int, channels: int, inner: int, form: Form | None = None
    ) -> None:
        form = form or Form(backend.card.real)
        self._kernels = backend.kernels("channels.cu", form.type)
        self._finish = backend.kernels("channels.cu")
        self._channels = channels
        self.count = images * inner
        self._is_last = form.channels_last or inner == 1
        if self._is_last:
            packs = self._kernels.together if channels % self._kernels.together == 0 else 1
            lanes = 1
            while lanes < WARP and lanes * packs < channels:
                lanes *= 2
            across = -(-channels // (lanes * packs))
            self._block: tuple[int, ...] = (lanes, THREADS // lanes)
            parts = max(1, min(-(-self.count // (ROWS * self._block[1])), BLOCKS // across))
            sizes = self.count, packs
        else:
            across = channels
            parts = max(1, min(-(-self.count // CHUNK), MOST_PARTS))
            sizes = images, inner
        chunk = max(1, -(-self.count // parts))
        self._parts = max(1, -(-self.count // chunk))
        if not self._is_last:
            self._block = (row_threads(chunk),)
        self._grid = across, self._parts
        self._sizes = (channels, *sizes, chunk)
        self._partial = backend.empty(self._parts * channels)

    def run(self, name: str, total: Access | Buffer, factor: float, *args: Argument) -> None:
        """`total` (channels,) = factor * the sums that the kernel takes of args; an `update` is added to."""
        if not self._channels:
            return
        kernel = f"{name}_last" if self._is_last else name
        self._kernels.launch(kernel, self._grid, self._block, *self._sizes, self._partial, *args)
        adds = isinstance(total, Access) and total.reads
        settings = self._channels, self._partial, self._parts, total, factor, int(adds)
        self._finish.launch("channel_finish", (min(self._channels, MOST_BLOCKS),), (WARP,), *settings)


def images_channels_inner(shape: Shape, form: Form | None = None) -> tuple[int, int, int]:
    """(N, C, rest) of a shape; (N,) is one channel. With channels last (N rest, C, 1), as they lie."""
    inner = 1
    for extent in shape[2:]:
        inner *= extent
    images, channels = shape[0], shape[1] if len(shape) > 1 else 1
    if form is not None and form.channels_last:
        return images * inner, channels, 1
    return images, channels, inner


def form_of(bottom: SyncedArray, axis: int, shape: Shape) -> Form:
    """Of an operator that has numbers of this shape, for the bottom's axes from `axis` on.

    The bottom's form; but with the channels last only one number for each channel, or for all, can be found.
    """
    form = own(bottom).form
    return form if (axis == 1 and len(shape) == 1) or prod(shape) == 1 else Form(form.type)


def seen_by(bottom: Shape, axis: int, numbers: int, form: Form) -> tuple[int, int, int]:
    """(images, channels, inner) of a bottom's values as they lie, where the channels have the numbers."""
    if numbers == 1:
        return 1, 1, prod(bottom)
    if form.channels_last:
        return images_channels_inner(bottom, form)
    outer = prod(bottom[:axis])
    return outer, numbers, prod(bottom) // max(outer * numbers, 1)
