"""Embed: every index becomes a learned vector. Source: Caffe's EmbedLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.layers.layer import Blobs, Layer
from dtrain.layers.loss import locating_data_errors
from dtrain.layers.no_gradient import refuse_gradient


@final
class Embed(Layer):
    """bottom[0] indices in [0, input_dim) of any shape -> top[0] (*indices, num_output)."""

    type_name = "Embed"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.embed_param
        for name in ("num_output", "input_dim"):
            if getattr(param, name) < 1:
                raise self.bad_param(("embed_param", name), "at least 1", getattr(param, name))
        self.add_blob((param.input_dim, param.num_output), param.weight_filler)
        if param.bias_term:
            self.add_blob((param.num_output,), param.bias_filler)

    def _bias(self) -> SyncedArray | None:
        return self.blobs[1].data if len(self.blobs) > 1 else None

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape((*bottom[0].shape, self.spec.embed_param.num_output))
        self.op = self.ops.Embed(bottom[0].data, self.blobs[0].data, self._bias(), top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        with locating_data_errors(self):
            self.op.forward(bottom[0].data, self.blobs[0].data, self._bias(), top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        refuse_gradient(self, propagate_down, 0)
        wants = self.param_propagate_down
        self.op.backward(
            top[0].diff,
            bottom[0].data,
            self.blobs[0].diff if wants[0] else None,
            self.blobs[1].diff if len(self.blobs) > 1 and wants[1] else None,
        )

    def allows_force_backward(self, bottom_index: int) -> bool:
        return False
