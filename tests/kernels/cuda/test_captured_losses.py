"""Losses, scores and random layers in passes that are captured once and replayed: as eager ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.errors import DataError
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from tests.kernels.cuda.cpu_device import CpuDevice

Shapes = dict[str, tuple[int, ...]]
ROUNDS = 6
CAPTURED_BY = 3  # as it is, followed, captured

PER_SAMPLE: Shapes = {"x": (6, 5), "label": (6,)}
PER_PIXEL: Shapes = {"x": (3, 5, 2, 2), "label": (3, 2, 2)}
PAIR: Shapes = {"x": (6, 5), "other": (6, 5)}

NETS: dict[str, tuple[str, str, Shapes]] = {  # layer type, its parameters, bottoms
    "SoftmaxWithLoss": ("SoftmaxWithLoss", "loss_weight: 0.3", PER_SAMPLE),
    "SoftmaxWithLoss that ignores": ("SoftmaxWithLoss", "loss_param { ignore_label: 2 }", PER_PIXEL),
    "SoftmaxWithLoss by batch": ("SoftmaxWithLoss", "loss_param { normalization: BATCH_SIZE }", PER_PIXEL),
    "FocalLoss": ("FocalLoss", "loss_param { ignore_label: 1 }", PER_PIXEL),
    "InfogainLoss": ("InfogainLoss", "", {**PER_SAMPLE, "matrix": (1, 1, 5, 5)}),
    "HingeLoss": ("HingeLoss", "hinge_loss_param { norm: L2 }", PER_SAMPLE),
    "MultinomialLogisticLoss": ("MultinomialLogisticLoss", "", PER_SAMPLE),
    "SigmoidCrossEntropyLoss": (
        "SigmoidCrossEntropyLoss",
        "loss_param { ignore_label: 1 normalization: VALID }",
        PAIR,
    ),
    "EuclideanLoss": ("EuclideanLoss", "loss_weight: 2", PAIR),
    "SmoothL1Loss": ("SmoothL1Loss", "", PAIR),
    "ContrastiveLoss": ("ContrastiveLoss", "", {**PAIR, "similar": (6,)}),
    "Accuracy": ("Accuracy", "accuracy_param { ignore_label: 1 }", PER_SAMPLE),
    "Dropout": ("Dropout", "dropout_param { dropout_ratio: 0.4 }", {"x": (6, 5)}),
    "Pooling STOCHASTIC": (
        "Pooling",
        "pooling_param { pool: STOCHASTIC kernel_size: 2 }",
        {"x": (3, 2, 5, 4)},
    ),
    "SPP STOCHASTIC": ("SPP", "spp_param { pool: STOCHASTIC pyramid_height: 2 }", {"x": (3, 2, 4, 4)}),
}


def net_of(name: str, backend: Backend) -> Net:
    kind, settings, shapes = NETS[name]
    param = pb.NetParameter(force_backward=kind != "Accuracy")
    source = param.layer.add(name="in", type="Input", top=list(shapes))
    for shape in shapes.values():
        source.input_param.shape.add(dim=shape)
    bottoms = " ".join(f'bottom: "{bottom}"' for bottom in shapes)
    rest = pb.NetParameter()
    text.parse(f'layer {{ name: "l" type: "{kind}" {bottoms} top: "y" {settings} }}', rest)
    param.MergeFrom(rest)
    return Net(param, Scope(backend, pb.TRAIN, seed=3))


def fill(net: Net, values: dict[str, NDArray[Any]]) -> None:
    for name, value in values.items():
        net.blob(name).data.plain_overwrite()[...] = value


def drawn(shapes: Shapes, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    whole = {"label": 5, "similar": 2}
    return {
        name: rng.integers(0, whole[name], shape) if name in whole else rng.random(shape) + 0.1
        for name, shape in shapes.items()
    }


def results(net: Net) -> dict[str, NDArray[Any]]:
    found = {"y": net.blob("y").data.plain().copy()}
    if net.force_backward:
        found["dx"] = net.blob("x").diff.plain().copy()
    return found


def is_no_loss(name: str) -> bool:
    """Whether the diff of its top has to be given."""
    return NETS[name][0] in ("Dropout", "Pooling", "SPP")


class Replayed:
    """A net whose passes a replayer runs."""

    def __init__(self, name: str) -> None:
        self.backend = CudaBackend(CpuDevice())
        self.net = net_of(name, self.backend)
        self.calls = 0
        self._replayer = self.backend.replayer()

    def run(self) -> None:
        self._replayer.run(("pass",), self._work, self.net.refresh)
        self.net.scope.passes += 1

    def _work(self) -> None:
        self.calls += 1
        self.net.compute()
        if self.net.force_backward:
            self.net.backward()


@pytest.mark.parametrize("name", NETS)
def test_replays_give_what_the_cpu_gives(name: str) -> None:
    replayed, cpu = Replayed(name), net_of(name, CpuBackend(engine="CAFFE"))
    rng = np.random.default_rng(4)
    for i in range(ROUNDS):
        values = drawn(NETS[name][2], rng)
        fill(replayed.net, values)
        fill(cpu, values)
        if is_no_loss(name):
            for net in (replayed.net, cpu):
                net.blob("y").diff.plain_overwrite().fill(1)
        replayed.run()
        cpu.forward()
        if cpu.force_backward:
            cpu.backward()
        mine, theirs = results(replayed.net), results(cpu)
        for key, expected in theirs.items():
            np.testing.assert_allclose(mine[key], expected, 1e-5, 1e-6, err_msg=f"round {i}: {key}")
        if name == "Accuracy":
            counts = [(net.layer("l").correct, net.layer("l").counted) for net in (replayed.net, cpu)]
            assert counts[0] == counts[1]
    assert replayed.calls == CAPTURED_BY, "the later rounds were replays"


@pytest.mark.parametrize(
    "name",
    [name for name, (_, _, shapes) in NETS.items() if "label" in shapes],
)
def test_a_wrong_label_in_a_replay_is_noted_and_told_once(name: str) -> None:
    replayed = Replayed(name)
    rng = np.random.default_rng(4)
    shapes = NETS[name][2]
    layer = replayed.net.layer("l")
    for _ in range(CAPTURED_BY):
        fill(replayed.net, drawn(shapes, rng))
        replayed.run()
        layer.check_data()
    assert not replayed.backend.card.data_faults.found()
    values = drawn(shapes, rng)
    labels = values["label"].reshape(len(values["label"]), -1)
    labels[1, -1], labels[-1, 0] = -5, 77
    fill(replayed.net, values)
    replayed.run()
    assert np.isfinite(replayed.net.blob("y").data.plain())
    fill(replayed.net, drawn(shapes, rng))  # by when it is looked at, the labels are others
    assert replayed.backend.card.data_faults.found()
    replayed.net.scope.sample_names = [lambda sample: f"record-{sample}"]
    with pytest.raises(DataError, match=r'layer "l" .*label of sample 1 of .* got -5 \(record: record-1\)'):
        layer.check_data()
    layer.check_data()
    assert not replayed.backend.card.data_faults.found()


def test_an_eager_pass_tells_of_a_wrong_label_at_once() -> None:
    net = net_of("SoftmaxWithLoss", CudaBackend(CpuDevice()))
    fill(net, {"label": np.array([0, 1, 2, 3, 5, 4])})
    with pytest.raises(DataError, match=r'layer "l" \(SoftmaxWithLoss\): label of sample 4 of the batch'):
        net.forward()


def test_the_room_of_an_operator_that_is_gone_is_used_again() -> None:
    faults = CudaBackend(CpuDevice()).card.data_faults
    first, second = faults.new(), faults.new()
    first.buffer[0] = 1
    assert faults.found()
    del first
    assert not faults.found(), "nobody is left who could tell of it"
    third = faults.new()
    assert not third.buffer.any()
    assert not second.buffer.any()
