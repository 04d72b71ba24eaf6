"""ShuffleChannel: channels of groups dealt in turn. Source: Zhang et al., ShuffleNet, 2017."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs, Layer
from dtrain.layers.sharing import refuse_in_place


@final
class ShuffleChannel(Layer):
    """bottom[0] (N, C, ...) -> top[0]: channel j of group i of `group` becomes channel j group + i."""

    type_name = "ShuffleChannel"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        refuse_in_place(self, bottom, top)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        if len(shape) < 2:
            raise self.bad_shape("bottom[0]", "at least 2 axes (N, C, ...)", shape)
        group = self.spec.shuffle_channel_param.group
        if group < 1 or shape[1] % group:
            raise self.bad_param(
                ("shuffle_channel_param", "group"),
                f"a divisor of the {shape[1]} channels of bottom[0]",
                group,
            )
        top[0].reshape(shape)
        self.op = self.ops.ShuffleChannel(group, bottom[0].data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self.op.backward(top[0].diff, bottom[0].diff)
