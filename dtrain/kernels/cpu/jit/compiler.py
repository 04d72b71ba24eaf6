"""How loops are compiled: on numba's OpenMP layer, which shares its threads with oneDNN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])

numba.config.THREADING_LAYER = "omp"  # type: ignore[attr-defined, unused-ignore]


def parallel(function: _Function) -> _Function:
    """Compile with `prange` over the threads of the process; the machine code is kept beside the source."""
    return cast(_Function, numba.njit(nogil=True, cache=True, parallel=True, error_model="numpy")(function))
