"""What layers of one function of one number share. Caffe's NeuronLayer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from dtrain.kernels.array import SyncedArray
from dtrain.layers.layer import Blobs, Layer


class Neuron(Layer):
    """bottom[0] -> top[0] of the same shape; may run in place."""

    @abstractmethod
    def operator(self, bottom: SyncedArray, top: SyncedArray) -> Any:
        """The operator: forward(bottom, top), backward(top_diff, bottom, top, bottom_diff)."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(bottom[0].shape)
        self.op = self.operator(bottom[0].data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self.op.backward(top[0].diff, bottom[0].data, top[0].data, bottom[0].diff)
