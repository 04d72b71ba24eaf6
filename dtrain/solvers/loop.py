"""The training loop: forward, backward, reduce, clip, regularise, update, test, display, snapshot.

Source of the order: Caffe's Solver::Step and Solver::Solve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias, final

from dtrain.comm.communicator import Communicator
from dtrain.comm.single import SingleCommunicator
from dtrain.kernels.array import Plain
from dtrain.metrics.recorder import Recorder
from dtrain.metrics.reporter import Reporter, Reporters, Start, Step
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.sources import SourceMap
from dtrain.solvers.display import Displays
from dtrain.solvers.gradients import Gradients
from dtrain.solvers.loss_scaling import ScaledLoss
from dtrain.solvers.lr_policy import LearningRate
from dtrain.solvers.passes import Passes
from dtrain.solvers.phase_clock import PhaseClock
from dtrain.solvers.rules import rule_of
from dtrain.solvers.settings import Settings, check
from dtrain.solvers.signals import Signals
from dtrain.solvers.snapshots import Snapshots, sources_of
from dtrain.solvers.statistics import average_statistics
from dtrain.solvers.testing import Tester
from dtrain.solvers.update import Updater
from dtrain.solvers.votes import Request, Votes

Callback: TypeAlias = Callable[[], None]


@final
class Solver:
    """Trains `train_net`; every rank of `comm` calls the same methods in the same order.

    `reporter` hears of every event on every rank, `recorder` gets this rank's own numbers, and `signals`
    may ask for a snapshot or a stop. Raises ConfigError for settings that break a rule.
    """

    def __init__(
        self,
        param: pb.SolverParameter,
        train_net: Net,
        test_nets: Sequence[Net] = (),
        comm: Communicator | None = None,
        *,
        reporter: Reporter | None = None,
        recorder: Recorder | None = None,
        signals: Signals | None = None,
        source: SourceMap | None = None,
    ) -> None:
        self.param = param
        self.net = train_net
        self.test_nets = list(test_nets)
        self.comm = comm or SingleCommunicator()
        self.iter = 0
        self.on_start: list[Callback] = []
        self.on_gradients_ready: list[Callback] = []
        self.reporter = reporter or Reporters(())
        self.signals = signals or Signals()
        recorder = recorder or Recorder()
        settings = Settings(param, source)
        check(settings, len(self.test_nets))
        self._clock = PhaseClock()
        self._lr = LearningRate(settings)
        self._gradients = Gradients(train_net, self.comm)
        self._scaled = ScaledLoss(train_net, recorder)
        self._updater = Updater(
            settings, train_net.scope.backend, train_net.params, rule_of(settings), self._scaled.op
        )
        self._votes = Votes(self.comm, self.signals.pending, self.signals.settle)
        self._testers = [
            Tester(net, i, param.test_iter[i], self.comm, self._votes) for i, net in enumerate(self.test_nets)
        ]
        self._sources = sources_of(train_net)
        self._passes = Passes(
            train_net, self._gradients, self.comm, param.iter_size, self._clock, self._sources
        )
        self._displays = Displays(param, train_net, self.comm, self.reporter, recorder)
        self._snapshots = Snapshots(
            settings,
            train_net,
            self.test_nets,
            self.comm,
            self._updater,
            self._scaled,
            self._lr,
            self.reporter,
        )
        self._snapshots.share_weights()
        for paths in param.weights:
            for path in paths.split(","):
                self.load_weights(path.strip())
        self._snapshots.check_replicas("weights at the start")

    # -- the loop

    def solve(self, resume: str | Path | None = None) -> None:
        """Train up to max_iter, from a snapshot if one is given; returns early where a signal asks for it."""
        with self.signals:
            if resume is not None:
                self.restore(resume)
            self.reporter.start(self._start_event(resume))
            finished = self.step(max(0, self.param.max_iter - self.iter))
            if self.param.snapshot_after_train and self._snapshots.newest_iter != self.iter:
                self.snapshot()
            if finished:
                self._look_back()
            self._snapshots.wait()
            if finished:
                self.reporter.done()
            else:
                self.reporter.stopped_early()
            self.close()

    def step(self, iters: int) -> bool:
        """Train so many iterations; False if a signal, which all ranks heard of, ended them early.

        Signals are heard while `solve`, or whoever else, has entered `signals`.
        """
        param, clock = self.param, self._clock
        stop_iter = self.iter + iters
        self._displays.restart(self.iter)
        self._votes.done(Request.STOP)
        while self.iter < stop_iter and Request.STOP not in self._votes.agreed:
            if self._test_is_due() and not self.test():
                break
            clock.start()
            if self.on_start:
                self.net.clear_param_diffs()  # the passes do so too
                call(self.on_start)
            with self._displays.debug_info(self.iter):
                loss = self._passes.run()
            lr = self._lr.at(self.iter)
            self._votes.cast()
            self._displays.begin(self.iter, loss, lr)
            self._gradients.finish()
            clock.lap("allreduce_exposed")
            self._displays.finish()
            call(self.on_gradients_ready)
            self._update(lr)
            self.iter += 1
            self._scaled.look(self.iter)
            clock.lap("update")
            self.reporter.step(Step(self.iter, self._local_samples(), clock.read()))
            self._snapshots.poll()
            agreed = self._votes.result()
            if (param.snapshot and self.iter % param.snapshot == 0) or Request.SNAPSHOT in agreed:
                self.snapshot()
        self._displays.catch_up()
        if Request.SNAPSHOT in self._votes.agreed:  # a test was ended before the next step
            self.snapshot()
        return Request.STOP not in self._votes.agreed

    def _update(self, lr: float) -> None:
        self._updater.set(self.iter, lr, self.comm.size)
        self._passes.replayable(("update",), self._updater.launch)
        self._updater.tell()

    def test(self) -> bool:
        """A pass over every test net, all ranks together; False if a signal ended it."""
        average_statistics(self.net, self.comm)
        self.comm.note("test")
        for tester in self._testers:
            self.reporter.testing(self.iter, tester.net_id)
            score = tester.run(self.iter, self.param.test_compute_loss)
            if score is None:
                self.reporter.test_interrupted()
                return False
            self.reporter.test(score)
        return True

    # -- snapshots and weights

    def snapshot(self, *, wait: bool = False) -> None:
        """Take a snapshot, which is written while training goes on unless told to wait."""
        self.comm.note("snapshot")
        self._snapshots.take(self.iter)
        self._votes.done(Request.SNAPSHOT)
        if wait:
            self._snapshots.close()

    def restore(self, path: str | Path) -> None:
        """Go on from a solver state, ours or Caffe's."""
        self.comm.note("restore")
        self.iter = self._snapshots.restore(Path(path))

    def load_weights(self, path: str | Path) -> None:
        """Copy weights by layer name from a caffemodel, binary or HDF5, and give them to all ranks."""
        self._snapshots.load_weights(path)

    @property
    def lr(self) -> float:
        """The learning rate of the next iteration."""
        return self._lr.at(self.iter)

    def apply_update(self) -> None:
        """Change the weights by the gradients that are there, without counting an iteration."""
        self._updater.step(self.iter, self.lr, self.comm.size)

    @property
    def exposed_s(self) -> float:
        """Seconds that all steps so far spent on gradient sums which backward did not hide."""
        return self._gradients.reducer.exposed_s_total

    def history(self) -> list[Plain]:
        """What the rule keeps of each parameter, in the order of a solver state."""
        return [array.plain() for array in self._updater.history()]

    def close(self) -> None:
        """Wait for the last snapshot; raises SnapshotError on every rank if one could not be written.

        What is kept for replays goes: a communicator may wait for graphs that hold its collectives.
        """
        if self.net.replayer is not None:
            self.net.replayer.forget()
        self._snapshots.close()

    # -- around the loop

    def _test_is_due(self) -> bool:
        interval = self.param.test_interval
        due = interval > 0 and self.iter % interval == 0 and (self.iter > 0 or self.param.test_initialization)
        return due and bool(self._testers)

    def _look_back(self) -> None:
        """After the last update: its loss, and its score."""
        if self._displays.is_due(self.iter):
            self._displays.final_loss(self.iter, self.net.forward())
        if self._testers and self.param.test_interval > 0 and self.iter % self.param.test_interval == 0:
            self.test()

    def _start_event(self, resume: str | Path | None) -> Start:
        return Start(
            net=self.net.name,
            solver=self.param.type,
            lr_policy=self.param.lr_policy,
            iteration=self.iter,
            max_iter=self.param.max_iter,
            ranks=self.comm.size,
            global_batch=self._local_samples() * self.comm.size,
            resumed_from=str(resume or ""),
        )

    def _local_samples(self) -> int:
        """Samples that this rank trains on in one iteration; 0 where no layer tells."""
        return self.param.iter_size * max((source.batch_size for source in self._sources), default=0)


def call(callbacks: Sequence[Callback]) -> None:
    """One after the other."""
    for callback in callbacks:
        callback()
