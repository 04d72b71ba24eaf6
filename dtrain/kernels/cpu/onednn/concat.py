"""Concatenation by oneDNN, in the layout of the first bottom that has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cpu.onednn import library as dnnl
from dtrain.kernels.cpu.onednn.library import Arg, Query
from dtrain.kernels.cpu.onednn.steps import Steps, cpu, engine_of
from dtrain.kernels.cpu.storage import CpuStorage


@final
class Concat:
    """As kernels/cpu/concat.py says."""

    def __init__(
        self, backend: CpuBackend, axis: int, bottoms: Sequence[SyncedArray], top: SyncedArray
    ) -> None:
        self._engine = engine_of(backend)
        if len(top.shape) > dnnl.MAX_PLAIN_DIMS or any(b.size == 0 for b in bottoms):
            raise dnnl.Unsupported(f"concatenation to {top.shape}")
        self._axis = axis
        parts, y = [cpu(b) for b in bottoms], cpu(top)
        desc = dnnl.PrimitiveDesc.concat(self._engine, axis, [x.desc for x in parts])
        self.implementation = f"oneDNN {desc.implementation}"
        y_desc = desc.desc(Query.DST, y.shape)
        y.offer_layout(y_desc)
        steps = Steps(self._engine)
        memories: dict[int, dnnl.Memory] = {
            Arg.MULTIPLE_SRC + i: steps.read(x, x.desc) for i, x in enumerate(parts)
        }
        memories[Arg.DST] = steps.write(y, y_desc)
        steps.primitive(desc, memories)
        self._forward = steps
        self._layouts = [x.desc for x in parts]
        self._backward: Steps | None = None
        self._backward_key: tuple[int, ...] = ()

    def forward(self, bottoms: Sequence[SyncedArray], top: SyncedArray) -> None:
        self._forward()

    def backward(self, top_diff: SyncedArray, bottom_diffs: Sequence[SyncedArray | None]) -> None:
        dy = cpu(top_diff)
        parts = [None if b is None else cpu(b) for b in bottom_diffs]
        if self._backward is None or self._backward_key != self._key(dy, parts):
            self._backward = self._build_backward(dy, parts)
            self._backward_key = self._key(dy, parts)
        self._backward()

    def _key(self, dy: CpuStorage, parts: Sequence[CpuStorage | None]) -> tuple[int, ...]:
        return (dy.generation, *(-1 if x is None else x.generation for x in parts))

    def _build_backward(self, dy: CpuStorage, parts: Sequence[CpuStorage | None]) -> Steps:
        """Each part of the diff is a reorder out of a window of it."""
        steps = Steps(self._engine)
        whole = steps.read(dy, dy.desc)
        start = 0
        for x, layout in zip(parts, self._layouts, strict=True):
            extent = layout.dims[self._axis]
            if x is not None:
                x.offer_layout(layout)
                offsets = tuple(start if i == self._axis else 0 for i in range(len(layout.dims)))
                try:
                    window = dnnl.window(dy.desc, layout.dims, offsets)
                except dnnl.Unsupported:  # the window cuts through a block of channels
                    source = steps.read(dy, dnnl.plain(dy.shape))
                    window = dnnl.window(dnnl.plain(dy.shape), layout.dims, offsets)
                else:
                    source = whole
                steps.copy(source, window, x)
            start += extent
        return steps
