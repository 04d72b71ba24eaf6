"""`dtrain test`: score weights on the test nets of a solver, or on one net, with all ranks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer

from dtrain.cli import options as o
from dtrain.cli.app import app
from dtrain.cli.device import choose_backend
from dtrain.cli.inputs import (
    AUTO,
    check_iterations,
    model_of,
    newest_snapshot,
    phase_of,
    read_model,
    read_settings,
)
from dtrain.cli.job import Job, Telling, agreed, open_job
from dtrain.cli.scoring import Result, score
from dtrain.errors import ConfigError, SnapshotError, WeightsError
from dtrain.kernels.backend import Backend
from dtrain.layers.data_source import DataSource
from dtrain.layers.layer import Scope
from dtrain.metrics.log import number
from dtrain.metrics.progress import Show
from dtrain.metrics.reporter import Output
from dtrain.net import Net
from dtrain.plan import Plan
from dtrain.proto import dtrain_pb2 as pb
from dtrain.solvers import weights as stored
from dtrain.solvers.nets import NetSpec, test_specs
from dtrain.solvers.settings import Settings
from dtrain.solvers.snapshots import prefix_of

logger = logging.getLogger(__name__)

UNTOUCHED: Final = np.finfo(np.float32).max  # no weight that a net computes anything with

EPILOG = """\b
Examples:
  dtrain test configs/lenet/solver.prototxt --snapshot auto          the newest snapshot, test_iter batches
  mpirun -n 2 dtrain test SOLVER --weights FILE.caffemodel           the same score, in half the time
  dtrain test -model NET -weights FILE.caffemodel -iterations 100    as caffe: a net, and every batch
"""

Snapshot = Annotated[
    str,
    typer.Option(
        "--snapshot",
        metavar="FILE",
        help="Take the weights of this .solverstate; auto is the solver's newest whole one.",
        show_default=False,
    ),
]


@app.command(epilog=EPILOG, short_help="Score weights or a snapshot.")
def test(
    solver: o.SolverFile = "",
    solver_flag: o.SolverFlag = "",
    model: o.Model = "",
    weights: o.Weights = "",
    snapshot: Snapshot = "",
    iterations: o.Iterations = 50,
    gpu: o.Gpu = None,
    cpu: o.Cpu = False,
    threads: o.Threads = None,
    engine: o.Engine = "DEFAULT",
    precision: o.Precision = "",
    level: o.Level = 0,
    stage: o.Stage = "",
) -> None:
    """Score weights. Under mpirun the ranks share the batches; the score does not depend on how many."""
    with open_job(Telling(show=Show.OFF)) as job:
        settings: Settings | None = None
        with agreed(job.comm):
            check_choices(solver or solver_flag, model, weights, snapshot)
            if model:
                check_iterations(iterations)
                specs = [read_model(model, phase_of("TEST"), level, o.split(stage))]
                batches = [iterations]
            else:
                settings = read_settings(solver, solver_flag, level, o.split(stage))
                specs = specs_of(settings)
                batches = list(settings.param.test_iter)
            backend = choose_backend(
                settings, job.comm, gpu=gpu, cpu=cpu, threads=threads, engine=engine, precision=precision
            )
        files = o.split(weights) or [str(weights_of(snapshot, settings, job))]
        for number_of_net, (spec, test_iter) in enumerate(zip(specs, batches, strict=True)):
            with agreed(job.comm):
                net = build(spec, backend, job, test_iter)
                load_all(net, files)
            if settings is not None:
                logger.info("Testing net (#%d)", number_of_net)
            tell_share(net, test_iter)
            logger.info("Running for %d iterations.", test_iter)
            told_batch = tell_batch if model else tell_nothing
            tell_result(score(net, test_iter, job.comm, told_batch))


def check_choices(solver: str, model: str, weights: str, snapshot: str) -> None:
    """Raise unless exactly one kind of net and one kind of weights are named."""
    if bool(solver) == bool(model):
        got = "both" if model else "none"
        raise ConfigError(f"command line: either a SOLVER or -model NET must be given, got {got}")
    if bool(weights) == bool(snapshot):
        got = "both" if weights else "none"
        raise ConfigError(f"command line: either -weights or -snapshot must be given, got {got}")
    if snapshot == AUTO and model:
        raise ConfigError("command line: -snapshot auto must come with a SOLVER, got -model")


def specs_of(settings: Settings) -> list[NetSpec]:
    """The solver's test nets, at least one."""
    specs = test_specs(settings)
    if not specs:
        raise settings.bad("test_iter", "given to test the solver's nets", "none", "dtrain test -model NET")
    return specs


def weights_of(snapshot: str, settings: Settings | None, job: Job) -> Path:
    """The weights file of the snapshot that the command line names. Collective."""
    state: Path | None = Path(snapshot)
    if snapshot == AUTO and settings is not None:
        state = newest_snapshot(settings, job.comm)
    with agreed(job.comm):
        if state is None:
            assert settings is not None, "auto comes with a solver"
            raise SnapshotError(
                f"{prefix_of(settings)}: a whole snapshot must be there, got none; train first"
            )
        return model_of(state)


def build(spec: NetSpec, backend: Backend, job: Job, test_iter: int) -> Net:
    """The test net by itself."""
    scope = Scope(
        backend,
        pb.TEST,
        rank=job.comm.rank,
        size=job.comm.size,
        test_iter=test_iter,
        rng=np.random.default_rng(0),  # whatever a weights file does not hold is the same on every rank
    )
    return Net(spec.param, scope, plan=Plan(), source=spec.source)


def load_all(net: Net, files: Sequence[str]) -> None:
    """Load the weights of every layer: a score of weights that no file holds would mean nothing."""
    for layer in net.layers:
        for blob in layer.blobs:
            blob.data.plain_overwrite().fill(UNTOUCHED)
    for file in files:
        stored.load(net, file)
    lacking = [
        layer.name
        for layer in net.layers
        if any(blob.count and (blob.data.plain() == UNTOUCHED).all() for blob in layer.blobs)
    ]
    if lacking:
        raise WeightsError(
            f"{', '.join(files)}: weights of all layers of the net must be there, got none for "
            f"{', '.join(lacking)}"
        )


def tell_share(net: Net, batches: int) -> None:
    """One line for each source: how much of it is scored."""
    for layer in net.layers:
        if isinstance(layer, DataSource) and layer.source_name:
            logger.info(
                "%s: %d batches of %d = %d images, %s %s",
                layer.name,
                batches,
                layer.batch_size,
                batches * layer.batch_size,
                f"of {layer.num_records} in" if layer.num_records else "drawn at random from",
                layer.source_name,
            )


def tell_batch(batch: int, outputs: Sequence[Output]) -> None:
    for name, value, _ in outputs:
        logger.info("Batch %d, %s = %s", batch, name, number(value))


def tell_nothing(batch: int, outputs: Sequence[Output]) -> None:
    """A solver's nets tell their means alone."""


def tell_result(result: Result) -> None:
    """As Caffe, with the exact counts behind an accuracy."""
    logger.info("Loss: %s", number(result.loss))
    for place, (name, value, weight) in enumerate(result.outputs):
        more = f" (* {number(weight)} = {number(weight * value)} loss)" if weight else ""
        if place in result.counts:
            correct, counted = result.counts[place]
            more = f" ({correct} of {counted})"
        logger.info("%s = %s%s", name, number(value), more)
