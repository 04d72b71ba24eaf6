"""Every field of the schema's transform_param changes images, changes none by its nature, or is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from dtrain.data.annotated import decode_annotated
from dtrain.data.annotated_settings import AnnotatedSettings
from dtrain.data.annotated_transformer import AnnotatedTransformer
from dtrain.data.record import Record
from dtrain.data.transform_settings import HARMLESS, TransformSettings
from dtrain.data.transformer import Transformer
from dtrain.errors import ConfigError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.proto.blobproto import fill_blobproto
from dtrain.proto.files import write_binary
from tests.data.annotated_records import annotated
from tests.data.sources import images

Outcome: TypeAlias = list[tuple[object, ...]]

COLOUR = images(1, (3, 40, 60))[0]
GREY = COLOUR[:1]
SAMPLES = range(12)

SIZES = "height: 20 width: 24"
NVIDIA = "crop_size: 16 img_rand_resize_lower: 20"
RANGE = f"{NVIDIA} img_rand_resize_upper: 20"
AREA = "min_area_ratio: 0.2 max_area_ratio: 0.9 aspect_ratio_change: 1.5"
JITTER = "brightness_prob: 1 brightness_delta: 9"

SHARED = {
    "scale": ("", "scale: 2"),
    "mirror": ("", "mirror: true"),
    "crop_size": ("", "crop_size: 9"),
    "crop_h": ("crop_size: 9", "crop_h: 8 crop_w: 9"),
    "crop_w": ("crop_size: 9", "crop_h: 9 crop_w: 8"),
    "mean_file": ("", 'mean_file: "MEAN"'),
    "mean_value": ("", "mean_value: 3"),
    "force_color": ("", "force_color: true"),
    "force_gray": ("", "force_gray: true"),
    "random_seed": ("mirror: true", "mirror: true random_seed: 7"),
    "resize_param.height": (f"resize_param {{ {SIZES} }}", "resize_param { height: 30 width: 24 }"),
    "resize_param.width": (f"resize_param {{ {SIZES} }}", "resize_param { height: 20 width: 30 }"),
    "resize_param.resize_mode": (
        f"crop_size: 16 resize_param {{ {SIZES} }}",
        f"crop_size: 16 resize_param {{ {SIZES} resize_mode: FIT_SMALL_SIZE }}",
    ),
    "resize_param.interp_mode": (
        f"resize_param {{ {SIZES} }}",
        f"resize_param {{ {SIZES} interp_mode: AREA }}",
    ),
    "distort_param.brightness_prob": (
        "distort_param { brightness_delta: 9 }",
        "distort_param { brightness_delta: 9 brightness_prob: 1 }",
    ),
    "distort_param.brightness_delta": (
        f"distort_param {{ {JITTER} }}",
        "distort_param { brightness_prob: 1 brightness_delta: 30 }",
    ),
    "distort_param.contrast_prob": (
        "distort_param { contrast_lower: 0.5 contrast_upper: 1.5 }",
        "distort_param { contrast_lower: 0.5 contrast_upper: 1.5 contrast_prob: 1 }",
    ),
    "distort_param.contrast_lower": (
        "distort_param { contrast_upper: 1.5 contrast_prob: 1 }",
        "distort_param { contrast_upper: 1.5 contrast_prob: 1 contrast_lower: 0.5 }",
    ),
    "distort_param.contrast_upper": (
        "distort_param { contrast_prob: 1 }",
        "distort_param { contrast_prob: 1 contrast_upper: 1.5 }",
    ),
    "distort_param.hue_prob": (
        "distort_param { hue_delta: 30 }",
        "distort_param { hue_delta: 30 hue_prob: 1 }",
    ),
    "distort_param.hue_delta": (
        "distort_param { hue_prob: 1 }",
        "distort_param { hue_prob: 1 hue_delta: 30 }",
    ),
    "distort_param.saturation_prob": (
        "distort_param { saturation_lower: 0.5 saturation_upper: 1.5 }",
        "distort_param { saturation_lower: 0.5 saturation_upper: 1.5 saturation_prob: 1 }",
    ),
    "distort_param.saturation_lower": (
        "distort_param { saturation_upper: 1.5 saturation_prob: 1 }",
        "distort_param { saturation_upper: 1.5 saturation_prob: 1 saturation_lower: 0.5 }",
    ),
    "distort_param.saturation_upper": (
        "distort_param { saturation_prob: 1 }",
        "distort_param { saturation_prob: 1 saturation_upper: 1.5 }",
    ),
    "distort_param.random_order_prob": ("distort_param { }", "distort_param { random_order_prob: 1 }"),
}
"""By path of a field: a transform_param without and one with it, which must give other images."""

WITHOUT_BOXES = {
    **SHARED,
    "img_rand_resize_lower": (
        "crop_size: 16 img_rand_resize_lower: 20 img_rand_resize_upper: 30",
        "crop_size: 16 img_rand_resize_lower: 30 img_rand_resize_upper: 30",
    ),
    "img_rand_resize_upper": (RANGE, f"{NVIDIA} img_rand_resize_upper: 30"),
    "rand_resize_ratio_lower": (
        "crop_size: 16 rand_resize_ratio_lower: 1 rand_resize_ratio_upper: 1.5",
        "crop_size: 16 rand_resize_ratio_lower: 1.5 rand_resize_ratio_upper: 1.5",
    ),
    "rand_resize_ratio_upper": (
        "crop_size: 16 rand_resize_ratio_lower: 1 rand_resize_ratio_upper: 1",
        "crop_size: 16 rand_resize_ratio_lower: 1 rand_resize_ratio_upper: 1.5",
    ),
    "vertical_stretch_lower": (RANGE, f"{RANGE} vertical_stretch_lower: 0.5"),
    "vertical_stretch_upper": (RANGE, f"{RANGE} vertical_stretch_upper: 2"),
    "horizontal_stretch_lower": (RANGE, f"{RANGE} horizontal_stretch_lower: 0.5"),
    "horizontal_stretch_upper": (RANGE, f"{RANGE} horizontal_stretch_upper: 2"),
    "allow_upscale": (
        "crop_size: 16 vertical_stretch_upper: 2",
        "crop_size: 16 vertical_stretch_upper: 2 allow_upscale: true",
    ),
    "interpolation_algo_down": (RANGE, f"{RANGE} interpolation_algo_down: INTER_CUBIC"),
    "interpolation_algo_up": (
        "resize_param { height: 80 width: 90 }",
        "resize_param { height: 80 width: 90 } interpolation_algo_up: INTER_CUBIC",
    ),
    "random_resize_param.min_size": (
        "crop_size: 16 random_resize_param { min_size: 20 max_size: 30 }",
        "crop_size: 16 random_resize_param { min_size: 30 max_size: 30 }",
    ),
    "random_resize_param.max_size": (
        "crop_size: 16 random_resize_param { min_size: 20 max_size: 20 }",
        "crop_size: 16 random_resize_param { min_size: 20 max_size: 30 }",
    ),
    "random_resize_param.resize_param.interp_mode": (
        "crop_size: 16 random_resize_param { min_size: 20 max_size: 20 }",
        "crop_size: 16 random_resize_param { min_size: 20 max_size: 20 resize_param { interp_mode: CUBIC } }",
    ),
    "random_aspect_ratio_param.min_area_ratio": (
        f"crop_size: 16 random_aspect_ratio_param {{ {AREA} }}",
        f"crop_size: 16 random_aspect_ratio_param {{ {AREA.replace('0.2', '0.5')} }}",
    ),
    "random_aspect_ratio_param.max_area_ratio": (
        f"crop_size: 16 random_aspect_ratio_param {{ {AREA} }}",
        f"crop_size: 16 random_aspect_ratio_param {{ {AREA.replace('0.9', '0.5')} }}",
    ),
    "random_aspect_ratio_param.aspect_ratio_change": (
        f"crop_size: 16 random_aspect_ratio_param {{ {AREA} }}",
        f"crop_size: 16 random_aspect_ratio_param {{ {AREA.replace('1.5', '1.1')} }}",
    ),
    "random_aspect_ratio_param.max_attempt": (
        f"crop_size: 16 random_aspect_ratio_param {{ {AREA} }}",
        f"crop_size: 16 random_aspect_ratio_param {{ {AREA} max_attempt: 0 }}",
    ),
    "random_aspect_ratio_param.resize_param.interp_mode": (
        f"crop_size: 16 random_aspect_ratio_param {{ {AREA} }}",
        f"crop_size: 16 random_aspect_ratio_param {{ {AREA} resize_param {{ interp_mode: AREA }} }}",
    ),
}

PADDED = f"{SIZES} resize_mode: FIT_LARGE_SIZE_AND_PAD"
SMALL = f"crop_size: 16 resize_param {{ {SIZES} resize_mode: FIT_SMALL_SIZE height_scale: 20"
WITH_BOXES = {
    **SHARED,
    "resize_param.height_scale": (
        f"{SMALL} width_scale: 20 }}",
        f"{SMALL.replace('height_scale: 20', 'height_scale: 40')} width_scale: 20 }}",
    ),
    "resize_param.width_scale": (f"{SMALL} width_scale: 20 }}", f"{SMALL} width_scale: 40 }}"),
    "resize_param.pad_mode": (
        f"resize_param {{ {PADDED} }}",
        f"resize_param {{ {PADDED} pad_mode: MIRRORED }}",
    ),
    "resize_param.pad_value": (f"resize_param {{ {PADDED} }}", f"resize_param {{ {PADDED} pad_value: 9 }}"),
    "expand_param.prob": (
        "expand_param { max_expand_ratio: 3 prob: 0 }",
        "expand_param { max_expand_ratio: 3 prob: 1 }",
    ),
    "expand_param.max_expand_ratio": (
        "expand_param { max_expand_ratio: 3 }",
        "expand_param { max_expand_ratio: 2 }",
    ),
    "emit_constraint.emit_type": (
        "crop_size: 20 emit_constraint { emit_type: CENTER }",
        "crop_size: 20 emit_constraint { emit_type: MIN_OVERLAP emit_overlap: 0.9 }",
    ),
    "emit_constraint.emit_overlap": (
        "crop_size: 20 emit_constraint { emit_type: MIN_OVERLAP emit_overlap: 0 }",
        "crop_size: 20 emit_constraint { emit_type: MIN_OVERLAP emit_overlap: 0.9 }",
    ),
}

VALID = {
    "resize_param": f"resize_param {{ {SIZES} }}",
    "random_resize_param": "crop_size: 16 random_resize_param { min_size: 20 max_size: 20 }",
    "random_aspect_ratio_param": "crop_size: 16 random_aspect_ratio_param { }",
}
"""What a message needs so that one field of it may be tried."""


def leaves(message: Descriptor, *path: str) -> Iterator[tuple[str, ...]]:
    for field in message.fields:
        if field.message_type is None:
            yield (*path, field.name)
        else:
            yield from leaves(field.message_type, *path, field.name)


FIELDS = [".".join(path) for path in leaves(pb.TransformationParameter.DESCRIPTOR)]


def other_value(field: FieldDescriptor) -> Any:
    """One that is not the field's default."""
    if field.enum_type is not None:
        return next(v.number for v in field.enum_type.values if v.number != field.default_value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return not field.default_value
    return "text" if field.cpp_type == FieldDescriptor.CPPTYPE_STRING else 3


def tried(path: str) -> pb.TransformationParameter:
    """Settings in which nothing but the field can be wrong."""
    param = pb.TransformationParameter()
    *outer, name = path.split(".")
    text.parse(VALID.get(outer[0], "") if outer else "", param)
    message: Any = param
    for step in outer:
        message = getattr(message, step)
    message.SetInParent()
    field = message.DESCRIPTOR.fields_by_name[name]
    if isinstance(field.default_value, list):
        getattr(message, name).append(other_value(field))
    else:
        setattr(message, name, other_value(field))
    return param


def parsed(spec: str, folder: Path) -> pb.TransformationParameter:
    mean = pb.BlobProto()
    fill_blobproto(mean, COLOUR.astype(np.float32)[None])
    write_binary(folder / "mean.binaryproto", mean)
    param = pb.TransformationParameter()
    text.parse(spec.replace("MEAN", str(folder / "mean.binaryproto")), param)
    return param


def without_boxes(param: pb.TransformationParameter, pixels: np.ndarray) -> Outcome:
    made = Transformer(TransformSettings.from_param(param, train=True, seed=1, where="net:1"), "net:1")
    encoded = cv2.imencode(".png", np.ascontiguousarray(pixels.transpose(1, 2, 0)))[1].tobytes()
    record = Record("record", (0.0,), encoded=encoded)
    found: Outcome = []
    for sample in SAMPLES:
        out = np.full(made.output_shape(record), np.nan, np.float32)
        made.apply(record, sample, out)
        found.append((out.shape, out.tobytes()))
    return found


def with_boxes(param: pb.TransformationParameter, pixels: np.ndarray) -> Outcome:
    settings = AnnotatedSettings.from_param(param, [], train=True, seed=1, where="net:1")
    made = AnnotatedTransformer(settings, "net:1")
    message = annotated(pixels, [(1, (0.1, 0.1, 0.5, 0.6)), (2, (0.4, 0.3, 0.95, 0.9))])
    record = decode_annotated(message.SerializeToString(), "record")
    found: Outcome = []
    for sample in SAMPLES:
        cut = made.cut(record, sample)
        out = np.full(cut.shape, np.nan, np.float32)
        made.write(cut, out)
        found.append((out.shape, out.tobytes(), cut.objects.rows(0).tobytes()))
    return found


@pytest.mark.parametrize("path", FIELDS)
@pytest.mark.parametrize("boxes", [False, True], ids=["plain", "boxes"])
def test_every_field_acts_or_is_refused_by_name(tmp_path: Path, path: str, boxes: bool) -> None:
    acting, images_of = (WITH_BOXES, with_boxes) if boxes else (WITHOUT_BOXES, without_boxes)
    pixels = GREY if path == "force_color" else COLOUR
    if path in acting:
        without, having = (images_of(parsed(spec, tmp_path), pixels) for spec in acting[path])
        assert without != having
    elif path in HARMLESS:
        assert images_of(tried(path), pixels) == images_of(pb.TransformationParameter(), pixels)
    else:
        with pytest.raises(ConfigError) as caught:
            images_of(tried(path), pixels)
        outer, _, inner = path.partition(".")
        names = [f"transform_param.{outer} must be absent", *([f"{path} must be"] if inner else [])]
        assert any(name in str(caught.value) for name in names), caught.value
        assert str(caught.value).startswith("net:1: ")


def test_no_field_is_listed_that_the_schema_lacks() -> None:
    assert not {*WITHOUT_BOXES, *WITH_BOXES, *HARMLESS} - set(FIELDS)


@pytest.mark.parametrize("path", FIELDS)
def test_window_data_refuses_what_it_does_not_do(tmp_path: Path, path: str) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "windows.txt").write_text(f"# 0\n{tmp_path}/0.png\n3 20 30\n2\n1 1 2 3 9 9\n2 0 2 3 9 9\n")
    own = ("crop_size", "mean_file", "mean_value", "mirror", "random_seed", "scale")
    if path in (*own, *HARMLESS):
        return
    net = pb.NetParameter()
    layer = net.layer.add(name="w", type="WindowData", top=["data", "label"])
    layer.window_data_param.source, layer.window_data_param.batch_size = str(tmp_path / "windows.txt"), 4
    layer.transform_param.CopyFrom(tried(path))
    layer.transform_param.crop_size = 0 if path.startswith("crop_") else 8
    with pytest.raises(ConfigError, match=f"{path.partition('.')[0]} must be absent"):
        Net(net, Scope(CpuBackend(), pb.TRAIN))
