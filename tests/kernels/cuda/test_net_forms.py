"""A net of all that ResNet, GoogLeNet and CaffeNet are made of, in the forms that a card is fast in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.array import own
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.form import Form
from dtrain.kernels.cuda.launch import Kernels
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.text import parse
from tests.kernels.cuda.cpu_device import CpuDevice
from tests.kernels.cuda.numpy_cudnn import NumpyCudnn

XAVIER = 'weight_filler { type: "xavier" }'
NET = f"""
layer {{ name: "in" type: "Input" top: "data" top: "label"
  input_param {{ shape {{ dim: 2 dim: 3 dim: 12 dim: 12 }} shape {{ dim: 2 }} }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param {{ num_output: 16 kernel_size: 3 pad: 1 {XAVIER} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }}
layer {{ name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param {{ kernel_size: 3 stride: 2 }} }}
layer {{ name: "norm1" type: "LRN" bottom: "pool1" top: "norm1" lrn_param {{ alpha: 0.1 }} }}
layer {{ name: "a" type: "Convolution" bottom: "norm1" top: "a"
  convolution_param {{ num_output: 16 kernel_size: 1 {XAVIER} }} }}
layer {{ name: "b" type: "Convolution" bottom: "norm1" top: "b"
  convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 {XAVIER} }} }}
layer {{ name: "c" type: "Pooling" bottom: "norm1" top: "c"
  pooling_param {{ kernel_size: 3 stride: 1 pad: 1 }} }}
layer {{ name: "concat" type: "Concat" bottom: "a" bottom: "b" bottom: "c" top: "concat" }}
layer {{ name: "conv2" type: "Convolution" bottom: "concat" top: "conv2"
  convolution_param {{ num_output: 40 kernel_size: 1 {XAVIER} }} }}
layer {{ name: "bn2" type: "BatchNorm" bottom: "conv2" top: "conv2" }}
layer {{ name: "scale2" type: "Scale" bottom: "conv2" top: "conv2" scale_param {{ bias_term: true }} }}
layer {{ name: "sum" type: "Eltwise" bottom: "conv2" bottom: "concat" top: "sum" }}
layer {{ name: "relu2" type: "ReLU" bottom: "sum" top: "sum" }}
layer {{ name: "mean" type: "Pooling" bottom: "sum" top: "mean"
  pooling_param {{ pool: AVE global_pooling: true }} }}
layer {{ name: "fc" type: "InnerProduct" bottom: "mean" top: "fc"
  inner_product_param {{ num_output: 10 {XAVIER} }} }}
layer {{ name: "drop" type: "Dropout" bottom: "fc" top: "fc" }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
"""
# Of a gradient's length. Where rounding chooses another maximum or turns a ReLU, one of a few hundred terms
# goes elsewhere: that is most of it, and 8 times as often in bfloat16.
TOLERANCES = {"fp32": 1e-4, "fp16": 2**-5, "bf16": 2**-3}


def trained_once(backend: Backend) -> Net:
    param = pb.NetParameter()
    parse(NET, param, "test")
    net = Net(param, Scope(backend, pb.TRAIN))
    rng = np.random.default_rng(1)
    for owned in net.params.owned:
        values = owned.blob.data.plain_overwrite()
        values[...] = 0.3 * rng.standard_normal(values.shape) if values.size > 40 else 1
    run(net)
    return net


def run(net: Net) -> float:
    net.blobs["data"].data.plain_overwrite()[...] = np.random.default_rng(2).standard_normal((2, 3, 12, 12))
    net.blobs["label"].data.plain_overwrite()[...] = [1, 2]
    net.clear_param_diffs()
    loss = net.forward()
    net.backward()
    return loss


def gradients(net: Net) -> list[NDArray[np.floating[Any]]]:
    return [owned.blob.diff.plain().copy() for owned in net.params.owned]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("precision", TOLERANCES)
def test_a_net_in_forms_has_the_gradients_of_the_cpu(precision: str, channels_last: bool) -> None:
    backend = CudaBackend(CpuDevice(libraries={"cudnn": NumpyCudnn()}), precision=precision)
    backend.card.channels_last = channels_last
    net, peer = trained_once(backend), trained_once(CpuBackend(engine="CAFFE"))
    pairs = list(zip(gradients(net), gradients(peer), strict=True))
    assert any(np.linalg.norm(expected) > 0 for _, expected in pairs)
    for i, (got, expected) in enumerate(pairs):
        error = np.linalg.norm(got - expected) / max(float(np.linalg.norm(expected)), 1e-2)
        assert error < TOLERANCES[precision], f"parameter {i}"


@pytest.mark.parametrize("precision", TOLERANCES)
def test_values_change_their_form_at_the_ends_of_the_net_alone(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = CudaBackend(CpuDevice(libraries={"cudnn": NumpyCudnn()}), precision=precision)
    backend.card.channels_last = True
    net = trained_once(backend)
    names: list[str] = []
    launch = Kernels.launch

    def watched(self: Kernels, name: str, *args: Any, **settings: Any) -> None:
        if self._file == "forms.cu":
            names.append(name)
        launch(self, name, *args, **settings)

    monkeypatch.setattr(Kernels, "launch", watched)
    run(net)
    of_the_images, of_the_loss = ["channels_to_last"], [] if precision == "fp32" else ["widen", "narrow"]
    assert names == of_the_images + of_the_loss
    for name in ("conv1", "pool1", "norm1", "concat", "conv2", "sum"):
        blob = net.blobs[name]
        assert own(blob.data).held == backend.form, name
        assert own(blob.diff).held == backend.form, name
    assert own(net.blobs["label"].data).form == Form(backend.card.real)
