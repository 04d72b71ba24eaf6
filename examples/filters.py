"""Look into a trained net: the filters of its first convolution, and what they and the second answer.

    python examples/filters.py filters.png

trains configs/digits for a few seconds first. For a net of your own:

    python examples/filters.py filters.png --deploy DEPLOY --weights WEIGHTS --image IMAGE
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
from numpy.typing import NDArray

from dtrain import pycaffe as caffe


def tiles(images: NDArray[Any]) -> NDArray[Any]:
    """(N, H, W) or (N, H, W, 3) as one square picture with lines between them, from 0 to 1."""
    images = (images - images.min()) / max(float(np.ptp(images)), 1e-12)
    side = int(np.ceil(np.sqrt(len(images))))
    missing = ((0, side**2 - len(images)), (0, 1), (0, 1), *((0, 0),) * (images.ndim - 3))
    padded = np.pad(images, missing, constant_values=1)
    rows = padded.reshape(side, side, *padded.shape[1:]).swapaxes(1, 2)
    return rows.reshape(side * padded.shape[1], side * padded.shape[2], *padded.shape[3:])


def filters_of(net: caffe.Net, layer: str) -> NDArray[Any]:
    """A convolution's weights as images: in colour where it reads blue, green and red."""
    weights = net.params[layer][0].data
    if weights.shape[1] == 3:
        return weights[:, ::-1].transpose(0, 2, 3, 1)
    return weights.reshape(-1, *weights.shape[2:])


def convolutions(net: caffe.Net) -> list[str]:
    """The names of the convolutions, in order."""
    return [name for name, layer in net.layer_dict.items() if layer.type == "Convolution"]


def draw(net: caffe.Net, image: NDArray[Any], out: Path) -> None:
    """The picture, for an image that fits the net's input."""
    name = net.inputs[0]
    net.blobs[name].reshape(1, *image.shape)
    net.forward(**{name: image[np.newaxis]})
    first, second, *_ = convolutions(net)
    panels = {
        f"filters of {first}": tiles(filters_of(net, first)),
        f"answers of {first}": tiles(net.blobs[net.top_names[first][0]].data[0]),
        f"answers of {second}": tiles(net.blobs[net.top_names[second][0]].data[0]),
    }
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), dpi=80, layout="constrained")
    shown = image[0] if len(image) == 1 else image[::-1].transpose(1, 2, 0)
    panels = {"image": (shown - shown.min()) / max(float(np.ptp(shown)), 1e-12), **panels}
    for axis, (title, picture) in zip(axes, panels.items(), strict=True):
        axis.imshow(picture, cmap="gray")
        axis.set_title(title)
        axis.axis("off")
    figure.savefig(out)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--deploy", default=digits.deploy())
    parser.add_argument("--weights", help="a caffemodel; without it the digits net is trained")
    parser.add_argument("--image", help="default: a handwritten digit")
    parser.add_argument("--iterations", type=int, default=300, help="of training the digits net")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = args.weights or digits.train_digits(Path(folder), args.iterations)
        net = caffe.Net(args.deploy, weights, caffe.TEST)
    if args.image:
        transformer = caffe.io.Transformer({net.inputs[0]: net.blobs[net.inputs[0]].shape})
        transformer.set_transpose(net.inputs[0], (2, 0, 1))
        transformer.set_channel_swap(net.inputs[0], (2, 1, 0))
        transformer.set_raw_scale(net.inputs[0], 255)
        image = transformer.preprocess(net.inputs[0], caffe.io.load_image(args.image))
    else:
        image = digits.load()[0][digits.NUM_TRAIN]
    draw(net, image, args.out)


if __name__ == "__main__":
    main()
