"""What of a net cuDNN shall compute: every convolution and normalisation with its extents, each once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, final

from benchmarks.dtrain_worker import CONFIGS, fed_by_input
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.batch_norm import BatchNorm
from dtrain.layers.convolution import Convolution, ConvolutionLayer
from dtrain.layers.layer import Scope
from dtrain.layers.relu import ReLU
from dtrain.net import Net, Step
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import read_net

Extents = tuple[int, ...]


@final
@dataclass(frozen=True)
class Planned:
    """A layer as cuDNN sees it: "convolution", "deconvolution" or "batch_norm"; x and y are (N, C, H, W)."""

    kind: str
    x: Extents
    y: Extents
    weights: Extents = ()
    stride: Extents = ()
    pad: Extents = ()
    dilation: Extents = ()
    bias: bool = False
    relu: bool = False
    needs_dx: bool = True


def decoded(given: dict[str, Any]) -> Planned:
    """A layer from JSON, whose lists were tuples."""
    values: dict[str, Any] = {f.name: given[f.name] for f in fields(Planned)}
    values.update({name: tuple(value) for name, value in values.items() if isinstance(value, list)})
    return Planned(**values)


def training_net(net: str, batch: int, side: int, channels: int = 3) -> Net:
    """configs/NET in phase TRAIN on the CPU, as written: without a plan."""
    param, _ = read_net(CONFIGS / net / "train_val.prototxt")
    fed_by_input(param, [batch, channels, side, side])
    return Net(param, Scope(CpuBackend(num_threads=1), pb.TRAIN))


def inventory(net: Net, batch: int) -> list[Planned]:
    """Of a net of one image, as it is with so many images."""
    found: dict[Planned, None] = {}
    for i, step in enumerate(net.steps):
        layer = step.layer
        if not isinstance(layer, (ConvolutionLayer, BatchNorm)):
            continue
        for bottom, top, needs_dx in zip(step.bottom, step.top, step.bottom_need_backward, strict=True):
            x, y = (batch, *bottom.shape[1:]), (batch, *top.shape[1:])
            if isinstance(layer, BatchNorm):
                found[Planned("batch_norm", x, y, needs_dx=needs_dx)] = None
                continue
            window = layer.window
            planned = Planned(
                "convolution" if isinstance(layer, Convolution) else "deconvolution",
                x,
                y,
                layer.blobs[0].shape,
                window.stride,
                window.pad,
                window.dilation,
                len(layer.blobs) > 1,
                is_rectified(net.steps, i),
                needs_dx,
            )
            found[planned] = None
    return list(found)


def is_rectified(steps: list[Step], index: int) -> bool:
    """Whether the next reader of the step's top is a ReLU in place."""
    top = steps[index].top[0]
    reader = next((s for s in steps[index + 1 :] if any(b is top for b in s.bottom)), None)
    return reader is not None and isinstance(reader.layer, ReLU) and reader.top[0] is top
