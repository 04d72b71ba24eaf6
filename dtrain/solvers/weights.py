"""Weights of a net to and from caffemodel files, layer by layer of equal name.

Source of the rules: Net::CopyTrainedLayersFrom, Net::ToProto and Net::ToHDF5 of BVLC Caffe 1.0.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np

from dtrain.errors import WeightsError
from dtrain.kernels.array import Plain
from dtrain.layers.layer import Layer
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.blobproto import blob_shape, blobproto_to_array, fill_blobproto, fits
from dtrain.proto.files import read_binary
from dtrain.solvers import hdf5

logger = logging.getLogger(__name__)

HDF5_SUFFIX: Final = ".h5"


@final
@dataclass(frozen=True)
class LayerWeights:
    """A copy of one layer's blobs; `owned` says of each whether no earlier layer shares it."""

    spec: pb.LayerParameter
    data: list[Plain]
    diff: list[Plain] | None
    owned: list[bool]


def load(net: Net, path: str | Path) -> None:
    """Copy weights into the layers that have a namesake in the file. Raises WeightsError."""
    if str(path).endswith(HDF5_SUFFIX):
        _load_hdf5(net, Path(path))
        return
    stored = pb.NetParameter()
    read_binary(path, stored)
    load_message(net, stored, str(path))


def load_message(net: Net, stored: pb.NetParameter, where: str) -> None:
    """Copy weights from a message; `where` is named in errors."""
    known = {layer.name: layer for layer in net.layers}
    ignored = [source.name for source in stored.layer if source.name not in known]
    if ignored:
        logger.info("%s: Ignoring source layers that the net lacks: %s", where, ", ".join(ignored))
    for source in stored.layer:
        if source.name in known:
            _load_layer(known[source.name], source.blobs, where)


def _load_layer(layer: Layer, blobs: Sequence[pb.BlobProto], where: str) -> None:
    told = f'{where}: layer "{layer.name}" ({layer.spec.type})'
    if len(blobs) != len(layer.blobs):
        raise WeightsError(f"{told}: the number of blobs must be {len(layer.blobs)}, got {len(blobs)}")
    for j, (mine, stored) in enumerate(zip(layer.blobs, blobs, strict=True)):
        if not fits(stored, mine.shape):
            raise WeightsError(
                f"{told}: the shape of blob {j} must be {mine.shape}, got {blob_shape(stored)}; "
                f"rename the layer to train it from scratch"
            )
        values = blobproto_to_array(stored, where=f"{told}: blob {j}")
        mine.data.plain_overwrite()[...] = values.reshape(mine.shape)


def _load_hdf5(net: Net, path: Path) -> None:
    stored = hdf5.read(path, WeightsError)
    for index, layer in enumerate(net.layers):
        prefix = f"data/{layer.name}/"
        given = any(key.startswith(prefix) for key in stored)
        for j, mine in enumerate(layer.blobs):
            told = f'{path}: layer "{layer.name}" ({layer.spec.type}): blob {j}'
            values = stored.get(f"{prefix}{j}")
            owner = net.params.of_layer(index, j)
            if values is None and ((owner.layer_index, owner.blob_index) != (index, j) or not given):
                continue
            shape = np.shape(values) if values is not None else None
            if not isinstance(values, np.ndarray) or shape != mine.shape:
                raise WeightsError(f"{told}: the shape must be {mine.shape}, got {shape or 'none'}")
            mine.data.plain_overwrite()[...] = values
    ignored = sorted({key.split("/")[1] for key in stored if key.startswith("data/")})
    unknown = [
        name for name in ignored if not any(f"{layer.name}/".startswith(f"{name}/") for layer in net.layers)
    ]
    if unknown:
        logger.info("%s: Ignoring source layers that the net lacks: %s", path, ", ".join(unknown))


def hdf5_of(copies: Sequence[LayerWeights]) -> dict[str, hdf5.Value]:
    """The copied weights as the datasets of a caffemodel.h5."""
    values: dict[str, hdf5.Value] = {}
    for copy in copies:
        for j, data in enumerate(copy.data):
            if copy.owned[j]:
                values[f"data/{copy.spec.name}/{j}"] = data
            if copy.diff is not None:
                values[f"diff/{copy.spec.name}/{j}"] = copy.diff[j]
    return values


def copy_of(net: Net, *, with_diff: bool = False) -> list[LayerWeights]:
    """The weights as they are now, layer by layer, Splits included as in Caffe."""
    copies = []
    for index, layer in enumerate(net.layers):
        owners = [net.params.of_layer(index, j) for j in range(len(layer.blobs))]
        copies.append(
            LayerWeights(
                layer.spec,
                [blob.data.plain().copy() for blob in layer.blobs],
                [blob.diff.plain().copy() for blob in layer.blobs] if with_diff else None,
                [(o.layer_index, o.blob_index) == (index, j) for j, o in enumerate(owners)],
            )
        )
    return copies


def message_of(name: str, copies: Sequence[LayerWeights]) -> pb.NetParameter:
    """The copied weights as a caffemodel."""
    message = pb.NetParameter(name=name)
    for copy in copies:
        layer = message.layer.add()
        layer.CopyFrom(copy.spec)
        layer.ClearField("blobs")
        for j, data in enumerate(copy.data):
            fill_blobproto(layer.blobs.add(), data, copy.diff[j] if copy.diff is not None else None)
    return message
