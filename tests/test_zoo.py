"""Every net of the zoo is built in both phases and trains, with small images in place of its database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.comm.single import SingleCommunicator
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.layers.record_layer import RecordLayer
from dtrain.net import Net
from dtrain.plan import Plan
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import read_net, read_solver
from dtrain.solvers.loop import Solver
from dtrain.solvers.nets import build_test_nets, build_train_net
from dtrain.solvers.settings import Settings
from examples import toy_captions
from tests.data.sources import lmdb_of

ROOT = Path(__file__).parents[1]
SOLVERS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/*/solver*.prototxt"))
DEPLOYS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/*/deploy.prototxt"))

SOURCES = ("Data", "ImageData", "HDF5Data")
WIDE = 1000  # inner products with more outputs than classes are narrowed
LARGE = 5  # pooling kernels from here on cover what is left of an image
BATCH = 2


@dataclass(frozen=True)
class Toy:
    """The images that a model trains on here, and how many parameters the published model has.

    others: shapes of one sample of blobs that are no scalars; narrow: what the outputs of convolutions are
    divided by; rate: in place of the solver's base_lr.
    """

    image: tuple[int, ...]
    classes: int = 1000
    params: int = 0
    others: tuple[tuple[str, tuple[int, ...]], ...] = ()
    narrow: int = 1
    rate: float | None = None


TOYS = {
    "alexnet": Toy((3, 67, 67), params=60_965_224),
    "caffenet": Toy((3, 67, 67), params=60_965_224),
    "cifar10_full": Toy((3, 32, 32), 10, 89_578),
    "cifar10_quick": Toy((3, 32, 32), 10, 145_578),
    "digits": Toy((1, 28, 28), 10, 431_080),
    # VGG-16 without fc8, 21 scores of three layers, and what is not learned: 2 scales and 3 interpolations
    "fcn8s": Toy(
        (3, 32, 40),
        21,
        138_357_544 - 4_097_000 + 21 * (4096 + 512 + 256 + 3) + 512 + 256 + 21 * (16 + 16 + 256),
        others=(("label", (1, 32, 40)),),
        narrow=8,
        rate=1e-6,
    ),
    "finetune_flickr_style": Toy((3, 67, 67), 20, 60_965_224 - 980 * 4097),
    "googlenet": Toy((3, 67, 67), params=6_998_552),
    "hdf5_classification": Toy((4,), 2),
    "lenet": Toy((1, 28, 28), 10, 431_080),
    "lrcn": Toy((3, 24, 24), 2, 41_548, others=tuple((name, (9,)) for name in ("cont", "input", "target"))),
    "mnist_autoencoder": Toy((1, 28, 28), 10),
    "mnist_siamese": Toy((2, 28, 28), 2, 431_080 + 22),
    # weights, then mean and variance and factor of 27 BatchNorm layers
    "mobilenet": Toy((3, 64, 64), params=4_231_976 + 21_888 + 27),
    "nin": Toy((3, 67, 67), params=7_595_176),
    # weights, then as above of 53 BatchNorm layers, and the bias that the published conv1 has
    "resnet50": Toy((3, 67, 67), params=25_557_032 + 53_120 + 53 + 64),
    "squeezenet": Toy((3, 67, 67), params=1_235_496),  # version 1.1
    "vgg16": Toy((3, 32, 32), params=138_357_544),
}


@pytest.fixture(autouse=True)
def _at_the_repository_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths inside the files count from there."""
    monkeypatch.chdir(ROOT)


def shrink(net: pb.NetParameter, toy: Toy) -> None:
    """Put Input layers in place of databases, and let the rest fit small images.

    The widest layers get narrow, the means over what is left of a whole image take what there is, and
    dropout drops nothing.
    """
    narrow(net, toy)
    for layer in net.layer:
        if layer.type in SOURCES:
            make_input(layer, toy)
        elif layer.type == "InnerProduct" and layer.inner_product_param.num_output > WIDE:
            layer.inner_product_param.num_output = 64
        elif layer.type == "Pooling" and layer.pooling_param.kernel_size >= LARGE:
            layer.pooling_param.CopyFrom(
                pb.PoolingParameter(pool=layer.pooling_param.pool, global_pooling=True)
            )
        elif layer.type == "Dropout":
            layer.dropout_param.dropout_ratio = 1e-6


def narrow(net: pb.NetParameter, toy: Toy) -> None:
    for layer in net.layer:
        if layer.type == "Convolution" and layer.convolution_param.num_output > toy.classes:
            layer.convolution_param.num_output //= toy.narrow


def make_input(layer: pb.LayerParameter, toy: Toy) -> None:
    source = pb.LayerParameter(name=layer.name, type="Input", top=layer.top, include=layer.include)
    others = dict(toy.others)
    for i, name in enumerate(layer.top):
        shape = toy.image if i == 0 and name not in others else others.get(name, ())
        source.input_param.shape.add(dim=(BATCH, *shape))
    layer.CopyFrom(source)


def feed(net: Net, toy: Toy) -> None:
    """The same images and labels for all nets."""
    rng = np.random.default_rng(11)
    for step in net.steps:
        if step.layer.spec.type == "Input":
            for blob in step.top:
                is_image = blob.shape[1:] == toy.image
                values = rng.random(blob.shape) if is_image else rng.integers(0, toy.classes, blob.shape)
                blob.data.plain_overwrite()[...] = values


def toy_solver(path: str, toy: Toy) -> Solver:
    """The solver of a file on the shrunken net, at a rate that suits two images."""
    param, _ = read_solver(path)
    net, _ = read_net(param.net)
    shrink(net, toy)
    param.ClearField("net")
    param.net_param.CopyFrom(net)
    param.iter_size = 1
    param.base_lr = toy.rate or param.base_lr
    param.max_iter = 4
    param.ClearField("snapshot")
    param.snapshot_after_train = False
    param.test_initialization = False
    param.test_interval = 1000
    settings, backend, comm = Settings(param), CpuBackend(), SingleCommunicator()
    plan = Plan(memory_format="blocked")
    train = build_train_net(settings, backend, comm, 1, plan)
    tests = build_test_nets(settings, backend, comm, 1, train, plan)
    for built in (train, *tests):
        feed(built, toy)
    return Solver(param, train, tests, comm)


def test_every_model_has_a_toy() -> None:
    assert set(TOYS) == {Path(path).parent.name for path in SOLVERS}


@pytest.mark.parametrize("path", SOLVERS)
def test_a_model_is_built_in_both_phases_and_learns_two_images(path: str) -> None:
    toy = TOYS[Path(path).parent.name]
    solver = toy_solver(path, toy)
    losses = []
    for _ in range(4):
        losses.append(solver.net.forward())
        solver.step(1)
    assert np.isfinite(losses).all()
    assert min(losses[1:]) < losses[0]
    assert solver.test_nets
    for net in solver.test_nets:
        net.forward()
        for name in net.outputs:
            assert np.isfinite(net.blob(name).data.plain()).all(), name


@pytest.mark.parametrize("path", DEPLOYS)
def test_a_deploy_net_has_as_many_parameters_as_the_published_one(path: str) -> None:
    param, _ = read_net(path)
    for layer in param.layer:
        if layer.type == "Input":
            layer.input_param.shape[0].dim[0] = 1
    net = Net(param, Scope(CpuBackend(engine="CAFFE"), pb.TEST))
    assert sum(owned.blob.count for owned in net.params.owned) == TOYS[Path(path).parent.name].params


def test_pixels_are_labelled_from_two_databases(tmp_path: Path) -> None:
    """configs/fcn8s as it is but for narrow convolutions: images, and label images of the same sizes."""
    rng = np.random.default_rng(5)
    sizes = [(32, 40)] * 2
    images = [rng.integers(0, 256, (3, *size), dtype=np.uint8) for size in sizes]
    labels = [rng.choice(np.array([0, 3, 20, 255], np.uint8), (1, *size)) for size in sizes]
    written = {"images": lmdb_of(tmp_path / "images", images), "labels": lmdb_of(tmp_path / "labels", labels)}
    net, _ = read_net("configs/fcn8s/train_val.prototxt")
    narrow(net, TOYS["fcn8s"])
    for layer in net.layer:
        if layer.type == "Data":
            layer.data_param.source = written[layer.data_param.source.rsplit("_", 2)[1]]
    for phase in (pb.TRAIN, pb.TEST):
        built = Net(net, Scope(CpuBackend(), phase), plan=Plan(memory_format="blocked"))
        for size in sizes:
            assert np.isfinite(built.forward())
            assert built.blob("score").shape == (1, 21, *size)
            if phase == pb.TRAIN:
                built.backward()
                assert built.layer("score_fr").blobs[1].diff.plain().any()
        for layer in built.layers:
            if isinstance(layer, RecordLayer):
                layer.close()


def test_a_toy_of_sentences_is_learned_and_spoken(tmp_path: Path) -> None:
    """configs/lrcn on the drawings of examples/toy_captions.py, then word by word by its deploy net."""
    toy_captions.write(tmp_path, num_test=64)
    param, _ = read_solver("configs/lrcn/solver.prototxt")
    net, _ = read_net(param.net)
    for layer in net.layer:
        if layer.type == "HDF5Data":
            layer.hdf5_data_param.source = str(tmp_path / Path(layer.hdf5_data_param.source).name)
    param.ClearField("net")
    param.net_param.CopyFrom(net)
    param.test_interval = 1000
    settings, backend, comm = Settings(param), CpuBackend(), SingleCommunicator()
    train = build_train_net(settings, backend, comm, 1, Plan(memory_format="blocked"))
    Solver(param, train, build_test_nets(settings, backend, comm, 1, train), comm).step(450)
    speaker = Net(read_net("configs/lrcn/deploy.prototxt")[0], Scope(backend, pb.TEST), weights_from=train)
    rng = np.random.default_rng(4)
    for colour, shape, side in (
        ("red", "ring", "left"),
        ("blue", "cross", "right"),
        ("green", "square", "left"),
    ):
        image = toy_captions.draw(colour, shape, side, rng)
        assert speak(speaker, image) == f"a {colour} {shape} on the {side} ."


def speak(net: Net, image: NDArray[np.float32]) -> str:
    """The likeliest word again and again, up to the end of the sentence."""
    net.blob("data").data.plain_overwrite()[...] = image
    words: list[str] = []
    word = 0
    while len(words) < toy_captions.STEPS:
        net.blob("cont_sentence").data.plain_overwrite()[...] = len(words) > 0
        net.blob("input_sentence").data.plain_overwrite()[...] = word
        net.forward()
        word = int(net.blob("probs").data.plain().argmax())
        words.append(toy_captions.WORDS[word])
        if word == 0:
            break
    return " ".join(words)
