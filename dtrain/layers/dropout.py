"""Dropout: in training each value is zero with probability dropout_ratio, else scaled by 1 / (1 - ratio).

Source: Caffe's DropoutLayer. In phase TEST the layer is the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs, Layer


@final
class Dropout(Layer):
    """bottom[0] (N, ...) -> top[0] of the same shape; may run in place; axis 0 counts the samples."""

    type_name = "Dropout"
    param_name = "dropout_param"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.dropout_param
        if not 0 <= param.dropout_ratio < 1:
            raise self.bad_param(
                ("dropout_param", "dropout_ratio"), "at least 0 and less than 1", f"{param.dropout_ratio:g}"
            )
        if param.random_seed < -1:
            raise self.bad_param(
                ("dropout_param", "random_seed"), "at least 0, or -1 for the net's", param.random_seed
            )
        self.ratio: float = param.dropout_ratio if self.is_training else 0.0
        self.seed = param.random_seed if param.random_seed >= 0 else None

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(bottom[0].shape)
        self.op = self.ops.Dropout(self.ratio, self.scope.rank, self.scope.size, bottom[0].data, top[0].data)

    def refresh(self) -> None:
        if self.ratio:
            self.op.draw(self.random_key(self.seed))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.refresh()
        self.op.forward(bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self.op.backward(top[0].diff, bottom[0].diff)
