"""Tile: a blob repeated along one axis. Source: Caffe's TileLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs, Layer
from dtrain.layers.sharing import refuse_in_place


@final
class Tile(Layer):
    """bottom[0] -> top[0] with `tiles` times the extent at `axis`."""

    type_name = "Tile"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        refuse_in_place(self, bottom, top)
        if self.spec.tile_param.tiles < 1:
            raise self.bad_param(("tile_param", "tiles"), "at least 1", self.spec.tile_param.tiles)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        tiles = self.spec.tile_param.tiles
        axis = self.axis(self.spec.tile_param.axis, len(shape), "tile_param", "axis")
        top[0].reshape((*shape[:axis], shape[axis] * tiles, *shape[axis + 1 :]))
        self.op = self.ops.Tile(axis, tiles, bottom[0].data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self.op.backward(top[0].diff, bottom[0].diff)
