"""Initial values of parameters. Source of names and formulas: Caffe's filler.hpp."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dtrain.errors import ConfigError, unknown_name
from dtrain.proto import dtrain_pb2 as pb

Values = NDArray[np.float64]

TYPES = ("constant", "uniform", "gaussian", "positive_unitball", "xavier", "msra", "bilinear")


def fill(spec: pb.FillerParameter, shape: tuple[int, ...], rng: np.random.Generator) -> Values:
    """Values of `shape`, drawn from `rng` in float64."""
    match spec.type:
        case "constant":
            return np.full(shape, spec.value, np.float64)
        case "uniform":
            if not 0 <= spec.max - spec.min < np.inf:
                raise ConfigError(f"max must be at least min and finite, got {spec.max:g} and {spec.min:g}")
            return rng.uniform(spec.min, spec.max, shape)
        case "gaussian":
            return _gaussian(spec, shape, rng)
        case "positive_unitball":
            return _positive_unitball(shape, rng)
        case "xavier":
            bound = np.sqrt(3.0 / _fan(spec, shape))
            return rng.uniform(-bound, bound, shape)
        case "msra":
            return rng.normal(0.0, np.sqrt(2.0 / _fan(spec, shape)), shape)
        case "bilinear":
            return _bilinear(shape)
        case other:
            raise ConfigError(unknown_name("filler type", other, TYPES))


def _fan(spec: pb.FillerParameter, shape: tuple[int, ...]) -> float:
    """What variance is normalised by: inputs of a unit, its outputs, or their mean."""
    count = int(np.prod(shape))
    fan_in = count / shape[0] if shape else 1.0
    fan_out = count / shape[1] if len(shape) > 1 else float(count)
    if spec.variance_norm == pb.FillerParameter.FAN_OUT:
        return fan_out
    if spec.variance_norm == pb.FillerParameter.AVERAGE:
        return (fan_in + fan_out) / 2
    return fan_in


def _gaussian(spec: pb.FillerParameter, shape: tuple[int, ...], rng: np.random.Generator) -> Values:
    """Normal values; with `sparse` s, each is kept with probability s / (outputs of the layer)."""
    if not spec.std >= 0:
        raise ConfigError(f"std must be at least 0, got {spec.std}")
    values = rng.normal(spec.mean, spec.std, shape)
    if spec.sparse >= 0:
        keep = spec.sparse / (*shape, 1)[0]
        if not 0 <= keep <= 1:
            raise ConfigError(
                f"sparse must be at most the number of outputs ({(*shape, 1)[0]}), got {spec.sparse}"
            )
        values *= rng.random(shape) < keep
    return values


def _positive_unitball(shape: tuple[int, ...], rng: np.random.Generator) -> Values:
    """Uniform in [0, 1), scaled so that the inputs of each output sum to 1."""
    values = rng.random(shape)
    rows = values.reshape((*shape, 1)[0], -1)
    rows /= rows.sum(axis=1, keepdims=True)
    return values


def _bilinear(shape: tuple[int, ...]) -> Values:
    """Interpolation weights for upsampling by deconvolution."""
    if len(shape) != 4 or shape[2] != shape[3]:
        raise ConfigError(f"bilinear filler: shape must be 4-D with equal height and width, got {shape}")
    width = shape[3]
    f = np.ceil(width / 2.0)
    c = (width - 1) / (2.0 * f)
    line = 1 - np.abs(np.arange(width) / f - c)
    return np.broadcast_to(np.outer(line, line), shape).copy()
