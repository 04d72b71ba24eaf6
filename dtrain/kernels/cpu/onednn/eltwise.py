"""One-input functions by oneDNN: what ReLU, sigmoid and tanh share."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cpu.onednn import library as dnnl
from dtrain.kernels.cpu.onednn.library import Arg
from dtrain.kernels.cpu.onednn.steps import Steps, cpu, engine_of


@final
class EltwisePrimitive:
    """y = f(x), in place or not, and dx = dy f'(x) from x, or from y for the _FROM_DST kinds."""

    def __init__(
        self,
        backend: CpuBackend,
        kind: int,
        backward_kind: int,
        alpha: float,
        bottom: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self._engine = engine_of(backend)
        if bottom.size == 0:
            raise dnnl.Unsupported("a function of no elements")
        x, y = cpu(bottom), cpu(top)
        self._x_shape = x.shape
        self._backward_kind = backward_kind
        self._alpha = alpha
        self._layout = x.desc
        self._forward_desc = dnnl.PrimitiveDesc(
            self._engine,
            "eltwise_forward",
            dnnl.FORWARD_TRAINING,
            kind,
            x.desc,
            x.desc,
            alpha,
            0.0,
            dnnl.default_attributes(),
        )
        self.implementation = f"oneDNN {self._forward_desc.implementation}"
        if y is not x:
            y.offer_layout(x.desc)
        steps = Steps(self._engine)
        source = steps.read(x, x.desc)
        steps.primitive(self._forward_desc, {Arg.SRC: source, Arg.DST: steps.write(y, x.desc)})
        self._forward = steps
        self._backward: Steps | None = None
        self._backward_key: tuple[int, int] = (0, 0)

    def forward(self) -> None:
        """y = f(x)."""
        self._forward()

    def backward(self, top_diff: SyncedArray, data: SyncedArray, bottom_diff: SyncedArray) -> None:
        """Diffs are brought to the layout of the data, since oneDNN is slow where they differ."""
        dy, dx = cpu(top_diff), cpu(bottom_diff)
        if self._backward is None or self._backward_key != (dy.generation, dx.generation):
            if dx is not dy:
                dx.offer_layout(self._layout)
            desc = dnnl.PrimitiveDesc(
                self._engine,
                "eltwise_backward",
                self._backward_kind,
                self._layout,
                self._layout,
                self._layout,
                self._alpha,
                0.0,
                self._forward_desc,
                dnnl.default_attributes(),
            )
            steps = Steps(self._engine)
            from_top = self._backward_kind >= dnnl.ELTWISE_RELU_FROM_DST
            steps.primitive(
                desc,
                {
                    Arg.DST if from_top else Arg.SRC: steps.read(cpu(data), self._layout),
                    Arg.DIFF_DST: steps.read(dy, self._layout),
                    Arg.DIFF_SRC: steps.write(dx, self._layout),
                },
            )
            self._backward = steps
            self._backward_key = (dy.generation, dx.generation)
        self._backward()
