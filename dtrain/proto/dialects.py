"""Binary tags that mean different things in different dialects, decided by evidence or refused.

Most collisions settle themselves: the types differ on the wire, and protobuf keeps a value of the wrong wire
type as an unknown field. What is left are tags with one wire type and two meanings:

    layer 148     clip_param (BVLC), smooth_l1_loss_param (Intel Caffe): the layer's type tells
    pooling 13    round_mode (BVLC), avg_include_pad (Intel Caffe): other fields of Intel Caffe tell
    solver 41     layer_wise_reduce (BVLC), rampup_interval (NVCaffe): nothing tells
    solver 42     weights (BVLC), ap_version (SSD): nothing tells
"""

from __future__ import annotations

from google.protobuf.unknown_fields import UnknownFieldSet

from dtrain.errors import ConfigError, WeightsError
from dtrain.proto import dtrain_pb2 as pb

_INTEL_LAYER_ENGINE = 149  # a string; NVCaffe's tag 149 is a bool
_LENGTH_DELIMITED = 2


def settle_net(net: pb.NetParameter, file: str) -> None:
    """Put what Intel Caffe wrote under BVLC's tags where it belongs, in place."""
    for layer in net.layer:
        if layer.HasField("clip_param") and layer.type == "SmoothL1Loss":
            if layer.clip_param.HasField("min"):
                layer.smooth_l1_loss_param.sigma = layer.clip_param.min
            layer.ClearField("clip_param")
    if any(layer.pooling_param.HasField("round_mode") for layer in net.layer) and _is_intel(net):
        for layer in net.layer:
            pooling = layer.pooling_param
            if pooling.HasField("round_mode"):
                pooling.avg_include_pad = pooling.round_mode == pb.PoolingParameter.FLOOR
                pooling.ClearField("round_mode")
    if not net.IsInitialized():
        raise WeightsError(f"{file}: every layer must have its required fields, got a layer without some")


def settle_solver(solver: pb.SolverParameter, file: str) -> None:
    """Refuse a binary solver that uses the tags about which the dialects disagree."""
    for descriptor, _ in solver.ListFields():
        if descriptor.name in ("layer_wise_reduce", "weights"):
            raise ConfigError(
                f"{file}: a binary solver must not use tag {descriptor.number}, got it; "
                "dialects read it differently, give the solver as prototxt"
            )


def _is_intel(net: pb.NetParameter) -> bool:
    if net.HasField("compile_net_state") or net.HasField("engine") or net.HasField("multinode"):
        return True
    return any(
        layer.HasField("quantization_param") or layer.HasField("split_param") or _has_intel_engine(layer)
        for layer in net.layer
    )


def _has_intel_engine(layer: pb.LayerParameter) -> bool:
    unknown = UnknownFieldSet(layer)
    found = [unknown[i] for i in range(len(unknown))]
    return any(
        field.field_number == _INTEL_LAYER_ENGINE and field.wire_type == _LENGTH_DELIMITED for field in found
    )
