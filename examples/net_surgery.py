"""Net surgery: a classifier made fully convolutional, so that it looks at every place of a large image.

    python examples/net_surgery.py map.png

does so with the digits net. CaffeNet, with a photograph larger than its 227 x 227:

    python examples/net_surgery.py map.png --deploy configs/caffenet/deploy.prototxt \\
        --weights caffenet.caffemodel --image cat.jpg --size 451

Every inner product becomes a convolution: the first one's kernel is as large as the image that is left there,
the others' is 1 x 1. Their weights are the same numbers in another shape. The layers get other names, so that
nobody loads the one's weights into the other by accident.
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


def fully_convolutional(deploy: Any, net: caffe.Net, size: tuple[int, int]) -> Any:
    """The deploy net with convolutions NAME-conv in place of its inner products, for one image of `size`."""
    made = type(deploy)()
    made.CopyFrom(deploy)
    renamed: dict[str, str] = {}
    for layer in made.layer:
        for side in (layer.bottom, layer.top):
            side[:] = [renamed.get(name, name) for name in side]
        if layer.type == "Input":
            channels = layer.input_param.shape[0].dim[1]
            layer.input_param.shape[0].dim[:] = [1, channels, *size]
        elif layer.type == "InnerProduct":
            left = net.blobs[net.bottom_names[layer.name][0]].shape[2:] or (1, 1)
            renamed[layer.top[0]] = layer.top[0] = f"{layer.name}-conv"
            layer.name = f"{layer.name}-conv"
            layer.type = "Convolution"
            layer.convolution_param.num_output = layer.inner_product_param.num_output
            layer.convolution_param.kernel_h, layer.convolution_param.kernel_w = left
            layer.ClearField("inner_product_param")
    return made


def transplant(source: caffe.Net, target: caffe.Net) -> None:
    """Give every NAME-conv the weights of NAME."""
    for name in source.params:
        if f"{name}-conv" in target.params:
            for old, new in zip(source.params[name], target.params[f"{name}-conv"], strict=True):
                new.data.flat = old.data.flat


def operate(deploy: str, weights: str, size: tuple[int, int], folder: Path) -> tuple[caffe.Net, caffe.Net]:
    """(the classifier, the same fully convolutional for images of `size`)."""
    classifier = caffe.Net(deploy, weights, caffe.TEST)
    made = fully_convolutional(digits.read(Path(deploy)), classifier, size)
    everywhere = caffe.Net(digits.write(made, folder / "deploy_conv.prototxt"), weights, caffe.TEST)
    transplant(classifier, everywhere)
    return classifier, everywhere


def page_of_digits(size: int) -> NDArray[np.float32]:
    """An image (1, size, size) with test digits here and there."""
    images, _ = digits.load()
    page = np.zeros((1, size, size), np.float32)
    step = (size - 28) // 3
    for i in range(9):
        top, left = step // 2 + step * (i // 3), step // 2 + step * (i % 3)
        page[:, top : top + 28, left : left + 28] = images[digits.NUM_TRAIN + i]
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--deploy", default=digits.deploy())
    parser.add_argument("--weights", help="a caffemodel; without it the digits net is trained")
    parser.add_argument("--image", help="default: a page of digits")
    parser.add_argument("--size", type=int, default=148, help="pixels on a side of the image")
    parser.add_argument("--iterations", type=int, default=300, help="of training the digits net")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        weights = args.weights or digits.train_digits(Path(name), args.iterations)
        _, net = operate(args.deploy, weights, (args.size, args.size), Path(name))
    if args.image:
        image = caffe.io.resize_image(caffe.io.load_image(args.image), (args.size, args.size))
        shown, data = image, 255 * image[:, :, ::-1].transpose(2, 0, 1)
    else:
        data = page_of_digits(args.size)
        shown = data[0]
    prob = net.forward(data=data[np.newaxis])[net.outputs[0]][0]

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), dpi=80, layout="constrained")
    axes[0].imshow(shown, cmap="gray_r")
    axes[0].set_title("image")
    classes = axes[1].imshow(prob.argmax(0), cmap="tab10" if len(prob) <= 10 else "nipy_spectral")
    axes[1].set_title("likeliest class at each place")
    figure.colorbar(classes, ax=axes[1])
    certain = axes[2].imshow(prob.max(0), vmin=0, vmax=1)
    axes[2].set_title("its probability")
    figure.colorbar(certain, ax=axes[2])
    for axis in axes:
        axis.axis("off")
    figure.savefig(args.out)
    plt.close(figure)
    print(f"{prob.shape[1]} x {prob.shape[2]} places, {prob.shape[0]} classes")


if __name__ == "__main__":
    main()
