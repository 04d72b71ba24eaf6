"""Whether replicas are equal, told from a few bytes per rank."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from dtrain.comm.abort import AgreedError
from dtrain.comm.communicator import Array, Communicator

DIGEST_BYTES = 16


def digest(arrays: Iterable[Array]) -> str:
    """BLAKE2b of the arrays' types, shapes and bits."""
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for array in arrays:
        state.update(f"{array.dtype.str}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def check_equal(comm: Communicator, name: str, arrays: Iterable[Array]) -> None:
    """Raise on every rank when the arrays differ between two ranks. Collective."""
    if comm.size == 1:
        return
    digests = comm.allgather_object(digest(comm.on_host(array) for array in arrays))
    different = [rank for rank, other in enumerate(digests) if other != digests[0]]
    if different:
        first = different[0]
        raise AgreedError(
            f"{name}: the replicas must be equal on all ranks, got digest {digests[0]} at rank 0 and "
            f"{digests[first]} at rank {first} ({len(different)} of {comm.size} ranks differ from rank 0)",
            speaker=0,
        )
