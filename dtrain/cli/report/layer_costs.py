"""What each layer of a net costs: parameters, multiply-adds, memory of its outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final

from google.protobuf.message import Message

from dtrain.errors import ConfigError, unknown_name
from dtrain.kernels.array import Shape
from dtrain.layers.convolution import ConvolutionLayer
from dtrain.layers.deconvolution import Deconvolution
from dtrain.layers.inner_product import InnerProduct
from dtrain.layers.recurrent import RecurrentLayer
from dtrain.net import Net, Step
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.schema import fields

ELEMENT_BYTES: Final = 4  # float32
RENAMING_TYPES: Final = ("Split", "Reshape", "Flatten")  # their tops are their bottoms' memory


@final
@dataclass(frozen=True)
class LayerCost:
    """One layer as a batch goes forward through it.

    parameters counts what no earlier layer shares; multiply_adds are products with weights, in
    convolutions, inner products and recurrent layers: what publications count; activation_bytes is what
    the tops take beyond the bottoms' memory.
    """

    name: str
    type: str
    tops: dict[str, Shape]
    parameter_shapes: list[Shape]
    parameters: int
    multiply_adds: int
    activation_bytes: int


@final
@dataclass(frozen=True)
class NetCost:
    """All layers, and the number of images in the batch: the first axis of the net's first blob."""

    name: str
    phase: str
    batch: int
    layers: list[LayerCost] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Of one image."""
        return sum(layer.multiply_adds for layer in self.layers) // self.batch

    @property
    def activation_bytes(self) -> int:
        """Of one image."""
        return sum(layer.activation_bytes for layer in self.layers) // self.batch


def costs_of(net: Net) -> NetCost:
    """The costs of a built net; the Splits that it inserted are left out."""
    first = next((blob.shape for step in net.steps for blob in step.top if blob.shape), (1,))
    cost = NetCost(net.name, pb.Phase.Name(net.scope.phase), max(1, first[0]))
    for index, step in enumerate(net.steps):
        if step.layer.spec.type != "Split" or not step.layer.name.endswith("_split"):
            cost.layers.append(_cost(net, index, step))
    return cost


def _cost(net: Net, index: int, step: Step) -> LayerCost:
    layer = step.layer
    mine = [
        blob
        for j, blob in enumerate(layer.blobs)
        if (owner := net.params.of_layer(index, j)).layer_index == index and owner.blob_index == j
    ]
    own = {id(blob) for blob in step.bottom}
    fresh = [] if layer.spec.type in RENAMING_TYPES else [blob for blob in step.top if id(blob) not in own]
    return LayerCost(
        name=layer.name,
        type=layer.spec.type,
        tops={name: blob.shape for name, blob in zip(step.top_names, step.top, strict=True)},
        parameter_shapes=[blob.shape for blob in layer.blobs],
        parameters=sum(blob.count for blob in mine),
        multiply_adds=_multiply_adds(step),
        activation_bytes=ELEMENT_BYTES * sum(blob.count for blob in fresh),
    )


def _multiply_adds(step: Step) -> int:
    layer = step.layer
    if isinstance(layer, ConvolutionLayer):
        moved = step.bottom if isinstance(layer, Deconvolution) else step.top  # each value by one window
        return sum(blob.count for blob in moved) * math.prod(layer.blobs[0].shape[1:])
    if isinstance(layer, InnerProduct):
        return step.top[0].count * layer.blobs[0].count // layer.spec.inner_product_param.num_output
    if isinstance(layer, RecurrentLayer):
        steps, streams = step.bottom[0].shape[:2]
        return steps * streams * sum(blob.count for blob in layer.blobs if len(blob.shape) == 2)
    return 0


# Before the net is built.


def feed(param: pb.NetParameter, shapes: Mapping[str, Shape]) -> None:
    """Put an Input layer in the place of each layer that makes a named blob from no bottom.

    A top of it that is not named, such as a label, has the number of images of the first named one.
    """
    made = {name for layer in param.layer if not layer.bottom for name in layer.top}
    for name in shapes:
        if name not in made:
            raise ConfigError(f"--input: {unknown_name('blob that comes from outside', name, made)}")
    images = next(iter(shapes.values()), (1,))[0]
    for layer in param.layer:
        if layer.bottom or not any(name in shapes for name in layer.top):
            continue
        fed = pb.LayerParameter(name=layer.name, type="Input", top=layer.top)
        fed.include.extend(layer.include)
        fed.exclude.extend(layer.exclude)
        for name in layer.top:
            fed.input_param.shape.add().dim.extend(shapes.get(name, (images,)))
        layer.CopyFrom(fed)


def without_fillers(message: Message) -> None:
    """Clear every filler, so that parameters are zeros, which take no time to draw."""
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        if descriptor.message_type is pb.FillerParameter.DESCRIPTOR:
            message.ClearField(descriptor.name)
            continue
        for part in value if fields(message.DESCRIPTOR)[descriptor.name].repeated else (value,):
            without_fillers(part)
