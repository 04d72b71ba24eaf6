"""Classifier: a net with the steps that lead from images to class probabilities.

Source of the steps: python/caffe/classifier.py of BVLC Caffe 1.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtrain.proto import dtrain_pb2 as pb
from dtrain.pycaffe.io import Transformer, oversample, resize_image
from dtrain.pycaffe.net import File, NetFace


@final
class Classifier(NetFace):
    """A net with one input, in phase TEST; images are (H, W, K) with values from 0 to 1.

    image_dims: the size that images are brought to before they are cropped to the net's input; the input's
    own size if not given. The others are settings of the Transformer.
    """

    def __init__(
        self,
        model_file: File,
        pretrained_file: File,
        image_dims: Sequence[int] | None = None,
        mean: ArrayLike | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        self._read(model_file, int(pb.TEST))
        self.copy_from(pretrained_file)
        self.transformer = transformer_of(self, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].shape[2:])
        self.image_dims = tuple(image_dims) if image_dims is not None else tuple(self.crop_dims)

    def predict(self, inputs: Sequence[NDArray[Any]], oversample: bool = True) -> NDArray[np.float32]:
        """(N, classes): the mean over ten crops of each image, or the centre's alone."""
        images = np.stack([resize_image(image, self.image_dims) for image in inputs])
        crops = _ten_crops(images, self.crop_dims) if oversample else _centre(images, self.crop_dims)
        name = self.inputs[0]
        prepared = np.stack([self.transformer.preprocess(name, crop) for crop in crops])
        predictions = self.forward_all(None, **{name: prepared})[self.outputs[0]]
        if oversample:
            predictions = predictions.reshape(len(images), 10, -1).mean(1)
        return np.asarray(predictions, np.float32)


def _ten_crops(images: NDArray[np.float32], dims: NDArray[Any]) -> NDArray[np.float32]:
    return oversample(list(images), dims.tolist())


def _centre(images: NDArray[np.float32], dims: NDArray[Any]) -> NDArray[np.float32]:
    top, left = (int((extent - crop) / 2) for extent, crop in zip(images.shape[1:3], dims, strict=True))
    return images[:, top : top + dims[0], left : left + dims[1]]


def transformer_of(
    net: NetFace,
    mean: ArrayLike | None,
    input_scale: float | None,
    raw_scale: float | None,
    channel_swap: Sequence[int] | None,
) -> Transformer:
    """For the net's first input, from images (H, W, K)."""
    name = net.inputs[0]
    transformer = Transformer({name: net.blobs[name].shape})
    transformer.set_transpose(name, (2, 0, 1))
    if mean is not None:
        transformer.set_mean(name, mean)
    if input_scale is not None:
        transformer.set_input_scale(name, input_scale)
    if raw_scale is not None:
        transformer.set_raw_scale(name, raw_scale)
    if channel_swap is not None:
        transformer.set_channel_swap(name, channel_swap)
    return transformer
