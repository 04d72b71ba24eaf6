"""Log: y = log(shift + scale x) / log(base), base -1 meaning e. Source: Caffe's LogLayer."""

from __future__ import annotations

import math
from typing import Any, final

from dtrain.kernels.array import SyncedArray
from dtrain.layers.layer import Blobs
from dtrain.layers.neuron import Neuron


@final
class Log(Neuron):
    """bottom[0] -> top[0] of the same shape; may run in place."""

    type_name = "Log"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.log_param
        if param.base != -1 and (param.base <= 0 or param.base == 1):
            raise self.bad_param(("log_param", "base"), "positive and not 1, or -1 for e", f"{param.base:g}")
        self.outer = 1.0 if param.base == -1 else 1 / math.log(param.base)
        self.scale: float = param.scale
        self.shift: float = param.shift

    def operator(self, bottom: SyncedArray, top: SyncedArray) -> Any:
        return self.ops.Log(self.outer, self.scale, self.shift, bottom, top)
