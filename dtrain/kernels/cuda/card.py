"""What all that is built on one device shares: its kernels, working memory, and the trace of a run."""

from __future__ import annotations

from typing import Any, Final, final

import numpy as np
from numpy.typing import DTypeLike

from dtrain.errors import BackendError
from dtrain.kernels.array import Shape
from dtrain.kernels.cuda.data_faults import DataFaults
from dtrain.kernels.cuda.device import Buffer, Device
from dtrain.kernels.cuda.form import TYPE_OF, Form, ValueType
from dtrain.kernels.cuda.launch import MOST_BLOCKS, Kernels
from dtrain.kernels.cuda.trace import Trace
from dtrain.kernels.cuda.variables import Variables

TILE: Final = 32  # as in forms.cu
TILE_ROWS: Final = 8


@final
class Card:
    """`dtype` float32 or float64 is what operators compute in."""

    def __init__(self, device: Device, dtype: DTypeLike) -> None:
        self.device = device
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        if self.dtype not in TYPE_OF:
            raise BackendError(f"CUDA: dtype must be float32 or float64, got {self.dtype}")
        self.real = TYPE_OF[self.dtype]
        self.channels_last = False
        """Whether operators with a fast way keep an image's channels last; a plan decides."""
        self.trace: Trace | None = None
        self.variables = Variables(device)
        self.data_faults = DataFaults(device)
        self._kernels: dict[tuple[str, ValueType], Kernels] = {}
        self._workspace: Buffer | None = None
        self._ones: Buffer | None = None

    def kernels(self, file: str, values: ValueType | None = None) -> Kernels:
        """The kernels of a .cu file, their Value of this type; the type that is computed in unless given."""
        kind = values or self.real
        found = self._kernels.get((file, kind))
        if found is None:
            found = self._kernels[file, kind] = Kernels(self.device, file, self.dtype, kind)
        return found

    def workspace(self, count: int) -> Buffer:
        """Room that all operators share: its contents last until the next operator runs."""
        if self._workspace is None or self._workspace.size < count:
            self._workspace = self.device.empty(count, self.dtype)
        return self._workspace[:count]

    def ones(self, count: int) -> Buffer:
        """Ones: a product with them sums columns."""
        if self._ones is None or self._ones.size < count:
            self._ones = self.device.empty(count, self.dtype)
            self.leaves_the_device("writes constants")
            self.device.upload(np.ones(count, self.dtype), self._ones)
        return self._ones[:count]

    def leaves_the_device(self, what: str) -> None:
        """Something happens between host and device that a captured run cannot hold."""
        if self.trace is None:
            return
        if self.trace.captured:
            raise BackendError(
                f"CUDA graph: {self.trace.place or 'a captured iteration'} must not leave the device, got a "
                f"step that {what}; --plan off runs without a graph"
            )
        self.trace.host(what)

    # -- traces

    def begin_trace(self, *, captured: bool = False) -> Trace:
        """Follow what operators do from now on."""
        assert self.trace is None, "one trace at a time"
        self.trace = Trace(captured)
        return self.trace

    def end_trace(self) -> None:
        assert self.trace is not None, "a trace ends that has begun"
        self.trace.end()
        self.trace = None

    # -- forms

    def convert(self, source: Buffer, form: Form, target: Buffer, wanted: Form, shape: Shape) -> None:
        """Values of an array of this shape; one form is the base form, or they differ by their order."""
        count = int(source.size)
        base = Form(self.real)
        if form.type is wanted.type and form.type is not self.real:
            name = "values_to_last" if wanted.channels_last else "values_from_last"
            self._turn(self.kernels("forms.cu", form.type), name, shape, source, target)
        elif base == form:
            kernels = self.kernels("forms.cu", wanted.type)
            if wanted.channels_last:
                self._turn(kernels, "channels_to_last", shape, source, target)
            else:
                kernels.each("narrow", count, source, target)
        else:
            assert wanted == base, "the base form lies between two others"
            kernels = self.kernels("forms.cu", form.type)
            if form.channels_last:
                self._turn(kernels, "channels_from_last", shape, source, target)
            else:
                kernels.each("widen", count, source, target)

    @staticmethod
    def _turn(kernels: Kernels, name: str, shape: Shape, source: Buffer, target: Buffer) -> None:
        n, c, h, w = shape
        tiles = n * -(-c // TILE) * -(-h * w // TILE)
        if tiles:
            grid = (min(tiles, MOST_BLOCKS * 4),)
            kernels.launch(name, grid, (TILE, TILE_ROWS), n, c, h * w, source, target)

    def cast(self, source: Buffer, target: Buffer, values: ValueType, scale: float = 1.0) -> None:
        """target = scale * source, one of them Real and the other of 16 bits."""
        name = "narrow_scaled" if target.dtype != self.dtype else "widen_scaled"
        self.kernels("forms.cu", values).each(name, int(source.size), source, target, float(scale))
