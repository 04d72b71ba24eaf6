"""In which precision a layer runs: what it says itself, what a flag says, what the net says.

Source of the fields: NVCaffe's forward_type, backward_type and their defaults in the net; BFLOAT16 is ours.
The math fields need no care: sums are always taken in float32.
"""

from __future__ import annotations

from typing import Final

from dtrain.errors import ConfigError
from dtrain.proto import dtrain_pb2 as pb

NAMES: Final = {pb.FLOAT: "fp32", pb.FLOAT16: "fp16", pb.BFLOAT16: "bf16"}


def of_net(param: pb.NetParameter, where: str) -> str:
    """What the net says for all its layers; empty if it says nothing."""
    if not (param.HasField("default_forward_type") or param.HasField("default_backward_type")):
        return ""
    return _common(param.default_forward_type, param.default_backward_type, f"{where}: default_forward_type")


def of_layer(spec: pb.LayerParameter, where: str) -> str:
    """What the layer says itself; empty if it says nothing."""
    if not (spec.HasField("forward_type") or spec.HasField("backward_type")):
        return ""
    forward = spec.forward_type if spec.HasField("forward_type") else spec.backward_type
    backward = spec.backward_type if spec.HasField("backward_type") else forward
    return _common(forward, backward, f"{where}: forward_type")


def _common(forward: pb.Type, backward: pb.Type, where: str) -> str:
    """One type both ways: float32, which holds the other's values, where they differ."""
    for kind in (forward, backward):
        if kind not in NAMES:
            known = ", ".join(pb.Type.Name(known) for known in NAMES)
            got = pb.Type.Name(kind)
            raise ConfigError(f"{where} must be one of {known}, got {got}")
    return NAMES[forward] if forward == backward else "fp32"
