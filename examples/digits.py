"""What the examples share: scikit-learn's handwritten digits as arrays, and nets that a script feeds.

The configs read databases. A script that has its images as arrays puts an Input layer in their place and
fills the blobs itself before each step.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from dtrain import pycaffe as caffe
from dtrain.pycaffe.proto import caffe_pb2

ROOT = Path(__file__).parents[1]
BATCH = 32
NUM_TRAIN = 1500

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


def load() -> tuple[Images, Labels]:
    """1,797 images (1, 28, 28) from 0 to 1, and their digits; the first NUM_TRAIN are for training."""
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images = np.zeros((len(order), 1, 28, 28), np.float32)
    for i, k in enumerate(order):
        small = bunch.images[k][:, :, np.newaxis] / 16
        images[i, 0, 4:24, 4:24] = caffe.io.resize_image(small, (20, 20))[:, :, 0]
    return images, bunch.target[order]


def read(path: Path) -> Any:
    """A NetParameter from a prototxt."""
    return text_format.Parse(path.read_text(), caffe_pb2.NetParameter())


def write(net: Any, path: Path) -> str:
    """The NetParameter as a prototxt; its path."""
    path.write_text(text_format.MessageToString(net))
    return str(path)


def with_inputs(net: Any, **shapes: tuple[int, ...]) -> Any:
    """The net with one Input layer in place of its Data layers; a shape for each blob."""
    made = caffe_pb2.NetParameter(name=net.name)
    source = made.layer.add(name="input", type="Input", top=list(shapes))
    for shape in shapes.values():
        source.input_param.shape.add(dim=shape)
    made.layer.extend(layer for layer in net.layer if layer.type != "Data")
    return made


def solver_file(folder: Path, net: Any, base_lr: float) -> str:
    """A solver for the net, both written to the folder."""
    path = folder / "solver.prototxt"
    path.write_text(
        f'net: "{write(net, folder / "train.prototxt")}"\n'
        f'base_lr: {base_lr} momentum: 0.9 weight_decay: 0.0005 lr_policy: "fixed"\n'
        "max_iter: 1000000 random_seed: 1\n"
    )
    return str(path)


def train(solver: Any, feed: Callable[[Any], None], iterations: int) -> list[float]:
    """The losses of so many steps; `feed` fills the net's inputs before each."""
    losses = []
    for _ in range(iterations):
        feed(solver.net)
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    return losses


def feeder(images: Images, labels: Labels, seed: int = 0) -> Callable[[Any], None]:
    """Fills `data` and `label` with random training images."""
    rng = np.random.default_rng(seed)

    def feed(net: Any) -> None:
        chosen = rng.integers(0, NUM_TRAIN, net.blobs["data"].num)
        net.blobs["data"].data[...] = images[chosen]
        net.blobs["label"].data[...] = labels[chosen]

    return feed


def train_digits(folder: Path, iterations: int) -> str:
    """Train configs/digits, and return the path of its weights."""
    net = with_inputs(
        read(ROOT / "configs/digits/train_val.prototxt"), data=(BATCH, 1, 28, 28), label=(BATCH,)
    )
    solver = caffe.get_solver(solver_file(folder, net, base_lr=0.02))
    train(solver, feeder(*load()), iterations)
    weights = folder / "digits.caffemodel"
    solver.net.save(weights)
    return str(weights)


def deploy(model: str = "digits") -> str:
    """The deploy net of a model."""
    return str(ROOT / "configs" / model / "deploy.prototxt")
