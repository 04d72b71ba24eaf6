"""caffe.NetSpec, layers and params."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain import pycaffe as caffe
from dtrain.errors import ConfigError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.pycaffe import layers as L
from dtrain.pycaffe import params as P
from tests.pycaffe.nets import write_net

XAVIER = {"type": "xavier"}


def lenet(batch_size: int) -> pb.NetParameter:
    n = caffe.NetSpec()
    n.data, n.label = L.DummyData(
        shape=[{"dim": [batch_size, 1, 28, 28]}, {"dim": [batch_size, 1, 1, 1]}],
        transform_param={"scale": 1.0 / 255},
        ntop=2,
    )
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=20, weight_filler={"type": "xavier"})
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.conv2 = L.Convolution(n.pool1, kernel_size=5, num_output=50, weight_filler={"type": "xavier"})
    n.pool2 = L.Pooling(n.conv2, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.ip1 = L.InnerProduct(n.pool2, num_output=500, weight_filler={"type": "xavier"})
    n.relu1 = L.ReLU(n.ip1, in_place=True)
    n.ip2 = L.InnerProduct(n.relu1, num_output=10, weight_filler={"type": "xavier"})
    n.loss = L.SoftmaxWithLoss(n.ip2, n.label)
    return n.to_proto()


def anonymous_lenet(batch_size: int) -> pb.NetParameter:
    shapes = [{"dim": [batch_size, 1, 28, 28]}, {"dim": [batch_size, 1, 1, 1]}]
    data, label = L.DummyData(shape=shapes, ntop=2)
    conv1 = L.Convolution(data, kernel_size=5, num_output=20, weight_filler=XAVIER)
    pool1 = L.Pooling(conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    conv2 = L.Convolution(pool1, kernel_size=5, num_output=50, weight_filler=XAVIER)
    pool2 = L.Pooling(conv2, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    ip1 = L.InnerProduct(pool2, num_output=500, weight_filler=XAVIER)
    relu1 = L.ReLU(ip1, in_place=True)
    ip2 = L.InnerProduct(relu1, num_output=10, weight_filler=XAVIER)
    return L.SoftmaxWithLoss(ip2, label).to_proto()


def load(tmp_path: Path, proto: pb.NetParameter) -> caffe.Net:
    return caffe.Net(write_net(tmp_path, str(proto)), caffe.TEST)


def test_lenet_is_written_and_built(tmp_path: Path) -> None:
    proto = lenet(2)
    assert proto.layer[6].bottom == proto.layer[6].top == ["ip1"]
    assert [layer.name for layer in proto.layer] == [
        *("data", "conv1", "pool1", "conv2", "pool2", "ip1", "relu1", "ip2", "loss")
    ]
    net = load(tmp_path, proto)
    assert len(net.layers) == 9
    assert net.forward()["loss"] > 0


def test_names_are_made_where_none_are_given(tmp_path: Path) -> None:
    proto = anonymous_lenet(2)
    assert proto.layer[6].bottom == proto.layer[6].top
    assert [layer.name for layer in proto.layer] == [
        *("DummyData1", "Convolution1", "Pooling1", "Convolution2", "Pooling2", "InnerProduct1", "ReLU1"),
        *("InnerProduct2", "SoftmaxWithLoss1"),
    ]
    assert list(proto.layer[0].top) == ["DummyData1", "DummyData2"]
    assert list(proto.layer[8].bottom) == ["InnerProduct2", "DummyData2"]
    assert len(load(tmp_path, proto).layers) == 9


def test_layers_without_tops_are_named_and_built(tmp_path: Path) -> None:
    n = caffe.NetSpec()
    n.data, n.data2 = L.DummyData(shape={"dim": 3}, ntop=2)
    n.silence_data = L.Silence(n.data, ntop=0)
    n.silence_data2 = L.Silence(n.data2, ntop=0)
    proto = n.to_proto()
    assert [layer.name for layer in proto.layer] == ["data", "silence_data", "silence_data2"]
    assert load(tmp_path, proto).forward() == {}


def test_a_bottom_that_is_no_top_is_a_type_error() -> None:
    data = L.DummyData(ntop=2)
    with pytest.raises(TypeError, match=r"^Silence input 0 is not a Top \(type is <class 'tuple'>\)$"):
        L.Silence(data, ntop=0)
    L.Silence(*data, ntop=0)


def test_parameters_go_to_the_field_that_has_them() -> None:
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": (1, 3, 8, 8)})
    n.conv = L.Convolution(
        n.data,
        param=[{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2}],
        convolution_param={
            "num_output": np.int64(4),
            "kernel_size": [3, 5],
            "weight_filler": {"type": "msra"},
        },
        include={"phase": caffe.TEST},
        loss_weight=0.5,
    )
    n.up = L.Deconvolution(n.conv, num_output=4, kernel_size=2, stride=2)
    n.pool = L.Pooling(n.up, pool="AVE", kernel_size=2, name="mean")
    n.py = L.Python(n.pool, module="m", layer="L", param_str="{}", propagate_down=[True])
    data, conv, up, pool, py = n.to_proto().layer
    assert list(data.input_param.shape[0].dim) == [1, 3, 8, 8]
    assert [(p.lr_mult, p.decay_mult) for p in conv.param] == [(1, 1), (2, 1)]
    assert (conv.convolution_param.num_output, list(conv.convolution_param.kernel_size)) == (4, [3, 5])
    assert conv.convolution_param.weight_filler.type == "msra"
    assert (conv.include[0].phase, list(conv.loss_weight)) == (caffe.TEST, [0.5])
    assert list(up.convolution_param.stride) == [2]
    assert pool.pooling_param.pool == P.Pooling.AVE
    assert (pool.name, list(pool.top)) == ("mean", ["pool"])
    assert (py.python_param.module, list(py.propagate_down)) == ("m", [True])


def test_a_message_and_an_empty_one_are_taken_as_they_are() -> None:
    filler = pb.FillerParameter(type="constant", value=2)
    layer = L.InnerProduct(num_output=1, weight_filler=filler, relu_param={}).to_proto().layer[0]
    assert layer.inner_product_param.weight_filler == filler
    assert layer.HasField("relu_param")


def test_to_proto_takes_several_tops() -> None:
    data = L.Input(shape={"dim": [1, 2]})
    proto = caffe.to_proto(L.ReLU(data), L.TanH(data))
    assert [layer.name for layer in proto.layer] == ["Input1", "ReLU1", "TanH1"]


def test_tops_are_set_and_found_as_items_too() -> None:
    n = caffe.NetSpec()
    n["conv1/data"] = L.Input(shape={"dim": [1]})
    n["relu"] = L.ReLU(n["conv1/data"])
    assert n.relu is n["relu"] is n.tops["relu"]
    assert [layer.name for layer in n.to_proto().layer] == ["conv1/data", "relu"]
    with pytest.raises(AttributeError, match='unknown blob of the NetSpec "relo"; did you mean "relu"'):
        n.relo  # noqa: B018 - the look-up is the test


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: L.Pooling(kernel_sise=2),
            'unknown field of PoolingParameter "kernel_sise"; did you mean "kernel_',
        ),
        (lambda: L.ReLU(pooling=2), 'unknown field of ReLUParameter "pooling"'),
        (lambda: L.Pooling(kernel_size="two"), "PoolingParameter: kernel_size must be .*, got 'two'"),
        (lambda: L.Pooling(pooling_param=3), "pooling_param must be a dict or a PoolingParameter, got 3"),
    ],
)
def test_a_wrong_parameter_is_told(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make().to_proto()  # type: ignore[operator]


def test_params_are_the_values_of_enums() -> None:
    assert (P.Pooling.MAX, P.Pooling.AVE, P.Eltwise.SUM) == (0, 1, 1)
    assert P.Data.LMDB == pb.DataParameter.LMDB
    with pytest.raises(AttributeError, match='unknown parameter message "Poling"; did you mean "Pooling"'):
        P.Poling.MAX  # noqa: B018 - the look-up is the test
