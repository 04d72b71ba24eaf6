"""What may change how a net runs but never what it computes.

Every blob that a user can name keeps its values to rounding, whether a plan is applied or not. Left out are
diffs inside of a fused group (dtrain/fusion.py says which), and, where memory is shared, values behind the
last layer that needs them: reading those is an error.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeAlias, final

from dtrain.errors import DtrainError
from dtrain.fusion import fuse_relu, fuse_scale, fuse_sum
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net, Step
from dtrain.proto import dtrain_pb2 as pb
from dtrain.sharing import share_data, share_diffs

logger = logging.getLogger(__name__)

Agree: TypeAlias = Callable[[str], str]  # every rank's proposal -> the one that all ranks take

MEMORY_FORMATS = ("blocked", "channels_last")
SPATIAL_TYPES = ("Convolution", "Deconvolution", "Pooling", "LRN", "DepthwiseConvolution")
UNTRIED_TYPES = ("Python", "HDF5Output")  # what they do outside the net must not happen in a trial
LEAST_ROUNDS, MOST_ROUNDS = 2, 20
TRIAL_S = 0.3  # what trials may take beyond the least number of rounds


@final
class Plan:
    """Choose the memory format of a training net, fuse layers, share memory and let passes be replayed.

    memory_format: "auto" takes what the device is known to want, or times the candidates; or one of
    MEMORY_FORMATS. All ranks must take the same, since their flat buffers are summed: `agree` turns each
    rank's choice into the common one.
    """

    def __init__(self, *, memory_format: str = "auto", agree: Agree | None = None) -> None:
        self.memory_format = memory_format
        self._agree: Agree = agree or (lambda choice: choice)

    def __call__(self, net: Net) -> None:
        """Apply to a net whose parameters are not yet laid out."""
        backend = net.scope.backend
        if net.scope.is_training:
            backend.memory_format = self._choose_format(net, backend)
        relus, scales = fuse_relu(net), fuse_scale(net)
        sums = fuse_sum(net) if backend.fuses_sums else 0
        net.rebuild()
        shared = share_diffs(net) if net.scope.is_training else share_data(net)
        net.replayer = backend.replayer()
        if net.scope.is_training:
            logger.info("plan: %d ReLU and %d Scale layers fused into the layer before", relus + sums, scales)
            if shared:
                logger.info("plan: %d diffs between layers share memory", shared)

    def _choose_format(self, net: Net, backend: Backend) -> str:
        if self.memory_format != "auto":
            return self.memory_format
        precisions = {layer.precision for layer in net.layers}
        choice, note = backend.format_for(precisions), ""
        if not choice:
            choice = backend.memory_format
            if net.scope.rank == 0:
                choice, note = fastest_format(net)
        choice = self._agree(choice)
        if note:
            logger.info("plan: %s", note)
        return choice


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
