"""Convolution and deconvolution by cuDNN: one is the other with bottom and top in each other's place."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias, final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Unsupported
from dtrain.kernels.cuda.array import Access, maybe, own, read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.channels import ChannelSums, images_channels_inner
from dtrain.kernels.cuda.cudnn.convolution_graphs import BIAS, WEIGHTS, ConvolutionGraphs
from dtrain.kernels.cuda.cudnn.graph import Graph
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.form import Form, ValueType

Forward: TypeAlias = Callable[[ValueType | None, bool], Graph]  # (a bias' type or None, whether with ReLU)


@final
@dataclass(frozen=True)
class Fused:
    """A graph that has bias, read in that type, and ReLU, as far as there are such."""

    bias: ValueType | None


def run(graph: Graph, sides: dict[int, Access | Buffer]) -> None:
    """Run a graph on arrays: bring what it reads up to date, mark what it writes."""
    graph.run({uid: side.buffer() if isinstance(side, Access) else side for uid, side in sides.items()})
    for side in sides.values():
        if isinstance(side, Access) and side.writes:
            side.written()


def is_planned(make: Callable[[], Graph]) -> bool:
    """Whether cuDNN has an engine for that graph."""
    try:
        make()
    except Unsupported:
        return False
    return True


@final
class Roles(NamedTuple):
    """What an operator's arrays are in the graphs of the convolution between an image and its result."""

    bottom: int
    """IMAGE or RESULT."""
    top: int
    """The other one."""
    ahead: Forward
    """From the bottom to the top."""
    back: Forward
    """From the top's diff to the bottom's."""


@final
class Passes:
    """Forward and backward of an operator, all in one form but parameters and their gradients.

    A bias and a ReLU belong to the channels of its top. direct: makes the operator of the direct kernels.
    """

    def __init__(
        self,
        backend: CudaBackend,
        graphs: ConvolutionGraphs,
        roles: Roles,
        top: SyncedArray,
        direct: Callable[[], Any],
        *,
        has_bias: bool,
        relu: bool = False,
    ) -> None:
        self._backend = backend
        self._graphs = graphs
        self._roles = roles
        self._direct = direct
        self._relu = relu
        self._kernels = backend.kernels("cudnn.cu", graphs.form.type)
        sizes = images_channels_inner(top.shape, graphs.form)
        self._sums = ChannelSums(backend, *sizes, graphs.form)
        self._channels, self._inner = sizes[1:]
        self._ways = self._plan_forward(has_bias)
        own(top).offer(graphs.form)

    def _plan_forward(self, has_bias: bool) -> list[Fused | None]:
        """The ways to compute the top, the first to be taken unless they are timed; None fuses nothing.

        Unsupported where there is none. A fused bias is read in the type that most engines know, if possible.
        """
        forward, relu = self._roles.ahead, self._relu
        types = dict.fromkeys((self._graphs.form.type, ValueType.FLOAT32)) if has_bias else (None,)
        found: list[Fused | None] = []
        if has_bias or relu:
            planned = (Fused(values) for values in types if is_planned(partial(forward, values, relu)))
            found += itertools.islice(planned, 1)  # planning the others would take long and serve nobody
        if not found:
            forward(None, False)
        if not found or (self._backend.cudnn.autotune and is_planned(partial(forward, None, False))):
            found.append(None)
        return found

    def forward(
        self, bottom: SyncedArray, weights: SyncedArray, bias: SyncedArray | None, top: SyncedArray
    ) -> None:
        """Compute the top, in the fastest of the ways."""
        form, roles, relu = self._graphs.form, self._roles, self._relu
        sides: dict[int, Access | Buffer] = {
            roles.bottom: read(bottom, form=form),
            WEIGHTS: read(weights, form=form),
            roles.top: write(top, form=form),
        }

        def compute(way: Fused | None) -> None:
            if way is not None:
                given = {} if bias is None or way.bias is None else {BIAS: read(bias, form=Form(way.bias))}
                run(roles.ahead(way.bias, relu), {**sides, **given})
                return
            run(roles.ahead(None, False), sides)
            if bias is not None or relu:
                args = update(top, form=form), maybe(read, bias)
                self._kernels.each("finish_image", top.size, *args, self._channels, self._inner, int(relu))

        choices = [partial(compute, way) for way in self._ways]
        choices[self._backend.cudnn.fastest(("top", bias is None, relu, self._graphs.key), choices)]()

    def backward(
        self,
        top_diff: SyncedArray,
        bottom: SyncedArray,
        weights: SyncedArray,
        bottom_diff: SyncedArray | None,
        weights_diff: SyncedArray | None,
        bias_diff: SyncedArray | None,
    ) -> None:
        """Overwrites `bottom_diff`, adds to the others; None is not computed."""
        form, roles = self._graphs.form, self._roles
        if bias_diff is not None:  # top_diff summed over all but the channels
            self._sums.run("channel_sum", update(bias_diff), 1.0, read(top_diff, form=form))
        if weights_diff is not None and self._weights_gradient(bottom, top_diff, weights_diff):
            weights_diff = None
        if bottom_diff is not None and is_planned(partial(roles.back, None, False)):
            own(bottom_diff).offer(form)
            sides = {
                roles.top: read(top_diff, form=form),
                WEIGHTS: read(weights, form=form),
                roles.bottom: write(bottom_diff, form=form),
            }
            run(roles.back(None, False), sides)
            bottom_diff = None
        if weights_diff is not None or bottom_diff is not None:
            self._direct().backward(top_diff, bottom, weights, bottom_diff, weights_diff, None)

    def _weights_gradient(
        self, bottom: SyncedArray, top_diff: SyncedArray, weights_diff: SyncedArray
    ) -> bool:
        """weights_diff += the gradient; False where cuDNN has no engine.

        It is asked for in the form's type: one engine alone gives float32 for 16 bits, it is compiled when it
        is planned, a third of a second each, and is taken where there is no other.
        """
        gradient = self._graphs.weights_gradient
        types = dict.fromkeys((self._graphs.form.type, ValueType.FLOAT32))
        values = next((kind for kind in types if is_planned(partial(gradient, kind))), None)
        if values is None:
            return False
        form, count = self._graphs.form, weights_diff.size
        sides: dict[int, Access | Buffer] = {
            self._roles.bottom: read(bottom, form=form),
            self._roles.top: read(top_diff, form=form),
        }
        if weights_diff.is_clear and values is ValueType.FLOAT32:
            run(gradient(values), {**sides, WEIGHTS: write(weights_diff)})
            return True
        # the workspace is of float32, as large as any of the types needs
        room = self._backend.workspace(count).view(values.storage)[:count]
        run(gradient(values), {**sides, WEIGHTS: room})
        target = write(weights_diff) if weights_diff.is_clear else update(weights_diff)
        kernels = self._backend.kernels("cudnn.cu", values)
        kernels.each("add_widened", count, room, target, int(target.reads))
        return True
