"""What losses share: how a summed loss is normalised, and what they refuse.

Source: Caffe's LossParameter and LossLayer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dtrain.errors import DataError
from dtrain.kernels.normalizer import Normalizer
from dtrain.layers.layer import Blobs, Layer
from dtrain.proto import dtrain_pb2 as pb


def normalization(layer: Layer, default: int) -> int:
    """The layer's mode; the old `normalize` counts only where `normalization` is not given."""
    param = layer.spec.loss_param
    if param.HasField("normalization") or not param.HasField("normalize"):
        return param.normalization if param.HasField("normalization") else default
    return pb.LossParameter.VALID if param.normalize else pb.LossParameter.BATCH_SIZE


def normalizer(layer: Layer, mode: int, outer: int, inner: int) -> Normalizer:
    """What a loss summed over outer x inner positions, or those of them that count, is divided by."""
    match mode:
        case pb.LossParameter.FULL:
            divisor = float(outer * inner)
        case pb.LossParameter.VALID:
            return Normalizer()
        case pb.LossParameter.BATCH_SIZE:
            divisor = float(outer)
        case pb.LossParameter.NONE:
            divisor = 1.0
        case pb.LossParameter.PRE_FIXED:
            divisor = layer.spec.loss_param.pre_fixed_normalizer
        case _:
            raise layer.bad_param(("loss_param", "normalization"), "a known mode", mode)
    return Normalizer(divisor)


def ignore_label(layer: Layer) -> int | None:
    """The label whose positions do not count, if the layer names one."""
    param = layer.spec.loss_param
    return param.ignore_label if param.HasField("ignore_label") else None


def check_same_batch(layer: Layer, bottom: Blobs) -> None:
    """The predictions and what they are compared with have equally many samples."""
    for blob in bottom[:2]:
        if not blob.shape:
            raise layer.bad_shape("bottoms", "a batch axis", "a scalar")
    if bottom[0].shape[0] != bottom[1].shape[0]:
        raise layer.bad_shape(
            "bottom[1]",
            f"as many samples as bottom[0] ({bottom[0].shape[0]})",
            f"{bottom[1].shape[0]} {bottom[1].shape}",
        )


def check_label_count(layer: Layer, bottom: Blobs, expected: int) -> None:
    """bottom[1] holds one label for each of `expected` score vectors."""
    if bottom[1].count != expected:
        raise layer.bad_shape(
            "bottom[1] (labels)",
            f"one label per score vector of bottom[0] {bottom[0].shape} ({expected})",
            f"{bottom[1].count} {bottom[1].shape}",
        )


@contextmanager
def locating_data_errors(layer: Layer) -> Iterator[None]:
    """A DataError from an operator leaves with the layer's place in front, and the record's name behind.

    The record is named where the net has one source, so that a sample can be of no other.
    """
    try:
        yield
    except DataError as error:
        names, record = layer.scope.sample_names, ""
        if error.sample is not None and len(names) == 1:
            record = f" (record: {names[0](error.sample)})"
        raise DataError(f"{layer.error(str(error))}{record}") from None
