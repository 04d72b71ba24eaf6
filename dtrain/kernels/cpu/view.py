"""A view of a CPU array: the same values under another shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from dtrain.kernels.array import Plain, Shape, SyncedArray
from dtrain.kernels.cpu.onednn import library as dnnl
from dtrain.kernels.cpu.storage import Buffer, CpuStorage

if TYPE_CHECKING:
    from dtrain.kernels.cpu.array import CpuArray


@final
class CpuView(CpuStorage):
    """Another array's values under another shape of as many elements, always in Caffe's order."""

    def __init__(self, base: CpuArray, shape: Shape) -> None:
        self.base = base
        self.shape = tuple(shape)
        assert self.size == base.size, "a view has as many elements as its base"
        self.dtype = base.dtype
        self.layout = None
        self._memories: dict[Shape, dnnl.Memory] = {}
        self._seen: Plain | None = None

    @property
    def generation(self) -> int:  # type: ignore[override]
        return self.base.generation

    @property
    def version(self) -> int:  # type: ignore[override]
        return self.base.version

    def reshape(self, shape: Shape) -> None:
        shape = tuple(shape)
        if shape != self.shape:
            self.shape = shape
            assert self.size == self.base.size, "a view has as many elements as its base"
            self._memories = {}

    def plain(self) -> Plain:
        return self.base.plain().reshape(self.shape)

    def plain_mutable(self) -> Plain:
        return self.base.plain_mutable().reshape(self.shape)

    def plain_overwrite(self) -> Plain:
        return self.base.plain_overwrite().reshape(self.shape)

    def lend_plain(self) -> Plain:
        return self.base.lend_plain().reshape(self.shape)

    @property
    def is_lent(self) -> bool:
        return False  # a view's native side is the base's plain one

    def take(self, plain: Plain) -> None:
        self.base.take(plain.reshape(self.base.shape))

    def clear(self) -> None:
        self.base.clear()

    @property
    def is_clear(self) -> bool:
        return self.base.is_clear

    def view(self, shape: Shape) -> CpuView:
        return CpuView(self.base, shape)

    @property
    def desc(self) -> dnnl.Desc:
        return dnnl.plain(self.shape or (1,))

    @property
    def memory(self) -> dnnl.Memory:
        return self.memory_as(self.shape or (1,))

    def desc_as(self, dims: Shape) -> dnnl.Desc:
        return dnnl.plain(dims)

    def memory_as(self, dims: Shape) -> dnnl.Memory:
        memory = self._memories.get(dims)
        if memory is None:
            self._follow()
            address = self.base.plain_storage().ctypes.data
            memory = self._memories[dims] = dnnl.Memory(self.base.engine, dnnl.plain(dims), address)
        return memory

    def _follow(self) -> None:
        """Point the memories at the base's present plain buffer."""
        buffer = self.base.plain_storage()
        if buffer is not self._seen:
            self._seen = buffer
            for memory in self._memories.values():
                memory.point_to(buffer.ctypes.data)

    @property
    def is_bound(self) -> bool:
        return self.base.is_bound

    def offer_layout(self, layout: dnnl.Desc) -> None:
        """A view stays in Caffe's order."""

    @property
    def native_size(self) -> int:
        return self.size

    def match_layout(self, other: SyncedArray) -> None:
        """A view stays in Caffe's order."""

    def bind(self, buffer: Buffer) -> None:
        raise AssertionError("a view has no buffer of its own")

    @property
    def storage_id(self) -> int:
        return self.base.storage_id

    def twin(self, buffer: Buffer) -> CpuStorage:
        raise AssertionError("a parameter with a history is no view")

    def pull(self) -> None:
        self.base.plain()
        self._follow()

    def push(self) -> None:
        self.base.plain_overwrite()
        self._follow()
