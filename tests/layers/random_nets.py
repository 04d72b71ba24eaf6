"""Random small nets, most of them wrong in some way, as prototxt."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from dtrain.layers import known_types, layer_class
from dtrain.layers.layer import Count
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text

# A Python layer runs whatever it names, and HDF5Output writes wherever it is told to.
UNTRIED = ("Python", "HDF5Output")
SHARED_PARAMS = {
    "AbsVal": (),
    "BNLL": (),
    "Deconvolution": ("convolution_param",),
    "DepthwiseConvolution": ("convolution_param",),
    "EuclideanLoss": ("loss_param",),
    "FocalLoss": ("focal_loss_param", "loss_param"),
    "Im2col": ("convolution_param",),
    "InfogainLoss": ("infogain_loss_param", "loss_param"),
    "LSTM": ("recurrent_param",),
    "MultinomialLogisticLoss": ("loss_param",),
    "RNN": ("recurrent_param",),
    "SigmoidCrossEntropyLoss": ("loss_param",),
    "SoftmaxWithLoss": ("softmax_param", "loss_param"),
}
FILLERS = ("constant", "uniform", "gaussian", "xavier", "msra", "bilinear", "positive_unitball", "ramp")
INTEGERS = st.sampled_from([*[1, 1, 1, 2, 2, 2, 3, 3] * 3, -3, -2, -1, 0, 0, 4, 5, 8, 40])
FLOATS = st.sampled_from(
    [-1e30, -1.0, 0.0, 1e-6, 0.3, 0.5, 1.0, 1.0, 2.0, 10.0, 1e30, float("inf"), float("nan")]
)
EXTENTS = st.sampled_from([0, 1, 1, 2, 2, 3, 4, 5, 6, 9])
SHAPES = st.one_of(
    st.lists(EXTENTS, max_size=5),
    st.tuples(*(st.sampled_from([1, 2, 3, 4, 6]),) * 4).map(list),
    st.sampled_from([[2], [2, 3], [2, 4, 6, 6]]),
)


def params_of(type_name: str) -> tuple[str, ...]:
    """The messages that a layer type reads."""
    if type_name in SHARED_PARAMS:
        return SHARED_PARAMS[type_name]
    known = pb.LayerParameter.DESCRIPTOR.fields_by_name
    letters = type_name.lower()
    return tuple(name for name in known if name.replace("_", "") == f"{letters}param")


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = 0) -> dict[str, Any]:
    """Fields by name: at most four of them."""
    chosen = draw(st.lists(st.sampled_from(list(descriptor.fields)), max_size=4, unique_by=lambda f: f.name))
    required = [field for field in descriptor.fields if field.is_required and field not in chosen]
    return {f.name: draw(values(f, depth)) for f in chosen + required if depth < 3 or not f.message_type}


@st.composite
def values(draw: st.DrawFn, field: FieldDescriptor, depth: int) -> Any:
    count = draw(st.sampled_from([1, 1, 1, 2, 3])) if field.is_repeated else 1
    found = [draw(value(field, depth)) for _ in range(count)]
    return found if field.is_repeated else found[0]


@st.composite
def value(draw: st.DrawFn, field: FieldDescriptor, depth: int) -> Any:
    kind = field.type
    if field.message_type is pb.FillerParameter.DESCRIPTOR and draw(st.booleans()):
        return {"type": draw(st.sampled_from(FILLERS))}
    if field.message_type is not None:
        return draw(messages(field.message_type, depth + 1))
    if field.enum_type is not None:
        return draw(st.sampled_from(sorted(field.enum_type.values_by_number)))
    if kind == FieldDescriptor.TYPE_BOOL:
        return draw(st.booleans())
    if kind in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return draw(FLOATS)
    if kind == FieldDescriptor.TYPE_STRING:
        return draw(st.sampled_from(["", "absent", "mean.binaryproto"]))
    if kind == FieldDescriptor.TYPE_BYTES:
        return b""
    number = draw(INTEGERS)
    return abs(number) if kind in (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64) else number


def numbers(count: Count) -> st.SearchStrategy[int]:
    """Mostly a right number of bottoms or tops, from time to time another one."""
    most = count.least + 2 if count.most is None else count.most
    right = st.integers(count.least, max(count.least, most))
    return st.integers(0, 15).flatmap(lambda chance: right if chance else st.integers(0, 4))


@st.composite
def layers(draw: st.DrawFn, index: int, made: list[str]) -> dict[str, Any]:
    """A layer that reads blobs made before it."""
    type_name = draw(st.sampled_from([name for name in known_types() if name not in UNTRIED]))
    cls = layer_class(type_name)
    bottoms = [draw(st.sampled_from(made)) for _ in range(draw(numbers(cls.num_bottoms)))]
    tops = [f"t{index}_{j}" for j in range(draw(numbers(cls.num_tops)))]
    if bottoms and tops and draw(st.integers(0, 5)) == 0:
        tops[0] = bottoms[0]
    fields: dict[str, Any] = {"name": f"layer{index}", "type": type_name, "bottom": bottoms, "top": tops}
    known = pb.LayerParameter.DESCRIPTOR.fields_by_name
    for name in params_of(type_name):
        if draw(st.sampled_from([True, True, True, False])):
            fields[name] = draw(messages(known[name].message_type))
    if draw(st.integers(0, 9)) == 0:
        fields["loss_weight"] = [draw(FLOATS) for _ in tops]
    made.extend(top for top in tops if top not in made)
    return fields


@st.composite
def nets(draw: st.DrawFn) -> str:
    """A net of two to four inputs and one to three layers."""
    net: dict[str, Any] = {"layer": [], "force_backward": draw(st.booleans())}
    made = []
    first = draw(SHAPES)
    for i in range(draw(st.integers(2, 4))):
        shape = draw(st.one_of(st.just(first), st.just(first), st.just(first[:1]), SHAPES))
        made.append(f"in{i}")
        spec = {
            "name": f"in{i}",
            "type": "Input",
            "top": [f"in{i}"],
            "input_param": {"shape": [{"dim": shape}]},
        }
        net["layer"].append(spec)
    for i in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        net["layer"].append(draw(layers(i, made)))
    message = pb.NetParameter()
    fill(message, net)
    return text.format(message)


def fill(message: Message, fields: dict[str, Any]) -> None:
    """Set fields; what the schema forbids is left out, for the reader is tested elsewhere."""
    for name, given in fields.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        if field.message_type is None:
            if field.is_repeated:
                getattr(message, name).extend(given)
            else:
                setattr(message, name, given)
            continue
        for part in given if field.is_repeated else [given]:
            child = getattr(message, name)
            child = child.add() if field.is_repeated else child
            child.SetInParent() if not field.is_repeated else None
            fill(child, part)
