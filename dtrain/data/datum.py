"""Caffe's Datum: what the converters write and the LMDB reader reads."""

from __future__ import annotations

import numpy as np
from google.protobuf.message import DecodeError

from dtrain.data.record import Pixels, Record
from dtrain.errors import DataError
from dtrain.proto import dtrain_pb2 as pb


def decode_datum(value: bytes, where: str) -> Record:
    """The definition of how a Datum is read; `datum_scan` does the same for many at once."""
    datum = pb.Datum()
    try:
        datum.ParseFromString(value)
    except DecodeError as error:
        raise DataError(
            f"{where}: must be a Datum message, got {len(value)} bytes that are none ({error})"
        ) from error
    return record_of(datum, where)


def record_of(datum: pb.Datum, where: str) -> Record:
    """The record that a message holds."""
    labels = (float(datum.label),)
    if datum.encoded:
        if not datum.data:
            raise DataError(f"{where}: an encoded Datum must have data, got none")
        return Record(where, labels, encoded=datum.data)
    shape = (datum.channels, datum.height, datum.width)
    count = check_shape(shape, where)
    if datum.data:
        check_count("bytes of data", len(datum.data), shape, count, where)
        return Record(where, labels, np.frombuffer(datum.data, np.uint8).reshape(shape))
    check_count("values of float_data", len(datum.float_data), shape, count, where)
    return Record(where, labels, np.array(datum.float_data, np.float32).reshape(shape))


def check_shape(shape: tuple[int, int, int], where: str) -> int:
    """The number of values in (C, H, W), each of which must be positive."""
    channels, height, width = shape
    if min(shape) <= 0:
        raise DataError(
            f"{where}: channels, height and width must be positive, got {channels}, {height}, {width}"
        )
    return channels * height * width


def check_count(what: str, got: int, shape: tuple[int, int, int], count: int, where: str) -> None:
    """Raise unless a Datum holds as many values as its shape says."""
    if got != count:
        channels, height, width = shape
        raise DataError(f"{where}: {what} must number {channels} x {height} x {width} = {count}, got {got}")


def encode_pixels(pixels: Pixels, label: int) -> bytes:
    """A serialised Datum of raw (C, H, W) uint8 pixels, or of float32 values."""
    channels, height, width = pixels.shape
    datum = pb.Datum(channels=channels, height=height, width=width, label=label)
    if pixels.dtype == np.uint8:
        datum.data = pixels.tobytes()
    else:
        datum.float_data.extend(pixels.ravel().tolist())
    return datum.SerializeToString()


def encode_image(image: bytes, label: int) -> bytes:
    """A serialised Datum of an encoded image."""
    return pb.Datum(data=image, label=label, encoded=True).SerializeToString()
