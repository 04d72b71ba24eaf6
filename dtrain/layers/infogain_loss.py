"""InfogainLoss: the multinomial logistic loss of a softmax, with a matrix of gains H for the identity.

Source: Caffe's InfogainLossLayer (1.0, with the softmax inside).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.layers.layer import Blob, Blobs, Count, Layer
from dtrain.layers.loss import (
    check_label_count,
    check_same_batch,
    ignore_label,
    locating_data_errors,
    normalization,
    normalizer,
)
from dtrain.layers.no_gradient import refuse_gradient
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.blobproto import blobproto_to_array
from dtrain.proto.files import read_binary


@final
class InfogainLoss(Layer):
    """bottom[0] scores (N, C, ...), bottom[1] labels -> top[0] the loss; top[1] the softmax.

    H, of C x C values, comes from bottom[2] or the file infogain_loss_param.source.
    """

    type_name = "InfogainLoss"
    num_bottoms = Count(2, 3)
    num_tops = Count(1, 2)
    makes_missing_tops = True
    loss_by_default = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.mode = normalization(self, pb.LossParameter.VALID)
        self.prob = Blob(self.scope.backend)
        self.stored: Blob | None = None
        if len(bottom) == 2:
            self.stored = self._read_matrix()

    def _read_matrix(self) -> Blob:
        source = self.spec.infogain_loss_param.source
        if not source:
            raise self.bad_param(
                ("infogain_loss_param", "source"), "a binaryproto file where there is no bottom[2]", "none"
            )
        stored = pb.BlobProto()
        read_binary(source, stored)
        values = blobproto_to_array(stored, where=source)
        blob = Blob(self.scope.backend, values.shape)
        blob.data.plain_overwrite()[...] = values
        return blob

    def _matrix(self, bottom: Blobs) -> SyncedArray:
        return bottom[2].data if self.stored is None else self.stored.data

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        check_same_batch(self, bottom)
        axis = self.axis(self.spec.infogain_loss_param.axis, len(shape), "infogain_loss_param", "axis")
        outer = int(np.prod(shape[:axis]))
        inner = int(np.prod(shape[axis + 1 :]))
        check_label_count(self, bottom, outer * inner)
        matrix = self._matrix(bottom)
        if matrix.size != shape[axis] ** 2:
            raise self.bad_shape(
                "the infogain matrix",
                f"{shape[axis]} x {shape[axis]} values, one per pair of classes",
                matrix.shape,
            )
        top[0].reshape(())
        self.prob.reshape(shape)
        if len(top) > 1:
            top[1].reshape(shape)
            top[1].share_data(self.prob)
        divisor = normalizer(self, self.mode, outer, inner)
        self.op = self.ops.InfogainLoss(axis, ignore_label(self), divisor)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        with locating_data_errors(self):
            self.op.forward(bottom[0].data, bottom[1].data, self._matrix(bottom), self.prob.data, top[0].data)

    def check_data(self) -> None:
        with locating_data_errors(self):
            self.op.check()

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        for i in range(1, len(bottom)):
            refuse_gradient(self, propagate_down, i)
        if propagate_down[0]:
            self.op.backward(
                self.prob.data, bottom[1].data, self._matrix(bottom), top[0].diff, bottom[0].diff
            )

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0
