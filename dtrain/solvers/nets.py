"""The nets of a solver: one to train, any number to test, which share its weights.

Source of the rules: Caffe's Solver::InitTrainNet and InitTestNets.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, final

import numpy as np

from dtrain.comm.communicator import Communicator
from dtrain.errors import ConfigError
from dtrain.kernels.backend import Backend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.params import Flat
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import read_net
from dtrain.proto.sources import SourceMap
from dtrain.solvers.settings import Settings

Plan: TypeAlias = Callable[[Net], None]  # called with each net before its parameters are laid out

TRAIN_FIELDS = ("train_net_param", "train_net", "net_param", "net")


@final
@dataclass(frozen=True)
class NetSpec:
    """A net that is to be built, with the state that it is built for."""

    param: pb.NetParameter
    source: SourceMap | None


def seed_of(settings: Settings, comm: Communicator) -> int:
    """random_seed where it is given, else a random number that rank 0 draws. Collective."""
    if settings.param.random_seed >= 0:
        return int(settings.param.random_seed)
    return int(comm.allgather_object(random.SystemRandom().getrandbits(31))[0])


def train_spec(settings: Settings) -> NetSpec:
    """The net to train. Raises ConfigError unless the solver names exactly one."""
    given = [field for field in TRAIN_FIELDS if settings.param.HasField(field)]
    if len(given) != 1:
        raise ConfigError(
            f"{settings.where(*given[1:2])}: exactly one of {', '.join(TRAIN_FIELDS)} must be given, "
            f"got {' and '.join(given) or 'none'}"
        )
    spec = _spec(settings, given[0])
    _merge_state(spec.param, pb.TRAIN, settings.param.train_state)
    return spec


def test_specs(settings: Settings) -> list[NetSpec]:
    """The test nets: test_net_param, test_net, then as many of `net` as there are test_iter left."""
    param = settings.param
    specs = [_inline(settings, net, "test_net_param", i) for i, net in enumerate(param.test_net_param)]
    specs += [_file(settings, path, "test_net", i) for i, path in enumerate(param.test_net)]
    generic = next((field for field in ("net_param", "net") if param.HasField(field)), None)
    missing = len(param.test_iter) - len(specs)
    if missing < 0 or (missing > 0 and generic is None):
        raise settings.bad(
            "test_iter", f"given once per test net ({len(specs)} times)", f"{len(param.test_iter)} times"
        )
    if generic is not None:
        specs += [_spec(settings, generic) for _ in range(missing)]
    if len(param.test_state) not in (0, len(specs)):
        raise settings.bad(
            "test_state",
            f"given once per test net ({len(specs)} times) or not at all",
            f"{len(param.test_state)} times",
        )
    if specs and param.test_interval < 1:
        raise settings.bad("test_interval", "at least 1 where test_iter is given", param.test_interval)
    for i, spec in enumerate(specs):
        if param.test_iter[i] < 1:
            raise settings.bad("test_iter", "at least 1", param.test_iter[i])
        _merge_state(spec.param, pb.TEST, param.test_state[i] if param.test_state else pb.NetState())
    return specs


def build_train_net(
    settings: Settings,
    backend: Backend,
    comm: Communicator,
    seed: int,
    plan: Plan | None = None,
    *,
    bad_records: int = 0,
) -> Net:
    """The net to train, its gradients where the communicator sums them fastest.

    bad_records: how many different bad records of a source the job may replace.
    """
    spec = train_spec(settings)
    scope = _scope(backend, pb.TRAIN, comm, seed, bad_records)
    kind = backend.flat(0).dtype

    def allocate_diff(count: int) -> Flat:
        return backend.flat_for_sums(count, lambda size: comm.allocate(size, kind))

    return Net(spec.param, scope, allocate_diff=allocate_diff, plan=plan, source=spec.source)


def build_test_nets(
    settings: Settings,
    backend: Backend,
    comm: Communicator,
    seed: int,
    train_net: Net,
    plan: Plan | None = None,
    *,
    bad_records: int = 0,
) -> list[Net]:
    """The test nets, on the weights of the training net."""
    nets = []
    for spec, test_iter in zip(test_specs(settings), settings.param.test_iter, strict=True):
        scope = _scope(backend, pb.TEST, comm, seed, bad_records)
        scope.test_iter = test_iter
        nets.append(Net(spec.param, scope, weights_from=train_net, plan=plan, source=spec.source))
    return nets


def _scope(backend: Backend, phase: int, comm: Communicator, seed: int, bad_records: int) -> Scope:
    return Scope(
        backend,
        phase,
        rank=comm.rank,
        size=comm.size,
        seed=seed,
        bad_records=bad_records,
        rng=np.random.default_rng(seed),
    )


def _spec(settings: Settings, field: str) -> NetSpec:
    value = getattr(settings.param, field)
    return _file(settings, value, field) if isinstance(value, str) else _inline(settings, value, field)


def _inline(settings: Settings, net: pb.NetParameter, *path: str | int) -> NetSpec:
    copy = pb.NetParameter()
    copy.CopyFrom(net)
    return NetSpec(copy, settings.source.below(path) if settings.source is not None else None)


def _file(settings: Settings, name: str, *path: str | int) -> NetSpec:
    """As in Caffe a path is relative to the working directory; failing that, to the solver's own folder."""
    found = Path(name)
    if settings.source is not None and not found.exists():
        beside = Path(settings.source.file).parent / name
        found = beside if beside.exists() else found
    if not found.exists():
        raise ConfigError(f"{settings.where(*path)}: {path[0]} must be an existing file, got {name}")
    param, source = read_net(found)
    return NetSpec(param, source)


def _merge_state(param: pb.NetParameter, phase: int, asked: pb.NetState) -> None:
    """The phase, then what the net says of itself, then what the solver asks for."""
    state = pb.NetState(phase=phase)  # type: ignore[arg-type]
    state.MergeFrom(param.state)
    state.MergeFrom(asked)
    param.state.CopyFrom(state)
