"""Whole nets whose convolutions cuDNN computes have the loss and gradients of the CPU in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.plan import Plan
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from tests.kernels.cuda.numpy_cudnn import NumpyCudnn
from tests.kernels.cuda.test_cudnn import backend_of
from tests.kernels.cuda.test_training import lenet

ERRORS = {  # (precision, channels last): of the loss, and the norm of a gradient's error over the gradient's
    ("fp32", False): (1e-5, 1e-5),
    ("fp32", True): (1e-5, 1e-5),
    ("tf32", True): (1e-5, 1e-5),
    ("bf16", True): (1e-3, 0.1),
    ("fp16", True): (1e-3 / 8, 0.1 / 8),
    ("bf16", False): (1e-3, 0.1),
}

BLOCK = """
layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"
  convolution_param {{ num_output: {channels} kernel_size: {kernel} pad: {pad} stride: {stride}
    bias_term: false weight_filler {{ type: "msra" }} }} }}
layer {{ name: "{name}/bn" type: "BatchNorm" bottom: "{name}" top: "{name}" }}
layer {{ name: "{name}/scale" type: "Scale" bottom: "{name}" top: "{name}"
  scale_param {{ bias_term: true }} }}
"""
RELU = 'layer {{ name: "{name}/relu" type: "ReLU" bottom: "{name}" top: "{name}" }}\n'


def block(name: str, bottom: str, kernel: int, stride: int, *, relu: bool) -> str:
    settings: dict[str, Any] = {"name": name, "bottom": bottom, "kernel": kernel, "stride": stride}
    made = BLOCK.format(channels=16, pad=kernel // 2, **settings)
    return made + (RELU.format(name=name) if relu else "")


def residual(*, relu: bool = True) -> pb.NetParameter:
    """A block of a residual net, with a projection, after a convolution with bias and ReLU."""
    rectified = RELU if relu else ""
    param = pb.NetParameter()
    text.parse(
        'layer { name: "in" type: "Input" top: "data" top: "label" input_param {'
        " shape { dim: 5 dim: 3 dim: 12 dim: 10 } shape { dim: 5 } } }"
        'layer { name: "first" type: "Convolution" bottom: "data" top: "first" convolution_param {'
        ' num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "msra" }'
        ' bias_filler { type: "constant" value: 0.1 } } }'
        + rectified.format(name="first")
        + block("a", "first", 3, 2, relu=relu)
        + block("b", "a", 3, 1, relu=False)
        + block("project", "first", 1, 2, relu=False)
        + 'layer { name: "sum" type: "Eltwise" bottom: "b" bottom: "project" top: "sum" }'
        + rectified.format(name="sum")
        + 'layer { name: "pool" type: "Pooling" bottom: "sum" top: "pool" pooling_param {'
        " pool: AVE global_pooling: true } }"
        'layer { name: "scores" type: "InnerProduct" bottom: "pool" top: "scores" inner_product_param {'
        ' num_output: 10 weight_filler { type: "xavier" } } }'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }',
        param,
    )
    return param


def passed(param: pb.NetParameter, backend: Backend, plan: Plan | None) -> tuple[Net, float]:
    """The net after a pass forward and backward, and its loss."""
    net = Net(param, Scope(backend, pb.TRAIN, rng=np.random.default_rng(1)), plan=plan)
    rng = np.random.default_rng(2)
    data = net.blob("data").data
    data.plain_overwrite()[...] = rng.random(data.shape)
    net.blob("label").data.plain_overwrite()[...] = rng.integers(0, 10, 5)
    net.clear_param_diffs()
    loss = net.forward()
    net.backward()
    return net, float(loss)


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize(("precision", "channels_last"), ERRORS)
@pytest.mark.parametrize("name", ["lenet", "residual"])
def test_a_net_has_the_loss_and_gradients_of_the_cpu(
    name: str, precision: str, channels_last: bool, planned: bool
) -> None:
    """With 16 bits a ReLU takes the other side for some values, which is no error: there the net has none."""
    is_exact = precision.endswith("32")
    param = lenet() if name == "lenet" else residual(relu=is_exact)
    module = NumpyCudnn()
    plan = Plan(memory_format="channels_last" if channels_last else "blocked") if planned else None
    mine, loss = passed(param, backend_of(module, precision, channels_last), plan)
    cpu, expected = passed(param, CpuBackend(engine="CAFFE"), None)
    of_loss, of_gradients = ERRORS[precision, channels_last]
    assert loss == pytest.approx(expected, rel=of_loss)
    if name == "lenet" and not is_exact:
        of_gradients *= 2.5  # a maximum is taken from elsewhere
    for a, b in zip(mine.params.owned, cpu.params.owned, strict=True):
        exact = b.blob.diff.plain()
        error = np.linalg.norm(a.blob.diff.plain() - exact)
        assert error <= of_gradients * np.linalg.norm(exact) + 1e-6, (a.layer_index, a.blob_index)
    convolutions = [step for step in mine.steps if step.layer.spec.type == "Convolution"]
    assert sum(bool(graph.ran) for graph in module.graphs) > 2 * len(convolutions)
