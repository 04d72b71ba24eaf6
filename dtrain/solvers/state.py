"""A solver state file: the history of the update rule, in Caffe's two formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from dtrain.errors import SnapshotError
from dtrain.kernels.array import Plain, SyncedArray
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.blobproto import blob_shape, blobproto_to_array, fill_blobproto, fits
from dtrain.proto.files import read_binary, write_binary
from dtrain.solvers import hdf5


@final
@dataclass(frozen=True)
class State:
    """What Caffe's SolverState holds; `learned_net` is the path of the weights, or empty."""

    iteration: int
    learned_net: str
    current_step: int
    history: list[Plain]


def write(path: Path, state: State, *, as_hdf5: bool) -> None:
    """Raises OSError or SnapshotError; the file is whole or as it was before."""
    if as_hdf5:
        values: dict[str, hdf5.Value] = {
            "iter": state.iteration,
            "learned_net": state.learned_net,
            "current_step": state.current_step,
        }
        values.update((f"history/{i}", array) for i, array in enumerate(state.history))
        hdf5.write(path, values)
        return
    message = pb.SolverState(
        iter=state.iteration, learned_net=state.learned_net, current_step=state.current_step
    )
    for array in state.history:
        fill_blobproto(message.history.add(), array)
    write_binary(path, message)


def read(path: Path, shapes: Sequence[tuple[int, ...]]) -> State:
    """The state, whose history must have these shapes. Raises SnapshotError."""
    if path.suffix == ".h5":
        return _read_hdf5(path, shapes)
    message = pb.SolverState()
    read_binary(path, message)
    _check_count(path, len(message.history), len(shapes))
    for i, (stored, shape) in enumerate(zip(message.history, shapes, strict=True)):
        if not fits(stored, shape):
            raise SnapshotError(f"{path}: history {i} must have shape {shape}, got {blob_shape(stored)}")
    history = [
        blobproto_to_array(stored, where=f"{path}: history {i}").reshape(shape)
        for i, (stored, shape) in enumerate(zip(message.history, shapes, strict=True))
    ]
    return State(message.iter, message.learned_net, message.current_step, history)


def restore_history(history: Sequence[SyncedArray], state: State) -> None:
    """Put the stored history into the solver's."""
    for mine, stored in zip(history, state.history, strict=True):
        mine.plain_overwrite()[...] = stored
        mine.pull()


def _read_hdf5(path: Path, shapes: Sequence[tuple[int, ...]]) -> State:
    stored = hdf5.read(path, SnapshotError)
    _check_count(path, sum(key.startswith("history/") for key in stored), len(shapes))
    history = []
    for i, shape in enumerate(shapes):
        values = np.asarray(stored.get(f"history/{i}"))
        if values.size == 1 and shape in ((), (1,)):
            values = values.reshape(shape)
        if values.shape != shape:
            raise SnapshotError(f"{path}: history {i} must have shape {shape}, got {values.shape}")
        history.append(values)
    iteration, step = stored.get("iter"), stored.get("current_step", 0)
    learned_net = stored.get("learned_net", "")
    if not (isinstance(iteration, int) and isinstance(step, int) and isinstance(learned_net, str)):
        raise SnapshotError(f"{path}: must hold iter, current_step and learned_net, got {sorted(stored)}")
    return State(iteration, learned_net, step, history)


def _check_count(path: Path, got: int, wanted: int) -> None:
    if got != wanted:
        raise SnapshotError(
            f"{path}: the number of history blobs must be {wanted}, got {got}; "
            f"the snapshot is of another net or another solver type"
        )
