"""Exp: y = base ^ (shift + scale x), base -1 meaning e. Source: Caffe's ExpLayer."""

from __future__ import annotations

import math
from typing import Any, final

from dtrain.kernels.array import SyncedArray
from dtrain.layers.layer import Blobs
from dtrain.layers.neuron import Neuron


@final
class Exp(Neuron):
    """bottom[0] -> top[0] of the same shape; may run in place."""

    type_name = "Exp"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.exp_param
        if param.base != -1 and param.base <= 0:
            raise self.bad_param(("exp_param", "base"), "positive, or -1 for e", f"{param.base:g}")
        log_base = 1.0 if param.base == -1 else math.log(param.base)
        self.inner = log_base * param.scale
        try:
            self.outer = math.exp(log_base * param.shift)
        except OverflowError:
            raise self.bad_param(
                ("exp_param", "shift"), "such that base ^ shift is finite", f"{param.shift:g}"
            ) from None

    def operator(self, bottom: SyncedArray, top: SyncedArray) -> Any:
        return self.ops.Exp(self.inner, self.outer, bottom, top)
