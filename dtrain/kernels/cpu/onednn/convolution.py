"""Convolution by oneDNN, forward and both backward passes, each in the layouts that it likes best."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cpu.onednn import library as dnnl
from dtrain.kernels.cpu.onednn.library import Arg, Query
from dtrain.kernels.cpu.onednn.steps import Steps, Variants, activation, adds, cpu, engine_of
from dtrain.kernels.cpu.storage import CpuStorage
from dtrain.kernels.window import ConvolutionWindow


@final
class Convolution:
    """As kernels/cpu/convolution.py says."""

    def __init__(
        self,
        backend: CpuBackend,
        window: ConvolutionWindow,
        bottom: SyncedArray,
        weights: SyncedArray,
        bias: SyncedArray | None,
        top: SyncedArray,
        relu: bool = False,
    ) -> None:
        self._engine = engine_of(backend)
        if not 1 <= len(window.kernel) <= 3 or bottom.size == 0:
            raise dnnl.Unsupported(f"convolution over {len(window.kernel)} axes of {bottom.shape}")
        x, w, y = cpu(bottom), cpu(weights), cpu(top)
        g = window.group
        self._w_dims = (g, w.shape[0] // g, *w.shape[1:]) if g > 1 else w.shape
        self._x_any, self._y_any = activation(backend, x.shape), activation(backend, y.shape)
        pad = window.pad
        self._spatial = (window.stride, tuple(d - 1 for d in window.dilation), pad, pad)
        self._bias_desc = dnnl.plain(cpu(bias).shape) if bias is not None else None
        wanted = w.desc_as(self._w_dims) if w.is_bound else dnnl.any_layout(self._w_dims)
        self._attributes = dnnl.Attributes(relu_slope=0.0) if relu else dnnl.default_attributes()
        self._forward_desc = self._describe_forward(wanted)
        self._x_desc = self._forward_desc.desc(Query.SRC, x.shape)
        self._w_desc = self._forward_desc.desc(Query.WEIGHTS, self._w_dims)
        self.implementation = f"oneDNN {self._forward_desc.implementation}"
        w.offer_layout(self._w_desc)
        y_desc = self._forward_desc.desc(Query.DST, y.shape)
        y.offer_layout(y_desc)
        steps = Steps(self._engine)
        memories: dict[int, dnnl.Memory] = {
            Arg.SRC: steps.read(x, self._x_desc),
            Arg.WEIGHTS: steps.read(w, self._w_desc),
            Arg.DST: steps.write(y, y_desc),
        }
        if bias is not None and self._bias_desc is not None:
            memories[Arg.BIAS] = steps.read(cpu(bias), self._bias_desc)
        steps.primitive(self._forward_desc, memories)
        self._forward = steps
        self._backward = Variants()

    def _describe_forward(self, weights: dnnl.Desc) -> dnnl.PrimitiveDesc:
        """With the bound parameter's layout if that is as good as any other."""

        def describe(layout: dnnl.Desc) -> dnnl.PrimitiveDesc:
            return dnnl.PrimitiveDesc(
                self._engine,
                "convolution_forward",
                dnnl.FORWARD_TRAINING,
                dnnl.CONVOLUTION_DIRECT,
                self._x_any,
                layout,
                self._bias_desc,
                self._y_any,
                *self._spatial,
                self._attributes,
            )

        best = describe(dnnl.any_layout(self._w_dims))
        try:
            given = describe(weights)
        except dnnl.Unsupported:
            return best
        return given if given.implementation == best.implementation else best

    def forward(
        self, bottom: SyncedArray, weights: SyncedArray, bias: SyncedArray | None, top: SyncedArray
    ) -> None:
        self._forward()

    def backward(
        self,
        top_diff: SyncedArray,
        bottom: SyncedArray,
        weights: SyncedArray,
        bottom_diff: SyncedArray | None,
        weights_diff: SyncedArray | None,
        bias_diff: SyncedArray | None,
    ) -> None:
        dy, x, dx = cpu(top_diff), cpu(bottom), None if bottom_diff is None else cpu(bottom_diff)
        if dx is not None:
            dx.offer_layout(x.desc)

        def build() -> Steps:
            steps = Steps(self._engine)
            if weights_diff is not None or bias_diff is not None:
                self._add_weights_step(steps, dy, x, weights_diff, bias_diff)
            if dx is not None:
                self._add_data_step(steps, dy, cpu(weights), dx)
            return steps

        key = (dy.generation, None if dx is None else dx.generation, adds(weights_diff), adds(bias_diff))
        self._backward.run(key, build)

    def _add_weights_step(
        self,
        steps: Steps,
        dy: CpuStorage,
        x: CpuStorage,
        weights_diff: SyncedArray | None,
        bias_diff: SyncedArray | None,
    ) -> None:
        def describe(layout: dnnl.Desc) -> dnnl.PrimitiveDesc:
            return dnnl.PrimitiveDesc(
                self._engine,
                "convolution_backward_weights",
                dnnl.CONVOLUTION_DIRECT,
                self._x_any,
                layout,
                self._bias_desc,
                self._y_any,
                *self._spatial,
                self._forward_desc,
                dnnl.default_attributes(),
            )

        desc = describe(dnnl.any_layout(self._w_dims))
        if weights_diff is not None:
            try:
                direct = describe(cpu(weights_diff).desc_as(self._w_dims))
                if direct.implementation == desc.implementation:
                    desc = direct
            except dnnl.Unsupported:
                pass
        dw_desc = desc.desc(Query.DIFF_WEIGHTS, self._w_dims)
        memories: dict[int, dnnl.Memory] = {
            Arg.SRC: steps.read(x, desc.desc(Query.SRC, x.shape)),
            Arg.DIFF_DST: steps.read(dy, desc.desc(Query.DIFF_DST, dy.shape)),
        }
        memories[Arg.DIFF_WEIGHTS] = steps.gradient(weights_diff, dw_desc)
        if self._bias_desc is not None:
            memories[Arg.DIFF_BIAS] = steps.gradient(bias_diff, self._bias_desc)
        steps.primitive(desc, memories)

    def _add_data_step(self, steps: Steps, dy: CpuStorage, w: CpuStorage, dx: CpuStorage) -> None:
        desc = dnnl.PrimitiveDesc(
            self._engine,
            "convolution_backward_data",
            dnnl.CONVOLUTION_DIRECT,
            self._x_any,
            dnnl.any_layout(self._w_dims),
            self._y_any,
            *self._spatial,
            self._forward_desc,
            dnnl.default_attributes(),
        )
        steps.primitive(
            desc,
            {
                Arg.DIFF_DST: steps.read(dy, desc.desc(Query.DIFF_DST, dy.shape)),
                Arg.WEIGHTS: steps.read(w, desc.desc(Query.WEIGHTS, self._w_dims)),
                Arg.DIFF_SRC: steps.write(dx, desc.desc(Query.DIFF_SRC, dx.shape)),
            },
        )
