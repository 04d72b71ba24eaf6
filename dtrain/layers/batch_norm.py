"""BatchNorm: normalise each channel by its mean and variance.

Source: Caffe's BatchNormLayer; the learned scale and bias within the layer are NVCaffe's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.layers.layer import Blobs, Layer
from dtrain.proto import dtrain_pb2 as pb

STATISTICS = 3  # the first blobs: mean, variance, factor


@final
class BatchNorm(Layer):
    """bottom[0] (N, C, ...) -> top[0] of the same shape; may run in place.

    Blobs: sums of means and of variances (C,), and the sum of their weights (1,), which no solver
    touches; then, if asked for by scale_bias, a filler of either, or use_weight_bias, scale and bias (C,).
    """

    type_name = "BatchNorm"
    param_name = "batch_norm_param"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.batch_norm_param
        if not bottom[0].shape:
            raise self.bad_shape("bottom[0]", "at least 1 axis", bottom[0].shape)
        self._refuse_dialects(param)
        self.channels = self._channels(bottom)
        self.use_global_stats = (
            param.use_global_stats if param.HasField("use_global_stats") else not self.is_training
        )
        zero, one = pb.FillerParameter(value=0), pb.FillerParameter(value=1)
        for shape in ((self.channels,), (self.channels,), (1,)):
            self.add_blob(shape, zero)
        asked_by_nvidia = param.scale_bias or param.HasField("scale_filler") or param.HasField("bias_filler")
        asked_by_intel = param.HasField("use_weight_bias") and param.use_weight_bias
        if asked_by_nvidia or asked_by_intel:
            filler = param.scale_filler if param.HasField("scale_filler") else param.filler
            given = param.HasField("scale_filler") or param.HasField("filler")
            self.add_blob((self.channels,), filler if given else one)
            if param.bias_term:
                bias = param.bias_filler if param.HasField("bias_filler") else zero
                self.add_blob((self.channels,), bias)
        self._fix_statistics()

    def _refuse_dialects(self, param: pb.BatchNormParameter) -> None:
        if param.relu:
            raise self.bad_param(("batch_norm_param", "relu"), "false; put a ReLU layer behind", "true")
        if param.stats_batch_size:
            raise self.bad_param(
                ("batch_norm_param", "stats_batch_size"), "0 (the whole batch)", param.stats_batch_size
            )

    def _channels(self, bottom: Blobs) -> int:
        return bottom[0].shape[1] if len(bottom[0].shape) > 1 else 1

    def _fix_statistics(self) -> None:
        """lr_mult 0 for the three statistics: they are not weights, whatever the gradient."""
        for i in range(STATISTICS):
            if i == len(self.spec.param):
                self.spec.param.add(lr_mult=0, decay_mult=0)
            elif self.spec.param[i].lr_mult != 0:
                raise self.bad_param(
                    ("param", i, "lr_mult"), "0 for mean, variance and factor", self.spec.param[i].lr_mult
                )

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if self._channels(bottom) != self.channels:
            raise self.bad_shape(
                "bottom[0]", f"{self.channels} channels on axis 1, as at set-up", bottom[0].shape
            )
        top[0].reshape(bottom[0].shape)
        param = self.spec.batch_norm_param
        self.op = self.ops.BatchNorm(
            param.eps, param.moving_average_fraction, self.use_global_stats, bottom[0].data, top[0].data
        )

    def statistics(self) -> Blobs:
        return [] if self.use_global_stats else self.blobs[:STATISTICS]

    def _data(self, index: int) -> SyncedArray | None:
        return self.blobs[index].data if index < len(self.blobs) else None

    def _diff(self, index: int) -> SyncedArray | None:
        wanted = index < len(self.blobs) and self.param_propagate_down[index]
        return self.blobs[index].diff if wanted else None

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        mean, variance, factor = (blob.data for blob in self.blobs[:STATISTICS])
        self.op.forward(bottom[0].data, mean, variance, factor, self._data(3), self._data(4), top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        self.op.backward(
            top[0].diff,
            bottom[0].data,
            self._data(3),
            bottom[0].diff if propagate_down[0] else None,
            self._diff(3),
            self._diff(4),
        )
