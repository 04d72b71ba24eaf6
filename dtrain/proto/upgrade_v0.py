"""Layers as written in 2013 (`layers { layer { type: "conv" ... } }`) to those of 2014."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dtrain.errors import ConfigError, unknown_name
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.assign import assign
from dtrain.proto.layer_types import V0_TYPES
from dtrain.proto.sources import Path, SourceMap

_CONV: Final = "convolution_param"
_IP: Final = "inner_product_param"
_POOL: Final = "pooling_param"
_DATA: Final = "data_param"
_HDF5: Final = "hdf5_data_param"
_IMAGES: Final = "image_data_param"
_WINDOW: Final = "window_data_param"

# A field of 2013 -> for each type that has it, the message that holds it now, and its name there.
_FIELDS: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "num_output": ("num_output", {"conv": _CONV, "innerproduct": _IP}),
    "biasterm": ("bias_term", {"conv": _CONV, "innerproduct": _IP}),
    "weight_filler": ("weight_filler", {"conv": _CONV, "innerproduct": _IP}),
    "bias_filler": ("bias_filler", {"conv": _CONV, "innerproduct": _IP}),
    "pad": ("pad", {"conv": _CONV, "pool": _POOL}),
    "kernelsize": ("kernel_size", {"conv": _CONV, "pool": _POOL}),
    "group": ("group", {"conv": _CONV}),
    "stride": ("stride", {"conv": _CONV, "pool": _POOL}),
    "pool": ("pool", {"pool": _POOL}),
    "dropout_ratio": ("dropout_ratio", {"dropout": "dropout_param"}),
    "local_size": ("local_size", {"lrn": "lrn_param"}),
    "alpha": ("alpha", {"lrn": "lrn_param"}),
    "beta": ("beta", {"lrn": "lrn_param"}),
    "k": ("k", {"lrn": "lrn_param"}),
    "source": (
        "source",
        {
            "data": _DATA,
            "hdf5_data": _HDF5,
            "images": _IMAGES,
            "window_data": _WINDOW,
            "infogain_loss": "infogain_loss_param",
        },
    ),
    "batchsize": (
        "batch_size",
        {"data": _DATA, "hdf5_data": _HDF5, "images": _IMAGES, "window_data": _WINDOW},
    ),
    "rand_skip": ("rand_skip", {"data": _DATA, "images": _IMAGES}),
    "shuffle_images": ("shuffle", {"images": _IMAGES}),
    "new_height": ("new_height", {"images": _IMAGES}),
    "new_width": ("new_width", {"images": _IMAGES}),
    "concat_dim": ("concat_dim", {"concat": "concat_param"}),
    "det_fg_threshold": ("fg_threshold", {"window_data": _WINDOW}),
    "det_bg_threshold": ("bg_threshold", {"window_data": _WINDOW}),
    "det_fg_fraction": ("fg_fraction", {"window_data": _WINDOW}),
    "det_context_pad": ("context_pad", {"window_data": _WINDOW}),
    "det_crop_mode": ("crop_mode", {"window_data": _WINDOW}),
}
_TRANSFORM: Final = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}


def upgrade_v0(net: pb.NetParameter, sources: SourceMap, at: Path) -> list[str]:
    """Rewrite `net.layers` in place; padding layers become the `pad` of the layer that they feed."""
    old = list(net.layers)
    del net.layers[:]
    moves: dict[Path, Path | None] = {}
    dropped: list[str] = []
    last_top: dict[str, pb.V1LayerParameter] = {}
    padding = 0
    for index, connection in enumerate(old):
        where = sources.where((*at, "layers", index))
        if connection.layer.type == "padding":
            padding += 1
            moves[(*at, "layers", index)] = None
        else:
            moves[(*at, "layers", index)] = (*at, "layers", len(net.layers))
            new = net.layers.add()
            new.CopyFrom(connection)
            _fold_padding(new, last_top, where)
            if connection.HasField("layer"):
                dropped += _upgrade_layer(new, where)
        for top in connection.top:
            last_top[top] = connection
    sources.move(moves)
    folded = f", {padding} padding layers became pad" if padding else ""
    return [f"{len(old)} layers of 2013 were rewritten{folded}", *dropped]


def _fold_padding(new: pb.V1LayerParameter, last_top: Mapping[str, pb.V1LayerParameter], where: str) -> None:
    for j, blob in enumerate(new.bottom):
        source = last_top.get(blob)
        if source is None or source.layer.type != "padding":
            continue
        name = f'{where}: layer "{new.layer.name}" ({new.layer.type})'
        if new.layer.type not in ("conv", "pool") or len(new.bottom) != 1:
            raise ConfigError(
                f"{name}: a padding layer must feed a conv or pool layer of one bottom, got {blob}; "
                "write the padding as pad of a Convolution or Pooling layer"
            )
        if len(source.bottom) != 1 or len(source.top) != 1:
            raise ConfigError(
                f'{where}: padding layer "{source.layer.name}" must have one bottom and one top, '
                f"got {len(source.bottom)} and {len(source.top)}"
            )
        new.layer.pad = source.layer.pad
        new.bottom[j] = source.bottom[0]


def _upgrade_layer(new: pb.V1LayerParameter, where: str) -> list[str]:
    """Move what `new.layer` says to its places of 2014; returns what has no place."""
    layer = pb.V0LayerParameter()
    layer.CopyFrom(new.layer)
    new.ClearField("layer")
    dropped: list[str] = []
    for descriptor, value in layer.ListFields():
        field = descriptor.name
        if field == "type":
            if value not in V0_TYPES:
                raise ConfigError(f"{where}: {unknown_name('layer type', value, [*V0_TYPES, 'padding'])}")
            setattr(new, field, pb.V1LayerParameter.LayerType.Value(V0_TYPES[value]))
        elif field == "name":
            new.name = value
        elif field in ("blobs", "blobs_lr", "weight_decay"):
            getattr(new, field).extend(value)
        elif field in _TRANSFORM:
            setattr(new.transform_param, _TRANSFORM[field], value)
        elif field == "hdf5_output_param" and layer.type == "hdf5_output":
            new.hdf5_output_param.CopyFrom(value)
        else:
            today, holders = _FIELDS.get(field, ("", {}))
            if layer.type in holders:
                assign(getattr(new, holders[layer.type]), today, value)
            else:
                dropped.append(f'layer "{layer.name}": {field} means nothing to type "{layer.type}", dropped')
    return dropped
