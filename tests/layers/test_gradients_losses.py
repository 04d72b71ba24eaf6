"""Losses, scores and detection layers: backward against differences of forward."""

from __future__ import annotations

import numpy as np
import pytest

from tests.layers.gradient import Values, check_gradient


def scores(*shape: int, seed: int = 7) -> Values:
    return np.random.default_rng(seed).standard_normal(shape)


def test_a_wrong_gradient_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from dtrain.kernels.cpu.relu import ReLU

    right = ReLU.backward

    def wrong(self: ReLU, *arrays: object) -> None:
        right(self, *arrays)  # type: ignore[arg-type]
        arrays[-1].plain_mutable().reshape(-1)[0] += 1e-4  # type: ignore[attr-defined]

    net = 'layer { name: "l" type: "ReLU" bottom: "x" top: "y" }'
    check_gradient(net, {"x": scores(3, 4)})
    monkeypatch.setattr(ReLU, "backward", wrong)
    with pytest.raises(AssertionError, match="bottom x: backward gives"):
        check_gradient(net, {"x": scores(3, 4)})
