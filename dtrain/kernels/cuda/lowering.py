"""Convolution's windows as columns of a matrix, for as many images at once as the workspace holds."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Final, final

import numpy as np

from dtrain.kernels.array import Shape
from dtrain.kernels.cuda.array import Access
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer, Product
from dtrain.kernels.window import ConvolutionWindow

MOST_ELEMENTS: Final = 1 << 26  # of a workspace for columns: 256 MiB of float32


@final
class Lowering:
    """Images (channels, *spatial) <-> columns (channels * prod(kernel), prod(out)), out what comes out."""

    def __init__(self, backend: CudaBackend, window: ConvolutionWindow, image: Shape) -> None:
        spatial, out = image[1:], window.convolved(image[1:])
        self._kernels = backend.kernels("windows.cu")
        self.is_identity = window.is_pointwise
        self.image_size = prod(image)
        self.rows = image[0] * prod(window.kernel)
        self.outputs = prod(out)
        self.columns_size = self.rows * self.outputs
        self._planes = image[0]
        self._is_2d = len(spatial) == 2
        parts = (spatial, out, window.kernel, window.stride, window.pad, window.dilation)
        if self._is_2d:
            self._settings: tuple[Buffer | int, ...] = tuple(n for part in parts for n in part)
        else:
            table = backend.constants([n for part in parts for n in part] or [0], np.int32)
            self._settings = (table, len(spatial), prod(window.kernel), self.outputs, prod(spatial))

    def chunks(self, images: int) -> Iterator[tuple[int, int]]:
        """(first image, number of images) of what is lowered at once."""
        step = max(1, min(images, MOST_ELEMENTS // max(self.columns_size, 1)))
        return ((first, min(step, images - first)) for first in range(0, images, step))

    def most_images(self, images: int) -> int:
        """The largest of the chunks."""
        return next((count for _, count in self.chunks(images)), 0)

    def to_columns(self, images: Access | Buffer, columns: Access | Buffer, count: int) -> None:
        """Copy what every output sees, for `count` images."""
        if self._is_2d:
            self._kernels.each(
                "im2col_2d", count * self._planes * self.outputs, images, columns, *self._settings
            )
        else:
            self._kernels.each("im2col", count * self.columns_size, images, columns, *self._settings)

    def to_images(self, columns: Access | Buffer, images: Access | Buffer, count: int) -> None:
        """The transpose: sum what was copied."""
        name = "col2im_2d" if self._is_2d else "col2im"
        self._kernels.each(name, count * self.image_size, columns, images, *self._settings)


def batches(images: int, groups: int) -> Iterator[tuple[int, int, int, bool]]:
    """(image, group, batch, over images) of the products: batched over the more numerous of the two."""
    if images >= groups:
        yield from ((0, group, images, True) for group in range(groups))
    else:
        yield from ((image, 0, groups, False) for image in range(images))


@final
class Side:
    """One matrix of grouped products: how far apart those of two images and of two groups lie."""

    def __init__(self, per_image: int, per_group: int) -> None:
        self.per_image = per_image
        self.per_group = per_group

    def start(self, image: int, group: int) -> int:
        """Where the matrix of an image and group begins."""
        return image * self.per_image + group * self.per_group

    def stride(self, over_images: bool) -> int:
        """From one matrix of a batch to the next."""
        return self.per_image if over_images else self.per_group


def from_start(matrix: Access | Buffer, start: int) -> Access | Buffer:
    """The matrix's storage from an element on."""
    if isinstance(matrix, Access):
        return Access(matrix.array, matrix.reads, matrix.writes, matrix.start + start)
    return matrix[start:]


def multiply(
    backend: CudaBackend,
    shape: tuple[int, int, int],
    transposes: tuple[bool, bool],
    images: int,
    groups: int,
    a: tuple[Access | Buffer, Side],
    b: tuple[Access | Buffer, Side],
    c: tuple[Access | Buffer, Side],
    *,
    beta: float = 0.0,
) -> None:
    """C = op(A) op(B) + beta C, (m, n, k) = shape, for every image and group.

    Where C is the same for all images (per_image 0) the products are added up, and beta must be 1.
    """
    m, n, k = shape
    adds_up = c[1].per_image == 0 and images > 1
    assert beta == 1 or not adds_up, "a sum needs a start"
    plan = ((image, 0, groups, False) for image in range(images)) if adds_up else batches(images, groups)
    for image, group, batch, over_images in plan:
        product = Product(
            m,
            n,
            k,
            *transposes,
            beta=beta,
            batch=batch,
            stride_a=a[1].stride(over_images),
            stride_b=b[1].stride(over_images),
            stride_c=c[1].stride(over_images),
        )
        sides = (from_start(matrix, side.start(image, group)) for matrix, side in (a, b, c))
        backend.gemm(product, *sides)
