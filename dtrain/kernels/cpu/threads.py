"""How many threads the CPU kernels of this process use: oneDNN's, numba's and BLAS's alike."""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any


@functools.cache
def _libgomp() -> ctypes.CDLL | None:
    """GNU OpenMP, which oneDNN's wheel and numba's omp layer share; None where it is not installed."""
    try:
        return ctypes.CDLL("libgomp.so.1")
    except OSError:
        return None


def in_use() -> int:
    """Threads of a parallel region started by this thread."""
    gomp = _libgomp()
    return int(gomp.omp_get_max_threads()) if gomp is not None else 1


def use(count: int) -> None:
    """Run parallel regions of this thread on `count` threads."""
    assert count >= 1, "the caller validates a thread count"
    gomp = _libgomp()
    if gomp is not None:
        gomp.omp_set_num_threads(count)
    numba = sys.modules.get("numba")
    if numba is not None:
        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))


def lead_numba() -> None:
    """Let numba's parallel loops run on the GNU OpenMP threads that oneDNN uses, as many as those are.

    Call before the first parallel loop: the choice is the process's, and comes too late after it.
    """
    import numba

    config: Any = numba.config
    if _libgomp() is not None:
        config.THREADING_LAYER = "omp"
    count = in_use()
    numba.set_num_threads(min(count, config.NUMBA_NUM_THREADS))
    use(count)  # numba's start has set OpenMP's own number
