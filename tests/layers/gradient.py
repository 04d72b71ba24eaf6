"""Checks backward against differences of forward, in float64 along random directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtrain.blob import Blob
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text

Values: TypeAlias = NDArray[Any]


def build_net(
    net_text: str,
    inputs: dict[str, Values],
    *,
    phase: int = pb.TRAIN,
    dtype: type = np.float64,
    seed: int = 0,
    rank: int = 0,
    size: int = 1,
) -> Net:
    """The net on NumPy operators with force_backward; an Input layer is put before for each of `inputs`.

    Inputs keep the values that are given here.
    """
    param = pb.NetParameter(force_backward=True)
    for name, values in inputs.items():
        layer = param.layer.add(name=f"input_{name}", type="Input", top=[name])
        layer.input_param.shape.add(dim=values.shape)
    rest = pb.NetParameter()
    text.parse(net_text, rest)
    param.MergeFrom(rest)
    backend = CpuBackend(dtype=dtype, engine="CAFFE")
    scope = Scope(backend, phase, rank=rank, size=size, seed=seed, rng=np.random.default_rng(seed))
    net = Net(param, scope)
    for name, values in inputs.items():
        net.blob(name).data.plain_overwrite()[...] = values
    return net


class _Objective:
    """Weighted sum of all outputs as a function of inputs and parameters: losses by their loss_weight,
    other outputs by fixed random numbers."""

    def __init__(self, net: Net, inputs: dict[str, Values], rng: np.random.Generator) -> None:
        self.net = net
        self.values: dict[str, Values] = {name: np.array(value, np.float64) for name, value in inputs.items()}
        net.reshape()
        weighted = {
            id(blob)
            for step in net.steps
            for blob, weight in zip(step.top, step.layer.loss_weights, strict=True)
            if weight
        }
        self.outputs = {name: net.blob(name) for name in net.outputs if id(net.blob(name)) not in weighted}
        self.keep = weighted
        self.weights: dict[str, Values] = {}
        self.rng = rng

    def __call__(self) -> float:
        """Every random draw of the layers is that of the first pass, and what forward changes is restored."""
        for name, values in self.values.items():
            self.net.blob(name).data.plain_overwrite()[...] = values
        self.net.scope.passes = 0
        before: list[Values] = [param.blob.data.plain().copy() for param in self.net.params.owned]
        total = self.net.forward()
        for param, values in zip(self.net.params.owned, before, strict=True):
            param.blob.data.plain_overwrite()[...] = values
        for name, blob in self.outputs.items():
            if name not in self.weights:
                self.weights[name] = self.rng.uniform(0.5, 1.5, blob.shape) * self.rng.choice(
                    (-1, 1), blob.shape
                )
            total += float((self.weights[name] * blob.data.plain()).sum())
        return total

    def backward(self) -> None:
        """Forward, then backward over diffs that are NaN wherever a layer has to write them."""
        self()
        for blob in self.net.blobs.values():
            if id(blob) not in self.keep:
                blob.diff.plain_overwrite().fill(np.nan)
        for name, blob in self.outputs.items():
            blob.diff.plain_overwrite()[...] = self.weights[name]
        self.net.backward()

    def slope(self, values: Values, direction: Values, step: float) -> float:
        """Central difference of fourth order as `values`, changed in place, move along the direction."""
        start = values.copy()

        def at(distance: float) -> float:
            values[...] = start + distance * direction
            return self()

        near = at(step) - at(-step)
        far = at(2 * step) - at(-2 * step)
        values[...] = start
        return (8 * near - far) / (12 * step)

    def slope_of_param(self, blob: Blob, direction: Values, step: float) -> float:
        """The same for a parameter."""
        return self.slope(blob.data.plain_mutable(), direction, step)


def check_gradient(
    net_text: str,
    inputs: dict[str, Values],
    *,
    phase: int = pb.TRAIN,
    wrt: Sequence[str] | None = None,
    params: bool = True,
    step: float = 1e-4,
    rtol: float = 1e-6,
    seed: int = 0,
) -> Net:
    """Compare backward with differences for every propagating bottom and every parameter.

    net_text: layers without their Input layers; inputs: the values of those, by blob name, labels
    included. wrt: the inputs to check, instead of all that a layer propagates to; params: whether to check
    parameters (not for statistics such as BatchNorm's). step: distance of the points of the difference, to
    be small against the distance to the next kink. Also checks that backward overwrites bottom diffs and
    adds to parameter diffs. Returns the net after its last backward pass.
    """
    rng = np.random.default_rng(seed + 1)
    net = build_net(net_text, inputs, phase=phase, seed=seed)
    objective = _Objective(net, inputs, rng)
    net.clear_param_diffs()
    objective.backward()
    names = _propagating(net, inputs) if wrt is None else list(wrt)
    assert names or (params and len(net.params)), "nothing to check"
    diffs = {name: net.blob(name).diff.plain().copy() for name in names}
    param_diffs = {param.label: param.blob.diff.plain().copy() for param in net.params.owned}
    for name, diff in diffs.items():
        assert diff.dtype == np.float64
        assert np.isfinite(diff).all(), f"bottom {name}: backward left some of the diff unwritten"
        direction = rng.standard_normal(diff.shape)
        _compare(
            f"bottom {name}", diff, direction, objective.slope(objective.values[name], direction, step), rtol
        )
    if params:
        for param in net.params.owned:
            diff = param_diffs[param.label]
            direction = rng.standard_normal(diff.shape)
            _compare(
                f"param {param.label}",
                diff,
                direction,
                objective.slope_of_param(param.blob, direction, step),
                rtol,
            )
    objective.backward()
    for param in net.params.owned:
        np.testing.assert_allclose(
            param.blob.diff.plain(),
            2 * param_diffs[param.label],
            rtol=1e-12,
            atol=1e-12,
            err_msg=f"param {param.label}: a second backward must add to the diff",
        )
    for name, diff in diffs.items():
        np.testing.assert_allclose(
            net.blob(name).diff.plain(),
            diff,
            rtol=1e-12,
            atol=1e-12,
            err_msg=f"bottom {name}: a second backward must overwrite the diff",
        )
    return net


def _propagating(net: Net, inputs: dict[str, Values]) -> list[str]:
    """The inputs that some layer propagates to."""
    found = []
    for name in inputs:
        blob = net.blob(name)
        for step in net.steps:
            wanted = [w for b, w in zip(step.bottom, step.bottom_need_backward, strict=True) if b is blob]
            if any(wanted):
                found.append(name)
                break
    return found


def _compare(what: str, diff: Values, direction: Values, slope: float, rtol: float) -> None:
    """<diff, direction> against the slope, relative to the length of the diff or of the slope."""
    got = float((diff * direction).sum())
    scale = max(float(np.linalg.norm(diff)), abs(slope), 1e-3)
    assert abs(got - slope) <= rtol * scale, (
        f"{what}: backward gives {got:.10g} along the direction, differences give {slope:.10g} "
        f"(relative error {abs(got - slope) / scale:.2e})"
    )
