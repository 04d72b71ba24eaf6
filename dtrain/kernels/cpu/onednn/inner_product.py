"""Inner product by oneDNN on 2-D arrays, which get its fast matrix kernels."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cpu.onednn import library as dnnl
from dtrain.kernels.cpu.onednn.library import Arg, Query
from dtrain.kernels.cpu.onednn.steps import Steps, Variants, adds, cpu, engine_of
from dtrain.kernels.cpu.storage import CpuStorage


@final
class InnerProduct:
    """As kernels/cpu/inner_product.py says."""

    def __init__(
        self,
        backend: CpuBackend,
        bottom: SyncedArray,
        weights: SyncedArray,
        bias: SyncedArray | None,
        top: SyncedArray,
        transpose: bool = False,
        relu: bool = False,
    ) -> None:
        self._engine = engine_of(backend)
        if transpose:
            raise dnnl.Unsupported("inner product with transposed weights")
        if bottom.size == 0:
            raise dnnl.Unsupported("inner product of no images")
        x, w, y = cpu(bottom), cpu(weights), cpu(top)
        self._bias_desc = dnnl.plain(cpu(bias).shape) if bias is not None else None
        self._attributes = dnnl.Attributes(relu_slope=0.0) if relu else dnnl.default_attributes()
        wanted = w.desc if w.is_bound else dnnl.any_layout(w.shape)
        self._forward_desc = dnnl.PrimitiveDesc(
            self._engine,
            "inner_product_forward",
            dnnl.FORWARD_TRAINING,
            dnnl.any_layout(x.shape),
            wanted,
            self._bias_desc,
            dnnl.any_layout(y.shape),
            self._attributes,
        )
        self.implementation = f"oneDNN {self._forward_desc.implementation}"
        self._w_desc = self._forward_desc.desc(Query.WEIGHTS, w.shape)
        w.offer_layout(self._w_desc)
        y_desc = self._forward_desc.desc(Query.DST, y.shape)
        y.offer_layout(y_desc)
        steps = Steps(self._engine)
        memories: dict[int, dnnl.Memory] = {
            Arg.SRC: steps.read(x, self._forward_desc.desc(Query.SRC, x.shape)),
            Arg.WEIGHTS: steps.read(w, self._w_desc),
            Arg.DST: steps.write(y, y_desc),
        }
        if bias is not None and self._bias_desc is not None:
            memories[Arg.BIAS] = steps.read(cpu(bias), self._bias_desc)
        steps.primitive(self._forward_desc, memories)
        self._forward = steps
        self._backward = Variants()

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
        layout = cpu(weights_diff).desc if weights_diff is not None else self._w_desc
        desc = dnnl.PrimitiveDesc(
            self._engine,
            "inner_product_backward_weights",
            dnnl.any_layout(x.shape),
            layout,
            self._bias_desc,
            dnnl.any_layout(dy.shape),
            self._forward_desc,
            dnnl.default_attributes(),
        )
        memories: dict[int, dnnl.Memory] = {
            Arg.SRC: steps.read(x, desc.desc(Query.SRC, x.shape)),
            Arg.DIFF_DST: steps.read(dy, desc.desc(Query.DIFF_DST, dy.shape)),
        }
        memories[Arg.DIFF_WEIGHTS] = steps.gradient(weights_diff, layout)
        if self._bias_desc is not None:
            memories[Arg.DIFF_BIAS] = steps.gradient(bias_diff, self._bias_desc)
        steps.primitive(desc, memories)

    def _add_data_step(self, steps: Steps, dy: CpuStorage, w: CpuStorage, dx: CpuStorage) -> None:
        """In the layout that the weights have: reordering them costs more than a faster kernel gains."""
        desc = dnnl.PrimitiveDesc(
            self._engine,
            "inner_product_backward_data",
            dnnl.any_layout(dx.shape),
            w.desc,
            dnnl.any_layout(dy.shape),
            self._forward_desc,
            dnnl.default_attributes(),
        )
        steps.primitive(
            desc,
            {
                Arg.DIFF_DST: steps.read(dy, desc.desc(Query.DIFF_DST, dy.shape)),
                Arg.WEIGHTS: steps.read(w, w.desc),
                Arg.DIFF_SRC: steps.write(dx, desc.desc(Query.DIFF_SRC, dx.shape)),
            },
        )
