"""Snapshots: written by one rank behind the training's back, read by it and handed to the others."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, final

from dtrain import __version__
from dtrain.comm.abort import agree
from dtrain.comm.communicator import Communicator
from dtrain.comm.digest import check_equal
from dtrain.errors import DtrainError, SnapshotError
from dtrain.kernels.loss_scaling import ScaleState
from dtrain.layers.data_source import DataSource
from dtrain.metrics.reporter import Reporter, Snapshot
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import write_binary
from dtrain.solvers import hdf5, manifest, state, weights
from dtrain.solvers.loss_scaling import ScaledLoss
from dtrain.solvers.lr_policy import LearningRate
from dtrain.solvers.manifest import Manifest, SnapshotPaths, Stream
from dtrain.solvers.settings import Settings
from dtrain.solvers.statistics import average_statistics
from dtrain.solvers.update import Updater
from dtrain.solvers.whole_file import digest_of

logger = logging.getLogger(__name__)

FILE_RANK: Final = 0  # writes and reads all files
DEFAULT_PREFIX: Final = "dtrain"  # of a solver that was made by a program and names none


@final
class Snapshots:
    """Takes and restores snapshots of one solver.

    A write that fails is told at the next `poll` and does not end the run; `close` raises for it.
    """

    def __init__(
        self,
        settings: Settings,
        net: Net,
        test_nets: list[Net],
        comm: Communicator,
        updater: Updater,
        scaled: ScaledLoss,
        rate: LearningRate,
        reporter: Reporter,
    ) -> None:
        self._settings = settings
        self._net = net
        self._test_nets = test_nets
        self._comm = comm
        self._updater = updater
        self._scaled = scaled
        self._rate = rate
        self._reporter = reporter
        self.prefix = prefix_of(settings)
        self._hdf5 = settings.param.snapshot_format == pb.SolverParameter.HDF5
        if self._hdf5:
            hdf5.check_available()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self._writing: tuple[int, float, Future[None]] | None = None
        self._failed: list[str] = []
        self.newest_iter: int | None = None
        """Iteration of the last snapshot that was taken or restored."""

    # -- taking

    def take(self, it: int) -> None:
        """Copy the state after `it` iterations and start to write it. Collective."""
        begin = time.perf_counter()
        self.newest_iter = it
        average_statistics(self._net, self._comm)
        self.check_replicas(f"iteration {it}: weights and history")
        if self._comm.rank != FILE_RANK:
            return
        self.wait()
        paths = SnapshotPaths.of(self.prefix, it, self._hdf5)
        for path, what in ((paths.model, "model"), (paths.state, "solver state")):
            self._reporter.snapshot(Snapshot(it, str(path), what, self._hdf5))
        copies = weights.copy_of(self._net, with_diff=self._settings.param.snapshot_diff)
        kept = state.State(
            it,
            str(paths.model),
            self._rate.steps_done(it),
            [array.plain().copy() for array in self._updater.history()],
        )
        position = self._position(it)

        def write() -> None:
            paths.model.parent.mkdir(parents=True, exist_ok=True)
            paths.manifest.unlink(missing_ok=True)  # of an earlier run: it would vouch for the old files
            if self._hdf5:
                hdf5.write(paths.model, weights.hdf5_of(copies))
            else:
                write_binary(paths.model, weights.message_of(self._net.name, copies))
            state.write(paths.state, kept, as_hdf5=self._hdf5)
            manifest.write(paths.manifest, position(paths))

        self._writing = it, begin, self._writer.submit(write)

    def _position(self, it: int) -> Callable[[SnapshotPaths], Manifest]:
        """Where the run is now, as a manifest that wants the digests of the files."""
        train, test = stream_of(self._net), [stream_of(net) for net in self._test_nets]
        scale = self._scaled.state()

        def describe(paths: SnapshotPaths) -> Manifest:
            return Manifest(
                format=manifest.FORMAT,
                version=__version__,
                iteration=it,
                solver_type=self._settings.param.type,
                world_size=self._comm.size,
                seed=self._net.scope.seed,
                train=train,
                test=test,
                loss_scale=None if scale is None else list(scale),
                digests={path.name: digest_of(path) for path in (paths.model, paths.state)},
            )

        return describe

    def check_replicas(self, name: str) -> None:
        """Raise on every rank where weights or history differ between ranks. Collective."""
        if self._comm.size > 1:
            check_equal(self._comm, name, [self._net.params.native_data(), *self._updater.flat()])

    def poll(self) -> None:
        """Tell of a write that has ended."""
        if self._writing is not None and self._writing[2].done():
            self.wait()

    def wait(self) -> None:
        """Return when no write is under way."""
        if self._writing is None:
            return
        it, begin, future = self._writing
        self._writing = None
        try:
            future.result()
        except (OSError, DtrainError) as error:
            text = f"the snapshot of iteration {it} must be written whole, got {error}"
            self._failed.append(text)
            logger.warning("%s; training goes on", text)
        else:
            self._reporter.snapshot_done(it, time.perf_counter() - begin)

    def close(self) -> None:
        """Wait for the last write; raises SnapshotError on every rank if any failed. Collective."""
        self.wait()
        failed, self._failed = self._failed, []
        agree(self._comm, SnapshotError("; ".join(failed)) if failed else None, one_acts=True)

    # -- restoring

    def restore(self, path: Path) -> int:
        """Go on from a solver state, ours or Caffe's; returns its iteration. Collective."""
        found: tuple[int, Manifest | None] | None = None
        error: DtrainError | None = None
        if self._comm.rank == FILE_RANK:
            try:
                found = self._read(path)
            except DtrainError as fault:
                error = fault
        agree(self._comm, error, one_acts=True)
        found = self._comm.allgather_object(found)[FILE_RANK]
        assert found is not None, "the rank that reads has found a snapshot or has failed"
        it, position = found
        self.share_weights()
        for flat in self._updater.flat():
            self._comm.broadcast(flat, FILE_RANK)
        self.check_replicas(f"{path}: weights and history")
        self._seek(it, position)
        self.newest_iter = it
        return it

    def load_weights(self, path: str | Path) -> None:
        """Copy weights from a caffemodel on one rank and give them to all. Collective."""
        error: DtrainError | None = None
        if self._comm.rank == FILE_RANK:
            try:
                weights.load(self._net, path)
            except DtrainError as fault:
                error = fault
        agree(self._comm, error, one_acts=True)
        self.share_weights()

    def share_weights(self) -> None:
        """Give the weights of one rank to all. Collective."""
        self._comm.broadcast(self._net.params.native_data(), FILE_RANK)
        for param in self._net.params.owned:
            param.blob.data.push()

    def _read(self, path: Path) -> tuple[int, Manifest | None]:
        beside = manifest.manifest_of(path)
        position = manifest.read(beside) if beside.exists() else None
        if position is not None:
            if fault := manifest.fault_of(beside, position):
                raise SnapshotError(f"{path}: the snapshot must be whole, got this: {fault}")
            if position.solver_type != self._settings.param.type:
                raise SnapshotError(
                    f"{path}: solver type must be {self._settings.param.type} as in "
                    f"{self._settings.where('type')}, got a snapshot of {position.solver_type}; "
                    f"start from its weights alone to change the type"
                )
        history = self._updater.history()
        stored = state.read(path, [array.shape for array in history])
        expected = self._rate.steps_done(stored.iteration)
        if stored.current_step != expected:
            logger.warning(
                "%s: current_step is %d there, and %d by the solver's policy at iteration %d, which holds",
                path,
                stored.current_step,
                expected,
                stored.iteration,
            )
        if stored.learned_net:
            moved = path.with_name(Path(stored.learned_net).name)
            weights.load(self._net, moved if moved.exists() else stored.learned_net)
        state.restore_history(history, stored)
        return stored.iteration, position

    def _seek(self, it: int, position: Manifest | None) -> None:
        """Take up the data and the random numbers where the snapshot left them."""
        if position is None:
            passes = it * self._settings.param.iter_size
            samples = {s.name: passes * s.batch_size * self._comm.size for s in sources_of(self._net)}
            logger.info(
                "Caffe's solver states hold no place in the data: taken as that after %d passes", passes
            )
            seek(self._net, Stream(passes, samples))
            return
        for net, stream in zip(self._test_nets, position.test, strict=False):
            net.scope.seed = position.seed
            seek(net, stream)
        self._net.scope.seed = position.seed
        seek(self._net, position.train)
        if position.loss_scale is not None:
            scale, *counts = position.loss_scale
            self._scaled.restore(ScaleState(scale, *(int(count) for count in counts)))


def sources_of(net: Net) -> list[DataSource]:
    """The layers that read samples."""
    return [layer for layer in net.layers if isinstance(layer, DataSource)]


def stream_of(net: Net) -> Stream:
    """How far a net has come."""
    return Stream(net.scope.passes, {source.name: source.position() for source in sources_of(net)})


def seek(net: Net, stream: Stream) -> None:
    """Bring a net to where another was."""
    net.scope.passes = stream.passes
    for source in sources_of(net):
        if source.name in stream.samples:
            source.seek(stream.samples[source.name])


def prefix_of(settings: Settings) -> Path:
    """snapshot_prefix; files in a folder are named after the solver's own file, and without a prefix
    they lie beside that file.

    Source: UpgradeSnapshotPrefixProperty of BVLC Caffe 1.0.
    """
    own = Path(settings.source.file).with_suffix("") if settings.source is not None else Path(DEFAULT_PREFIX)
    given = settings.param.snapshot_prefix
    if not given:
        return own
    return Path(given) / own.name if given.endswith("/") or Path(given).is_dir() else Path(given)


def newest(prefix: str | Path) -> Path | None:
    """The solver state of the newest whole snapshot under a prefix; None if there is none.

    A snapshot that is not whole is passed over with a warning.
    """
    base = Path(prefix)
    pattern = re.compile(re.escape(base.name) + r"_iter_(\d+)" + re.escape(manifest.MANIFEST_SUFFIX))
    folder = base.parent
    files = folder.iterdir() if folder.is_dir() else ()
    found = [(int(match[1]), file) for file in files if (match := pattern.fullmatch(file.name))]
    for _, file in sorted(found, reverse=True):
        try:
            listed = manifest.read(file)
            fault = manifest.fault_of(file, listed)
        except SnapshotError as error:
            fault = str(error)
        if not fault:
            return next(file.with_name(name) for name in listed.digests if ".solverstate" in name)
        logger.warning("%s: this snapshot is not whole and is passed over: %s", file, fault)
    return None
