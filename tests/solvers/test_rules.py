"""The compiled pass computes what the rules define, and constants that no rule can use are refused."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.errors import ConfigError
from dtrain.kernels.cpu import threads
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.update_rule import Place, Slice, UpdateRule
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.solvers.rules import SGD, TYPES, AdaDelta, AdaGrad, Adam, Nesterov, RMSProp, rule_of
from dtrain.solvers.settings import Settings

RULES: list[UpdateRule] = [
    SGD(momentum=0.9),
    Nesterov(momentum=0.9),
    AdaGrad(delta=1e-6),
    RMSProp(rms_decay=0.9, delta=1e-6),
    AdaDelta(momentum=0.9, delta=1e-5),
    Adam(momentum=0.9, momentum2=0.99, delta=1e-6),
]
COUNT = 70_000
PLACES = [Place(0, 5, 1.0, 0.0), Place(16, 40_000, 0.5, 0.02), Place(40_000, 69_999, 2.0, 0.01)]


def run(rule: UpdateRule, engine: str, l1: bool) -> tuple[str, Slice, dict[str, Slice], float]:
    """Three steps; the implementation, the weights, the slots, and the norm of the gradients.

    The gradients are far from zero: where they cancel the weight decay, rounding decides the quotient.
    """
    backend = CpuBackend(engine=engine)
    rng = np.random.default_rng(2)
    w, g = backend.flat(COUNT), backend.flat(COUNT)
    slots = {name: backend.flat(COUNT) for name in rule.slots}
    for place in PLACES:
        w[place.start : place.stop] = rng.standard_normal(place.stop - place.start)
    w[3] = 0
    op = backend.operators("DEFAULT").Update(rule, PLACES, w, g, slots, l1, 1e9)
    for it in range(3):
        g[:] = rng.uniform(0.5, 1.5, COUNT) * rng.choice([-1, 1], COUNT)
        op.set(it, 0.1, 2, 1)
        op.step()
    return type(op).__module__, w, slots, op.gradient_norm()


@pytest.mark.parametrize("l1", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_compiled_update_gives_the_numbers_of_numpy(rule: UpdateRule, l1: bool) -> None:
    module, w, slots, norm = run(rule, "CAFFE", l1)
    fast_module, fast_w, fast_slots, fast_norm = run(rule, "DEFAULT", l1)
    assert (module, fast_module) == ("dtrain.kernels.cpu.update", "dtrain.kernels.cpu.jit.update")
    np.testing.assert_allclose(fast_w, w, rtol=1e-5, atol=1e-6)
    for name in rule.slots:
        np.testing.assert_allclose(fast_slots[name], slots[name], rtol=1e-5, atol=1e-6)
    assert fast_norm == pytest.approx(norm, rel=1e-12)


@pytest.mark.parametrize("engine", ["CAFFE", "DEFAULT"])
def test_elements_between_parameters_are_left_alone(engine: str) -> None:
    _, w, slots, _ = run(SGD(momentum=0.9), engine, False)
    assert not w[5:16].any()
    assert not w[69_999:].any()
    assert not slots["history"][5:16].any()
    assert w[:5].any()
    assert w[69_990:69_999].all()


def test_float64_is_updated_in_numpy() -> None:
    backend = CpuBackend(dtype=np.float64)
    slots = {"history": backend.flat(16)}
    op = backend.operators("DEFAULT").Update(
        SGD(momentum=0.0), [Place(0, 16, 1, 0)], backend.flat(16), backend.flat(16), slots, False
    )
    assert type(op).__module__ == "dtrain.kernels.cpu.update"


def test_compiled_update_leaves_the_number_of_threads_as_it_was() -> None:
    before = threads.in_use()
    threads.use(1)
    try:
        run(SGD(momentum=0.9), "DEFAULT", False)
        assert threads.in_use() == 1
    finally:
        threads.use(before)


def parsed(settings: str) -> UpdateRule:
    param = pb.SolverParameter()
    return rule_of(Settings(param, text.parse(settings, param, "solver.prototxt")))


def test_every_type_has_a_rule_of_its_name() -> None:
    assert [parsed(f'type: "{name}"').name for name in TYPES] == list(TYPES)
    assert [rule.name for rule in RULES] == list(TYPES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('type: "AdaGrad" momentum: 0.9', "momentum must be 0 for type AdaGrad, got 0.9"),
        ('type: "RMSProp" momentum: 0.9', "momentum must be 0 for type RMSProp, got 0.9"),
        ('type: "RMSProp" rms_decay: 1', r"rms_decay must be in \[0, 1\) for type RMSProp, got 1"),
        ('type: "Adam" momentum2: 1', r"momentum2 must be in \[0, 1\) for type Adam, got 1"),
        ('type: "AdaDelta" momentum: 1', r"momentum must be in \[0, 1\) for type AdaDelta"),
        ('type: "Adam" delta: 0', "delta must be positive for type Adam, got 0"),
        ('type: "Adm"', r'unknown solver type "Adm"; did you mean "Adam"\?'),
    ],
)
def test_constants_that_a_rule_cannot_use_are_refused_with_file_and_line(settings: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"solver.prototxt:1: {message}"):
        parsed(settings)
