"""Split: the same blob for several consumers; their diffs add up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import AT_LEAST_ONE, Blobs, Layer


@final
class Split(Layer):
    """bottom[0] -> any number of tops that share its data."""

    type_name = "Split"
    num_tops = AT_LEAST_ONE

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        """There are no parameters."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for blob in top:
            blob.reshape(bottom[0].shape)
            blob.share_data(bottom[0])
        self.op = self.ops.Sum([1.0] * len(top), [blob.diff for blob in top], bottom[0].diff)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """The tops already hold the bottom's data."""

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self.op.forward([blob.diff for blob in top], bottom[0].diff)
