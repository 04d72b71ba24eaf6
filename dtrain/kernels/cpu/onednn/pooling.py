"""Pooling by oneDNN, maximum and mean, in the layout that the bottom has."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cpu.onednn import library as dnnl
from dtrain.kernels.cpu.onednn.library import Arg, Query
from dtrain.kernels.cpu.onednn.steps import Steps, cpu, engine_of
from dtrain.kernels.window import PoolingWindow


@final
class Pooling:
    """As kernels/cpu/pooling.py says.

    oneDNN divides a mean by the whole window or by its part inside the image. Caffe divides by the part
    inside the padded image, which is the one where windows fit exactly and the other without padding.
    """

    def __init__(
        self,
        backend: CpuBackend,
        window: PoolingWindow,
        training: bool,
        bottom: SyncedArray,
        top: SyncedArray,
        argmax: SyncedArray | None,
    ) -> None:
        self._engine = engine_of(backend)
        if argmax is not None or window.method not in ("MAX", "AVE") or bottom.size == 0:
            raise dnnl.Unsupported(f"pooling {window.method} of {bottom.shape}")
        x, y = cpu(bottom), cpu(top)
        over = window.overhang(x.shape[2:])
        if any(o >= k for o, k in zip(over, window.kernel, strict=True)):
            raise dnnl.Unsupported("pooling with a window wholly behind the image")
        if window.method == "MAX":
            self._algorithm = dnnl.POOLING_MAX
        elif not any(window.pad):
            self._algorithm = dnnl.POOLING_AVG_EXCLUDE_PADDING
        elif all(o <= p for o, p in zip(over, window.pad, strict=True)):
            self._algorithm = dnnl.POOLING_AVG_INCLUDE_PADDING
        else:
            raise dnnl.Unsupported("mean pooling whose last window leaves the padded image")
        self._spatial = (window.stride, window.kernel, (0, 0), window.pad, over)
        self._forward_desc = dnnl.PrimitiveDesc(
            self._engine,
            "pooling_forward",
            dnnl.FORWARD_TRAINING,
            self._algorithm,
            x.desc,
            dnnl.any_layout(y.shape),
            *self._spatial,
            dnnl.default_attributes(),
        )
        self.implementation = f"oneDNN {self._forward_desc.implementation}"
        y_desc = self._forward_desc.desc(Query.DST, y.shape)
        y.offer_layout(y_desc)
        self._x_desc = x.desc
        self._y_desc = y_desc
        steps = Steps(self._engine)
        memories: dict[int, dnnl.Memory] = {Arg.SRC: steps.read(x, x.desc), Arg.DST: steps.write(y, y_desc)}
        workspace = self._forward_desc.optional_desc(Query.WORKSPACE)
        self._workspace = steps.own(workspace).memory if workspace is not None else None
        if self._workspace is not None:
            memories[Arg.WORKSPACE] = self._workspace
        steps.primitive(self._forward_desc, memories)
        self._forward = steps
        self._backward: Steps | None = None
        self._backward_key: tuple[int, int] = (0, 0)

    def forward(self, bottom: SyncedArray, top: SyncedArray, argmax: SyncedArray | None) -> None:
        self._forward()

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        dy, dx = cpu(top_diff), cpu(bottom_diff)
        if self._backward is None or self._backward_key != (dy.generation, dx.generation):
            dx.offer_layout(self._x_desc)
            desc = dnnl.PrimitiveDesc(
                self._engine,
                "pooling_backward",
                self._algorithm,
                self._x_desc,
                self._y_desc,
                *self._spatial,
                self._forward_desc,
                dnnl.default_attributes(),
            )
            steps = Steps(self._engine)
            memories: dict[int, dnnl.Memory] = {
                Arg.DIFF_DST: steps.read(dy, self._y_desc),
                Arg.DIFF_SRC: steps.write(dx, self._x_desc),
            }
            if self._workspace is not None:
                memories[Arg.WORKSPACE] = self._workspace
            steps.primitive(desc, memories)
            self._backward = steps
            self._backward_key = (dy.generation, dx.generation)
        self._backward()
