"""Every layer type: wrong numbers of bottoms and tops, and nets that are wrong in any way at all."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from dtrain import fillers
from dtrain.errors import DtrainError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers import known_types, layer_class
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from tests.layers.random_nets import nets

# Bottoms and tops of Caffe's own types, where they are not one and one: least and most, None being any.
CAFFE = {
    "Accuracy": ((2, 2), (1, 2)),
    "BatchReindex": ((2, 2), (1, 1)),
    "Bias": ((1, 2), (1, 1)),
    "Concat": ((1, None), (1, 1)),
    "ContrastiveLoss": ((3, 3), (1, 1)),
    "Convolution": ((1, None), (1, None)),
    "Crop": ((2, 2), (1, 1)),
    "Data": ((0, 0), (1, 2)),
    "Deconvolution": ((1, None), (1, None)),
    "DummyData": ((0, 0), (1, None)),
    "Eltwise": ((2, None), (1, 1)),
    "EuclideanLoss": ((2, 2), (1, 1)),
    "Filter": ((2, None), (1, None)),
    "HDF5Data": ((0, 0), (1, None)),
    "HDF5Output": ((2, 2), (0, 0)),
    "HingeLoss": ((2, 2), (1, 1)),
    "ImageData": ((0, 0), (1, 2)),
    "InfogainLoss": ((2, 3), (1, 2)),
    "Input": ((0, 0), (1, None)),
    "LSTM": ((2, None), (1, None)),
    "LSTMUnit": ((3, 3), (2, 2)),
    "MemoryData": ((0, 0), (2, 2)),
    "MultinomialLogisticLoss": ((2, 2), (1, 1)),
    "Parameter": ((0, 0), (1, 1)),
    "Pooling": ((1, 1), (1, 2)),
    "Python": ((0, None), (0, None)),
    "RNN": ((2, None), (1, None)),
    "Scale": ((1, 2), (1, 1)),
    "SigmoidCrossEntropyLoss": ((2, 2), (1, 1)),
    "Silence": ((1, None), (0, 0)),
    "Slice": ((1, 1), (1, None)),
    "SoftmaxWithLoss": ((2, 2), (1, 2)),
    "Split": ((1, 1), (1, None)),
    "WindowData": ((0, 0), (2, 2)),
}
# fmt: off
ONE_AND_ONE = [
    "AbsVal", "ArgMax", "BNLL", "BatchNorm", "Clip", "Dropout", "ELU", "Embed", "Exp", "Flatten",
    "Im2col", "InnerProduct", "LRN", "Log", "MVN", "PReLU", "Power", "ReLU", "Reduction", "Reshape",
    "SPP", "Sigmoid", "Softmax", "Swish", "TanH", "Threshold", "Tile",
]
# fmt: on


def net_of(type_name: str, bottoms: int, tops: int) -> str:
    """A net in which the layer stands in line 5."""
    names = [f"in{i}" for i in range(max(bottoms, 1))]
    inputs = " ".join(f'top: "{name}"' for name in names)
    return "\n".join(
        [
            'name: "net"',
            "# the inputs",
            f'layer {{ name: "inputs" type: "Input" {inputs} input_param {{ shape {{ dim: 2 dim: 3 }} }} }}',
            "",
            "layer {",
            f'  name: "l" type: "{type_name}"',
            *(f'  bottom: "{name}"' for name in names[:bottoms]),
            *(f'  top: "top{i}"' for i in range(tops)),
            "}",
        ]
    )


def error_of(net: str) -> str:
    param = pb.NetParameter()
    source = text.parse(net, param, "net.prototxt")
    with pytest.raises(DtrainError) as caught:
        Net(param, Scope(CpuBackend(engine="CAFFE"), pb.TRAIN), source=source)
    return str(caught.value)


def wrong_counts() -> Iterator[tuple[str, str, int, int]]:
    """(type, what is wrong, bottoms, tops), the other of the two being right."""
    for name in known_types():
        cls = layer_class(name)
        bottoms, tops = cls.num_bottoms, cls.num_tops
        for count in {bottoms.least - 1, *(() if bottoms.most is None else (bottoms.most + 1,))} - {-1}:
            yield name, "bottoms", count, tops.least
        few = () if cls.makes_missing_tops else (tops.least - 1,)
        for count in {*few, *(() if tops.most is None else (tops.most + 1,))} - {-1}:
            yield name, "tops", bottoms.least, count


@pytest.mark.parametrize(("type_name", "what", "bottoms", "tops"), list(wrong_counts()))
def test_a_wrong_number_of_bottoms_or_tops_is_told(
    type_name: str, what: str, bottoms: int, tops: int
) -> None:
    cls = layer_class(type_name)
    rule, got = (cls.num_bottoms, bottoms) if what == "bottoms" else (cls.num_tops, tops)
    names = [f"in{i}" for i in range(bottoms)] if what == "bottoms" else [f"top{i}" for i in range(tops)]
    assert error_of(net_of(type_name, bottoms, tops)) == (
        f'net.prototxt:5: layer "l" ({type_name}): the number of {what} must be {rule}, got {got} '
        f"({', '.join(names) or 'none'})"
    )


def test_counts_are_those_of_caffe() -> None:
    found = {
        name: tuple((count.least, count.most) for count in (cls.num_bottoms, cls.num_tops))
        for name in known_types()
        if (cls := layer_class(name)) and (name in CAFFE or name in ONE_AND_ONE)
    }
    assert found == {**CAFFE, **dict.fromkeys(ONE_AND_ONE, ((1, 1), (1, 1)))}


@pytest.mark.parametrize(
    ("type_name", "bottoms", "tops", "told"),
    [
        ("Convolution", 2, 1, "the number of tops must be that of the bottoms (2), got 1"),
        ("Filter", 3, 1, "the number of tops must be"),
        ("LSTM", 4, 1, "the bottoms must be x, cont, x_static or not"),
        ("LSTM", 2, 2, "the number of tops must be 1"),
        ("RNN", 5, 1, "the bottoms must be x, cont, x_static or not"),
        ("Slice", 1, 4, "3"),
    ],
)
def test_counts_that_depend_on_each_other_are_told(
    type_name: str, bottoms: int, tops: int, told: str
) -> None:
    message = error_of(net_of(type_name, bottoms, tops))
    assert re.match(rf'net\.prototxt:\d+: layer "l" \({type_name}\): ', message)
    assert told in message


# What no layer needs to look at itself, since the net does.

INPUT = 'layer { name: "in" type: "Input" top: "a" input_param { shape { dim: 2 dim: DIM } } }\n'
INNER_PRODUCT = (
    'layer { name: "ip" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 99999 } }'
)


@pytest.mark.parametrize("dim", ["0", "-1"])
def test_an_input_without_values_is_refused(dim: str) -> None:
    assert error_of(INPUT.replace("DIM", dim)) == (
        f'net.prototxt:1: layer "in" (Input): dim must be at least 1, got [2, {dim}]'
    )


def test_a_blob_beyond_the_range_of_an_index_is_refused() -> None:
    assert error_of(INPUT.replace("DIM", "1073741824")) == (
        'net.prototxt:1: layer "in" (Input): a blob must have at most 2147483647 values, '
        "got shape (2, 1073741824)"
    )


@pytest.mark.parametrize("field", ["channels", "batch_size"])
def test_a_batch_beyond_the_range_of_an_index_is_refused(field: str) -> None:
    sizes = {"batch_size": 2, "channels": 3, "height": 3, "width": 2**28, field: 2**31 - 1}
    fields = " ".join(f"{name}: {size}" for name, size in sizes.items())
    net = f'layer {{ name: "d" type: "MemoryData" top: "a" top: "b" memory_data_param {{ {fields} }} }}'
    assert error_of(net).startswith(
        'net.prototxt:1: layer "d" (MemoryData): a batch must have at most 2147483647'
    )


def test_a_blob_that_does_not_fit_in_memory_names_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise MemoryError("no 8 GiB")

    monkeypatch.setattr(fillers, "fill", no_room)
    message = error_of(INPUT.replace("DIM", "3") + INNER_PRODUCT)
    assert message == ('net.prototxt:2: layer "ip" (InnerProduct): a layer must fit in memory, got no 8 GiB')


def test_a_parameter_beyond_the_range_of_an_index_is_refused() -> None:
    net = INPUT.replace("DIM", "100000") + INNER_PRODUCT
    assert (
        'net.prototxt:2: layer "ip" (InnerProduct): blob 0 must have from 1 to 2147483647 values'
        in error_of(net)
    )


def test_a_layer_that_changes_the_shape_cannot_run_in_place() -> None:
    net = INPUT.replace("DIM", "3").replace('top: "a"', 'top: "a" top: "b"') + (
        'layer { name: "loss" type: "SmoothL1Loss" bottom: "a" bottom: "b" top: "a" }\n'
    )
    assert "must have shape (2, 3) to run in place, got ()" in error_of(net)


def test_a_missing_source_names_its_layer() -> None:
    net = 'layer { name: "d" type: "HDF5Data" top: "a" hdf5_data_param { source: "absent" batch_size: 1 } }'
    param = pb.NetParameter()
    source = text.parse(net, param, "net.prototxt")
    with pytest.raises(DtrainError, match=r'^net\.prototxt:1: layer "d" \(HDF5Data\): absent: must be'):
        Net(param, Scope(CpuBackend(engine="CAFFE"), pb.TRAIN), source=source)


# Anything at all.

BACKENDS = {engine: CpuBackend(engine=engine) for engine in ("CAFFE", "DEFAULT")}


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(net=nets())
@pytest.mark.parametrize("engine", BACKENDS)
def test_a_random_net_runs_or_is_told_where_it_is_wrong(engine: str, net: str) -> None:
    logging.disable(logging.CRITICAL)
    message = ""
    try:
        run(net, engine)
    except DtrainError as error:
        message = str(error)
    finally:
        logging.disable(logging.NOTSET)
    assert not message or re.search(r"net\.prototxt:\d+", message)


def run(net_text: str, engine: str) -> None:
    """Build the net, and run it both ways on small whole numbers, which labels are too."""
    param = pb.NetParameter()
    source = text.parse(net_text, param, "net.prototxt")
    phase = pb.TRAIN if len(net_text) % 2 else pb.TEST
    net = Net(param, Scope(BACKENDS[engine], phase), source=source)
    rng = np.random.default_rng(0)
    for step in net.steps:
        if step.layer.spec.type == "Input":
            for blob in step.top:
                blob.data.plain_overwrite()[...] = rng.integers(0, 3, blob.shape)
    with np.errstate(all="ignore"):  # parameters of 1e30 and nan are theirs who write them
        net.forward()
        net.clear_param_diffs()
        net.backward()
