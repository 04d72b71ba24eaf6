"""Fine-tuning: a net that knows ten digits learns to tell odd from even.

    python examples/finetune.py finetune.png

The last layer gets another name, so that the weights' file has nothing for it and it starts from its filler;
it learns ten times as fast. The convolutions keep what they know: lr_mult 0. Beside it, the same net learns
from nothing. The real thing, CaffeNet for photographs' styles, is configs/finetune_flickr_style.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import digits
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from dtrain import pycaffe as caffe

NEW = "ip2_parity"
FROZEN = ("conv1", "conv2")
FEW = 64  # labelled images for the new task


def parity_net(*, frozen: bool) -> Any:
    """configs/digits for two classes."""
    net = digits.with_inputs(
        digits.read(digits.ROOT / "configs/digits/train_val.prototxt"),
        data=(digits.BATCH, 1, 28, 28),
        label=(digits.BATCH,),
    )
    for layer in net.layer:
        if layer.name == "ip2":
            layer.name = NEW
            layer.inner_product_param.num_output = 2
            layer.param[0].lr_mult, layer.param[1].lr_mult = 10, 20
        if frozen and layer.name in FROZEN:
            for param in layer.param:
                param.lr_mult = 0
    return net


def learn(folder: Path, weights: str | None, iterations: int) -> tuple[list[float], float, caffe.Net]:
    """(losses, share of test images told right, net) after learning from FEW images."""
    images, labels = digits.load()
    solver = caffe.get_solver(
        digits.solver_file(folder, parity_net(frozen=weights is not None), base_lr=0.001)
    )
    if weights is not None:
        solver.net.copy_from(weights)
    few = np.random.default_rng(1)

    def feed(net: caffe.Net) -> None:
        chosen = few.integers(0, FEW, digits.BATCH)
        net.blobs["data"].data[...] = images[chosen]
        net.blobs["label"].data[...] = labels[chosen] % 2

    losses = digits.train(solver, feed, iterations)
    right, total = 0, 0
    for start in range(digits.NUM_TRAIN, len(images) - digits.BATCH + 1, digits.BATCH):
        batch = slice(start, start + digits.BATCH)
        scores = solver.net.forward(["ip2"], data=images[batch], label=labels[batch] % 2)["ip2"]
        right += int((scores.argmax(1) == labels[batch] % 2).sum())
        total += digits.BATCH
    return losses, right / total, solver.net


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--iterations", type=int, default=300, help="of each of the three trainings")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = digits.train_digits(folder, args.iterations)
        tuned, tuned_score, net = learn(folder, weights, args.iterations)
        before = caffe.Net(digits.deploy(), weights, caffe.TEST)
        for layer in FROZEN:
            assert np.array_equal(net.params[layer][0].data, before.params[layer][0].data)
        scratch, scratch_score, _ = learn(folder, None, args.iterations)

    figure, axis = plt.subplots(figsize=(6, 3.5), dpi=80, layout="constrained")
    axis.plot(scratch, label=f"from nothing: {scratch_score:.1%} of the test images")
    axis.plot(tuned, label=f"fine-tuned: {tuned_score:.1%}")
    axis.set(xlabel="iteration", ylabel="loss", title=f"Odd or even, from {FEW} labelled digits")
    axis.legend()
    figure.savefig(args.out)
    plt.close(figure)
    print(f"fine-tuned: {tuned_score:.1%} of the test images right; from nothing: {scratch_score:.1%}")


if __name__ == "__main__":
    main()
