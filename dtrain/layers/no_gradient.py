"""Bottoms that a layer cannot give a gradient: indices, selectors, what is compared or ranked."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.layers.layer import Layer


def refuse_gradient(layer: Layer, propagate_down: Sequence[bool], index: int) -> None:
    """ConfigError if backward was asked for the gradient of this bottom."""
    if propagate_down[index]:
        raise layer.error(
            f"bottom[{index}] must not need a gradient, which {layer.type_name} cannot give, got "
            f'propagate_down: true for "{layer.spec.bottom[index]}"; write propagate_down: false',
            "propagate_down",
        )
