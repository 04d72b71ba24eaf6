"""A net: layers in order, the blobs between them, forward and backward.

Source of the rules for shared parameters, loss weights and who needs backward: Caffe's Net::Init.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias, final

from dtrain import graph
from dtrain.blob import Blob, Blobs
from dtrain.errors import BackendError, ConfigError, DtrainError, unknown_name
from dtrain.kernels.array import Shape
from dtrain.kernels.backend import Replayer
from dtrain.layers import layer_class, precision
from dtrain.layers.layer import Layer, Scope
from dtrain.loss_weights import LossWeights
from dtrain.params import Allocate, Params
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.sources import SourceMap

logger = logging.getLogger(__name__)

Hook: TypeAlias = Callable[[int], None]
Run: TypeAlias = Callable[[], None]


@final
@dataclass
class Step:
    """One layer in its place: what it reads and writes, and what backward asks of it."""

    layer: Layer
    bottom: Blobs
    top: Blobs
    bottom_names: list[str]
    top_names: list[str]
    bottom_need_backward: list[bool]
    needs_backward: bool = False
    seen_shapes: list[Shape] = field(default_factory=list)  # of the bottoms at the last reshape
    # What a plan runs instead of the layer in whole passes, where it has fused the layer with others.
    fused_forward: Run | None = None
    fused_backward: Run | None = None
    fused_with: list[Step] = field(default_factory=list)  # all of them, this one too

    @property
    def feeds(self) -> bool:
        """Whether the layer brings values into the net from outside: it reads no blob and learns none."""
        return not self.bottom and not self.layer.blobs


def _refuse_empty(step: Step) -> None:
    """A layer computes from something: a Filter that lets nothing pass, or a script, may leave nothing."""
    for i, blob in enumerate(step.bottom):
        if not blob.count:
            raise step.layer.bad_shape(f"bottom[{i}]", "at least 1 value", blob.shape)


@contextmanager
def _placed(told: str) -> Iterator[None]:
    """Put the layer before what a file, a device or the memory says; a ConfigError has its place already."""
    try:
        yield
    except ConfigError:
        raise
    except MemoryError as error:
        raise BackendError(f"{told}: a layer must fit in memory, got {error}") from error
    except DtrainError as error:
        raise error if told in str(error) else type(error)(f"{told}: {error}") from error.__cause__


@final
class Net:
    """A NetParameter built for one phase.

    scope: device, phase, rank and random numbers; level, stages: for include and exclude rules;
    weights_from: a net whose parameters this one uses, layer by layer of equal name (test nets);
    allocate_diff: where the flat buffer of parameter diffs comes from, in elements (a communicator's
    shared memory); plan: called with the net before its parameters are laid out; source: where the text
    came from, for errors. Raises ConfigError.
    """

    def __init__(
        self,
        param: pb.NetParameter,
        scope: Scope,
        *,
        level: int = 0,
        stages: Sequence[str] = (),
        weights_from: Net | None = None,
        allocate_diff: Allocate | None = None,
        plan: Callable[[Net], None] | None = None,
        source: SourceMap | None = None,
    ) -> None:
        self.name: str = param.name
        self.scope = scope
        self.force_backward: bool = param.force_backward
        self.global_grad_scale = param.global_grad_scale if param.HasField("global_grad_scale") else None
        self.global_grad_scale_adaptive: bool = param.global_grad_scale_adaptive
        self.blobs: dict[str, Blob] = {}
        self.steps: list[Step] = []
        self.params = Params()
        self.before_forward: list[Hook] = []
        self.after_forward: list[Hook] = []
        self.before_backward: list[Hook] = []
        self.after_backward: list[Hook] = []
        self.on_gradients: Hook | None = None  # behind them, when a layer's gradients are final in this pass
        self.replayer: Replayer | None = None  # set by a plan: who may run whole passes
        self.losses = LossWeights(scope.backend)
        self.version = 0  # grows with every reshape of a layer
        self._source = source
        self._unread: dict[str, None] = {}  # tops that nobody has consumed, in order
        self._blob_needs_backward: dict[int, bool] = {}  # by id of the blob
        state = pb.NetState()
        state.CopyFrom(param.state)
        state.phase = scope.phase  # type: ignore[assignment]
        if level:
            state.level = level
        state.stage.extend(s for s in stages if s not in state.stage)
        self._choose_precision(param)
        layers, origins = graph.of_state(param, state)
        layers, origins = graph.with_splits(layers, origins, [self._where(i) for i in origins])
        for layer, origin in zip(layers, origins, strict=True):
            self._append(layer, origin, weights_from)
        self._spare_backward()
        if self.force_backward:
            self._force_backward()
        self._layers_by_name = {step.layer.name: step.layer for step in self.steps}
        self.outputs: list[str] = list(self._unread)
        if plan is not None:
            plan(self)
        self._lay_out_params(weights_from, allocate_diff)

    def _choose_precision(self, param: pb.NetParameter) -> None:
        """The net's own precision, unless whoever builds it has named one; told where it cannot be had."""
        scope = self.scope
        place = self._source.where(()) if self._source is not None else "net"
        scope.precision = scope.precision or scope.backend.asked_precision or precision.of_net(param, place)
        asked = {scope.precision, *(precision.of_layer(layer, place) for layer in param.layer)} - {""}
        if missing := sorted(asked - set(scope.backend.precisions)):
            logger.warning(
                "%s: %s asks for %s, this device computes in %s",
                place,
                self.name or "the net",
                " and ".join(missing),
                " or ".join(scope.backend.precisions),
            )

    def _where(self, origin: int, *path: str | int) -> str:
        if self._source is None:
            return self.name or "net"
        return self._source.where(("layer", origin, *path))

    # -- building

    def _append(self, spec: pb.LayerParameter, origin: int, weights_from: Net | None) -> None:
        def where(*path: str | int) -> str:
            return self._where(origin, *path)

        told = f'layer "{spec.name}" ({spec.type})'
        if not spec.HasField("phase"):
            spec.phase = self.scope.phase  # type: ignore[assignment]
        try:
            cls = layer_class(spec.type)
        except ConfigError as error:
            raise ConfigError(f'{where("type")}: layer "{spec.name}": {error}') from None
        if spec.propagate_down and len(spec.propagate_down) != len(spec.bottom):
            raise ConfigError(
                f"{where('propagate_down')}: {told}: propagate_down must be given for none or all of the "
                f"{len(spec.bottom)} bottoms, got {len(spec.propagate_down)}"
            )
        with _placed(f"{where()}: {told}"):
            layer = cls(spec, self.scope, where)
        self._check_counts(layer, told)
        index = len(self.steps)
        step = Step(layer, [], [], list(spec.bottom), list(spec.top), [])
        for i, name in enumerate(spec.bottom):
            blob = self.blobs[name]
            step.bottom.append(blob)
            needs = self._blob_needs_backward[id(blob)]
            step.needs_backward |= needs
            step.bottom_need_backward.append(spec.propagate_down[i] if spec.propagate_down else needs)
            self._unread.pop(name, None)
        for i, name in enumerate(spec.top):
            step.top.append(self._top(layer, i, name, told))
        if cls.makes_missing_tops:
            for i in range(len(spec.top), cls.num_tops.least):
                step.top.append(self._top(layer, i, f"({spec.name})_{i}" if i else f"({spec.name})", told))
                step.top_names.append("(automatic)")
        layer.loss_weights = self._loss_weights(layer, len(step.top))
        _refuse_empty(step)
        with _placed(f"{where()}: {told}"):
            layer.setup(step.bottom, step.top)
        self._take_params(layer, index, step, weights_from)
        self.steps.append(step)
        with _placed(f"{where()}: {told}"):
            self._reshape(step)
        for blob in step.top:
            self._blob_needs_backward[id(blob)] = step.needs_backward

    def _check_counts(self, layer: Layer, told: str) -> None:
        spec = layer.spec
        for what, names, allowed in (
            ("bottoms", spec.bottom, layer.num_bottoms),
            ("tops", spec.top, layer.num_tops),
        ):
            too_few = len(names) < allowed.least
            if len(names) not in allowed and not (what == "tops" and too_few and layer.makes_missing_tops):
                raise ConfigError(
                    f"{layer.where()}: {told}: the number of {what} must be {allowed}, got {len(names)} "
                    f"({', '.join(names) or 'none'})"
                )
        if layer.tops_match_bottoms and len(spec.bottom) != len(spec.top):
            raise ConfigError(
                f"{layer.where()}: {told}: the number of tops must be that of the bottoms "
                f"({len(spec.bottom)}), got {len(spec.top)}"
            )

    def _top(self, layer: Layer, index: int, name: str, told: str) -> Blob:
        """The blob of a layer's top: its bottom of the same name and place, or a new one."""
        bottoms = layer.spec.bottom
        if index < len(bottoms) and bottoms[index] == name:
            blob = self.blobs[name]
        elif name in self.blobs:
            raise ConfigError(
                f"{layer.where('top')}: {told}: top[{index}] must be a new blob or the bottom of the same "
                f'place, got "{name}", which an earlier layer makes'
            )
        else:
            blob = self.blobs[name] = Blob(self.scope.backend)
        self._unread[name] = None
        return blob

    def _loss_weights(self, layer: Layer, num_tops: int) -> list[float]:
        given = list(layer.spec.loss_weight)
        if given and len(given) != len(layer.spec.top):
            raise layer.bad_param(
                "loss_weight", f"given for none or all of the {len(layer.spec.top)} tops", f"{len(given)}"
            )
        if not given and layer.loss_by_default:
            given = [1.0]
        return given + [0.0] * (num_tops - len(given))

    def _take_params(self, layer: Layer, index: int, step: Step, weights_from: Net | None) -> None:
        if len(layer.spec.param) > len(layer.blobs):
            raise layer.bad_param(
                "param", f"given at most {len(layer.blobs)} times", f"{len(layer.spec.param)}"
            )
        if weights_from is not None and layer.blobs:
            self._take_weights(layer, weights_from)
        for j in range(len(layer.blobs)):
            owner = self.params.add(layer, index, j)
            wanted = owner.lr_mult != 0
            layer.param_propagate_down[j] = wanted
            step.needs_backward |= wanted

    def _take_weights(self, layer: Layer, source: Net) -> None:
        theirs = source._layers_by_name.get(layer.name)
        if theirs is None or not theirs.blobs:
            return
        if [b.shape for b in theirs.blobs] != [b.shape for b in layer.blobs]:
            raise layer.error(
                f"parameters shared with the training net must have shapes "
                f"{[b.shape for b in theirs.blobs]}, got {[b.shape for b in layer.blobs]}"
            )
        for mine, other in zip(layer.blobs, theirs.blobs, strict=True):
            mine.share_data(other)

    def _spare_backward(self) -> None:
        """Skip backward where no loss lies ahead, or everything ahead refuses the gradient."""
        under_loss: set[int] = set()
        refused: set[int] = set()
        for step in reversed(self.steps):
            contributes = any(step.layer.loss_weights) or any(id(b) in under_loss for b in step.top)
            all_refused = all(id(b) in refused for b in step.top)
            if step.needs_backward and all_refused:
                step.needs_backward = False
                step.bottom_need_backward = [False] * len(step.bottom)
            if not contributes:
                step.needs_backward = False
            for i, blob in enumerate(step.bottom):
                if contributes:
                    under_loss.add(id(blob))
                else:
                    step.bottom_need_backward[i] = False
                if not step.bottom_need_backward[i]:
                    refused.add(id(blob))

    def _force_backward(self) -> None:
        for step in self.steps:
            step.needs_backward = True
            for i in range(len(step.bottom)):
                step.bottom_need_backward[i] |= step.layer.allows_force_backward(i)
            step.layer.param_propagate_down = [True] * len(step.layer.blobs)

    def _lay_out_params(self, weights_from: Net | None, allocate_diff: Allocate | None) -> None:
        if weights_from is None:
            allocate = self.scope.backend.flat
            self.params.lay_out(allocate, allocate_diff or allocate)
        if self.params.has_shared:  # the last layer to be built has chosen the layout, maybe another one
            self.rebuild()

    # -- running

    def _reshape(self, step: Step) -> None:
        _refuse_empty(step)
        shapes = {id(blob): blob.shape for blob in step.bottom}
        step.layer.reshape(step.bottom, step.top)
        for i, blob in enumerate(step.top):
            if shapes.get(id(blob), blob.shape) != blob.shape:
                raise step.layer.bad_shape(
                    f"top[{i}], which is a bottom too,",
                    f"shape {shapes[id(blob)]} to run in place",
                    blob.shape,
                )
        self.version += 1
        step.seen_shapes = [blob.shape for blob in step.bottom]
        self.losses.fill(step.top, step.layer.loss_weights)

    def reshape(self) -> None:
        """Bring every layer up to the shapes of its bottoms."""
        for step in self.steps:
            self._reshape_if_needed(step)

    def rebuild(self) -> None:
        """Build every layer's operators anew, after a plan has changed how they shall run."""
        for step in self.steps:
            self._reshape(step)

    def _reshape_if_needed(self, step: Step) -> None:
        for blob, seen in zip(step.bottom, step.seen_shapes, strict=True):
            if blob.shape is not seen and blob.shape != seen:
                self._reshape(step)
                return

    def forward(self, start: int = 0, end: int | None = None) -> float:
        """Run layers start..end (inclusive; default all) and return the weighted loss."""
        last = len(self.steps) - 1 if end is None else end
        self.scope.is_partial = start > 0 or last < len(self.steps) - 1
        loss = 0.0
        for i in range(start, last + 1):
            step = self.steps[i]
            for hook in self.before_forward:
                hook(i)
            self._run_forward(step)
            loss += self.losses.sum(step.top, step.layer.loss_weights)
            for hook in self.after_forward:
                hook(i)
        self.scope.passes += 1
        return loss

    def _run_forward(self, step: Step) -> None:
        self._reshape_if_needed(step)
        if step.fused_forward is None or self.scope.is_partial:
            step.layer.forward(step.bottom, step.top)
        else:
            step.fused_forward()

    # A pass in the parts of which all but the first can be replayed; `forward` does it at once.

    def feed(self) -> None:
        """Let the layers that have no bottom fill their tops, and bring the other layers to their shapes."""
        self.scope.is_partial = False
        for step in self.steps:
            if step.feeds:
                self._run_forward(step)
        self.reshape()

    def compute(self) -> None:
        """The rest of a forward pass behind `feed`; who calls it counts it in `scope.passes`."""
        for step in self.steps:
            if not step.feeds:
                if self.replayer is not None:
                    self.replayer.place(f'layer "{step.layer.name}" ({step.layer.spec.type})')
                self._run_forward(step)

    def refresh(self) -> None:
        """What `compute` does on the host, for whoever replays the rest of it."""
        for step in self.steps:
            step.layer.refresh()

    def check_data(self) -> None:
        """Raise the DataError of the first layer that has met wrong data in a replayed pass."""
        for step in self.steps:
            step.layer.check_data()

    @property
    def is_watched(self) -> bool:
        """Whether somebody wants to hear of every layer that runs."""
        return any((self.before_forward, self.after_forward, self.before_backward, self.after_backward))

    def backward(self, start: int | None = None, end: int = 0) -> None:
        """Run layers start..end (inclusive, backwards; default all); parameter diffs are added to."""
        first = len(self.steps) - 1 if start is None else start
        self.losses.begin_backward()
        for i in range(first, end - 1, -1):
            step = self.steps[i]
            for hook in self.before_backward:
                hook(i)
            if step.needs_backward:
                if self.replayer is not None:
                    self.replayer.place(f'backward of layer "{step.layer.name}" ({step.layer.spec.type})')
                if step.fused_backward is None or self.scope.is_partial:
                    step.layer.backward(step.top, step.bottom_need_backward, step.bottom)
                else:
                    step.fused_backward()
            for hook in self.after_backward:
                hook(i)
            if self.on_gradients is not None:
                self.on_gradients(i)

    def clear_param_diffs(self) -> None:
        """Make all parameter diffs zero before a new sum."""
        self.params.clear_diffs()

    # -- looking things up

    @property
    def layers(self) -> list[Layer]:
        """All layers in order, inserted Splits included."""
        return [step.layer for step in self.steps]

    def layer(self, name: str) -> Layer:
        """The layer of that name."""
        if name not in self._layers_by_name:
            raise ConfigError(unknown_name("layer", name, self._layers_by_name))
        return self._layers_by_name[name]

    def blob(self, name: str) -> Blob:
        """The blob of that name."""
        if name not in self.blobs:
            raise ConfigError(unknown_name("blob", name, self.blobs))
        return self.blobs[name]
