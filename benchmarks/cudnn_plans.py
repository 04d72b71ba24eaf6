"""Builds cuDNN's plans for an H100 without one: a process of its own, since a driver's stub must be loaded.

A list of layers (inventory.py's, as JSON) comes in; one JSON object goes out: {"cudnn": its version,
"planned": how many graphs, "failed": [what and why], "workspace_bytes": the largest}. Tensors are NHWC.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, final

from benchmarks.inventory import Extents, Planned

PROPERTIES = Path(__file__).with_name("h100.json")
SM_VERSION = 90
WORKSPACE_LIMIT_BYTES = 1 << 30
TYPES = {"bf16": "BFLOAT16", "fp16": "HALF", "fp32": "FLOAT", "tf32": "FLOAT"}


def nhwc(dim: Extents) -> list[int]:
    """Strides of a channels-last tensor whose extents are written (N, C, H, W)."""
    _, c, h, w = dim
    return [h * w * c, 1, w * c, c]


@final
class Graphs:
    """The graphs of layers in one precision."""

    def __init__(self, precision: str) -> None:
        self.cudnn: Any = importlib.import_module("cudnn")
        self._io = getattr(self.cudnn.data_type, TYPES[precision])
        self._float = self.cudnn.data_type.FLOAT
        self._properties = self.cudnn.create_device_properties(PROPERTIES.read_text())

    def of(self, layer: Planned) -> Iterator[tuple[str, Callable[[Any], None]]]:
        """(what it is, what makes it on an empty graph) of every graph of a layer."""
        if layer.kind == "batch_norm":
            yield "BN forward", lambda g: self._norm_forward(g, layer)
            yield "BN backward", lambda g: self._norm_backward(g, layer)
            return
        yield "forward", lambda g: self._forward(g, layer)
        yield "weights' gradient", lambda g: self._weights_gradient(g, layer)
        if layer.needs_dx:
            yield "input's gradient", lambda g: self._input_gradient(g, layer)
        if layer.bias:
            yield "bias' gradient", lambda g: self._bias_gradient(g, layer)

    def workspace_bytes(self, make: Callable[[Any], None]) -> int:
        """Plan a graph; raises what cuDNN says if it has no engine for it."""
        cudnn = self.cudnn
        graph = cudnn.pygraph(
            io_data_type=self._io,
            intermediate_data_type=self._float,
            compute_data_type=self._float,
            device_property=self._properties,
            sm_version=SM_VERSION,
        )
        make(graph)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        graph.deselect_workspace_greater_than(WORKSPACE_LIMIT_BYTES)
        graph.check_support()
        graph.build_plans(cudnn.build_plan_policy.HEURISTICS_CHOICE)
        return int(graph.get_workspace_size())

    def _tensor(self, graph: Any, name: str, dim: Extents, kind: Any = None) -> Any:
        return graph.tensor(name=name, dim=list(dim), stride=nhwc(dim), data_type=kind or self._io)

    def _output(self, tensor: Any, dim: Extents, kind: Any = None) -> None:
        made = tensor.set_output(True).set_dim(list(dim)).set_stride(nhwc(dim))
        made.set_data_type(kind or self._io)

    def _window(self, layer: Planned) -> dict[str, list[int]]:
        return {
            "padding": list(layer.pad),
            "stride": list(layer.stride),
            "dilation": list(layer.dilation),
        }

    def _forward(self, graph: Any, layer: Planned) -> None:
        """A deconvolution's forward is a convolution's gradient of its input."""
        x = self._tensor(graph, "x", layer.x)
        weights = self._tensor(graph, "w", layer.weights)
        if layer.kind == "deconvolution":
            y = graph.conv_dgrad(loss=x, filter=weights, **self._window(layer))
            if layer.bias or layer.relu:
                y.set_dim(list(layer.y)).set_stride(nhwc(layer.y))
        else:
            y = graph.conv_fprop(image=x, weight=weights, **self._window(layer))
        if layer.bias:
            y = graph.bias(input=y, bias=self._tensor(graph, "b", (1, layer.y[1], 1, 1)))
        if layer.relu:
            y = graph.relu(input=y)
        self._output(y, layer.y)

    def _input_gradient(self, graph: Any, layer: Planned) -> None:
        dy = self._tensor(graph, "dy", layer.y)
        weights = self._tensor(graph, "w", layer.weights)
        if layer.kind == "deconvolution":
            dx = graph.conv_fprop(image=dy, weight=weights, **self._window(layer))
        else:
            dx = graph.conv_dgrad(loss=dy, filter=weights, **self._window(layer))
        self._output(dx, layer.x)

    def _weights_gradient(self, graph: Any, layer: Planned) -> None:
        image, loss = self._tensor(graph, "x", layer.x), self._tensor(graph, "dy", layer.y)
        if layer.kind == "deconvolution":
            image, loss = loss, image
        self._output(graph.conv_wgrad(image=image, loss=loss, **self._window(layer)), layer.weights)

    def _bias_gradient(self, graph: Any, layer: Planned) -> None:
        dy = self._tensor(graph, "dy", layer.y)
        db = graph.reduction(input=dy, mode=self.cudnn.reduction_mode.ADD, compute_data_type=self._float)
        self._output(db, (1, layer.y[1], 1, 1), self._float)

    def _channels(self, graph: Any, layer: Planned, *names: str) -> list[Any]:
        return [self._tensor(graph, name, (1, layer.x[1], 1, 1), self._float) for name in names]

    def _norm_forward(self, graph: Any, layer: Planned) -> None:
        scale, bias, old_mean, old_variance = self._channels(
            graph, layer, "scale", "bias", "old_mean", "old_variance"
        )
        epsilon, momentum = (
            graph.tensor(
                name=name,
                dim=[1, 1, 1, 1],
                stride=[1, 1, 1, 1],
                data_type=self._float,
                is_pass_by_value=True,
            )
            for name in ("epsilon", "momentum")
        )
        y, *statistics = graph.batchnorm(
            name="norm",
            input=self._tensor(graph, "x", layer.x),
            scale=scale,
            bias=bias,
            in_running_mean=old_mean,
            in_running_var=old_variance,
            epsilon=epsilon,
            momentum=momentum,
        )
        self._output(y, layer.y)
        for told in statistics:
            self._output(told, (1, layer.x[1], 1, 1), self._float)

    def _norm_backward(self, graph: Any, layer: Planned) -> None:
        scale, mean, inverse = self._channels(graph, layer, "scale", "mean", "inverse")
        dx, dscale, dbias = graph.batchnorm_backward(
            name="norm",
            grad=self._tensor(graph, "dy", layer.y),
            input=self._tensor(graph, "x", layer.x),
            scale=scale,
            mean=mean,
            inv_variance=inverse,
        )
        self._output(dx, layer.x)
        for told in (dscale, dbias):
            self._output(told, (1, layer.x[1], 1, 1), self._float)


def decoded(given: dict[str, Any]) -> Planned:
    """A layer from JSON, whose lists were tuples."""
    values: dict[str, Any] = {f.name: given[f.name] for f in fields(Planned)}
    values.update({name: tuple(value) for name, value in values.items() if isinstance(value, list)})
    return Planned(**values)


def plan(layers: list[Planned], precision: str) -> dict[str, Any]:
    """The graphs of all layers."""
    graphs = Graphs(precision)
    planned, failed, largest = 0, [], 0
    for layer in layers:
        for what, make in graphs.of(layer):
            try:
                largest = max(largest, graphs.workspace_bytes(make))
                planned += 1
            except Exception as error:  # every graph is tried, and each refusal is told
                failed.append(f"{layer.kind} {what} {layer.x} -> {layer.y}: {error}".splitlines()[0])
    version = graphs.cudnn.backend_version_string()
    return {"cudnn": version, "planned": planned, "failed": failed, "workspace_bytes": largest}


def main() -> None:
    precision = sys.argv[1]
    layers = [decoded(given) for given in json.load(sys.stdin)]
    print(json.dumps(plan(layers, precision)))


if __name__ == "__main__":
    main()
