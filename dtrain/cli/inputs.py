"""The files that a command line names: a solver, a net, a snapshot."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dtrain.comm.communicator import Communicator
from dtrain.errors import ConfigError, WeightsError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import read_net, read_solver
from dtrain.solvers.nets import NetSpec
from dtrain.solvers.settings import Settings
from dtrain.solvers.snapshots import newest, prefix_of

logger = logging.getLogger(__name__)

AUTO: Final = "auto"  # in place of a snapshot's path: the newest
PHASES: Final = ("TRAIN", "TEST")
STATE, MODEL = ".solverstate", ".caffemodel"


def read_settings(argument: str, flag: str, level: int, stages: Sequence[str]) -> Settings:
    """The solver file that the command line names once."""
    if bool(argument) == bool(flag):
        got = "both" if flag else "none"
        raise ConfigError(f"command line: the solver's prototxt must be given once, got {got}; dtrain SOLVER")
    param, source = read_solver(Path(argument or flag))
    if level:
        param.train_state.level = level
    param.train_state.stage.extend(stages)
    return Settings(param, source)


def read_model(path: str, phase: int, level: int, stages: Sequence[str]) -> NetSpec:
    """A net file with the state that it is to be built for."""
    param, source = read_net(Path(path))
    param.state.phase = phase  # type: ignore[assignment]
    if level:
        param.state.level = level
    param.state.stage.extend(stage for stage in stages if stage not in param.state.stage)
    return NetSpec(param, source)


def check_iterations(iterations: int) -> None:
    """Raise unless there is something to run."""
    if iterations < 1:
        raise ConfigError(f"--iterations must be at least 1, got {iterations}")


def newest_snapshot(settings: Settings, comm: Communicator) -> Path | None:
    """The newest whole snapshot of the solver that rank 0 sees. Collective."""
    found = newest(prefix_of(settings)) if comm.rank == 0 else None
    chosen: Path | None = comm.allgather_object(found)[0]
    return chosen


def model_of(state: Path) -> Path:
    """The weights that lie beside a solver state."""
    if STATE not in state.name:
        raise ConfigError(f"-snapshot: name must hold {STATE}, got {state}")
    before, after = state.name.rsplit(STATE, 1)
    model = state.with_name(f"{before}{MODEL}{after}")
    if not model.exists():
        raise WeightsError(f"{state}: its weights must lie beside it, got no {model}")
    return model


def phase_of(name: str) -> int:
    """TRAIN or TEST in any case."""
    if name.upper() not in PHASES:
        raise ConfigError(f"--phase must be TRAIN or TEST, got {name}")
    return pb.Phase.Value(name.upper())
