"""The softmax loss of one score vector a sample, each in one pass while it is in the cache."""

from __future__ import annotations

from typing import final

import numba
import numpy as np

from dtrain.kernels.array import Plain, Shape, SyncedArray
from dtrain.kernels.backend import Unsupported
from dtrain.kernels.cpu import threads
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cpu.jit.compiler import parallel
from dtrain.kernels.cpu.labels import class_indices
from dtrain.kernels.cpu.normalized import Normalized
from dtrain.kernels.normalizer import Normalizer

TINY = np.float64(np.finfo(np.float32).tiny)
NO_LABEL = -(1 << 62)  # stands for no ignore_label: beyond what a prototxt can name


@parallel
def _forward(x: Plain, labels: Plain, p: Plain, losses: Plain, ignored: int) -> int:
    """x, p (N, C), labels (N,); losses (N,) in float64, 0 where ignored. Returns how many are no class."""
    wrong = 0
    classes = x.shape[1]
    for n in numba.prange(x.shape[0]):
        highest = x[n, 0]
        for c in range(1, classes):
            highest = max(highest, x[n, c])
        total = np.float32(0)
        for c in range(classes):
            e = np.exp(x[n, c] - highest)
            p[n, c] = e
            total += e
        for c in range(classes):
            p[n, c] /= total
        losses[n] = 0.0
        label = np.int64(labels[n])
        if label != ignored:
            if label < 0 or label >= classes:
                wrong += 1
            else:
                picked = np.float64(p[n, label])
                if picked < TINY:  # false for what is no number, which the loss shall show
                    picked = TINY
                losses[n] = -np.log(picked)
    return wrong


@parallel
def _backward(p: Plain, labels: Plain, dx: Plain, scale: np.float32, ignored: int) -> None:
    for n in numba.prange(p.shape[0]):
        label = np.int64(labels[n])
        if label == ignored:
            for c in range(p.shape[1]):
                dx[n, c] = np.float32(0)
        else:
            for c in range(p.shape[1]):
                dx[n, c] = p[n, c] * scale
            dx[n, label] -= scale


@final
class SoftmaxLoss:
    """As kernels/cpu/softmax_loss.py says."""

    def __init__(
        self,
        backend: CpuBackend,
        axis: int,
        ignore_label: int | None,
        weights: Plain | None,
        smoothing: float,
        shape: Shape,
        normalizer: Normalizer,
    ) -> None:
        if axis != len(shape) - 1 or weights is not None or smoothing or backend.dtype != np.float32:
            raise Unsupported("a softmax loss with inner axes, weights or smoothing, or not in float32")
        threads.lead_numba()
        self.ignore_label = ignore_label
        self.implementation = "numba"
        self._normalized = Normalized(normalizer)
        self._classes = shape[-1]
        self._ignored = NO_LABEL if ignore_label is None else ignore_label
        self._losses = np.empty(int(np.prod(shape[:-1])), np.float64)

    def forward(self, scores: SyncedArray, labels: SyncedArray, prob: SyncedArray, loss: SyncedArray) -> None:
        x = scores.plain().reshape(-1, self._classes)
        named = labels.plain().reshape(-1)
        p = prob.plain_overwrite().reshape(-1, self._classes)
        if _forward(x, named, p, self._losses, self._ignored):
            class_indices(named, self._classes, self.ignore_label)  # names the label that is no class
        counted = named.size
        if self.ignore_label is not None:
            counted -= int((named.astype(np.int64) == self.ignore_label).sum())
        self._normalized.tell(float(self._losses.sum()), counted, loss)

    def check(self) -> None:
        """Forward tells of wrong labels itself."""

    def backward(
        self, prob: SyncedArray, labels: SyncedArray, loss_diff: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        """dscores = scale * (p - target), zero where the label is ignored; forward has checked the labels."""
        p = prob.plain().reshape(-1, self._classes)
        dx = bottom_diff.plain_overwrite().reshape(-1, self._classes)
        scale = np.float32(self._normalized.scale(loss_diff))
        _backward(p, labels.plain().reshape(-1), dx, scale, self._ignored)
