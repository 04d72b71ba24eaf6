"""Use a trained net as a measure of likeness: features of images, and the nearest images by them.

    python examples/feature_extraction.py neighbours.png features.npz

takes what layer ip1 says of every test digit, writes it down, and shows the nearest neighbours of some. For
whole databases there is `dtrain extract_features`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import digits
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from dtrain import pycaffe as caffe

LAYER = "ip1"
QUERIES, NEIGHBOURS = 6, 8


def extract(net: caffe.Net, images: digits.Images) -> NDArray[np.float32]:
    """The values of blob LAYER, after its ReLU, a row for each image; any number of images."""
    return np.asarray(net.forward_all(blobs=[LAYER], data=images)[LAYER], np.float32)


def nearest(features: NDArray[np.float32], query: int) -> NDArray[np.int64]:
    """The other images in the order of their cosine distance from one."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    order = np.argsort(-unit @ unit[query])
    return order[order != query]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("features", type=Path)
    parser.add_argument("--iterations", type=int, default=300, help="of training the digits net")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        net = caffe.Net(digits.deploy(), digits.train_digits(Path(folder), args.iterations), caffe.TEST)
    images, labels = (values[digits.NUM_TRAIN :] for values in digits.load())
    features = extract(net, images)
    np.savez_compressed(args.features, features=features, labels=labels)

    figure, axes = plt.subplots(QUERIES, NEIGHBOURS + 1, figsize=(7, 5), dpi=80, layout="constrained")
    for query, row in enumerate(axes):
        shown = [query, *nearest(features, query)[:NEIGHBOURS]]
        for axis, index in zip(row, shown, strict=True):
            axis.imshow(images[index, 0], cmap="gray_r")
            axis.axis("off")
    axes[0, 0].set_title("query")
    axes[0, 1].set_title("nearest")
    figure.savefig(args.out)
    plt.close(figure)
    hits = np.mean([labels[nearest(features, i)[0]] == labels[i] for i in range(len(labels))])
    print(f"{features.shape[0]} images, {features.shape[1]} features each")
    print(f"nearest neighbour shows the same digit: {hits:.1%}")


if __name__ == "__main__":
    main()
