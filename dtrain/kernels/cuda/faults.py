"""CUDA's errors, told as ours."""

from __future__ import annotations

from typing import Any, Final, final

from dtrain.errors import BackendError

GIB: Final = 2**30
LOG_LINES: Final = 12


@final
class Faults:
    """Of one card: which of CuPy's exceptions they are, and what they say."""

    def __init__(self, cupy: Any, number: int) -> None:
        self._cupy = cupy
        self._where = f"GPU {number}"
        cuda = cupy.cuda
        self.kinds: tuple[type[Exception], ...] = (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError)
        self.out_of_memory: type[Exception] = cuda.memory.OutOfMemoryError
        self.last_kernel = ""

    def at(self, what: str, error: Exception) -> BackendError:
        """While this was asked for; CUDA may tell here what a kernel has done long before."""
        last = f"; the last kernel queued was {self.last_kernel}" if self.last_kernel else ""
        return BackendError(
            f"{self._where}: {what} must succeed, got {error}{last}; if a kernel is at fault, "
            f"CUDA_LAUNCH_BLOCKING=1 names it"
        )

    def launch(self, kernel: str, error: Exception) -> BackendError:
        """Of a kernel."""
        return BackendError(
            f"{self._where}: kernel {kernel} must start, got {error}; an earlier kernel may be at fault: "
            f"CUDA_LAUNCH_BLOCKING=1 names it"
        )

    def compilation(self, file: str, error: Exception) -> BackendError:
        """Of a .cu file, or of a kernel that it does not hold."""
        log = "\n".join(str(error).splitlines()[:LOG_LINES])
        return BackendError(f"{self._where}: {file} must compile by NVRTC for this card, got:\n{log}")

    def memory(self, nbytes: int, in_use: int) -> BackendError:
        """There is no room for so many bytes more."""
        free, total = self._cupy.cuda.runtime.memGetInfo()
        limit = self._cupy.get_default_memory_pool().get_limit()
        most = f" of the {limit / GIB:.2f} that CUPY_GPU_MEMORY_LIMIT allows" if limit else ""
        return BackendError(
            f"{self._where}: the card must give {nbytes / GIB:.2f} GiB more, got {free / GIB:.2f} GiB free "
            f"of {total / GIB:.1f}, with {in_use / GIB:.2f} GiB in this process's arrays{most}; a smaller "
            f"batch_size needs less, and a larger iter_size makes up for it"
        )

    def pinned_memory(self, nbytes: int, error: Exception) -> BackendError:
        """There is no room in host memory that may not be swapped out."""
        return BackendError(
            f"{self._where}: {nbytes / GIB:.2f} GiB of host memory must be pinned for copies, got {error}; "
            f"`ulimit -l` and the container's memory limit bound it"
        )
