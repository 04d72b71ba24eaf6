"""What may change how a net runs but never what it computes.

Every blob that a user can name keeps its values to rounding, whether a plan is applied or not. One diff is
left out: of a blob between a BatchNorm that does not run in place and the Scale that is fused into it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

from dtrain.errors import DtrainError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cpu.onednn.batch_norm import BatchNorm as OneDnnBatchNorm
from dtrain.layers.batch_norm import STATISTICS, BatchNorm
from dtrain.layers.convolution import Convolution
from dtrain.layers.inner_product import InnerProduct
from dtrain.layers.layer import Scope
from dtrain.layers.relu import ReLU
from dtrain.layers.scale import Scale
from dtrain.net import Net, Step
from dtrain.proto import dtrain_pb2 as pb

logger = logging.getLogger(__name__)

Agree: TypeAlias = Callable[[str], str]  # every rank's proposal -> the one that all ranks take

MEMORY_FORMATS = ("blocked", "channels_last")
SPATIAL_TYPES = ("Convolution", "Deconvolution", "Pooling", "LRN", "DepthwiseConvolution")
UNTRIED_TYPES = ("Python", "HDF5Output")  # what they do outside the net must not happen in a trial
LEAST_ROUNDS, MOST_ROUNDS = 2, 20
TRIAL_S = 0.3  # what trials may take beyond the least number of rounds


@final
class Plan:
    """Choose the memory format of a training net by timing it, and fuse layers; call it with the net.

    memory_format: "auto" times the candidates, or one of MEMORY_FORMATS. All ranks must take the same,
    since their flat buffers are summed: `agree` turns each rank's choice into the common one.
    """

    def __init__(self, *, memory_format: str = "auto", agree: Agree | None = None) -> None:
        self.memory_format = memory_format
        self._agree: Agree = agree or (lambda choice: choice)

    def __call__(self, net: Net) -> None:
        """Apply to a net whose parameters are not yet laid out; one for testing only fuses."""
        backend = net.scope.backend
        if isinstance(backend, CpuBackend) and net.scope.is_training:
            backend.memory_format = self._choose_format(net, backend)
        relus, scales = fuse_relu(net), fuse_scale(net)
        if net.scope.is_training:
            logger.info("plan: %d ReLU and %d Scale layers fused into the layer before", relus, scales)
        net.rebuild()

    def _choose_format(self, net: Net, backend: CpuBackend) -> str:
        if self.memory_format != "auto":
            return self.memory_format
        choice, note = backend.memory_format, ""
        if backend.engine is not None and net.scope.rank == 0:
            choice, note = fastest_format(net)
        choice = self._agree(choice)
        if note:
            logger.info("plan: %s", note)
        return choice


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
        third = _rectifier_behind(net, second) if isinstance(first.layer.op, OneDnnBatchNorm) else None
        group = ScaledNorm(first, first.layer, second.layer, third or second, third is not None)
        for step in (first, second, third):
            if step is not None:
                step.fused_forward, step.fused_backward = _nothing, _nothing
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


def fastest_format(net: Net) -> tuple[str, str]:
    """(memory format, note) of the faster trial: forward and backward of the net's spatial part."""
    param = trial_of(net)
    if param is None:
        return "blocked", ""
    trials = {}
    for name in MEMORY_FORMATS:
        try:
            trials[name] = Trial(param, net.scope, name)
        except DtrainError as error:
            logger.debug("no trial in format %s: %s", name, error)
    if not trials:
        return "blocked", ""
    times: dict[str, list[float]] = {name: [] for name in trials}
    begin = time.perf_counter()
    for number in range(MOST_ROUNDS):
        for name, trial in trials.items():
            times[name].append(trial.seconds())
        if number + 1 >= LEAST_ROUNDS and time.perf_counter() - begin > TRIAL_S:
            break
    # The least, since what else the machine does only ever adds.
    best = min(times, key=lambda name: min(times[name]))
    told = ", ".join(f"{name} {min(seconds) * 1e3:.1f} ms" for name, seconds in times.items())
    return best, f"memory format {best} ({told})"


def trial_of(net: Net) -> pb.NetParameter | None:
    """The net up to its last spatial layer, fed by Input layers, every open end a loss.

    None where there is no spatial layer, or a layer acts outside of the net.
    """
    last = max((i for i, s in enumerate(net.steps) if s.layer.spec.type in SPATIAL_TYPES), default=-1)
    steps = net.steps[: last + 1]
    if not steps or any(s.layer.spec.type in UNTRIED_TYPES for s in steps):
        return None
    param = pb.NetParameter(name="trial")
    read = {name for s in steps for name in s.bottom_names}
    for step in steps:
        spec = param.layer.add()
        if step.bottom:
            spec.CopyFrom(step.layer.spec)
            _fill_cheaply(spec)
        else:
            _make_input(spec, step)
        if step.bottom and not any(name in read for name in step.top_names) and not any(spec.loss_weight):
            del spec.loss_weight[:]
            spec.loss_weight.extend([1.0] * len(spec.top))
    return param


def _make_input(spec: pb.LayerParameter, step: Step) -> None:
    spec.name = step.layer.name
    spec.type = "Input"
    spec.top.extend(step.top_names)
    for blob in step.top:
        spec.input_param.shape.add().dim.extend(blob.shape)


def _fill_cheaply(spec: pb.LayerParameter) -> None:
    """Replace random weights by a constant: a trial looks at time alone."""
    for part in (spec.convolution_param, spec.inner_product_param):
        if part.HasField("weight_filler"):
            part.weight_filler.CopyFrom(pb.FillerParameter(type="constant", value=0.01))


@final
class Trial:
    """A throw-away net in one memory format, run once to warm up."""

    def __init__(self, param: pb.NetParameter, scope: Scope, memory_format: str) -> None:
        assert isinstance(scope.backend, CpuBackend)
        backend = CpuBackend(num_threads=scope.backend.num_threads, memory_format=memory_format)
        self._net = Net(param, Scope(backend, scope.phase))
        for step in self._net.steps:
            if not step.bottom:
                for blob in step.top:
                    blob.data.plain_overwrite().fill(1.0 if len(blob.shape) > 2 else 0.0)
        fuse_relu(self._net)
        fuse_scale(self._net)
        self._net.rebuild()
        self.seconds()

    def seconds(self) -> float:
        """Of one forward and backward pass."""
        begin = time.perf_counter()
        self._net.clear_param_diffs()
        self._net.forward()
        self._net.backward()
        return time.perf_counter() - begin
