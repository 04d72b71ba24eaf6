"""Siamese nets: images put on a plane so that equal digits lie together.

    python examples/siamese_embedding.py embedding.png

trains configs/mnist_siamese on pairs of digits, then shows where its deploy net puts test images that it has
never seen.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import digits
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from dtrain import pycaffe as caffe

PAIRS = 64


def feed_pairs(seed: int = 0) -> Callable[[caffe.Net], None]:
    """Fills `pair_data` with two digits an image, every other pair equal, and `sim` with 1 for equal."""
    images, labels = digits.load()
    members = [np.flatnonzero(labels[: digits.NUM_TRAIN] == digit) for digit in range(10)]
    rng = np.random.default_rng(seed)

    def feed(net: caffe.Net) -> None:
        one = rng.integers(0, digits.NUM_TRAIN, PAIRS)
        two = rng.integers(0, digits.NUM_TRAIN, PAIRS)
        two[::2] = [rng.choice(members[labels[i]]) for i in one[::2]]
        net.blobs["pair_data"].data[...] = np.concatenate([images[one], images[two]], axis=1)
        net.blobs["sim"].data[...] = labels[one] == labels[two]

    return feed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--iterations", type=int, default=1000)
    args = parser.parse_args()
    net = digits.read(digits.ROOT / "configs/mnist_siamese/train_val.prototxt")
    net = digits.with_inputs(net, pair_data=(PAIRS, 2, 28, 28), sim=(PAIRS,))
    with tempfile.TemporaryDirectory() as name:
        solver = caffe.get_solver(digits.solver_file(Path(name), net, base_lr=0.01))
        losses = digits.train(solver, feed_pairs(), args.iterations)
        weights = Path(name, "siamese.caffemodel")
        solver.net.save(weights)
        embed = caffe.Net(digits.deploy("mnist_siamese"), str(weights), caffe.TEST)
    images, labels = (values[digits.NUM_TRAIN :] for values in digits.load())
    points = embed.forward_all(data=images)["feat"]

    figure, axis = plt.subplots(figsize=(6, 5), dpi=80, layout="constrained")
    for digit in range(10):
        axis.scatter(*points[labels == digit].T, s=12, color=plt.get_cmap("tab10")(digit), label=str(digit))
    axis.legend(title="digit", loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set(title=f"{len(points)} unseen digits after {args.iterations} iterations")
    figure.savefig(args.out)
    plt.close(figure)
    print(f"loss: {losses[0]:.3f} at first, {np.mean(losses[-20:]):.3f} in the end")


if __name__ == "__main__":
    main()
