"""Small databases of images with boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from dtrain.data.convert.lmdb_writer import write_lmdb
from dtrain.data.record import Pixels
from dtrain.proto import dtrain_pb2 as pb

Box = tuple[float, float, float, float]
Object = tuple[int, Box]
"""A label and a box."""


def annotated(
    pixels: Pixels, objects: Sequence[Object] = (), *, encoded: bool = True, has_type: bool = True
) -> pb.AnnotatedDatum:
    """The message of (C, H, W) pixels, stored as they are or as a PNG; instances count up in each label."""
    channels, height, width = pixels.shape
    message = pb.AnnotatedDatum()
    message.datum.channels, message.datum.height, message.datum.width = channels, height, width
    message.datum.label = -1
    message.datum.encoded = encoded
    image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    message.datum.data = cv2.imencode(".png", image)[1].tobytes() if encoded else pixels.tobytes()
    if has_type:
        message.type = pb.AnnotatedDatum.BBOX
    groups: dict[int, pb.AnnotationGroup] = {}
    for label, box in objects:
        if label not in groups:
            groups[label] = message.annotation_group.add(group_label=label)
        one = groups[label].annotation.add(instance_id=len(groups[label].annotation))
        one.bbox.xmin, one.bbox.ymin, one.bbox.xmax, one.bbox.ymax = box
    return message


def annotated_lmdb(path: Path, messages: Sequence[pb.AnnotatedDatum]) -> str:
    """An LMDB of them under SSD's keys; returns its path."""
    write_lmdb(
        str(path),
        ((f"{n:08d}_{n}.png".encode(), message.SerializeToString()) for n, message in enumerate(messages)),
    )
    return str(path)
