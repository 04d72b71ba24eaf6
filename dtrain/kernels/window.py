"""Sliding windows over the spatial axes of a blob: what convolution, pooling and im2col have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, final

Axes: TypeAlias = tuple[int, ...]


@final
@dataclass(frozen=True, kw_only=True)
class ConvolutionWindow:
    """One entry per spatial axis; `group` splits the channels into independent convolutions."""

    kernel: Axes
    stride: Axes
    pad: Axes
    dilation: Axes
    group: int = 1

    def convolved(self, image: Axes) -> Axes:
        """The output's extent: (H + 2 pad - (dilation (kernel - 1) + 1)) // stride + 1."""
        return tuple(
            (extent + 2 * p - (d * (k - 1) + 1)) // s + 1
            for extent, k, s, p, d in zip(
                image, self.kernel, self.stride, self.pad, self.dilation, strict=True
            )
        )

    def deconvolved(self, image: Axes) -> Axes:
        """The output's extent of the transposed convolution: stride (H - 1) + extent of a kernel - 2 pad."""
        return tuple(
            s * (extent - 1) + d * (k - 1) + 1 - 2 * p
            for extent, k, s, p, d in zip(
                image, self.kernel, self.stride, self.pad, self.dilation, strict=True
            )
        )

    @property
    def is_pointwise(self) -> bool:
        """Whether every output sees exactly one input position."""
        return all(
            k == 1 and s == 1 and p == 0 for k, s, p in zip(self.kernel, self.stride, self.pad, strict=True)
        )


@final
@dataclass(frozen=True, kw_only=True)
class PoolingWindow:
    """A window that reduces to its maximum (MAX), mean (AVE) or one drawn element (STOCHASTIC)."""

    method: str
    kernel: Axes
    stride: Axes
    pad: Axes
    ceil: bool = True

    def pooled(self, image: Axes) -> Axes:
        """The output's extent: rounded up, less a last window that would start in the padding.

        Source: Caffe's PoolingLayer::Reshape.
        """
        out = []
        for extent, k, s, p in zip(image, self.kernel, self.stride, self.pad, strict=True):
            span = extent + 2 * p - k
            count = (-(-span // s) if self.ceil else span // s) + 1
            if p and (count - 1) * s >= extent + p:
                count -= 1
            out.append(count)
        return tuple(out)

    def overhang(self, image: Axes) -> Axes:
        """Padding after the image that the last window reaches: at most `pad` where windows fit exactly."""
        return tuple(
            (out - 1) * s + k - extent - p
            for out, extent, k, s, p in zip(
                self.pooled(image), image, self.kernel, self.stride, self.pad, strict=True
            )
        )
