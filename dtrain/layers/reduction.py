"""Reduction: one number for the axes from `axis` on. Source: Caffe's ReductionLayer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs, Layer
from dtrain.layers.sharing import refuse_in_place
from dtrain.proto import dtrain_pb2 as pb


@final
class Reduction(Layer):
    """bottom[0] -> top[0] without the axes from `axis` on: SUM, ASUM, SUMSQ or MEAN, times coeff."""

    type_name = "Reduction"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        refuse_in_place(self, bottom, top)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        param = self.spec.reduction_param
        axis = self.axis(param.axis, len(shape), "reduction_param", "axis")
        top[0].reshape(shape[:axis])
        coeff: float = param.coeff
        match param.operation:
            case pb.ReductionParameter.ASUM:
                build = self.ops.ReduceAsum
            case pb.ReductionParameter.SUMSQ:
                build = self.ops.ReduceSumsq
            case pb.ReductionParameter.MEAN:
                build = self.ops.ReduceSum
                coeff /= math.prod(shape[axis:])
            case _:
                build = self.ops.ReduceSum
        self.op = build(coeff, bottom[0].data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self.op.backward(top[0].diff, bottom[0].data, bottom[0].diff)
