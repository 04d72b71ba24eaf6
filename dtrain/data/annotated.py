"""AnnotatedDatum: an image with boxes, as SSD's convert_annoset writes it."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import final

import numpy as np
from google.protobuf.message import DecodeError

from dtrain.data.annotated_boxes import Objects
from dtrain.data.datum import record_of
from dtrain.data.record import Record
from dtrain.errors import ConfigError, DataError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text


@final
@dataclass(frozen=True, slots=True)
class AnnotatedRecord:
    """One sample as it is stored."""

    image: Record
    objects: Objects


def decode_annotated(
    value: bytes, where: str, *, labels: Set[int] | None = None, has_type: bool = False
) -> AnnotatedRecord:
    """labels: those that a group may have, None for any. has_type: boxes are meant where no type is told."""
    annotated = pb.AnnotatedDatum()
    try:
        annotated.ParseFromString(value)
    except DecodeError as error:
        raise DataError(
            f"{where}: must be an AnnotatedDatum message, got {len(value)} bytes that are none ({error})"
        ) from error
    if not annotated.HasField("datum"):
        raise DataError(
            f"{where}: must be an AnnotatedDatum with a datum, got none; a database of plain Datum messages "
            'is read by a layer of type "Data"'
        )
    if not annotated.HasField("type") and not has_type:
        raise DataError(
            f"{where}: type must be BBOX, got none; set annotated_data_param {{ anno_type: BBOX }} if its "
            "annotations are boxes"
        )
    tags, boxes = [], []
    for group in annotated.annotation_group:
        if labels is not None and group.annotation and group.group_label not in labels:
            known = ", ".join(map(str, sorted(labels)))
            raise DataError(
                f"{where}: group_label must be in label_map_file ({known}), got {group.group_label}"
            )
        for one in group.annotation:
            tags.append((group.group_label, one.instance_id, one.bbox.difficult))
            boxes.append((one.bbox.xmin, one.bbox.ymin, one.bbox.xmax, one.bbox.ymax))
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    if not np.isfinite(corners).all():
        raise DataError(f"{where}: boxes must be finite, got {corners[~np.isfinite(corners).all(axis=1)][0]}")
    objects = Objects(np.array(tags, np.float64).reshape(-1, 3), corners)
    return AnnotatedRecord(record_of(annotated.datum, where), objects)


def read_label_map(path: str) -> dict[str, int]:
    """From the names of classes to their labels; each may be there once."""
    label_map = pb.LabelMap()
    lines = text.read(path, label_map)
    names: dict[str, int] = {}
    labels: dict[int, str] = {}
    for n, item in enumerate(label_map.item):
        where = lines.where(("item", n))
        if item.name in names:
            raise ConfigError(f'{where}: name must be given to one item, got "{item.name}" again')
        if item.label in labels:
            raise ConfigError(
                f'{where}: label must be given to one item, got {item.label} for "{item.name}" after '
                f'"{labels[item.label]}"'
            )
        names[item.name], labels[item.label] = item.label, item.name
    if not names:
        raise ConfigError(f"{path}: label map must have at least one item, got none")
    return names
