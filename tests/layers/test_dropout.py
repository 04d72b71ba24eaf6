"""Dropout draws the same mask however the job is cut into ranks, and keeps what it says."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.kernels.cpu.dropout import kept
from dtrain.proto import dtrain_pb2 as pb
from tests.layers.gradient import Values, build_net

NET = 'layer { name: "drop" type: "Dropout" bottom: "x" top: "y" dropout_param { dropout_ratio: 0.4 %s } }'


def run(x: Values, extra: str = "", *, seed: int = 0, passes: int = 0, phase: int = pb.TRAIN) -> Values:
    net = build_net(NET % extra, {"x": x}, seed=seed, phase=phase)
    net.scope.passes = passes
    net.forward()
    return net.blob("y").data.plain().copy()


@pytest.mark.parametrize("shape", [(6, 5), (6, 3, 4), (6,)])
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_draw_what_one_rank_draws_for_the_whole_batch(size: int, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).standard_normal(shape)
    whole = run(x)
    for rank in range(size):
        net = build_net(NET % "", {"x": x[rank::size]}, rank=rank, size=size)
        net.forward()
        np.testing.assert_array_equal(net.blob("y").data.plain(), whole[rank::size])


def test_masks_are_those_of_splitmix64() -> None:
    """The first outputs of SplitMix64 from 1234567, as published with its reference implementation."""
    outputs = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    halves = [half for word in outputs for half in (word & 0xFFFFFFFF, word >> 32)]
    expected = np.array(halves) >= 0.5 * 2**32
    np.testing.assert_array_equal(kept(1234567, 0.5, 0, 1, (2, 4)), expected.reshape(2, 4))
    # an odd row leaves a half unused, and rank 1 of 2 has the second of two rows
    np.testing.assert_array_equal(kept(1234567, 0.5, 1, 2, (1, 3))[0], expected[4:7])


def test_kept_values_are_scaled_and_as_many_as_the_ratio_says() -> None:
    x = np.random.default_rng(1).uniform(1, 2, (100, 1000))
    y = run(x)
    stays = y != 0
    np.testing.assert_allclose(y[stays], x[stays] / (1 - float(np.float32(0.4))), rtol=1e-12)
    assert abs(stays.mean() - 0.6) < 4 * np.sqrt(0.24 / x.size)
    for axis in (0, 1):  # no row or column is special
        count = x.shape[axis]
        assert np.abs(stays.mean(axis=axis) - 0.6).max() < 6 * np.sqrt(0.24 / count)


def test_backward_uses_the_mask_of_forward() -> None:
    x = np.ones((4, 9))
    net = build_net(NET % "", {"x": x})
    for _ in range(2):
        net.forward()
        net.blob("y").diff.plain_overwrite().fill(3)
        net.backward()
        np.testing.assert_array_equal(net.blob("x").diff.plain(), 3 * net.blob("y").data.plain())


def test_passes_seeds_and_layers_draw_different_masks() -> None:
    x = np.ones((8, 64))
    base = run(x)
    np.testing.assert_array_equal(run(x), base)
    assert (run(x, passes=1) != base).any()
    assert (run(x, seed=1) != base).any()
    own = run(x, "random_seed: 5")
    assert (own != base).any()
    np.testing.assert_array_equal(run(x, "random_seed: 5", seed=1), own)


def test_phase_test_passes_everything_on() -> None:
    x = np.random.default_rng(1).standard_normal((3, 4))
    np.testing.assert_array_equal(run(x, phase=pb.TEST), x)


def test_ratio_0_keeps_all_and_a_ratio_near_1_keeps_almost_none() -> None:
    assert kept(1, 0.0, 0, 1, (10, 10)).all()
    assert kept(1, 1 - 2**-24, 0, 1, (100, 100)).sum() <= 1
    assert kept(1, 0.5, 0, 1, (0, 3)).shape == (0, 3)
