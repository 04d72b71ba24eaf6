"""The schema is Caffe's, and the checked-in module is the schema's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import generate

# Names, tags, types and defaults of BVLC Caffe 1.0's schema, one field a line.
CAFFE = Path(__file__).with_name("caffe_schema.txt")
TYPES = {number: name[5:].lower() for name, number in FieldDescriptorProto.Type.items()}
LABELS = {1: "optional", 2: "required", 3: "repeated"}
OWN_TAGS_FROM = 10000


def field_line(field: FieldDescriptorProto) -> str:
    kind = field.type_name.replace(".dtrain.", "") or TYPES[field.type]
    packed = " packed" if field.options.packed else ""
    default = ""
    if field.HasField("default_value"):
        is_float = field.type == FieldDescriptorProto.TYPE_FLOAT
        default = f" default={np.float32(field.default_value) if is_float else field.default_value}"
    return f"  {field.number} {LABELS[field.label]} {kind} {field.name}{packed}{default}"


def flatten(messages: list[DescriptorProto], prefix: str = "") -> dict[str, DescriptorProto]:
    found: dict[str, DescriptorProto] = {}
    for message in messages:
        name = prefix + message.name
        found[name] = message
        found |= flatten(list(message.nested_type), f"{name}.")
    return found


@pytest.fixture(scope="module")
def schema() -> FileDescriptorProto:
    proto = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(proto)
    return proto


def test_every_field_of_caffe_is_there_with_its_tag_type_and_default(schema: FileDescriptorProto) -> None:
    ours = {name: {field_line(f) for f in m.field} for name, m in flatten(list(schema.message_type)).items()}
    checked = 0
    message = ""
    for line in CAFFE.read_text().splitlines():
        if line.startswith("message "):
            message = line.split()[1]
        elif line.startswith("  "):
            assert line in ours[message], f"{message}:{line}"
            checked += 1
    assert checked == 423


def test_every_enum_value_of_caffe_keeps_its_number(schema: FileDescriptorProto) -> None:
    ours: dict[str, EnumDescriptorProto] = {enum.name: enum for enum in schema.enum_type}
    for name, message in flatten(list(schema.message_type)).items():
        ours |= {f"{name}.{enum.name}": enum for enum in message.enum_type}
    checked = 0
    for line in CAFFE.read_text().splitlines():
        if line.startswith("enum "):
            name, values = line.removeprefix("enum ").split(": ")
            known = {f"{value.name}={value.number}" for value in ours[name].value}
            assert set(values.split()) <= known, name
            checked += 1
    assert checked == 26


@pytest.mark.parametrize(
    ("message", "names"),
    [
        ("NetParameter", "default_forward_type global_grad_scale reduce_buckets eltwise_mem_sharing engine"),
        ("LayerParameter", "forward_type backward_math cudnn_math_override debug engine prior_box_param"),
        (
            "LayerParameter",
            "roi_pooling_param smooth_l1_loss_param interp_param upsample_param permute_param",
        ),
        ("LayerParameter", "shuffle_channel_param focal_loss_param norm_param detection_output_param"),
        ("LayerParameter", "multibox_loss_param annotated_data_param detectnet_groundtruth_param"),
        ("SolverParameter", "rampup_interval rampup_lr min_lr momentum_policy larc larc_eta larc_turbo"),
        (
            "SolverParameter",
            "warmup_iter warmup_start_lr local_lr_auto local_gw_ratio stagelr stageiter engine",
        ),
        ("SolverParameter", "weight_decay_policy max_weight_decay solver_data_type test_offset"),
        ("DataParameter", "threads parser_threads cache shuffle precache"),
        ("ImageDataParameter", "short_side"),
        ("TransformationParameter", "use_gpu_transform random_seed crop_h crop_w resize_param noise_param"),
        ("TransformationParameter", "img_rand_resize_lower horizontal_stretch_upper interpolation_algo_up"),
        ("TransformationParameter", "distort_param expand_param emit_constraint rand_resize_ratio_lower"),
        ("BatchNormParameter", "scale_bias scale_filler bias_filler engine use_weight_bias"),
        ("LossParameter", "label_smoothing class_weighting"),
        ("ConvolutionParameter", "relu negative_slope"),
        ("BlobProto", "raw_data raw_data_type raw_diff raw_diff_type"),
    ],
)
def test_fields_of_the_forks_are_there(message: str, names: str) -> None:
    known = getattr(pb, message).DESCRIPTOR.fields_by_name
    assert set(names.split()) <= set(known)


def normal(module: str) -> str:
    """The module's text without its compiler's version."""
    module = re.sub(r"# Protobuf Python Version: .*", "", module)
    return re.sub(r"(Domain\.PUBLIC),\n    \d+,\n    \d+,\n    \d+,\n    '.*',", r"\1", module)


def test_the_checked_in_module_is_what_the_compiler_makes_of_the_schema(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools brings the compiler")
    (tmp_path / "dtrain/proto").mkdir(parents=True)
    generate.generate(tmp_path)
    fresh = (tmp_path / "dtrain/proto/dtrain_pb2.py").read_text()
    checked_in = Path(pb.__file__).read_text()
    assert normal(fresh) == normal(checked_in)


def test_the_checked_in_stub_declares_what_the_compiler_declares(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools brings the compiler")
    (tmp_path / "dtrain/proto").mkdir(parents=True)
    generate.generate(tmp_path)

    def declared(stub: Path) -> list[str]:
        """Lines but imports and constructors, whose form differs between versions of the compiler."""
        lines = stub.read_text().splitlines()
        return [line for line in lines if "import" not in line and "def __init__" not in line]

    fresh = declared(tmp_path / "dtrain/proto/dtrain_pb2.pyi")
    assert fresh == declared(Path(pb.__file__).with_suffix(".pyi"))


def test_the_module_loads_on_the_oldest_protobuf_that_we_support() -> None:
    version = re.search(r"# Protobuf Python Version: (\d+)\.(\d+)", Path(pb.__file__).read_text())
    assert version is not None
    assert (int(version[1]), int(version[2])) <= (6, 30)


def test_no_fork_took_a_tag_of_our_own_range(schema: FileDescriptorProto) -> None:
    """Own tags are dense from 10000, so that a new one is easy to choose; Fast R-CNN's are far above."""
    for name, message in flatten(list(schema.message_type)).items():
        own = sorted(f.number for f in message.field if OWN_TAGS_FROM <= f.number < 100000)
        assert own == list(range(OWN_TAGS_FROM, OWN_TAGS_FROM + len(own))), name
