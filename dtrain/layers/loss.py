"""What losses share: how a summed loss is normalised. Source: Caffe's LossParameter and LossLayer."""

from __future__ import annotations

from dtrain.layers.layer import Layer
from dtrain.proto import dtrain_pb2 as pb


def normalization(layer: Layer, default: int) -> int:
    """The layer's mode; the old `normalize` counts only where `normalization` is not given."""
    param = layer.spec.loss_param
    if param.HasField("normalization") or not param.HasField("normalize"):
        return param.normalization if param.HasField("normalization") else default
    return pb.LossParameter.VALID if param.normalize else pb.LossParameter.BATCH_SIZE


def normalizer(layer: Layer, mode: int, outer: int, inner: int, valid: int) -> float:
    """What a loss summed over outer x inner positions, `valid` of them counted, is divided by; at least 1."""
    match mode:
        case pb.LossParameter.FULL:
            divisor = float(outer * inner)
        case pb.LossParameter.VALID:
            divisor = float(valid)
        case pb.LossParameter.BATCH_SIZE:
            divisor = float(outer)
        case pb.LossParameter.NONE:
            divisor = 1.0
        case pb.LossParameter.PRE_FIXED:
            divisor = layer.spec.loss_param.pre_fixed_normalizer
        case _:
            raise layer.bad_param(("loss_param", "normalization"), "a known mode", mode)
    return max(1.0, divisor)
