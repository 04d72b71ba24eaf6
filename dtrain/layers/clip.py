"""Clip: y = max(min, min(x, max)). Source: Caffe's ClipLayer."""

from __future__ import annotations

from typing import Any, final

from dtrain.kernels.array import SyncedArray
from dtrain.layers.layer import Blobs
from dtrain.layers.neuron import Neuron


@final
class Clip(Neuron):
    """bottom[0] -> top[0] of the same shape; may run in place."""

    type_name = "Clip"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.clip_param
        for name in ("min", "max"):
            if not param.HasField(name):
                raise self.bad_param(("clip_param", name), "given", "none")
        if param.min > param.max:
            raise self.bad_param(("clip_param", "min"), f"at most max ({param.max:g})", f"{param.min:g}")
        self.low: float = param.min
        self.high: float = param.max

    def operator(self, bottom: SyncedArray, top: SyncedArray) -> Any:
        return self.ops.Clip(self.low, self.high, bottom, top)
