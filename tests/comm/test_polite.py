"""Waiting with and without sleep."""

import time

import pytest

from dtrain.comm.polite import SPINS, wait_until


@pytest.mark.parametrize("polite", [True, False])
def test_a_wait_ends_as_soon_as_its_test_is_true(polite: bool) -> None:
    answers = iter([False] * (SPINS + 5) + [True])
    wait_until(lambda: next(answers), polite=polite)
    assert next(answers, None) is None


def test_a_polite_wait_leaves_the_core_to_others() -> None:
    end = time.monotonic() + 0.3
    cpu = time.process_time()
    wait_until(lambda: time.monotonic() > end, polite=True)
    assert time.process_time() - cpu < 0.15
