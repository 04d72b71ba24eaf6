"""The three graphs of a convolution: forward, and the gradients of its image and its weights.

A deconvolution is the same three with the roles exchanged: its forward is a convolution's image gradient.
"""

from __future__ import annotations

from math import prod
from typing import Any, Final, final

from dtrain.kernels.array import Shape
from dtrain.kernels.backend import Unsupported
from dtrain.kernels.cuda.cudnn.graph import PLAIN, Dims, Draft, Graph
from dtrain.kernels.cuda.cudnn.library import Cudnn
from dtrain.kernels.cuda.form import Form, ValueType
from dtrain.kernels.window import ConvolutionWindow

IMAGE, WEIGHTS, BIAS, RESULT = range(1, 5)  # uids; RESULT is what the convolution makes of the image


def dims4(shape: Shape) -> Dims:
    """Of an image or its weights; Unsupported for other than two spatial axes."""
    if len(shape) != 4:
        raise Unsupported(f"cuDNN graphs are over images of 2 axes, got shape {shape}")
    if prod(shape) == 0:
        raise Unsupported(f"cuDNN graphs are of arrays with elements, got shape {shape}")
    return shape


@final
class ConvolutionGraphs:
    """Of images (N, C, H, W), weights (K, C / group, kh, kw) and results (N, K, H', W') in one form.

    Each raises Unsupported where cuDNN has no engine. strict: float32 must not be rounded to TF32.
    """

    def __init__(
        self,
        cudnn: Cudnn,
        window: ConvolutionWindow,
        image: Shape,
        weights: Shape,
        result: Shape,
        form: Form,
        *,
        strict: bool,
    ) -> None:
        if form.type is ValueType.FLOAT64:
            raise Unsupported("cuDNN graphs are of 16 or 32 bits, got float64")
        self._cudnn = cudnn
        self._image, self._weights, self._result = dims4(image), dims4(weights), dims4(result)
        self._window = {
            "padding": list(window.pad),
            "stride": list(window.stride),
            "dilation": list(window.dilation),
        }
        self.form = form
        self._strict = strict and form.type is ValueType.FLOAT32
        self.key: Final = (window, image, weights, result, form, self._strict)

    def _graph(self, key: tuple[object, ...], draw: Any) -> Graph:
        return self._cudnn.graph((*key, self.key), self.form, self._strict, draw)

    def _channels(self, draft: Draft, made: Any, dims: Dims, bias: ValueType | None, *, relu: bool) -> Any:
        """Bias and ReLU behind what an operation made."""
        if bias is not None:
            draft.between(made, dims)
            made = draft.ops.bias(input=made, bias=draft.tensor(BIAS, (1, dims[1], 1, 1), Form(bias)))
        if relu:
            draft.between(made, dims)
            made = draft.ops.relu(input=made)
        return made

    def forward(self, bias: ValueType | None = None, relu: bool = False) -> Graph:
        """IMAGE, WEIGHTS and BIAS of that type -> RESULT."""

        def draw(draft: Draft) -> None:
            image, weights = draft.tensor(IMAGE, self._image), draft.tensor(WEIGHTS, self._weights)
            made = draft.ops.conv_fprop(image=image, weight=weights, **self._window)
            made = self._channels(draft, made, self._result, bias, relu=relu)
            draft.output(made, RESULT, self._result)

        return self._graph(("forward", bias, relu), draw)

    def image_gradient(self, bias: ValueType | None = None, relu: bool = False) -> Graph:
        """RESULT, WEIGHTS and BIAS of that type, a value for each channel of the image -> IMAGE."""

        def draw(draft: Draft) -> None:
            loss, weights = draft.tensor(RESULT, self._result), draft.tensor(WEIGHTS, self._weights)
            made = draft.ops.conv_dgrad(loss=loss, filter=weights, **self._window)
            made = self._channels(draft, made, self._image, bias, relu=relu)
            draft.output(made, IMAGE, self._image)

        return self._graph(("image gradient", bias, relu), draw)

    def weights_gradient(self, values: ValueType) -> Graph:
        """IMAGE and RESULT -> WEIGHTS, overwritten, of that type in Caffe's order."""
        form = PLAIN if values is ValueType.FLOAT32 else Form(values)

        def draw(draft: Draft) -> None:
            image, loss = draft.tensor(IMAGE, self._image), draft.tensor(RESULT, self._result)
            made = draft.ops.conv_wgrad(image=image, loss=loss, **self._window)
            draft.output(made, WEIGHTS, self._weights, form)

        return self._graph(("weights' gradient", values), draw)
