"""Batch normalisation by oneDNN, with scale and bias in the same pass."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cpu.batch_norm import gather
from dtrain.kernels.cpu.onednn import library as dnnl
from dtrain.kernels.cpu.onednn.library import Arg, Query
from dtrain.kernels.cpu.onednn.steps import Owned, Steps, Variants, adds, cpu, engine_of
from dtrain.kernels.cpu.storage import CpuStorage

GIVEN_STATISTICS, WITH_SCALE, WITH_BIAS, WITH_RELU = 1, 2, 4, 8  # oneDNN's normalisation flags


@final
class BatchNorm:
    """As kernels/cpu/batch_norm.py says.

    Primitives are built when it is known whether scale and bias come. With `relu`, which a plan sets for a
    pass, the top is max(y, 0), and the backward pass after it starts from the diff behind that.
    """

    def __init__(
        self,
        backend: CpuBackend,
        eps: float,
        fraction: float,
        use_global_stats: bool,
        bottom: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self.relu = False
        self._engine = engine_of(backend)
        if not 2 <= len(bottom.shape) <= 5 or bottom.size == 0:
            raise dnnl.Unsupported(f"batch normalisation of {bottom.shape}")
        self._eps = float(eps)
        self._fraction = fraction
        self._use_global_stats = use_global_stats
        self._layout = cpu(bottom).desc
        if top is not bottom:
            cpu(top).offer_layout(self._layout)
        channels = dnnl.plain((bottom.shape[1],))
        self._per_channel = bottom.size // bottom.shape[1]
        self._mean, self._variance = Owned(self._engine, channels), Owned(self._engine, channels)
        # In place the top overwrites what backward needs.
        self._source = Owned(self._engine, self._layout) if top is bottom else None
        self._workspace: dnnl.Memory | None = None
        self._forward: Steps | None = None
        self._forward_flags = -1
        self._forward_desc: dnnl.PrimitiveDesc | None = None
        self._backward = Variants()
        flags = GIVEN_STATISTICS if use_global_stats else 0
        self.implementation = f"oneDNN {self._describe_forward(flags).implementation}"

    def _describe_forward(self, flags: int) -> dnnl.PrimitiveDesc:
        return dnnl.PrimitiveDesc(
            self._engine,
            "batch_normalization_forward",
            dnnl.FORWARD_TRAINING,
            self._layout,
            self._layout,
            self._eps,
            flags,
            dnnl.default_attributes(),
        )

    def forward(
        self,
        bottom: SyncedArray,
        mean: SyncedArray,
        variance: SyncedArray,
        factor: SyncedArray,
        scale: SyncedArray | None,
        bias: SyncedArray | None,
        top: SyncedArray,
    ) -> None:
        flags = (
            (GIVEN_STATISTICS if self._use_global_stats else 0)
            | (WITH_SCALE if scale is not None else 0)
            | (WITH_BIAS if bias is not None else 0)
            | (WITH_RELU if self.relu else 0)
        )
        if self._forward is None or flags != self._forward_flags:
            self._forward = self._build_forward(flags, cpu(bottom), scale, bias, cpu(top))
            self._forward_flags = flags
            self._backward = Variants()
        if self._use_global_stats:
            gathered = float(factor.plain().reshape(-1)[0])
            weight = 0.0 if gathered == 0 else 1 / gathered
            np.multiply(mean.plain(), weight, out=self._mean.buffer)
            np.multiply(variance.plain(), weight, out=self._variance.buffer)
        self._forward()
        if not self._use_global_stats:
            statistics = (mean, variance, factor)
            gather(statistics, self._fraction, self._mean.buffer, self._variance.buffer, self._per_channel)

    def _build_forward(
        self, flags: int, x: CpuStorage, scale: SyncedArray | None, bias: SyncedArray | None, y: CpuStorage
    ) -> Steps:
        steps = Steps(self._engine)
        source = steps.read(x, self._layout)
        if self._source is not None:
            steps.primitive(
                dnnl.PrimitiveDesc.reorder(self._engine, self._layout, self._layout),
                {Arg.SRC: source, Arg.DST: self._source.memory},
            )
            source = self._source.memory
        memories: dict[int, dnnl.Memory] = {
            Arg.SRC: source,
            Arg.DST: steps.write(y, self._layout),
            Arg.MEAN: self._mean.memory,
            Arg.VARIANCE: self._variance.memory,
        }
        if scale is not None:
            memories[Arg.SCALE] = steps.read(cpu(scale), dnnl.plain(scale.shape))
        if bias is not None:
            memories[Arg.SHIFT] = steps.read(cpu(bias), dnnl.plain(bias.shape))
        self._forward_desc = self._describe_forward(flags)
        workspace = self._forward_desc.optional_desc(Query.WORKSPACE)  # where the ReLU was open
        self._workspace = None if workspace is None else steps.own(workspace).memory
        if self._workspace is not None:
            memories[Arg.WORKSPACE] = self._workspace
        steps.primitive(self._forward_desc, memories)
        return steps

    def backward(
        self,
        top_diff: SyncedArray,
        bottom: SyncedArray,
        scale: SyncedArray | None,
        bottom_diff: SyncedArray | None,
        scale_diff: SyncedArray | None,
        bias_diff: SyncedArray | None,
    ) -> None:
        dy = cpu(top_diff)
        dx = cpu(bottom_diff) if bottom_diff is not None else None
        if dx is not None and dx is not dy:
            dx.offer_layout(self._layout)
        key = (dy.generation, None if dx is None else dx.generation, adds(scale_diff), adds(bias_diff))
        self._backward.run(
            key, lambda: self._build_backward(dy, cpu(bottom), scale, dx, scale_diff, bias_diff)
        )

    def _build_backward(
        self,
        dy: CpuStorage,
        x: CpuStorage,
        scale: SyncedArray | None,
        dx: CpuStorage | None,
        scale_diff: SyncedArray | None,
        bias_diff: SyncedArray | None,
    ) -> Steps:
        assert self._forward_desc is not None, "forward ran before"
        steps = Steps(self._engine)
        desc = dnnl.PrimitiveDesc(
            self._engine,
            "batch_normalization_backward",
            dnnl.BACKWARD if self._forward_flags & (WITH_SCALE | WITH_BIAS) else dnnl.BACKWARD_DATA,
            self._layout,
            self._layout,
            self._layout,
            self._eps,
            self._forward_flags,
            self._forward_desc,
            dnnl.default_attributes(),
        )
        source = steps.read(x, self._layout) if self._source is None else self._source.memory
        memories: dict[int, dnnl.Memory] = {
            Arg.SRC: source,
            Arg.MEAN: self._mean.memory,
            Arg.VARIANCE: self._variance.memory,
            Arg.DIFF_DST: steps.read(dy, self._layout),
        }
        if dx is not None:
            memories[Arg.DIFF_SRC] = steps.write(dx, self._layout)
        else:
            memories[Arg.DIFF_SRC] = steps.own(self._layout).memory
        if scale is not None:
            memories[Arg.SCALE] = steps.read(cpu(scale), dnnl.plain(scale.shape))
        if self._workspace is not None:
            memories[Arg.WORKSPACE] = self._workspace
        for flag, arg, diff in (
            (WITH_SCALE, Arg.DIFF_SCALE, scale_diff),
            (WITH_BIAS, Arg.DIFF_SHIFT, bias_diff),
        ):
            if self._forward_flags & flag:
                memories[arg] = steps.gradient(diff, self._mean.memory.desc)
        steps.primitive(desc, memories)
        return steps
