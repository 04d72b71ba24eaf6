"""Images with Pascal VOC's XML files of boxes to a database for AnnotatedData.

Source: what SSD's convert_annoset writes for `--anno_type=detection --encoded`.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

from dtrain.data.annotated import read_label_map
from dtrain.data.convert.lmdb_writer import Progress, write_lmdb
from dtrain.data.convert.order import shuffled_order
from dtrain.data.convert.whole_folder import refuse_existing
from dtrain.data.decode import decode_image
from dtrain.data.image_list import read_bytes
from dtrain.errors import DataError, unknown_name
from dtrain.proto import dtrain_pb2 as pb

logger = logging.getLogger(__name__)

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def convert_annotated(
    root_folder: str,
    list_file: str,
    label_map_file: str,
    out: str,
    *,
    shuffle: bool = False,
    seed: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write the LMDB `out` with keys "%08d_image"; returns the number of records.

    list_file: lines of `image xml`, both put behind root_folder as text. Images are stored as their files
    are. Unlike convert_annoset, which leaves out what it cannot read, this stops and names it.
    """
    refuse_existing(out, overwrite)
    labels = read_label_map(label_map_file)
    entries = _entries(list_file)
    order = shuffled_order(len(entries), seed) if shuffle else range(len(entries))

    def records() -> Iterator[tuple[bytes, bytes]]:
        for number, index in enumerate(order):
            image, annotation = entries[index]
            where = f"{list_file}:{index + 1}"
            content = read_bytes(root_folder + image, where)
            channels, height, width = decode_image(content, "as stored", root_folder + image).shape
            message = pb.AnnotatedDatum(type=pb.AnnotatedDatum.BBOX)
            message.datum.MergeFrom(
                pb.Datum(channels=channels, height=height, width=width, data=content, label=-1, encoded=True)
            )
            _add_objects(root_folder + annotation, where, (height, width), labels, message)
            yield b"%08d_" % number + os.fsencode(image), message.SerializeToString()

    return write_lmdb(out, records(), overwrite=overwrite, progress=progress)


def _entries(list_file: str) -> list[tuple[str, str]]:
    """The two paths of every line."""
    try:
        with open(list_file, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise DataError(
            f"{list_file}: must be a readable list of `image xml` lines, got {error.strerror} "
            f"(seen from {os.getcwd()})"
        ) from error
    entries = []
    for number, line in enumerate(lines, 1):
        paths = line.split()
        if len(paths) == 2:
            entries.append((paths[0], paths[1]))
        elif paths or number < len(lines):
            raise DataError(f'{list_file}:{number}: line must be an image and its XML file, got "{line}"')
    if not entries:
        raise DataError(f"{list_file}: must list at least one image, got an empty file")
    return entries


def _add_objects(
    path: str, where: str, image: tuple[int, int], labels: Mapping[str, int], message: pb.AnnotatedDatum
) -> None:
    """The objects of an XML file, those of a class in one group, numbered in the file's order."""
    try:
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        raise DataError(f"{where}: XML file must be readable, got {error.strerror} for {path}") from error
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: must be an XML file, got {error}") from error
    height, width = _size(root, path, image)
    groups: dict[int, pb.AnnotationGroup] = {}
    for number, one in enumerate(root.findall("object"), 1):
        place = f"{path}: object {number}"
        name = (one.findtext("name") or "").strip()
        if name not in labels:
            raise DataError(f"{place}: {unknown_name('name', name, labels)}")
        label = labels[name]
        if label not in groups:
            groups[label] = message.annotation_group.add(group_label=label)
        annotation = groups[label].annotation.add(instance_id=len(groups[label].annotation))
        xmin, ymin, xmax, ymax = (_number(one, f"bndbox/{side}", place) for side in _SIDES)
        if not (0 <= xmin <= xmax <= width and 0 <= ymin <= ymax <= height):
            logger.warning(
                "%s: box (%g, %g, %g, %g) is not one inside %g x %g",
                place,
                xmin,
                ymin,
                xmax,
                ymax,
                width,
                height,
            )
        box = annotation.bbox
        box.xmin, box.ymin, box.xmax, box.ymax = xmin / width, ymin / height, xmax / width, ymax / height
        box.difficult = (one.findtext("difficult") or "").strip() == "1"


def _size(root: ElementTree.Element, path: str, image: tuple[int, int]) -> tuple[float, float]:
    """Height and width that the boxes are told for: those in the file, else the image's."""
    if root.find("size") is None:
        return image
    height, width = _number(root, "size/height", path), _number(root, "size/width", path)
    if not (height > 0 and width > 0):
        raise DataError(f"{path}: size must be above 0, got {width:g} x {height:g}")
    if (height, width) != image:
        logger.warning(
            "%s: size %g x %g is not the image's, %d x %d; boxes are taken as shares of it",
            path,
            width,
            height,
            image[1],
            image[0],
        )
    return height, width


def _number(element: ElementTree.Element, name: str, where: str) -> float:
    found = element.findtext(name)
    try:
        value = float(found or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {name} must be a number, got {'none' if found is None else repr(found)}")
    return value
