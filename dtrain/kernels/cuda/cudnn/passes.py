"""What convolution and deconvolution by cuDNN share: parameters' gradients, and the choice of graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias, final

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.backend import Unsupported
from dtrain.kernels.cuda.array import Access, maybe, read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.channels import ChannelSums, images_channels_inner
from dtrain.kernels.cuda.cudnn.convolution_graphs import BIAS, IMAGE, RESULT, WEIGHTS, ConvolutionGraphs
from dtrain.kernels.cuda.cudnn.graph import Graph
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.form import Form, ValueType

Way: TypeAlias = Callable[[], None]


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
class Convolving:
    """The convolution between an image and its result, all in one form but parameters and their gradients.

    A bias and a ReLU belong to the channels of the operator's top.
    """

    def __init__(self, backend: CudaBackend, graphs: ConvolutionGraphs, top_shape: Shape) -> None:
        self._backend = backend
        self._graphs = graphs
        self._kernels = backend.kernels("cudnn.cu", graphs.form.type)
        sizes = images_channels_inner(top_shape, graphs.form)
        self._sums = ChannelSums(backend, *sizes, graphs.form)
        self._channels, self._inner = sizes[1:]

    def fastest(self, key: str, ways: Sequence[Way]) -> Way:
        """One of several ways to compute the same."""
        return ways[self._backend.cudnn.fastest((key, self._graphs.key), ways)]

    def bias_types(self, bias: SyncedArray | None) -> Sequence[ValueType | None]:
        """The types in which a graph may read a bias: the one that most engines know comes first."""
        if bias is None:
            return (None,)
        return tuple(dict.fromkeys((self._graphs.form.type, ValueType.FLOAT32)))

    def bias_side(self, bias: SyncedArray | None, values: ValueType | None) -> dict[int, Access | Buffer]:
        """A graph's BIAS, if it has one."""
        return {} if bias is None or values is None else {BIAS: read(bias, form=Form(values))}

    def finish(self, top: SyncedArray, bias: SyncedArray | None, *, relu: bool) -> None:
        """Bias and ReLU by a kernel, where no graph has done it."""
        if bias is not None or relu:
            sides = update(top, form=self._graphs.form), maybe(read, bias)
            self._kernels.each("finish_image", top.size, *sides, self._channels, self._inner, int(relu))

    def bias_gradient(self, top_diff: SyncedArray, bias_diff: SyncedArray) -> None:
        """bias_diff += top_diff summed over all but the channels."""
        self._sums.run("channel_sum", update(bias_diff), 1.0, read(top_diff, form=self._graphs.form))

    def weights_gradient(self, image: SyncedArray, result: SyncedArray, weights_diff: SyncedArray) -> bool:
        """weights_diff += the gradient; False where cuDNN has no engine.

        It is asked for in float32, and where cuDNN has that not, in the form's type.
        """
        types = dict.fromkeys((ValueType.FLOAT32, self._graphs.form.type))
        known = [t for t in types if is_planned(partial(self._graphs.weights_gradient, t))]
        if not known:
            return False
        form, count = self._graphs.form, weights_diff.size
        sides: dict[int, Access | Buffer] = {IMAGE: read(image, form=form), RESULT: read(result, form=form)}
        room = self._backend.workspace(count)  # of float32, as large as any of the types needs

        def into_room(values: ValueType) -> None:
            run(self._graphs.weights_gradient(values), {**sides, WEIGHTS: seen_as(room, values, count)})

        ways = [partial(into_room, values) for values in known]
        values = known[self._backend.cudnn.fastest(("weights' gradient", self._graphs.key), ways)]
        if weights_diff.is_clear and values is ValueType.FLOAT32:
            run(self._graphs.weights_gradient(values), {**sides, WEIGHTS: write(weights_diff)})
            return True
        into_room(values)
        target = write(weights_diff) if weights_diff.is_clear else update(weights_diff)
        kernels = self._backend.kernels("cudnn.cu", values)
        kernels.each("add_widened", count, seen_as(room, values, count), target, int(target.reads))
        return True


def seen_as(room: Buffer, values: ValueType, count: int) -> Buffer:
    """The first so many values of a buffer of float32, as another type."""
    return room.view(values.storage)[:count]
