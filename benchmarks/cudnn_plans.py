"""Builds cuDNN's plans for an H100 without one: a process of its own, since a driver's stub must be loaded.

A list of layers (inventory.py's, as JSON) comes in; one JSON object goes out: {"cudnn": its version,
"planned": how many graphs, "second": how many of them in another way than the one that is asked for first,
"failed": [what and why], "workspace_bytes": the largest}. Convolutions are drawn by dtrain's own operators,
normalisations here, since dtrain has its own kernels for them. Tensors are channels-last.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

from benchmarks.inventory import Planned, decoded
from dtrain.kernels.backend import Unsupported
from dtrain.kernels.cuda.backend import PRECISIONS
from dtrain.kernels.cuda.cudnn.convolution_graphs import ConvolutionGraphs
from dtrain.kernels.cuda.cudnn.graph import PLAIN, Draft, Graph
from dtrain.kernels.cuda.cudnn.library import Cudnn
from dtrain.kernels.cuda.form import Form, ValueType
from dtrain.kernels.window import ConvolutionWindow

PROPERTIES = Path(__file__).with_name("h100.json")
SM_VERSION = 90
Make = Callable[[], Graph]


@final
class Graphs:
    """The graphs of layers in one precision."""

    def __init__(self, precision: str) -> None:
        self.cudnn = Cudnn.plan_only(json.loads(PROPERTIES.read_text()), SM_VERSION)
        values, self._tf32 = PRECISIONS[precision]
        self._form = Form(values, channels_last=True)

    def of(self, layer: Planned) -> Iterator[tuple[str, Sequence[Make]]]:
        """(what it is, the ways to plan it, the first that succeeds is taken) of every graph of a layer."""
        if layer.kind == "batch_norm":
            yield "forward", [partial(self._norm, "forward", layer, self._draw_norm)]
            yield "backward", [partial(self._norm, "backward", layer, self._draw_norm_gradient)]
            return
        turned = layer.kind == "deconvolution"
        image, result = (layer.y, layer.x) if turned else (layer.x, layer.y)
        window = ConvolutionWindow(
            kernel=layer.weights[2:],
            stride=layer.stride,
            pad=layer.pad,
            dilation=layer.dilation,
            group=image[1] // layer.weights[1],
        )
        graphs = ConvolutionGraphs(
            self.cudnn, window, image, layer.weights, result, self._form, strict=not self._tf32
        )
        types = tuple(dict.fromkeys((self._form.type, ValueType.FLOAT32)))
        if turned:
            biased: list[Make] = [partial(graphs.image_gradient, t) for t in types if layer.bias]
            yield "forward", [*biased, graphs.image_gradient]
            if layer.needs_dx:
                yield "gradient of the input", [graphs.forward]
        else:
            told = types if layer.bias else (None,)
            fused: list[Make] = [partial(graphs.forward, t, relu=layer.relu) for t in told]
            yield "forward", [*fused, graphs.forward]
            if layer.needs_dx:
                yield "gradient of the input", [graphs.image_gradient]
        yield "gradient of the weights", [partial(graphs.weights_gradient, t) for t in types]

    def _norm(self, what: str, layer: Planned, draw: Callable[[Draft, Planned], None]) -> Graph:
        return self.cudnn.graph((what, layer), self._form, False, lambda draft: draw(draft, layer))

    def _draw_norm(self, draft: Draft, layer: Planned) -> None:
        channels = (1, layer.x[1], 1, 1)
        scale, bias, old_mean, old_variance = (draft.tensor(uid, channels, PLAIN) for uid in range(2, 6))
        epsilon, momentum = (
            draft.ops.tensor(
                name=name,
                dim=[1, 1, 1, 1],
                stride=[1, 1, 1, 1],
                data_type=draft.module.data_type.FLOAT,
                is_pass_by_value=True,
            )
            for name in ("epsilon", "momentum")
        )
        y, *statistics = draft.ops.batchnorm(
            name="norm",
            input=draft.tensor(1, layer.x),
            scale=scale,
            bias=bias,
            in_running_mean=old_mean,
            in_running_var=old_variance,
            epsilon=epsilon,
            momentum=momentum,
        )
        draft.output(y, 10, layer.y)
        for uid, made in enumerate(statistics, 11):
            draft.output(made, uid, channels, PLAIN)

    def _draw_norm_gradient(self, draft: Draft, layer: Planned) -> None:
        channels = (1, layer.x[1], 1, 1)
        scale, mean, inverse = (draft.tensor(uid, channels, PLAIN) for uid in range(3, 6))
        dx, dscale, dbias = draft.ops.batchnorm_backward(
            name="norm",
            grad=draft.tensor(1, layer.y),
            input=draft.tensor(2, layer.x),
            scale=scale,
            mean=mean,
            inv_variance=inverse,
        )
        draft.output(dx, 10, layer.x)
        draft.output(dscale, 11, channels, PLAIN)
        draft.output(dbias, 12, channels, PLAIN)


def first_planned(ways: Sequence[Make]) -> tuple[int, Graph]:
    """(which, its graph) of the first way that cuDNN has an engine for; Unsupported of the last if none."""
    for number, make in enumerate(ways[:-1]):
        try:
            return number, make()
        except Unsupported:
            continue
    return len(ways) - 1, ways[-1]()


def plan(layers: list[Planned], precision: str) -> dict[str, Any]:
    """The graphs of all layers."""
    graphs = Graphs(precision)
    planned, second, largest = 0, 0, 0
    failed: list[str] = []
    for layer in layers:
        for what, ways in graphs.of(layer):
            try:
                number, graph = first_planned(ways)
            except Unsupported as error:  # every graph is tried, and each refusal is told
                failed.append(f"{layer.kind} {what} {layer.x} -> {layer.y}: {error}")
                continue
            planned += 1
            second += number > 0
            largest = max(largest, graph.workspace_bytes)
    return {
        "cudnn": graphs.cudnn.module.backend_version_string(),
        "planned": planned,
        "second": second,
        "failed": failed,
        "workspace_bytes": largest,
    }


def main() -> None:
    precision = sys.argv[1]
    layers = [decoded(given) for given in json.load(sys.stdin)]
    print(json.dumps(plan(layers, precision)))


if __name__ == "__main__":
    main()
