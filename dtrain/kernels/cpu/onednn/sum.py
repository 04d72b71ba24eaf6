"""Weighted sum of arrays by oneDNN, in the layout of the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cpu.onednn import library as dnnl
from dtrain.kernels.cpu.onednn.library import Arg
from dtrain.kernels.cpu.onednn.steps import Steps, cpu, engine_of
from dtrain.kernels.cpu.storage import CpuStorage


@final
class Sum:
    """As kernels/cpu/sum.py says.

    The top takes its layout at once, since consumers of data are built on it. Layouts are looked at again
    when the sum first runs: diffs get theirs from the consumers' backward passes.
    """

    def __init__(
        self,
        backend: CpuBackend,
        coefficients: Sequence[float],
        bottoms: Sequence[SyncedArray],
        top: SyncedArray,
    ) -> None:
        self._engine = engine_of(backend)
        if top.size == 0 or not top.shape:
            raise dnnl.Unsupported("a sum of no elements")
        self.coefficients = list(coefficients)
        self.implementation = "oneDNN sum"
        self._steps: Steps | None = None
        self._key: tuple[int, ...] = ()
        self._offer([cpu(b) for b in bottoms], cpu(top))

    def _offer(self, parts: list[CpuStorage], y: CpuStorage) -> dnnl.Desc:
        """The layout of the sum, which is that of the first part that has one."""
        layout = next((x.desc for x in parts if x.layout is not None), parts[0].desc)
        if y is not parts[0]:
            y.offer_layout(layout)
        return layout

    def forward(self, bottoms: Sequence[SyncedArray], top: SyncedArray) -> None:
        parts, y = [cpu(b) for b in bottoms], cpu(top)
        key = (*(x.generation for x in parts), y.generation)
        if self._steps is None or key != self._key:
            self._steps = self._build(parts, y)
            self._key = (*(x.generation for x in parts), y.generation)
        self._steps()

    def _build(self, parts: list[CpuStorage], y: CpuStorage) -> Steps:
        layout = self._offer(parts, y)
        steps = Steps(self._engine)
        sources = [steps.read(x, layout) for x in parts]
        if len(parts) == 1 and self.coefficients == [1.0]:
            steps.primitive(
                dnnl.PrimitiveDesc.reorder(self._engine, layout, layout),
                {Arg.SRC: sources[0], Arg.DST: steps.write(y, layout)},
            )
            return steps
        desc = dnnl.PrimitiveDesc.sum(self._engine, layout, [layout] * len(parts), self.coefficients)
        self.implementation = f"oneDNN {desc.implementation}"
        memories: dict[int, dnnl.Memory] = {Arg.MULTIPLE_SRC + i: m for i, m in enumerate(sources)}
        memories[Arg.DST] = steps.write(y, layout)
        steps.primitive(desc, memories)
        return steps
