"""An update that is captured once and replayed with other numbers, and the loss scale that it moves on."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.form import Form, ValueType
from dtrain.kernels.loss_scaling import LossScaling, ScaleState
from dtrain.kernels.update_rule import Place, UpdateRule
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.solvers.rules import SGD, Adam, rule_of
from dtrain.solvers.settings import Settings
from dtrain.solvers.update import Updater
from tests.kernels.cuda.cpu_device import CpuDevice

COUNT = 9000
PLACES = [Place(0, 40, 1.0, 0.01), Place(48, COUNT, 2.0, 0.0)]
SCALING = LossScaling(initial=64, patience=2)
ROUNDS = 6
CAPTURED_BY = 3


class Stepped:
    """An update with everything that it works on; `g` is given as plain values."""

    def __init__(
        self, backend: Backend, rule: UpdateRule, clip: float | None, scaling: LossScaling | None
    ) -> None:
        rng = np.random.default_rng(1)
        flats = {name: backend.flat(COUNT) for name in ("w", "g", *rule.slots)}
        self.arrays = {name: backend.array((COUNT,)).twin(flat) for name, flat in flats.items()}
        self.arrays["w"].plain_overwrite()[...] = rng.standard_normal(COUNT)
        ops = backend.operators("CAFFE")
        self.scale = None if scaling is None else ops.LossScale(scaling)
        slots = {name: flats[name] for name in rule.slots}
        self.op = ops.Update(rule, PLACES, flats["w"], flats["g"], slots, False, clip, self.scale)
        self.calls = 0

    def set(self, it: int, values: NDArray[Any]) -> None:
        self.arrays["g"].plain_overwrite()[...] = values
        self.op.set(it, 0.1 / (it + 1), 2, 1)

    def work(self) -> None:
        self.calls += 1
        for array in self.arrays.values():
            array.pull()
        self.op.step()
        for name, array in self.arrays.items():
            if name != "g":
                array.push()


@pytest.mark.parametrize("scaling", [None, SCALING])
@pytest.mark.parametrize("clip", [None, 1.5])
@pytest.mark.parametrize("rule", [SGD(momentum=0.9), Adam(momentum=0.9, momentum2=0.99, delta=1e-3)])
def test_replays_take_the_steps_of_the_cpu(
    rule: UpdateRule, clip: float | None, scaling: LossScaling | None
) -> None:
    backend = CudaBackend(CpuDevice())
    mine, cpu = (Stepped(b, rule, clip, scaling) for b in (backend, CpuBackend(engine="CAFFE")))
    replayer = backend.replayer()
    rng = np.random.default_rng(2)
    for it in range(ROUNDS):
        gradients = rng.standard_normal(COUNT) * (64 if scaling else 1)
        if scaling and it in (2, 4):
            gradients[7] = (np.inf, np.nan)[it // 2 - 1]
        for one in (mine, cpu):
            one.set(it, gradients)
        before = mine.arrays["w"].plain().copy()
        replayer.run(("update",), mine.work, lambda: None)
        cpu.work()
        for name in ("w", *rule.slots):
            got, expected = (one.arrays[name].plain() for one in (mine, cpu))
            np.testing.assert_allclose(got, expected, 1e-5, 2e-6, err_msg=f"{name} behind step {it}")
        is_skipped = bool(scaling) and it in (2, 4)
        assert (mine.arrays["w"].plain() == before).all() == is_skipped
        if clip and not is_skipped:
            assert mine.op.gradient_norm() == pytest.approx(cpu.op.gradient_norm(), rel=1e-6)
        if scaling:
            assert mine.scale.state() == cpu.scale.state()
    assert mine.calls == CAPTURED_BY, "the later rounds were replays"
    if scaling:
        assert mine.scale.state().skipped == 2


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", [ValueType.FLOAT32, ValueType.BFLOAT16, ValueType.FLOAT16])
def test_the_scale_is_applied_in_the_form_that_the_diff_has(kind: ValueType, channels_last: bool) -> None:
    backend = CudaBackend(CpuDevice())
    scale = backend.operators("DEFAULT").LossScale(SCALING)
    values = np.random.default_rng(1).integers(-8, 8, (2, 3, 4, 5)).astype(np.float32)
    diff = backend.array(values.shape)
    diff.offer(Form(kind, channels_last))
    diff.plain_overwrite()[...] = values
    diff.native(diff.form)
    diff.written(diff.form)
    scale.apply(diff)
    assert diff.storage.valid == {diff.form}
    np.testing.assert_array_equal(diff.plain(), 64 * values)


def test_the_scale_shrinks_and_grows_within_its_bounds() -> None:
    scaling = LossScaling(initial=4, growth=2, backoff=0.25, patience=2, least=1, most=8)
    state, met = scaling.start(), []
    for total in (1.0, 1.0, 1.0, 1.0, np.inf, np.nan, np.nan, 1.0):
        state = scaling.after(state, total)
        met.append(state)
    assert [one.scale for one in met] == [4, 8, 8, 8, 2, 1, 1, 1]
    assert met[-2] == ScaleState(1, 0, 3, 3)
    assert met[-1] == ScaleState(1, 1, 3, 0)
    for beyond in (0.5, 16.0):
        state = ScaleState(beyond)
        assert scaling.after(scaling.after(state, 1.0), 1.0).scale == (1 if beyond < 1 else beyond)
        assert scaling.after(state, np.inf).scale == (beyond if beyond < 1 else 4)
    fixed = LossScaling(initial=4, adapts=False, patience=1)
    assert fixed.after(fixed.start(), np.inf) == ScaleState(4, 0, 1, 1)
    assert fixed.after(fixed.start(), 1.0).scale == 4


@pytest.mark.parametrize("on_a_card", [False, True])
def test_a_clipped_step_is_logged_at_once(on_a_card: bool, caplog: pytest.LogCaptureFixture) -> None:
    backend: Backend = CudaBackend(CpuDevice()) if on_a_card else CpuBackend()
    param = pb.SolverParameter()
    settings = Settings(param, text.parse('type: "SGD" clip_gradients: 2.5 iter_size: 2', param))
    updater = _updater(settings, backend, np.array([6.0, 8.0]))
    with caplog.at_level(logging.INFO):
        updater.step(0, 0.1, 2)
    assert caplog.messages == [
        "Gradient clipping: scaling down gradients (L2 norm 5 > 2.5) by scale factor 0.5"
    ]
    assert updater.gradient_norm == pytest.approx(5)


def _updater(settings: Settings, backend: Backend, gradients: NDArray[Any]) -> Updater:
    """Over one parameter with these gradients, sums over two ranks."""
    net = pb.NetParameter()
    text.parse(
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }'
        'layer { name: "l" type: "InnerProduct" bottom: "x" top: "y"'
        "        inner_product_param { num_output: 1 bias_term: false } }",
        net,
    )
    built = Net(net, Scope(backend, pb.TRAIN))
    (param,) = built.params.owned
    param.blob.diff.plain_overwrite()[...] = gradients
    return Updater(settings, backend, built.params, rule_of(settings))
