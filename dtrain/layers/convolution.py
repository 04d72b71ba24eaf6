"""Convolution over any number of spatial axes, and what its relatives share with it.

Source: Caffe's BaseConvolutionLayer. `force_nd_im2col` changes nothing here: there is one im2col.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, final

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.window import Axes, ConvolutionWindow
from dtrain.layers.layer import AT_LEAST_ONE, Blobs, Layer
from dtrain.layers.sharing import refuse_in_place
from dtrain.proto import dtrain_pb2 as pb


def read_window(layer: Layer, num_axes: int) -> ConvolutionWindow:
    """A layer's convolution_param for this many spatial axes; the 2-D fields kernel_h ... win for images."""
    param = layer.spec.convolution_param

    def axes(name: str, short: str, default: int, least: int) -> Axes:
        low, high = f"{short}_h", f"{short}_w"
        repeated: Sequence[int] = getattr(param, name)
        if short and (param.HasField(low) or param.HasField(high)):
            if num_axes != 2:
                raise layer.bad_param(
                    ("convolution_param", low), "given for 2-D images only", f"{num_axes}-D"
                )
            if repeated:
                raise layer.bad_param(
                    ("convolution_param", name), f"given as {low} and {high} or as {name}", "both"
                )
            values: Axes = (getattr(param, low), getattr(param, high))
        elif len(repeated) in (0, 1, num_axes):
            given = tuple(repeated) or (default,)
            values = given * num_axes if len(given) == 1 else given
        else:
            raise layer.bad_param(
                ("convolution_param", name), f"given once or {num_axes} times", f"{len(repeated)} times"
            )
        if min(values, default=least) < least:
            raise layer.bad_param(("convolution_param", name), f"at least {least}", values)
        return values

    return ConvolutionWindow(
        kernel=axes("kernel_size", "kernel", 0, 1),
        stride=axes("stride", "stride", 1, 1),
        pad=axes("pad", "pad", 0, 0),
        dilation=axes("dilation", "", 1, 1),
        group=param.group,
    )


class ConvolutionLayer(Layer):
    """bottom[i] (N, C, *spatial) -> top[i] (N, num_output, *out), every bottom with the same parameters.

    A subclass gives the shape of the weights, the output's extent and the operator.
    """

    num_bottoms = AT_LEAST_ONE
    num_tops = AT_LEAST_ONE
    tops_match_bottoms = True
    param_name = "convolution_param"

    @abstractmethod
    def weights_shape(self) -> Shape:
        """Of blobs[0]."""

    @abstractmethod
    def extent(self, image: Axes) -> Axes:
        """The output's spatial axes for these of the bottom."""

    @abstractmethod
    def build(self, x: SyncedArray, y: SyncedArray) -> Any:
        """The operator from one bottom to its top."""

    def read_window(self, num_axes: int) -> ConvolutionWindow:
        """Kernel, stride, pad, dilation and group for this many spatial axes."""
        return read_window(self, num_axes)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.convolution_param
        self._refuse_fusion(param)
        self.first_axis = self.axis(param.axis, len(bottom[0].shape), "convolution_param", "axis")
        self.channels = bottom[0].shape[self.first_axis]
        self.window = self.read_window(len(bottom[0].shape) - self.first_axis - 1)
        group = self.window.group
        if group < 1 or self.channels % group:
            raise self.bad_param(
                ("convolution_param", "group"),
                f"a divisor of the {self.channels} channels of bottom[0]",
                group,
            )
        if param.num_output < 1 or param.num_output % group:
            raise self.bad_param(
                ("convolution_param", "num_output"),
                f"a positive multiple of group ({group})",
                param.num_output,
            )
        refuse_in_place(self, bottom, top)
        self.num_output: int = param.num_output
        self.add_blob(self.weights_shape(), param.weight_filler)
        if param.bias_term:
            self.add_blob((self.num_output,), param.bias_filler)

    def _refuse_fusion(self, param: pb.ConvolutionParameter) -> None:
        if param.relu:
            raise self.bad_param(("convolution_param", "relu"), "false; put a ReLU layer behind", "true")
        if param.fusion_type != pb.ConvolutionParameter.NONE_FUSION:
            raise self.bad_param(
                ("convolution_param", "fusion_type"), "NONE_FUSION; put an Eltwise layer behind", "SUM_FUSION"
            )

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for x, y in zip(bottom, top, strict=True):
            y.reshape(self._output_shape(x.shape, bottom[0].shape))
        self.sides = [
            (self._flat(x.data), self._flat(x.diff), self._flat(y.data), self._flat(y.diff))
            for x, y in zip(bottom, top, strict=True)
        ]
        self.ops_of = [self.build(x, y) for x, _, y, _ in self.sides]

    def _output_shape(self, shape: Shape, first: Shape) -> Shape:
        if shape != first:
            raise self.bad_shape("all bottoms", f"the shape of bottom[0] {first}", shape)
        if (
            len(shape) != self.first_axis + 1 + len(self.window.kernel)
            or shape[self.first_axis] != self.channels
        ):
            raise self.bad_shape(f"bottom[0] {shape}", f"{self.channels} channels as at set-up", shape)
        out = self.extent(shape[self.first_axis + 1 :])
        if min(out, default=1) < 1:
            raise self.error(
                f"the output must have at least 1 position on every axis, got {out} from bottom[0] {shape}, "
                f"kernel_size {self.window.kernel}, pad {self.window.pad}, stride {self.window.stride}, "
                f"dilation {self.window.dilation}",
                "convolution_param",
            )
        return (*shape[: self.first_axis], self.num_output, *out)

    def _flat(self, array: SyncedArray) -> SyncedArray:
        """The array with everything before the channels as one axis of images."""
        if self.first_axis == 1:
            return array
        images = 1
        for extent in array.shape[: self.first_axis]:
            images *= extent
        return array.view((images, *array.shape[self.first_axis :]))

    def bias(self) -> SyncedArray | None:
        """The bias' values, if there is one."""
        return self.blobs[1].data if len(self.blobs) > 1 else None

    def run(self, ops: Sequence[Any]) -> None:
        """Forward of every bottom through its operator."""
        for op, (x, _, y, _) in zip(ops, self.sides, strict=True):
            op.forward(x, self.blobs[0].data, self.bias(), y)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.run(self.ops_of)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        wants = self.param_propagate_down
        for i, (x, dx, _, dy) in enumerate(self.sides):
            self.ops_of[i].backward(
                dy,
                x,
                self.blobs[0].data,
                dx if propagate_down[i] else None,
                self.blobs[0].diff if wants[0] else None,
                self.blobs[1].diff if len(self.blobs) > 1 and wants[1] else None,
            )


@final
class Convolution(ConvolutionLayer):
    """Every output is the sum of a window's values, weighted; weights (num_output, C / group, *kernel)."""

    type_name = "Convolution"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        super().setup(bottom, top)
        self.fuses_relu = False  # set by a plan that merges the ReLU layer behind

    def weights_shape(self) -> Shape:
        return (self.num_output, self.channels // self.window.group, *self.window.kernel)

    def extent(self, image: Axes) -> Axes:
        return self.window.convolved(image)

    def build(self, x: SyncedArray, y: SyncedArray) -> Any:
        return self._operator(x, y, self.fuses_relu)

    def _operator(self, x: SyncedArray, y: SyncedArray, relu: bool) -> Any:
        return self.ops.Convolution(self.window, x, self.blobs[0].data, self.bias(), y, relu)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        super().reshape(bottom, top)
        self._unfused: list[Any] = []

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.run(self._without_relu() if self.fuses_relu and self.scope.is_partial else self.ops_of)

    def _without_relu(self) -> list[Any]:
        """Operators for a pass that may end before the ReLU that is otherwise fused."""
        if not self._unfused:
            self._unfused = [self._operator(x, y, False) for x, _, y, _ in self.sides]
        return self._unfused
