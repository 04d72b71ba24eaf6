"""How loops over arrays are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def parallel(function: _Function) -> _Function:
    """Compile with `prange` over the threads of the process; the machine code is kept beside the source.

    Whoever runs it has called threads.lead_numba before.
    """
    return cast(_Function, numba.njit(nogil=True, cache=True, parallel=True, error_model="numpy")(function))
