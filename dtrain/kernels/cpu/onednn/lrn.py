"""Local response normalisation by oneDNN."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cpu.onednn import library as dnnl
from dtrain.kernels.cpu.onednn.library import Arg, Query
from dtrain.kernels.cpu.onednn.steps import Steps, cpu, engine_of


@final
class LRN:
    """As kernels/cpu/lrn.py says."""

    def __init__(
        self,
        backend: CpuBackend,
        region: str,
        size: int,
        alpha: float,
        beta: float,
        k: float,
        bottom: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self._engine = engine_of(backend)
        if region != "ACROSS_CHANNELS" or bottom.size == 0:
            raise dnnl.Unsupported(f"LRN {region} of {bottom.shape}")
        x, y = cpu(bottom), cpu(top)
        self._layout = x.desc
        self._params = (dnnl.Size(size), float(alpha), float(beta), float(k))
        self._forward_desc = dnnl.PrimitiveDesc(
            self._engine,
            "lrn_forward",
            dnnl.FORWARD_TRAINING,
            dnnl.LRN_ACROSS_CHANNELS,
            self._layout,
            self._layout,
            *self._params,
            dnnl.default_attributes(),
        )
        self.implementation = f"oneDNN {self._forward_desc.implementation}"
        y.offer_layout(self._layout)
        steps = Steps(self._engine)
        memories: dict[int, dnnl.Memory] = {
            Arg.SRC: steps.read(x, self._layout),
            Arg.DST: steps.write(y, self._layout),
        }
        workspace = self._forward_desc.optional_desc(Query.WORKSPACE)
        self._workspace = steps.own(workspace).memory if workspace is not None else None
        if self._workspace is not None:
            memories[Arg.WORKSPACE] = self._workspace
        steps.primitive(self._forward_desc, memories)
        self._forward = steps
        self._backward: Steps | None = None
        self._backward_key: tuple[int, int] = (0, 0)

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._forward()

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        dy, dx = cpu(top_diff), cpu(bottom_diff)
        if self._backward is None or self._backward_key != (dy.generation, dx.generation):
            dx.offer_layout(self._layout)
            desc = dnnl.PrimitiveDesc(
                self._engine,
                "lrn_backward",
                dnnl.LRN_ACROSS_CHANNELS,
                self._layout,
                self._layout,
                self._layout,
                *self._params,
                self._forward_desc,
                dnnl.default_attributes(),
            )
            steps = Steps(self._engine)
            memories: dict[int, dnnl.Memory] = {
                Arg.SRC: steps.read(cpu(bottom), self._layout),
                Arg.DIFF_DST: steps.read(dy, self._layout),
                Arg.DIFF_SRC: steps.write(dx, self._layout),
            }
            if self._workspace is not None:
                memories[Arg.WORKSPACE] = self._workspace
            steps.primitive(desc, memories)
            self._backward = steps
            self._backward_key = (dy.generation, dx.generation)
        self._backward()
