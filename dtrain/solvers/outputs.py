"""The outputs of a net as numbers: every element of every top that no layer consumes."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.metrics.reporter import Output
from dtrain.net import Net


def output_values(net: Net) -> list[float]:
    """All elements of the output blobs, one after the other."""
    return [float(value) for name in net.outputs for value in net.blobs[name].data.plain().reshape(-1)]


def num_outputs(net: Net) -> int:
    """How many numbers the outputs hold."""
    return sum(net.blobs[name].count for name in net.outputs)


def told(net: Net, values: Sequence[float]) -> list[Output]:
    """The values with the names and loss weights of their blobs."""
    weights = {
        id(blob): weight
        for step in net.steps
        for blob, weight in zip(step.top, step.layer.loss_weights, strict=True)
    }
    heads = [
        (name, weights.get(id(net.blobs[name]), 0.0))
        for name in net.outputs
        for _ in range(net.blobs[name].count)
    ]
    return [Output(name, value, weight) for (name, weight), value in zip(heads, values, strict=True)]
