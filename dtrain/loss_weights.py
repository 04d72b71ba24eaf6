"""The losses of a net and their weights, with which backward begins.

A loss's diff holds its weight, as in Caffe. Where losses are scaled, for gradients of 16 bits, the weights
are kept apart and every backward pass begins with scaled copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, final

from dtrain.blob import Blob
from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend

Apply: TypeAlias = Callable[[SyncedArray], None]


@final
class LossWeights:
    """The tops of a net that have a loss weight."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._losses: dict[int, tuple[Blob, float]] = {}  # by id of the blob
        self._kept: dict[int, SyncedArray] = {}
        self._scale: Apply | None = None

    def fill(self, tops: Sequence[Blob], weights: Sequence[float]) -> None:
        """The tops have their shapes; a weight of 0 is no loss."""
        for blob, weight in zip(tops, weights, strict=True):
            if weight:
                self._losses[id(blob)] = blob, weight
                self._fill(blob, weight)

    def _fill(self, blob: Blob, weight: float) -> None:
        array = blob.diff
        if self._scale is not None:
            array = self._kept.setdefault(id(blob), self._backend.array(blob.shape))
            array.reshape(blob.shape)
        array.plain_overwrite().fill(weight)

    @property
    def blobs(self) -> list[Blob]:
        return [blob for blob, _ in self._losses.values()]

    def weight_of(self, blob: Blob) -> SyncedArray:
        """The weight for each value of a loss, not scaled."""
        return self._kept.get(id(blob), blob.diff)

    def sum(self, tops: Sequence[Blob], weights: Sequence[float]) -> float:
        """The losses among the tops, weighted."""
        total = 0.0
        for blob, weight in zip(tops, weights, strict=True):
            if weight:
                total += float((blob.data.plain() * self.weight_of(blob).plain()).sum())
        return total

    def total(self) -> float:
        """All losses of the last forward pass, weighted."""
        return self.sum(self.blobs, [weight for _, weight in self._losses.values()])

    def scale(self, apply: Apply) -> None:
        """From now on backward begins with weights that `apply` has changed."""
        self._scale = apply
        for blob, weight in self._losses.values():
            self._fill(blob, weight)

    def begin_backward(self) -> None:
        """Put what backward begins with into the diffs."""
        if self._scale is None:
            return
        for blob in self.blobs:
            weight = self._kept[id(blob)]
            copy = self._backend.operators("DEFAULT").Power(1.0, 1.0, 0.0, weight, blob.diff)
            copy.forward(weight, blob.diff)
            self._scale(blob.diff)
