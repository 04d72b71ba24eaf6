"""The mean image that Caffe keeps in a binaryproto file."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from dtrain.errors import DataError
from dtrain.proto import dtrain_pb2 as pb


def read_mean(path: str) -> npt.NDArray[np.float32]:
    """The mean image (C, H, W) of a BlobProto file, of either age: num, channels, ... or shape."""
    blob = pb.BlobProto()
    try:
        with open(path, "rb") as file:
            blob.ParseFromString(file.read())
    except OSError as error:
        raise DataError(
            f"{path}: mean_file must be readable, got {error.strerror}; `dtrain convert mean` writes one"
        ) from error
    except DecodeError as error:
        raise DataError(f"{path}: mean_file must be a BlobProto in binary, got {error}") from error
    values = np.array(blob.data if blob.data else blob.double_data, np.float32)
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    else:
        shape = (blob.num, blob.channels, blob.height, blob.width)
    image = shape[-3:]
    count = int(np.prod(image))
    if len(image) != 3 or min(image) <= 0 or count != values.size or count != int(np.prod(shape)):
        raise DataError(f"{path}: mean_file must hold one image, got shape {shape} and {values.size} values")
    return values.reshape(image)


def write_mean(path: str, mean: npt.NDArray[np.float32]) -> None:
    """A BlobProto file as Caffe's compute_image_mean writes it; whole or absent."""
    channels, height, width = mean.shape
    blob = pb.BlobProto(num=1, channels=channels, height=height, width=width)
    blob.data.extend(mean.astype(np.float32).ravel().tolist())
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "wb") as file:
            file.write(blob.SerializeToString())
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise DataError(f"{path}: must be writable, got {error.strerror}") from error
    finally:
        if os.path.exists(part):
            os.remove(part)
