"""A plan changes how a net runs and nothing that it computes: plan on = plan off = the NumPy reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.convolution import Convolution
from dtrain.layers.inner_product import InnerProduct
from dtrain.layers.layer import Scope
from dtrain.layers.relu import ReLU
from dtrain.net import Net
from dtrain.plan import Plan
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text

Values = NDArray[np.floating]
Trace = dict[str, Values]

FORMATS = ("blocked", "channels_last")
RTOL, ATOL = 1e-4, 2e-5  # the second relative to the largest element


def conv(name: str, bottom: str, outputs: int, fields: str, *, relu: bool = True, top: str = "") -> str:
    """A convolution, and the in-place ReLU behind it."""
    layer = (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{top or name}"'
        f" convolution_param {{ num_output: {outputs} {fields}"
        ' weight_filler { type: "msra" } bias_filler { type: "uniform" min: -0.2 max: 0.2 } } }\n'
    )
    return layer + (in_place("ReLU", f"{name}_relu", top or name) if relu else "")


def dense(name: str, bottom: str, outputs: int, *, relu: bool = False) -> str:
    layer = (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}"'
        f" inner_product_param {{ num_output: {outputs}"
        ' weight_filler { type: "xavier" } bias_filler { type: "uniform" min: -0.2 max: 0.2 } } }\n'
    )
    return layer + (in_place("ReLU", f"{name}_relu", name) if relu else "")


def in_place(kind: str, name: str, blob: str, fields: str = "") -> str:
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{blob}" top: "{blob}" {fields} }}\n'


def one(kind: str, name: str, bottoms: str, fields: str = "") -> str:
    """A layer from blank-separated bottoms to the top of its own name."""
    listed = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}" {listed} top: "{name}" {fields} }}\n'


def pool(name: str, bottom: str, fields: str) -> str:
    return one("Pooling", name, bottom, f"pooling_param {{ {fields} }}")


def norm(name: str, bottom: str) -> str:
    return one("LRN", name, bottom, "lrn_param { local_size: 5 alpha: 0.5 beta: 0.75 }")


def batch_norm(blob: str) -> str:
    return in_place("BatchNorm", f"bn_{blob}", blob) + in_place(
        "Scale",
        f"scale_{blob}",
        blob,
        'scale_param { bias_term: true filler { type: "uniform" min: 0.5 max: 1.5 } }',
    )


def net_text(shape: str, body: str) -> str:
    dims = " ".join(f"dim: {n}" for n in shape.split())
    images = f"dim: {shape.split()[0]}"
    return (
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}\n'
        f'layer {{ name: "label" type: "Input" top: "label" input_param {{ shape {{ {images} }} }} }}\n{body}'
    )


LOSS = one("SoftmaxWithLoss", "loss", "last label")

LENET = net_text(
    "3 1 28 28",
    conv("conv1", "data", 20, "kernel_size: 5", relu=False)
    + pool("pool1", "conv1", "kernel_size: 2 stride: 2")
    + conv("conv2", "pool1", 50, "kernel_size: 5", relu=False)
    + pool("pool2", "conv2", "kernel_size: 2 stride: 2")
    + dense("ip1", "pool2", 64, relu=True)
    + dense("last", "ip1", 10)
    + LOSS,
)
CIFAR10_QUICK = net_text(
    "3 3 32 32",
    conv("conv1", "data", 32, "kernel_size: 5 pad: 2", relu=False)
    + pool("pool1", "conv1", "kernel_size: 3 stride: 2")
    + in_place("ReLU", "relu1", "pool1")
    + conv("conv2", "pool1", 32, "kernel_size: 5 pad: 2")
    + pool("pool2", "conv2", "pool: AVE kernel_size: 3 stride: 2")
    + conv("conv3", "pool2", 24, "kernel_size: 5 pad: 2")
    + pool("pool3", "conv3", "pool: AVE kernel_size: 3 stride: 2")
    + dense("ip1", "pool3", 16)
    + dense("last", "ip1", 10)
    + LOSS,
)
CAFFENET = net_text(  # groups, LRN, dropout
    "3 3 35 35",
    conv("conv1", "data", 32, "kernel_size: 7 stride: 2")
    + pool("pool1", "conv1", "kernel_size: 3 stride: 2")
    + norm("norm1", "pool1")
    + conv("conv2", "norm1", 32, "kernel_size: 5 pad: 2 group: 2")
    + pool("pool2", "conv2", "kernel_size: 3 stride: 2")
    + norm("norm2", "pool2")
    + conv("conv3", "norm2", 24, "kernel_size: 3 pad: 1")
    + conv("conv4", "conv3", 32, "kernel_size: 3 pad: 1 group: 2")
    + pool("pool5", "conv4", "kernel_size: 2 stride: 1")
    + dense("fc6", "pool5", 32, relu=True)
    + in_place("Dropout", "drop6", "fc6", "dropout_param { dropout_ratio: 0.3 }")
    + dense("last", "fc6", 10)
    + LOSS,
)
GOOGLENET = net_text(  # an inception module, a second loss beside the main path
    "2 3 20 20",
    conv("conv1", "data", 16, "kernel_size: 3 stride: 2")
    + norm("norm1", "conv1")
    + conv("one", "norm1", 8, "kernel_size: 1")
    + conv("three_reduce", "norm1", 12, "kernel_size: 1")
    + conv("three", "three_reduce", 16, "kernel_size: 3 pad: 1")
    + conv("five_reduce", "norm1", 4, "kernel_size: 1")
    + conv("five", "five_reduce", 10, "kernel_size: 5 pad: 2")
    + pool("pool", "norm1", "kernel_size: 3 stride: 1 pad: 1")
    + conv("pool_proj", "pool", 8, "kernel_size: 1")
    + one("Concat", "module", "one three five pool_proj")
    + pool("aux_pool", "module", "pool: AVE kernel_size: 5 stride: 3")
    + conv("aux_conv", "aux_pool", 8, "kernel_size: 1")
    + dense("aux_fc", "aux_conv", 10)
    + one("SoftmaxWithLoss", "aux_loss", "aux_fc label", "loss_weight: 0.3")
    + conv("next", "module", 16, "kernel_size: 3 pad: 1")
    + pool("mean", "next", "pool: AVE global_pooling: true")
    + dense("last", "mean", 10)
    + LOSS,
)
RESNET = net_text(  # a projected and an identity block
    "3 3 17 17",
    conv("conv1", "data", 16, "kernel_size: 3 pad: 1 stride: 2 bias_term: false", relu=False)
    + batch_norm("conv1")
    + in_place("ReLU", "conv1_relu", "conv1")
    + pool("pool1", "conv1", "kernel_size: 3 stride: 2 pad: 1")
    + conv("shortcut", "pool1", 32, "kernel_size: 1 bias_term: false", relu=False)
    + batch_norm("shortcut")
    + conv("a1", "pool1", 16, "kernel_size: 1 bias_term: false", relu=False)
    + batch_norm("a1")
    + in_place("ReLU", "a1_relu", "a1")
    + conv("a2", "a1", 32, "kernel_size: 3 pad: 1 bias_term: false", relu=False)
    + batch_norm("a2")
    + one("Eltwise", "res_a", "shortcut a2")
    + in_place("ReLU", "res_a_relu", "res_a")
    + conv("b1", "res_a", 32, "kernel_size: 3 pad: 1")
    + conv("b2", "b1", 32, "kernel_size: 1", relu=False)
    + one("Eltwise", "res_b", "res_a b2", "eltwise_param { coeff: 1 coeff: 0.5 }")
    + in_place("ReLU", "res_b_relu", "res_b")
    + pool("mean", "res_b", "pool: AVE kernel_size: 5 stride: 1")
    + dense("last", "mean", 10)
    + LOSS,
)
MIXED = net_text(  # layers that work in Caffe's order between layers that do not
    "2 6 12 12",
    conv("conv1", "data", 16, "kernel_size: 3 pad: 1")
    + 'layer { name: "slice" type: "Slice" bottom: "conv1" top: "left" top: "right" }\n'
    + in_place("PReLU", "prelu", "left")
    + one(
        "Deconvolution",
        "up",
        "left",
        'convolution_param { num_output: 8 kernel_size: 4 stride: 2 pad: 1 weight_filler { type: "msra" } }',
    )
    + one("Crop", "crop", "up right", "crop_param { axis: 2 offset: 3 }")
    + one("Eltwise", "product", "crop right", "eltwise_param { operation: PROD }")
    + conv("conv2", "product", 16, "kernel_size: 3")
    + in_place("Sigmoid", "sigmoid", "conv2")
    + conv("leaky", "conv2", 16, "kernel_size: 3", relu=False)
    + in_place("ReLU", "leaky_relu", "leaky", "relu_param { negative_slope: 0.1 }")
    + conv("apart", "leaky", 16, "kernel_size: 1", relu=False)
    + one("ReLU", "apart_relu", "apart")
    + one("Eltwise", "maximum", "apart_relu leaky", "eltwise_param { operation: MAX }")
    + one("Flatten", "flat", "maximum")
    + dense("last", "flat", 10)
    + LOSS,
)
SIAMESE = net_text(  # two convolutions of the same weights
    "4 2 12 12",
    'layer { name: "slice" type: "Slice" bottom: "data" top: "one" top: "two" }\n'
    + conv("conv", "one", 8, "kernel_size: 3").replace(
        "convolution_param", 'param { name: "w" } param { name: "b" } convolution_param', 1
    )
    + conv("conv_p", "two", 8, "kernel_size: 3").replace(
        "convolution_param", 'param { name: "w" } param { name: "b" } convolution_param', 1
    )
    + pool("pool", "conv", "kernel_size: 2 stride: 2")
    + pool("pool_p", "conv_p", "kernel_size: 2 stride: 2")
    + one("Concat", "both", "pool pool_p")
    + dense("last", "both", 10)
    + LOSS,
)

MOBILENET = net_text(  # a group for every channel, dilation, oblong kernels
    "3 3 16 16",
    conv("conv1", "data", 16, "kernel_size: 3 pad: 1 stride: 2")
    + conv("dw", "conv1", 16, "kernel_size: 3 pad: 1 group: 16 bias_term: false")
    + conv("sep", "dw", 32, "kernel_size: 1")
    + conv("dw2", "sep", 32, "kernel_size: 3 stride: 2 pad: 1 group: 32", relu=False)
    + batch_norm("dw2")
    + in_place("ReLU", "dw2_relu", "dw2")
    + conv("dilated", "dw2", 20, "kernel_size: 3 dilation: 2 pad: 2")
    + conv("oblong", "dilated", 20, "kernel_h: 1 kernel_w: 3 pad_h: 0 pad_w: 1 stride_h: 2 stride_w: 1")
    + pool("mean", "oblong", "pool: AVE global_pooling: true")
    + conv("fc", "mean", 10, "kernel_size: 1", relu=False)
    + one("Flatten", "last", "fc")
    + LOSS,
)
VOLUME = net_text(  # three spatial axes, then one
    "2 2 6 7 8",
    conv("cube", "data", 16, "kernel_size: 3 pad: 1 stride: 2 stride: 1 stride: 2")
    + conv("cube2", "cube", 8, "kernel_size: 2")
    + one("Reshape", "line", "cube2", "reshape_param { shape { dim: 0 dim: 8 dim: -1 } }")
    + conv("line1", "line", 16, "kernel_size: 3 group: 2")
    + dense("last", "line1", 10)
    + LOSS,
)
PERMISSIVE = net_text(  # an inner product on the weights of a convolution
    "3 16 4 4",
    conv("conv", "data", 16, "kernel_size: 1").replace(
        "convolution_param", 'param { name: "w" } convolution_param', 1
    )
    + pool("mean", "conv", "pool: AVE global_pooling: true")
    + dense("fc", "mean", 16, relu=True).replace(
        "inner_product_param", 'param { name: "w" share_mode: PERMISSIVE } inner_product_param', 1
    )
    + dense("last", "fc", 10)
    + LOSS,
)
NORMS = net_text(  # every way to put a Scale and a ReLU behind a BatchNorm, or something else
    "4 3 12 12",
    conv("conv1", "data", 16, "kernel_size: 3", relu=False)
    + one("BatchNorm", "apart", "conv1")
    + in_place("Scale", "apart_scale", "apart", 'scale_param { filler { type: "uniform" min: 0.5 max: 2 } }')
    + in_place("ReLU", "apart_relu", "apart")
    + conv("conv2", "apart", 16, "kernel_size: 3", relu=False)
    + in_place("BatchNorm", "alone", "conv2")
    + in_place("ReLU", "alone_relu", "conv2")
    + conv("conv3", "conv2", 16, "kernel_size: 3", relu=False)
    + batch_norm("conv3").replace("scale_param", "param { lr_mult: 0 } param { lr_mult: 1 } scale_param", 1)
    + in_place("ReLU", "leaky", "conv3", "relu_param { negative_slope: 0.2 }")
    + conv("conv4", "conv3", 16, "kernel_size: 1", relu=False)
    + in_place("BatchNorm", "fixed", "conv4", "batch_norm_param { use_global_stats: true eps: 0.5 }")
    + in_place("Scale", "fixed_scale", "conv4", "scale_param { bias_term: true }")
    + in_place("ReLU", "fixed_relu", "conv4")
    + 'layer { name: "halves" type: "Slice" bottom: "conv4" top: "left" top: "right" }\n'
    + batch_norm("left").replace("scale_param", 'param { name: "s" } param { name: "t" } scale_param', 1)
    + in_place("ReLU", "left_relu", "left")
    + batch_norm("right").replace("scale_param", 'param { name: "s" } param { name: "t" } scale_param', 1)
    + one("Scale", "product", "left right", "scale_param { axis: 0 }")
    + in_place("BatchNorm", "product_norm", "product")
    + one("Scale", "scaled", "product", "scale_param { bias_term: true }")
    + dense("last", "scaled", 10)
    + LOSS,
)

NETS = {
    "lenet": LENET,
    "cifar10_quick": CIFAR10_QUICK,
    "caffenet": CAFFENET,
    "googlenet": GOOGLENET,
    "resnet": RESNET,
    "mixed": MIXED,
    "siamese": SIAMESE,
    "mobilenet": MOBILENET,
    "volume": VOLUME,
    "permissive": PERMISSIVE,
    "norms": NORMS,
}

# What a BatchNorm writes and its Scale changes in place: with both fused, its diff stays the one behind them.
BETWEEN_FUSED = ("apart",)

NOT_SPATIAL = ("InnerProduct", "Flatten", "Reshape")


def build(
    net: str, backend: CpuBackend, plan: Plan | None, phase: int = pb.TRAIN, weights_from: Net | None = None
) -> Net:
    param = pb.NetParameter()
    text.parse(net, param)
    scope = Scope(backend, phase, seed=3, rng=np.random.default_rng(1))
    return Net(param, scope, plan=plan, weights_from=weights_from)


def reference(net: str) -> Net:
    """The net as NumPy alone computes it, unplanned."""
    return build(net, CpuBackend(engine="CAFFE"), None)


def planned(net: str, memory_format: str) -> Net:
    return build(net, CpuBackend(), Plan(memory_format=memory_format))


def feed(net: Net, seed: int, num_images: int | None = None) -> None:
    """Random images and labels; another number of images reshapes the net."""
    rng = np.random.default_rng(seed)
    data, label = net.blob("data"), net.blob("label")
    if num_images is not None:
        data.reshape((num_images, *data.shape[1:]))
        label.reshape((num_images,))
    data.data.plain_overwrite()[...] = rng.standard_normal(data.shape)
    label.data.plain_overwrite()[...] = rng.integers(0, 10, label.shape)


def train_pass(net: Net, seed: int, *, clear: bool = True, num_images: int | None = None) -> float:
    feed(net, seed, num_images)
    if clear:
        net.clear_param_diffs()
    loss = net.forward()
    net.backward()
    return loss


def activations(net: Net) -> Trace:
    return {f"data of {name}": blob.data.plain().copy() for name, blob in net.blobs.items()}


def everything(net: Net) -> Trace:
    """All data, all diffs that backward computes, all parameters and their diffs."""
    found = activations(net)
    for step in net.steps:
        wanted = zip(step.bottom_names, step.bottom, step.bottom_need_backward, strict=True)
        for name, blob, needed in wanted:
            if needed and step.needs_backward and name not in BETWEEN_FUSED:
                found[f"diff of {name}"] = blob.diff.plain().copy()
    for param in net.params.owned:
        found[f"param {param.label}"] = param.blob.data.plain().copy()
        found[f"diff of param {param.label}"] = param.blob.diff.plain().copy()
    return found


def descend(net: Net, rate: float) -> None:
    """What a solver does: change the flat buffer behind the arrays' backs, then tell them."""
    assert net.params.data is not None
    assert net.params.diff is not None
    for param in net.params.owned:
        param.blob.data.pull()
        param.blob.diff.pull()
    for param in net.params.owned:
        part = slice(param.start, param.stop)
        net.params.data[part] -= rate * param.lr_mult * net.params.diff[part]
        param.blob.data.push()


def assert_same(got: Trace, expected: Trace) -> None:
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        largest = max(1.0, float(np.abs(values).max(initial=0)))
        np.testing.assert_allclose(got[name], values, RTOL, ATOL * largest, err_msg=name)


def training(net: Net) -> list[Trace]:
    """What a net holds along some passes, steps and changes of the batch; not read after every pass."""
    traces = []
    train_pass(net, 1)
    traces.append(everything(net))
    train_pass(net, 2)
    train_pass(net, 3, clear=False)
    traces.append(everything(net))
    descend(net, 0.05)
    train_pass(net, 4)
    descend(net, 0.05)
    train_pass(net, 5)
    traces.append(everything(net))
    train_pass(net, 6, num_images=4)
    traces.append(everything(net))
    descend(net, 0.05)
    train_pass(net, 7, num_images=2)
    train_pass(net, 8)
    traces.append(everything(net))
    train_pass(net, 9, num_images=1)
    traces.append(everything(net))
    return traces


@pytest.mark.parametrize("name", NETS)
def test_a_planned_net_computes_what_the_reference_does(name: str) -> None:
    expected = training(reference(NETS[name]))
    ways: dict[str, Callable[[], Net]] = {
        "unplanned": lambda: build(NETS[name], CpuBackend(), None),
        "blocked": lambda: planned(NETS[name], "blocked"),
        "channels_last": lambda: planned(NETS[name], "channels_last"),
        "auto": lambda: planned(NETS[name], "auto"),
    }
    for way, make in ways.items():
        for i, (got, want) in enumerate(zip(training(make()), expected, strict=True)):
            try:
                assert_same(got, want)
            except AssertionError as error:
                raise AssertionError(f"{way}, trace {i}: {error}") from None


@pytest.mark.parametrize("name", NETS)
def test_a_net_whose_arrays_a_script_holds_computes_the_same(name: str) -> None:
    expected = training(reference(NETS[name]))
    for memory_format in FORMATS:
        net = planned(NETS[name], memory_format)
        for blob in [*net.blobs.values(), *(param.blob for param in net.params.owned)]:
            blob.data.lend_plain()
            blob.diff.lend_plain()
        for got, want in zip(training(net), expected, strict=True):
            assert_same(got, want)


def test_held_arrays_show_each_pass_and_take_writes() -> None:
    ours, theirs = planned(CAFFENET, "blocked"), reference(CAFFENET)
    held = {name: blob.data.lend_plain() for name, blob in ours.blobs.items()}
    weights = {param.label: param.blob.data.lend_plain() for param in ours.params.owned}
    gradients = {param.label: param.blob.diff.lend_plain() for param in ours.params.owned}
    for seed in (1, 2):
        for net in (ours, theirs):
            train_pass(net, seed)
        expected = everything(theirs)
        assert_same({f"data of {name}": values for name, values in held.items()}, activations(theirs))
        assert_same(
            {f"diff of param {label}": values for label, values in gradients.items()},
            {key: values for key, values in expected.items() if key.startswith("diff of param")},
        )
        for param in theirs.params.owned:
            weights[param.label][...] *= 0.9  # seen by the next pass without another word
            param.blob.data.plain_mutable()[...] *= 0.9


def test_weights_written_after_a_pass_are_used_by_the_next() -> None:
    for name in ("lenet", "caffenet", "resnet"):
        ours, theirs = planned(NETS[name], "blocked"), reference(NETS[name])
        for net in (ours, theirs):
            train_pass(net, 1)
            for param in net.params.owned:
                values = param.blob.data.plain_overwrite()
                values[...] = np.random.default_rng(7).standard_normal(values.shape) * 0.1
            train_pass(net, 2)
        assert_same(everything(ours), everything(theirs))


@pytest.mark.parametrize(("name", "pairs"), [("caffenet", 5), ("lenet", 1), ("mixed", 2), ("resnet", 1)])
def test_in_place_rectifiers_behind_convolutions_and_inner_products_are_fused(name: str, pairs: int) -> None:
    net = planned(NETS[name], "blocked")
    fused = [layer.name for layer in net.layers if isinstance(layer, ReLU) and layer.is_fused]
    assert len(fused) == pairs
    assert not {"leaky_relu", "apart_relu", "relu1"} & set(fused)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name", NETS)
def test_a_partial_pass_stops_before_what_is_fused(name: str, memory_format: str) -> None:
    ours, theirs = planned(NETS[name], memory_format), reference(NETS[name])
    for net in (ours, theirs):
        train_pass(net, 1)
    for i, step in enumerate(ours.steps[:-1]):
        for net in (ours, theirs):
            feed(net, 2)
            net.forward(end=i)
        if isinstance(step.layer, (Convolution, InnerProduct)):
            assert step.top[0].data.plain().min() < 0
        assert_same(activations(ours), activations(theirs))
        for net in (ours, theirs):
            net.forward(start=i + 1)
        assert_same(activations(ours), activations(theirs))
    for net in (ours, theirs):
        train_pass(net, 3)
    assert_same(everything(ours), everything(theirs))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name", NETS)
def test_a_planned_test_net_follows_the_weights_of_its_training_net(name: str, memory_format: str) -> None:
    plan = Plan(memory_format=memory_format)
    backend, numpy_only = CpuBackend(), CpuBackend(engine="CAFFE")
    ours = build(NETS[name], backend, plan)
    our_test = build(NETS[name], backend, plan, pb.TEST, weights_from=ours)
    theirs = build(NETS[name], numpy_only, None)
    their_test = build(NETS[name], numpy_only, None, pb.TEST, weights_from=theirs)
    for seed in range(3):
        for train, test in ((ours, our_test), (theirs, their_test)):
            train_pass(train, seed)
            descend(train, 0.05)
            feed(test, seed + 10, num_images=2 + 3 * (seed % 2))
            test.forward()
            test.forward()
        assert_same(activations(our_test), activations(their_test))
        assert_same(everything(ours), everything(theirs))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    "sizes", [("1 64 3 3", "4 64 20 20"), ("4 64 20 20", "1 64 3 3"), ("2 64 9 9", "8 64 4 4")]
)
def test_layers_of_other_image_sizes_share_weights(sizes: tuple[str, str], memory_format: str) -> None:
    """The layout that suits one of them best is not the other's."""
    body = "force_backward: true\n"
    for i, size in enumerate(sizes):
        dims = " ".join(f"dim: {n}" for n in size.split())
        body += f'layer {{ name: "in{i}" type: "Input" top: "in{i}" input_param {{ shape {{ {dims} }} }} }}\n'
        shared = 'param { name: "w" } param { name: "b" } convolution_param'
        body += conv(f"conv{i}", f"in{i}", 64, "kernel_size: 1").replace("convolution_param", shared, 1)
        body += one(
            "Reduction", f"loss{i}", f"conv{i}", "loss_weight: 0.01 reduction_param { operation: SUMSQ }"
        )
    ours, theirs = planned(body, memory_format), reference(body)
    for seed in range(2):
        for net in (ours, theirs):
            rng = np.random.default_rng(seed)
            for name in ("in0", "in1"):
                values = net.blob(name).data.plain_overwrite()
                values[...] = rng.standard_normal(values.shape)
            net.clear_param_diffs()
            net.forward()
            net.backward()
            descend(net, 1e-4)
        assert_same(everything(ours), everything(theirs))


def test_a_loss_weight_on_a_blob_that_others_read_adds_to_loss_and_gradient() -> None:
    body = LENET.replace('top: "conv2"', 'top: "conv2" loss_weight: 0.01', 1)
    ours, theirs, without = planned(body, "blocked"), reference(body), reference(LENET)
    losses = [train_pass(net, 1) for net in (ours, theirs, without)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    np.testing.assert_allclose(
        losses[0], losses[2] + 0.01 * without.blob("conv2").data.plain().sum(), rtol=1e-5
    )
    assert_same(everything(ours), everything(theirs))
    gained = theirs.blob("conv2").diff.plain() - without.blob("conv2").diff.plain()
    np.testing.assert_allclose(gained, 0.01, atol=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_another_image_size_is_planned_anew(name: str) -> None:
    """A fully convolutional part takes any size: everything before the first inner product."""
    spec = pb.NetParameter()
    text.parse(NETS[name], spec)
    cut = next(i for i, layer in enumerate(spec.layer) if layer.type in NOT_SPATIAL)
    del spec.layer[cut:]
    body = text.format(spec)
    ours, theirs = planned(body, "blocked"), reference(body)
    for grow in (0, 6, 0):
        for net in (ours, theirs):
            shape = build(body, CpuBackend(engine="CAFFE"), None).blob("data").shape
            net.blob("data").reshape((*shape[:2], *(n + grow for n in shape[2:])))
            net.reshape()
            feed(net, grow)
            net.forward()
        assert_same(activations(ours), activations(theirs))


def test_in_place_scales_behind_batch_norms_are_fused() -> None:
    net = planned(NETS["resnet"], "blocked")
    norms = [step for step in net.steps if step.layer.spec.type == "BatchNorm"]
    fused = {step.layer.name for step in net.steps if step.fused_backward is not None}
    assert norms
    assert fused >= {step.layer.name for step in norms}
    rectifiers = {layer.name for layer in net.layers if isinstance(layer, ReLU)} & fused
    assert rectifiers  # those right behind a Scale
    assert len(fused) == 2 * len(norms) + len(rectifiers)
