"""BatchNorm's blobs in the orders of Caffe's forks, brought to the one of this net.

Here, in Caffe, in NVCaffe from 0.16 on and in Intel Caffe: mean, variance, factor, and where the layer learns
them scale and bias. NVCaffe 0.15, which DIGITS used: scale, bias, mean, variance, and one unused number.
NVCaffe 0.14 with cuDNN: scale, bias, one unused number, mean, variance, each of four axes. A mean and a
variance of NVCaffe are not divided by the factor, so that theirs may be any number.

Intel Caffe with MKL keeps the scale and bias of the Scale layer behind in the BatchNorm layer.

Source: Net::CopyTrainedLayersFrom and the BatchNorm layers of NVCaffe's branches caffe-0.14 to caffe-0.17;
Net::CompileNet, rule 1, of Intel Caffe.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.blobproto import blob_shape, blobproto_to_array

logger = logging.getLogger(__name__)

BlobProtos: TypeAlias = list[pb.BlobProto]

STATISTICS: Final = 3  # mean, variance, factor
ALL: Final = 5


def in_order(blobs: Sequence[pb.BlobProto], where: str) -> BlobProtos:
    """The blobs of a BatchNorm layer as mean, variance, factor[, scale[, bias]], each of one axis.

    A factor of 0 beside a variance would make all statistics 0: it is what conversion from NVCaffe leaves,
    and is made 1. Raises DataError for blobs that hold other than what their shape says.
    """
    shapes = [blob_shape(blob) for blob in blobs]
    counts = [math.prod(shape) for shape in shapes]
    flat = [_flat(blob) for blob in blobs]
    if len(flat) == ALL and counts[4] == 1 and (counts[0] > 1 or len(shapes[0]) == 4):
        flat = [flat[2], flat[3], _number(1), flat[0], flat[1]]
    elif len(flat) == ALL and counts[2] == 1 and len(shapes[0]) == 4 and shapes[0][0] == 1:
        flat = [flat[3], flat[4], _number(1), flat[0], flat[1]]
    if len(flat) >= STATISTICS and math.prod(blob_shape(flat[2])) == 1:
        factor = blobproto_to_array(flat[2], where=f"{where}: blob 2")
        variance = blobproto_to_array(flat[1], where=f"{where}: blob 1")
        if not factor.any() and variance.any():
            logger.warning("%s: a factor of 0 is read as 1, since it stands beside a variance", where)
            flat[2] = _number(1)
    return flat


def _flat(blob: pb.BlobProto) -> pb.BlobProto:
    """A copy of one axis."""
    copy = pb.BlobProto()
    copy.CopyFrom(blob)
    count = math.prod(blob_shape(blob))
    for axis in ("num", "channels", "height", "width"):
        copy.ClearField(axis)
    del copy.shape.dim[:]
    copy.shape.dim.append(count)
    return copy


def _number(value: float) -> pb.BlobProto:
    return pb.BlobProto(shape=pb.BlobShape(dim=[1]), data=[value])


def blobs_for(net: Net, stored: pb.NetParameter, where: str) -> dict[str, BlobProtos]:
    """The stored blobs by layer name, BatchNorm's in order, and parted or joined as the net's layers are.

    Scale and bias move between a BatchNorm layer and the Scale layer behind it only where the net has a
    place for them in one and the file in the other.
    """
    kinds = {layer.name: layer.spec.type for layer in net.layers}
    found = {layer.name: list(layer.blobs) for layer in stored.layer}
    for layer in stored.layer:
        if layer.blobs and (layer.type or kinds.get(layer.name)) == "BatchNorm":
            found[layer.name] = in_order(layer.blobs, f'{where}: layer "{layer.name}"')
    for place, step in enumerate(net.steps):
        norm = step.layer
        blobs = found.get(norm.name)
        if norm.spec.type != "BatchNorm" or not blobs:
            continue
        if len(blobs) > len(norm.blobs) == STATISTICS:
            readers = [s for s in net.steps[place + 1 :] if any(b is step.top[0] for b in s.bottom)]
            scale = _lone_scale([reader.layer.spec for reader in readers[:1]])
            if scale is not None and not found.get(scale.name):
                found[norm.name], found[scale.name] = blobs[:STATISTICS], blobs[STATISTICS:]
        elif len(blobs) == STATISTICS < len(norm.blobs):
            scale = _lone_scale(_readers(stored, norm.name))
            if scale is not None and scale.name not in kinds:
                found[norm.name] = blobs + found.pop(scale.name)
    return found


def _readers(stored: pb.NetParameter, name: str) -> list[pb.LayerParameter]:
    """The first stored layer behind that of the name which reads its top."""
    layers = list(stored.layer)
    place = next(i for i, layer in enumerate(layers) if layer.name == name)
    tops = set(layers[place].top)
    return [layer for layer in layers[place + 1 :] if tops.intersection(layer.bottom)][:1]


def _lone_scale(specs: Iterable[pb.LayerParameter]) -> pb.LayerParameter | None:
    """The layer, if it is a Scale layer that learns its factors."""
    return next((spec for spec in specs if spec.type == "Scale" and len(spec.bottom) == 1), None)
