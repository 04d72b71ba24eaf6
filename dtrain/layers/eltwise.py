"""Eltwise: the sum, product or maximum of blobs, element by element. Source: Caffe's EltwiseLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs, Count, Layer
from dtrain.layers.sharing import refuse_in_place
from dtrain.proto import dtrain_pb2 as pb


@final
class Eltwise(Layer):
    """Two or more bottoms of one shape -> top[0]; SUM may run in place."""

    type_name = "Eltwise"
    num_bottoms = Count(2, None)
    param_name = "eltwise_param"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.eltwise_param
        self.is_sum = param.operation == pb.EltwiseParameter.SUM
        if not self.is_sum:
            refuse_in_place(self, bottom, top)
            if param.coeff:
                raise self.bad_param(
                    ("eltwise_param", "coeff"), "absent unless operation is SUM", param.coeff
                )
        elif len(param.coeff) not in (0, len(bottom)):
            raise self.bad_param(
                ("eltwise_param", "coeff"),
                f"given {len(bottom)} times, once for each bottom, or not at all",
                f"{len(param.coeff)} times",
            )
        self.coeffs = list(param.coeff) or [1.0] * len(bottom)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for i, blob in enumerate(bottom):
            if blob.shape != bottom[0].shape:
                raise self.bad_shape(f"bottom[{i}]", f"the shape of bottom[0] {bottom[0].shape}", blob.shape)
        top[0].reshape(bottom[0].shape)
        datas = [blob.data for blob in bottom]
        param = self.spec.eltwise_param
        if self.is_sum:
            self.op = self.ops.Sum(self.coeffs, datas, top[0].data)
            self.scaled = [
                self.ops.Sum([c], [top[0].diff], blob.diff)
                for c, blob in zip(self.coeffs, bottom, strict=True)
            ]
        elif param.operation == pb.EltwiseParameter.PROD:
            self.op = self.ops.Product(param.stable_prod_grad, datas, top[0].data)
        else:
            self.op = self.ops.Maximum(datas, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward([blob.data for blob in bottom], top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        diffs = [b.diff if wants else None for b, wants in zip(bottom, propagate_down, strict=True)]
        if not self.is_sum:
            self.op.backward(top[0].diff, [blob.data for blob in bottom], top[0].data, diffs)
            return
        for scaled, diff in reversed(list(zip(self.scaled, diffs, strict=True))):
            if diff is not None:  # in place bottom[0]'s diff is the top's, so it comes last
                scaled.forward([top[0].diff], diff)
