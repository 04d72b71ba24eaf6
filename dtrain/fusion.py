"""Layers that run as one: the layer before computes what an in-place layer behind it would.

Two diffs are then undefined: of a blob between a BatchNorm which does not run in place and its Scale, and of
a rectified sum that several layers read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from dtrain.kernels.cpu.onednn.batch_norm import BatchNorm as OneDnnBatchNorm
from dtrain.kernels.cuda.batch_norm import BatchNorm as CudaBatchNorm
from dtrain.layers.batch_norm import STATISTICS, BatchNorm
from dtrain.layers.convolution import Convolution
from dtrain.layers.eltwise import Eltwise
from dtrain.layers.inner_product import InnerProduct
from dtrain.layers.relu import ReLU
from dtrain.layers.scale import Scale
from dtrain.layers.split import Split
from dtrain.net import Net, Step

RECTIFYING = (OneDnnBatchNorm, CudaBatchNorm)  # operators that take the ReLU behind them along


def fuse_relu(net: Net) -> int:
    """Let convolutions and inner products compute the in-place ReLU behind them; the number of pairs."""
    count = 0
    for i, step in enumerate(net.steps):
        layer = step.layer
        if not isinstance(layer, (Convolution, InnerProduct)) or len(step.top) != 1:
            continue
        consumer = _next_reader(net, i)
        if consumer is None or not isinstance(consumer.layer, ReLU):
            continue
        if consumer.top[0] is step.top[0] and consumer.layer.slope == 0:
            layer.fuses_relu = True
            consumer.layer.is_fused = True
            count += 1
    return count


def fuse_scale(net: Net) -> int:
    """Let a BatchNorm compute the in-place Scale behind it, and the ReLU behind that; the number of groups.

    Forward happens in the place of the first, backward in that of the last: every gradient of a parameter
    is then complete when backward has passed its layer.
    """
    count = 0
    for i, first in enumerate(net.steps):
        if not isinstance(first.layer, BatchNorm) or len(first.layer.blobs) != STATISTICS:
            continue
        second = _next_reader(net, i)
        if second is None or not isinstance(second.layer, Scale) or second.top[0] is not first.top[0]:
            continue
        if second.layer.spec.scale_param.axis != 1 or len(second.bottom) != 1:
            continue
        if second.layer.blobs[0].shape != first.layer.blobs[0].shape:
            continue
        third = _rectifier_behind(net, second) if isinstance(first.layer.op, RECTIFYING) else None
        group = ScaledNorm(first, first.layer, second.layer, third or second, third is not None)
        members = [step for step in (first, second, third) if step is not None]
        for step in members:
            step.fused_forward, step.fused_backward = _nothing, _nothing
            step.fused_with = members
        first.fused_forward = group.forward
        group.last.fused_backward = group.backward
        count += 1
    return count


def _rectifier_behind(net: Net, step: Step) -> Step | None:
    """The in-place ReLU that reads the step's top next, if there is one."""
    reader = _next_reader(net, net.steps.index(step))
    if reader is None or not isinstance(reader.layer, ReLU):
        return None
    return reader if reader.top[0] is step.top[0] and reader.layer.slope == 0 else None


def fuse_sum(net: Net) -> int:
    """Let an Eltwise SUM compute the in-place ReLU behind it and the Split behind that; the number of groups.

    Backward happens in the place of the sum: it reads the diffs of all consumers and the top once.
    """
    count = 0
    for i, first in enumerate(net.steps):
        if not isinstance(first.layer, Eltwise) or not first.layer.is_sum:
            continue
        second = _rectifier_behind(net, first)
        if second is None or first.needs_backward != second.needs_backward:
            continue
        third = next((s for s in net.steps[i + 1 :] if s is not second and first.top[0] in s.bottom), None)
        is_split = third is not None and isinstance(third.layer, Split)
        members = [first, second, *([third] if is_split and third is not None else [])]
        group = RectifiedSum(net, first, first.layer, members[2] if is_split else None)
        for step in members[1:]:
            step.fused_backward = _nothing
        for step in members:
            step.fused_with = members
        first.fused_forward, second.fused_forward = group.forward, _nothing
        first.fused_backward = group.backward
        count += 1
    return count


def _nothing() -> None:
    """The other layer of a fused pair has done it."""


def _next_reader(net: Net, index: int) -> Step | None:
    """The first step behind `index` that reads its top."""
    top = net.steps[index].top[0]
    return next((s for s in net.steps[index + 1 :] if any(b is top for b in s.bottom)), None)


@final
@dataclass(frozen=True)
class ScaledNorm:
    """A BatchNorm, the in-place Scale behind it and maybe a ReLU, as the BatchNorm's operator."""

    first: Step
    norm: BatchNorm
    scale: Scale
    last: Step
    with_relu: bool

    def forward(self) -> None:
        op = self.norm.op
        mean, variance, factor = (blob.data for blob in self.norm.blobs)
        blobs = self.scale.blobs
        bias = blobs[1].data if len(blobs) > 1 else None
        x, y = self.first.bottom[0].data, self.first.top[0].data
        if self.with_relu:
            op.relu = True
        op.forward(x, mean, variance, factor, blobs[0].data, bias, y)
        if self.with_relu:
            op.relu = False  # a partial pass runs the three layers one by one, and the ReLU last

    def backward(self) -> None:
        blobs, wants = self.scale.blobs, self.scale.param_propagate_down
        self.norm.op.backward(
            self.last.top[0].diff,
            self.first.bottom[0].data,
            blobs[0].data,
            self.first.bottom[0].diff if self.first.bottom_need_backward[0] else None,
            blobs[0].diff if wants[0] else None,
            blobs[1].diff if len(blobs) > 1 and wants[1] else None,
        )


@final
class RectifiedSum:
    """An Eltwise SUM, the in-place ReLU behind it and maybe a Split, as one operator."""

    def __init__(self, net: Net, first: Step, layer: Eltwise, split: Step | None) -> None:
        self._net = net
        self._first = first
        self._layer = layer
        self._split = split
        self._op: Any = None
        self._version = -1  # of the net for which the operator was built

    def forward(self) -> None:
        datas, top = [blob.data for blob in self._first.bottom], self._first.top[0].data
        if self._version != self._net.version:
            self._op = self._layer.ops.SumReLU(self._layer.coeffs, datas, top)
            self._version = self._net.version
        self._op.forward(datas, top)

    def backward(self) -> None:
        first = self._first
        given = first.top if self._split is None else self._split.top
        wanted = zip(first.bottom, first.bottom_need_backward, strict=True)
        diffs = [blob.diff if wants else None for blob, wants in wanted]
        self._op.backward([blob.diff for blob in given], first.top[0].data, diffs)
