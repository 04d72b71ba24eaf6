"""Weights of a net to and from caffemodel files, layer by layer of equal name.

Source of the rules: Net::CopyTrainedLayersFrom, Net::ToProto and Net::ToHDF5 of BVLC Caffe 1.0.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np

from dtrain.errors import WeightsError
from dtrain.kernels.array import Plain
from dtrain.layers.layer import Layer
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.blobproto import (
    array_to_blobproto,
    blob_shape,
    blobproto_to_array,
    fill_blobproto,
    fits,
)
from dtrain.proto.files import read_binary
from dtrain.solvers import hdf5
from dtrain.solvers.batch_norm_blobs import blobs_for, in_order

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
        load_hdf5(net, Path(path))
        return
    stored = pb.NetParameter()
    read_binary(path, stored)
    load_message(net, stored, str(path))


def load_message(net: Net, stored: pb.NetParameter, where: str) -> None:
    """Copy weights from a message; `where` is named in errors."""
    found = blobs_for(net, stored, where)
    known = {layer.name for layer in net.layers}
    tell_ignored(where, [name for name in found if name not in known])
    for layer in net.layers:
        if layer.name in found:
            _load_layer(layer, found[layer.name], where)


def tell_ignored(where: str, names: Sequence[str]) -> None:
    """One line for the layers of a file that the net lacks."""
    if names:
        logger.info("%s: Ignoring source layers that the net lacks: %s", where, ", ".join(names))


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


def load_hdf5(net: Net, path: Path) -> None:
    """Copy weights by layer name from Caffe's HDF5 layout. Raises WeightsError."""
    found = _by_layer(hdf5.read(path, WeightsError), path)
    known = {layer.name for layer in net.layers}
    tell_ignored(str(path), [name for name in found if name not in known])
    for index, layer in enumerate(net.layers):
        values = found.get(layer.name, {})
        told = f'{path}: layer "{layer.name}" ({layer.spec.type})'
        if layer.spec.type == "BatchNorm":
            values = _in_order(values, told)
        if max(values, default=-1) >= len(layer.blobs):
            raise WeightsError(
                f"{told}: the number of blobs must be {len(layer.blobs)}, got {max(values) + 1}"
            )
        for j, mine in enumerate(layer.blobs):
            owner = net.params.of_layer(index, j)
            is_shared = (owner.layer_index, owner.blob_index) != (index, j)
            if j not in values and (is_shared or not values):
                continue
            shape = values[j].shape if j in values else None
            if shape != mine.shape:
                raise WeightsError(
                    f"{told}: the shape of blob {j} must be {mine.shape}, got {shape or 'none'}; "
                    f"rename the layer to train it from scratch"
                )
            mine.data.plain_overwrite()[...] = values[j]


def _by_layer(stored: Mapping[str, hdf5.Value], path: Path) -> dict[str, dict[int, Plain]]:
    """The datasets data/LAYER/J; a layer's name may have slashes of its own."""
    found: dict[str, dict[int, Plain]] = {}
    for key, value in stored.items():
        group, _, rest = key.partition("/")
        name, _, number = rest.rpartition("/")
        if group == "data" and name and number.isascii() and number.isdigit():
            if not isinstance(value, np.ndarray) or not np.issubdtype(value.dtype, np.floating):
                raise WeightsError(f"{path}: {key} must hold floating-point values, got others")
            found.setdefault(name, {})[int(number)] = value
    return found


def _in_order(values: Mapping[int, Plain], told: str) -> dict[int, Plain]:
    """BatchNorm's blobs in the order of this net, if they are whole."""
    if sorted(values) != list(range(len(values))):
        return dict(values)
    blobs = in_order([array_to_blobproto(values[j]) for j in range(len(values))], told)
    return {j: blobproto_to_array(blob, where=told) for j, blob in enumerate(blobs)}


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
