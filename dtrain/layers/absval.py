"""AbsVal: y = |x|. Source: Caffe's AbsValLayer."""

from __future__ import annotations

from typing import Any, final

from dtrain.kernels.array import SyncedArray
from dtrain.layers.layer import Blobs
from dtrain.layers.neuron import Neuron
from dtrain.layers.sharing import refuse_in_place


@final
class AbsVal(Neuron):
    """bottom[0] -> top[0] of the same shape, not in place."""

    type_name = "AbsVal"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        refuse_in_place(self, bottom, top)

    def operator(self, bottom: SyncedArray, top: SyncedArray) -> Any:
        return self.ops.AbsVal(bottom, top)
