"""Solvers as pycaffe shows them. Source of the names: _caffe.cpp of BVLC Caffe 1.0.

A script that mpirun starts on several ranks trains one net on all of them.
"""

from __future__ import annotations

import logging
import os
from abc import ABC
from collections.abc import Callable
from typing import ClassVar, TypeAlias, final

from dtrain.errors import ConfigError, unknown_name
from dtrain.metrics.log import CaffeLog
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import read_solver
from dtrain.pycaffe import caffe_name, process
from dtrain.pycaffe.net import Net
from dtrain.solvers import loop
from dtrain.solvers.nets import build_test_nets, build_train_net, seed_of
from dtrain.solvers.settings import Settings

File: TypeAlias = str | os.PathLike[str]
Callback: TypeAlias = Callable[[], None]


class Solver(ABC):
    """A net in training, and the nets that test it.

    Ctrl-C ends the iteration that is under way and then raises KeyboardInterrupt.
    """

    type: ClassVar[str]

    def __init__(self, solver_file: File) -> None:
        """The rule is that of the class, whatever `type` the file has."""
        caffe_name.provide()
        param, source = read_solver(solver_file)
        param.type = self.type
        comm = process.communicator()
        process.show_log()
        settings = Settings(param, source)
        seed = int(comm.allgather_object(process.next_seed())[0])
        if param.random_seed >= 0:
            seed = seed_of(settings, comm)
        backend = process.backend()
        train_net = build_train_net(settings, backend, comm, seed)
        test_nets = build_test_nets(settings, backend, comm, seed, train_net)
        self._solver = loop.Solver(
            param,
            train_net,
            test_nets,
            comm,
            reporter=CaffeLog(logging.getLogger(process.LOGGER)),
            source=source,
        )
        self.net = Net.of_solver(train_net, trains=True)
        self.test_nets = [Net.of_solver(net, trains=False) for net in test_nets]

    @property
    def param(self) -> pb.SolverParameter:
        """The settings; a change of base_lr or max_iter counts from the next iteration on."""
        return self._solver.param

    @property
    def iter(self) -> int:
        """Iterations done."""
        return self._solver.iter

    @property
    def lr(self) -> float:
        """The learning rate of the next iteration."""
        return self._solver.lr

    def step(self, iters: int) -> None:
        """Train so many iterations, with the tests and snapshots that fall into them."""
        with self._solver.signals:
            finished = self._solver.step(iters)
        if not finished:
            raise KeyboardInterrupt

    def solve(self, resume_file: File | None = None) -> None:
        """Train up to max_iter, from a solver state if one is given."""
        self._solver.solve(os.fspath(resume_file) if resume_file is not None else None)
        if self.iter < self.param.max_iter:
            raise KeyboardInterrupt

    def apply_update(self) -> None:
        """Change the weights by the gradients that lie in the diffs; the iteration stays the same."""
        self._solver.apply_update()

    def snapshot(self) -> None:
        """Write weights and solver state, and return when they are written."""
        self._solver.snapshot(wait=True)

    def restore(self, state_file: File) -> None:
        """Go on from a solver state."""
        self._solver.restore(os.fspath(state_file))

    def add_callback(self, on_start: Callback, on_gradients_ready: Callback) -> None:
        """Call these in each iteration: before the first pass, and before the update."""
        self._solver.on_start.append(on_start)
        self._solver.on_gradients_ready.append(on_gradients_ready)

    def share_weights(self, net: Net) -> None:
        """Let another net use the weights."""
        net.share_with(self.net)


@final
class SGDSolver(Solver):
    """Momentum."""

    type = "SGD"


@final
class NesterovSolver(Solver):
    """Nesterov's momentum."""

    type = "Nesterov"


@final
class AdaGradSolver(Solver):
    """AdaGrad."""

    type = "AdaGrad"


@final
class RMSPropSolver(Solver):
    """RMSProp."""

    type = "RMSProp"


@final
class AdaDeltaSolver(Solver):
    """AdaDelta."""

    type = "AdaDelta"


@final
class AdamSolver(Solver):
    """Adam."""

    type = "Adam"


SOLVERS: tuple[type[Solver], ...] = (
    SGDSolver,
    NesterovSolver,
    AdaGradSolver,
    RMSPropSolver,
    AdaDeltaSolver,
    AdamSolver,
)


def get_solver(solver_file: File) -> Solver:
    """The solver that the file's `type` names."""
    param, source = read_solver(solver_file)
    known = {cls.type: cls for cls in SOLVERS}
    if param.type not in known:
        raise ConfigError(f"{source.where(('type',))}: {unknown_name('solver type', param.type, known)}")
    return known[param.type](solver_file)
