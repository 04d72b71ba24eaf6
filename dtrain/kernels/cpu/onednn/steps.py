"""A run of primitives with the reorders between them: what one pass of an operator executes."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, final

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cpu.onednn import library as dnnl
from dtrain.kernels.cpu.storage import CpuStorage, aligned_zeros


def engine_of(backend: CpuBackend) -> dnnl.Engine:
    """The backend's oneDNN engine; Unsupported where it has none (float64, or no oneDNN)."""
    if backend.engine is None:
        raise dnnl.Unsupported(f"oneDNN does not compute {backend.dtype}")
    return backend.engine


def cpu(array: SyncedArray) -> CpuStorage:
    """An array of the CPU backend as such."""
    assert isinstance(array, CpuStorage)
    return array


def activation(backend: CpuBackend, dims: Shape) -> dnnl.Desc:
    """What to ask a convolution for: any layout, or channels last where the net runs in that format."""
    if backend.memory_format == "channels_last" and len(dims) in dnnl.CHANNELS_LAST_TAG:
        return dnnl.desc(dims, dnnl.CHANNELS_LAST_TAG[len(dims)])
    return dnnl.any_layout(dims)


@final
class Owned:
    """A buffer of the operator's own: a temporary in another layout, a workspace."""

    __slots__ = ("buffer", "memory")

    def __init__(self, engine: dnnl.Engine, desc: dnnl.Desc) -> None:
        self.buffer = aligned_zeros(-(-desc.nbytes // 4), "float32")
        self.memory = dnnl.Memory(engine, desc, self.buffer.ctypes.data)


@final
class Steps:
    """Primitives to run in order. `read` and `write` insert reorders where an array lies otherwise."""

    __slots__ = ("_after", "_converted", "_engine", "_keep", "_pull", "_push", "_run")

    def __init__(self, engine: dnnl.Engine) -> None:
        self._engine = engine
        self._run: list[dnnl.Primitive] = []
        self._after: list[dnnl.Primitive] = []
        self._keep: list[Owned] = []
        self._pull: list[CpuStorage] = []
        self._push: list[CpuStorage] = []
        self._converted: list[tuple[CpuStorage, Owned]] = []

    def read(self, array: CpuStorage, desc: dnnl.Desc) -> dnnl.Memory:
        """The array's values in the layout `desc`, whose dimensions it also takes."""
        if not any(array is known for known in self._pull):
            self._pull.append(array)
        if array.desc_as(desc.dims) == desc:
            return array.memory_as(desc.dims)
        for known, copy in self._converted:
            if known is array and copy.memory.desc == desc:
                return copy.memory
        copy = self.own(desc)
        self._converted.append((array, copy))
        self._run.append(dnnl.reorder(array.memory_as(desc.dims), copy.memory, self._engine))
        return copy.memory

    def write(self, array: CpuStorage, desc: dnnl.Desc) -> dnnl.Memory:
        """Where a primitive that produces the layout `desc` shall write the array's values."""
        self._push.append(array)
        if array.desc_as(desc.dims) == desc:
            return array.memory_as(desc.dims)
        copy = self.own(desc)
        self._after.append(dnnl.reorder(copy.memory, array.memory_as(desc.dims), self._engine))
        return copy.memory

    def add_to(self, array: CpuStorage, desc: dnnl.Desc) -> dnnl.Memory:
        """Where a primitive shall write what is then added to the array's values."""
        self._pull.append(array)
        self._push.append(array)
        target = array.memory_as(desc.dims)
        part = self.own(desc)
        if part.memory.desc == target.desc:
            term = part.memory
        else:
            term = self.own(target.desc).memory
            self._after.append(dnnl.reorder(part.memory, term, self._engine))
        total = dnnl.PrimitiveDesc.sum(self._engine, target.desc, [target.desc, term.desc], [1.0, 1.0])
        sources = {dnnl.Arg.MULTIPLE_SRC: target, dnnl.Arg.MULTIPLE_SRC + 1: term}
        self._after.append(dnnl.Primitive(total, {**sources, dnnl.Arg.DST: target}))
        return part.memory

    def gradient(self, diff: SyncedArray | None, desc: dnnl.Desc) -> dnnl.Memory:
        """Where a primitive shall write a parameter's gradient, so that it is added to what is there.

        Nothing is there while the diff is clear, so then it is written straight; None wants no gradient.
        """
        if diff is None:
            return self.own(desc).memory
        return self.write(cpu(diff), desc) if diff.is_clear else self.add_to(cpu(diff), desc)

    def copy(self, source: dnnl.Memory, part: dnnl.Desc, array: CpuStorage) -> None:
        """Reorder a part of `source`, as `window` describes it, into the array."""
        self._push.append(array)
        self._run.append(dnnl.reorder(source.part(self._engine, part), array.memory, self._engine))

    def own(self, desc: dnnl.Desc) -> Owned:
        """A buffer that lives as long as these steps."""
        owned = Owned(self._engine, desc)
        self._keep.append(owned)
        return owned

    def primitive(self, desc: dnnl.PrimitiveDesc, memories: dict[int, dnnl.Memory]) -> None:
        """Run this next, then what `write` and `add_to` have left to do since the last one."""
        self._run.append(dnnl.Primitive(desc, memories))
        self._run.extend(self._after)
        self._after.clear()

    @property
    def bytes_held(self) -> int:
        """Memory of the buffers of its own."""
        return sum(owned.buffer.nbytes for owned in self._keep)

    def __call__(self) -> None:
        for array in self._pull:
            array.pull()
        for array in self._push:
            array.push()
        for primitive in self._run:
            primitive()
        for array in self._push:
            if array.is_lent:
                array.push()


@final
class Variants:
    """Steps of one pass for each situation that it meets: layouts, what is wanted, what is added to."""

    MOST: ClassVar[int] = 8

    def __init__(self) -> None:
        self._built: dict[tuple[object, ...], Steps] = {}

    def run(self, key: tuple[object, ...], build: Callable[[], Steps]) -> None:
        """Run the steps for this key, built when it first comes up."""
        steps = self._built.get(key)
        if steps is None:
            if len(self._built) >= self.MOST:
                self._built.clear()
            steps = self._built[key] = build()
        steps()


def adds(diff: SyncedArray | None) -> bool | None:
    """Whether a gradient is added to what is there; None where none is wanted."""
    return None if diff is None else not diff.is_clear
