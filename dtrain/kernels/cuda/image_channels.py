"""Kernels over the channels of images in any form: batch_norm.cu's."""

from __future__ import annotations

from typing import Final, final

from dtrain.kernels.array import Shape
from dtrain.kernels.cuda.array import Argument
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.channels import images_channels_inner
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.form import Form
from dtrain.kernels.cuda.launch import THREADS, Kernels

MOST_BLOCKS: Final = 1024  # that sum at once: enough to fill any card
LEAST_VALUES: Final = 16  # that a thread of theirs sums, if there are as many
FINISHED: Final = 8  # channels whose parts a block adds up, as in image_channels.cuh


@final
class ImageChannels:
    """An array (N, C, ...) in a form, seen as rows of C channels or, in Caffe's order, as planes.

    Rows: a block has `across` threads side by side, each for `pack` channels, and sums a part of the rows.
    Planes: a block sums a part of one channel. Either way a second kernel adds the parts up, always in the
    same order. Arrays of one position an image are rows whatever the form. The kernels are those of a .cu
    file that includes image_channels.cuh.
    """

    def __init__(self, backend: CudaBackend, shape: Shape, form: Form, kernels: Kernels) -> None:
        images, self.channels, self.inner = images_channels_inner(shape)
        self.count = images * self.inner  # values a channel
        self._images = images
        self.are_rows = (form.channels_last and len(shape) == 4) or self.inner == 1
        self._kernels = kernels
        together = self._kernels.together
        self._pack = together if self.channels % together == 0 else 1
        packs = -(-self.channels // self._pack)
        self._across = 1
        while self._across < min(packs, 32):
            self._across *= 2
        strips = max(1, -(-packs // self._across)) if self.are_rows else max(1, self.channels)
        at_once = THREADS // self._across if self.are_rows else THREADS  # rows or values of a block's step
        parts = min(-(-self.count // (at_once * LEAST_VALUES)), -(-MOST_BLOCKS // strips))
        self._grid = strips, max(1, parts)
        self.partial: Buffer = backend.empty(2 * self._grid[1] * self.channels)

    def launch(self, name: str, *args: Argument) -> None:
        """One of the kernels that come for rows and for planes: NAME_rows and NAME_planes."""
        if not self.count * self.channels:
            return
        if self.are_rows:
            sizes = self.count, self.channels, self._pack, self._across
            self._kernels.launch(f"{name}_rows", self._grid, (THREADS,), *sizes, *args)
        else:
            sizes_of_planes = self._images, self.channels, self.inner
            self._kernels.launch(f"{name}_planes", self._grid, (THREADS,), *sizes_of_planes, *args)

    def finish(self, name: str, *args: Argument) -> None:
        """A kernel that adds up the parts."""
        if self.channels:
            grid = (-(-self.channels // FINISHED),)
            self._kernels.launch(name, grid, (THREADS,), self.channels, self._grid[1], self.partial, *args)
