"""Every solver follows BVLC Caffe weight by weight, and each reads the other's snapshots."""

from __future__ import annotations

import numpy as np
import pytest

from tests.solvers.golden import (
    NAMES,
    assert_weights,
    make_solver,
    start_as_caffe,
    stored,
    train,
    weights_at,
)

ITERATIONS = 12


@pytest.mark.parametrize("engine", ["CAFFE", "DEFAULT"])
@pytest.mark.parametrize("name", NAMES)
def test_solver_has_the_weights_and_losses_of_caffe_at_every_iteration(name: str, engine: str) -> None:
    solver = make_solver(name, engine)
    start_as_caffe(solver, name)
    for it in range(ITERATIONS):
        (loss,) = train(solver, it + 1)
        np.testing.assert_allclose(loss, stored()[f"{name}|loss"][it], rtol=1e-4, err_msg=f"iteration {it}")
        assert_weights(solver, weights_at(name, it + 1), f"after iteration {it}")
