"""Layers as written in 2014 (`layers { type: CONVOLUTION ... }`) to today's."""

from __future__ import annotations

from typing import Final

from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.assign import assign
from dtrain.proto.layer_types import V1_TYPES
from dtrain.proto.sources import Path, SourceMap

MOVED_TO_TRANSFORM: Final = ("scale", "mean_file", "crop_size", "mirror")
DATA_PARAMS: Final = ("data_param", "image_data_param", "window_data_param")
_DATA_TYPES: Final = {
    pb.V1LayerParameter.DATA: "data_param",
    pb.V1LayerParameter.IMAGE_DATA: "image_data_param",
    pb.V1LayerParameter.WINDOW_DATA: "window_data_param",
}
_PER_PARAM: Final = {
    "param": "name",
    "blob_share_mode": "share_mode",
    "blobs_lr": "lr_mult",
    "weight_decay": "decay_mult",
}


def upgrade_v1(net: pb.NetParameter, sources: SourceMap, at: Path) -> list[str]:
    """Rewrite `net.layers` as `net.layer` in place."""
    old = list(net.layers)
    net.ClearField("layers")
    moved_fields = False
    moves: dict[Path, Path | None] = {}
    for index, layer in enumerate(old):
        moved_fields |= _move_transform(layer)
        _upgrade_layer(layer, net.layer.add())
        moves[(*at, "layers", index)] = (*at, "layer", index)
    sources.move(moves)
    done = [f'{len(old)} "layers" blocks of 2014 are now "layer" blocks']
    if moved_fields:
        done.append("scale, mean_file, crop_size and mirror moved from the data settings to transform_param")
    return done


def _move_transform(layer: pb.V1LayerParameter) -> bool:
    name = _DATA_TYPES.get(layer.type)
    if name is None:
        return False
    param = getattr(layer, name)
    moved = [field for field in MOVED_TO_TRANSFORM if param.HasField(field)]
    for field in moved:
        setattr(layer.transform_param, field, getattr(param, field))
        param.ClearField(field)
    return bool(moved)


def _upgrade_layer(old: pb.V1LayerParameter, new: pb.LayerParameter) -> None:
    for descriptor, value in old.ListFields():
        field = descriptor.name
        if field == "type":
            new.type = V1_TYPES[pb.V1LayerParameter.LayerType.Name(old.type)]
        elif field in _PER_PARAM:
            while len(new.param) < len(value):
                new.param.add()
            for spec, item in zip(new.param, value, strict=False):
                setattr(spec, _PER_PARAM[field], item)
        else:
            assign(new, field, value)
