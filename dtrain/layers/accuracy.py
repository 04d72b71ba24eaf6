"""Accuracy: the share of labels among the highest scores. Source: Caffe's AccuracyLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.layers.layer import TWO, Blobs, Count, Layer
from dtrain.layers.loss import check_label_count, locating_data_errors
from dtrain.layers.no_gradient import refuse_gradient


@final
class Accuracy(Layer):
    """bottom[0] scores (N, C, ...), bottom[1] labels (N, 1, ...) -> top[0] the share; top[1] (C,) per class.

    `correct` of `counted` labels were right in the last forward pass: sums of them over passes and ranks
    give an exact score, means of top[0] only if every batch counts as many labels.
    """

    type_name = "Accuracy"
    num_bottoms = TWO
    num_tops = Count(1, 2)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        if self.spec.accuracy_param.top_k < 1:
            raise self.bad_param(("accuracy_param", "top_k"), "at least 1", self.spec.accuracy_param.top_k)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.accuracy_param
        shape = bottom[0].shape
        axis = self.axis(param.axis, len(shape), "accuracy_param", "axis")
        check_label_count(self, bottom, int(np.prod(shape[:axis]) * np.prod(shape[axis + 1 :])))
        if param.top_k > shape[axis]:
            raise self.bad_param(
                ("accuracy_param", "top_k"), f"at most the number of classes ({shape[axis]})", param.top_k
            )
        top[0].reshape(())
        if len(top) > 1:
            top[1].reshape((shape[axis],))
        ignored = param.ignore_label if param.HasField("ignore_label") else None
        self.op = self.ops.Accuracy(axis, param.top_k, ignored)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        per_class = top[1].data if len(top) > 1 else None
        with locating_data_errors(self):
            self.op.forward(bottom[0].data, bottom[1].data, top[0].data, per_class)

    def check_data(self) -> None:
        with locating_data_errors(self):
            self.op.check()

    @property
    def correct(self) -> int:
        """Labels among the highest scores, of the last forward pass."""
        return int(self.op.counts()[0])

    @property
    def counted(self) -> int:
        """Labels that count, of the last forward pass."""
        return int(self.op.counts()[1])

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        for i in range(len(bottom)):
            refuse_gradient(self, propagate_down, i)

    def allows_force_backward(self, bottom_index: int) -> bool:
        return False
