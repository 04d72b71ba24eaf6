"""`dtrain train SOLVER`: train a net on all ranks, from scratch, from weights or from a snapshot."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Annotated

import typer

from dtrain.cli import options as o
from dtrain.cli.app import app
from dtrain.cli.device import choose_backend
from dtrain.cli.group import on_device
from dtrain.cli.inputs import AUTO, newest_snapshot, read_settings
from dtrain.cli.job import Job, Telling, agreed, meeting, open_job
from dtrain.comm.communicator import Communicator
from dtrain.comm.launcher import describe
from dtrain.errors import ConfigError, unknown_name
from dtrain.kernels.backend import Backend
from dtrain.layers.data_source import DataSource
from dtrain.metrics.progress import Show
from dtrain.net import Net
from dtrain.plan import MEMORY_FORMATS, Plan
from dtrain.solvers.loop import Solver
from dtrain.solvers.lr_policy import LearningRate
from dtrain.solvers.nets import build_test_nets, build_train_net, seed_of
from dtrain.solvers.rules import rule_of
from dtrain.solvers.settings import Settings, check
from dtrain.solvers.signals import Signals, effect_of
from dtrain.solvers.skipped_records import SkippedRecords
from dtrain.solvers.snapshots import prefix_of

logger = logging.getLogger(__name__)

Snapshot = Annotated[
    str,
    typer.Option(
        "--snapshot",
        metavar="FILE",
        help="Go on from this .solverstate; auto takes the newest whole one, or starts anew.",
        show_default=False,
    ),
]
SigintEffect = Annotated[
    str, typer.Option("--sigint-effect", metavar="EFFECT", help="On Ctrl-C: stop, snapshot or none.")
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="N",
        min=0,
        help="Of weights, shuffling and random crops; default: the solver's random_seed.",
        show_default=False,
    ),
]
BadRecords = Annotated[
    str,
    typer.Option(
        "--bad-records",
        metavar="stop|skip:N",
        help="At a bad record stop, or take the next in its place, up to N different ones of each source in "
        "the whole job.",
    ),
]
SighupEffect = Annotated[
    str, typer.Option("--sighup-effect", metavar="EFFECT", help="On SIGHUP: stop, snapshot or none.")
]

EPILOG = """\b
Examples:
  dtrain configs/lenet/solver.prototxt                       one process
  mpirun -n 2 dtrain configs/lenet/solver.prototxt           two, each with its share of the data
  mpirun -n 2 dtrain train --snapshot auto SOLVER            from the newest snapshot on
  dtrain train SOLVER --weights bvlc_reference_caffenet.caffemodel
  dtrain train -solver=SOLVER -sighup_effect=stop            as caffe spells it

Ctrl-C stops after the present iteration and takes a snapshot, a second Ctrl-C ends at once. SIGTERM takes a
snapshot and stops, SIGHUP takes a snapshot and goes on.
"""


@app.command(epilog=EPILOG)
def train(
    solver: o.SolverFile = "",
    solver_flag: o.SolverFlag = "",
    snapshot: Snapshot = "",
    weights: o.Weights = "",
    gpu: o.Gpu = None,
    cpu: o.Cpu = False,
    threads: o.Threads = None,
    engine: o.Engine = "DEFAULT",
    precision: o.Precision = "",
    autotune: o.Autotune = False,
    plan: o.PlanSwitch = "auto",
    comm: o.Comm = "auto",
    compress: o.Compress = "none",
    level: o.Level = 0,
    stage: o.Stage = "",
    seed: Seed = None,
    bad_records: BadRecords = "stop",
    sigint_effect: SigintEffect = "stop",
    sighup_effect: SighupEffect = "snapshot",
    progress: o.Progress = Show.AUTO,
    log_json: o.LogJson = None,
    metrics_port: o.MetricsPort = None,
    metrics_host: o.MetricsHost = "127.0.0.1",
    metrics_textfile: o.MetricsTextfile = None,
) -> None:
    """Train a net. Under mpirun every rank trains on its share of the data."""
    telling = Telling(
        show=progress,
        log_json=log_json,
        metrics_port=metrics_port,
        metrics_host=metrics_host,
        metrics_textfile=metrics_textfile,
    )
    with open_job(telling) as job:
        with agreed(job.comm):
            settings = read_settings(solver, solver_flag, level, o.split(stage))
            if snapshot and weights:
                raise ConfigError(
                    "command line: at most one of -snapshot and -weights must be given, got both"
                )
            settings.param.weights.extend(o.split(weights))
            check_rule(settings)
            if seed is not None:
                settings.param.random_seed = seed
            skips = records_to_skip(bad_records)
            signals = Signals(
                effect_of(sigint_effect, "-sigint_effect"), effect_of(sighup_effect, "-sighup_effect")
            )
            planner = planner_of(plan, job.comm)
            backend = choose_backend(
                settings,
                job.comm,
                gpu=gpu,
                cpu=cpu,
                threads=threads,
                engine=engine,
                precision=precision,
                autotune=autotune,
            )
        with on_device(job, backend, comm, compress) as joined:
            trainer = build_solver(settings, backend, joined, signals, planner, skips)
            skipped = SkippedRecords([trainer.net, *trainer.test_nets], job.comm, job.recorder)
            if skipped.limit:
                trainer.on_gradients_ready.append(skipped.check)
            trainer.solve(resume_path(snapshot, settings, job.comm))
            skipped.tell()


def check_rule(settings: Settings) -> None:
    """Raise what a solver would for its settings, before any net is built."""
    check(settings, len(settings.param.test_iter))
    LearningRate(settings)
    rule_of(settings)


def records_to_skip(text: str) -> int:
    """How many bad records `--bad-records` lets a source replace."""
    match = re.fullmatch(r"skip:(\d+)", text)
    if match is None and text != "stop":
        raise ConfigError(f"--bad-records must be stop or skip:N, such as skip:100, got {text}")
    return 0 if match is None else int(match[1])


def build_solver(
    settings: Settings, backend: Backend, job: Job, signals: Signals, planner: Plan | None, skips: int = 0
) -> Solver:
    """The solver with its nets. Collective."""
    comm = job.comm
    for line in describe(comm):
        logger.info("%s", line)
    seed = seed_of(settings, comm)
    with agreed(comm):
        planned = meeting(comm, planner)
        train_net = build_train_net(settings, backend, comm, seed, planned, bad_records=skips)
    with agreed(comm):
        test_nets = build_test_nets(settings, backend, comm, seed, train_net, planner, bad_records=skips)
    tell_scale(settings, train_net, comm)
    return Solver(
        settings.param,
        train_net,
        test_nets,
        comm,
        reporter=job.reporter,
        recorder=job.recorder,
        signals=signals,
        source=settings.source,
    )


def planner_of(switch: str, comm: Communicator) -> Plan | None:
    """The plan that --plan asks for; every rank takes the memory format that rank 0 found fastest."""
    if switch == "off":
        return None
    formats = ("auto", *MEMORY_FORMATS)
    if switch not in formats:
        raise ConfigError(f"--plan: {unknown_name('plan', switch, (*formats, 'off'))}")

    def first_of(choice: str) -> str:
        return str(comm.allgather_object(choice)[0])

    return Plan(memory_format=switch, agree=first_of)


def tell_scale(settings: Settings, net: Net, comm: Communicator) -> None:
    """One line for each source: what a batch means, and how many epochs the run is."""
    iter_size, max_iter = settings.param.iter_size, settings.param.max_iter
    for layer in net.layers:
        if isinstance(layer, DataSource) and layer.source_name:
            whole = layer.batch_size * iter_size * comm.size
            logger.info(
                "%s: batch %d x iter_size %d x %d ranks = %d images an iteration; %s",
                layer.name,
                layer.batch_size,
                iter_size,
                comm.size,
                whole,
                epochs_of(layer, whole, max_iter),
            )


def epochs_of(layer: DataSource, whole: int, max_iter: int) -> str:
    """How much of its source a layer serves in the run, at so many images an iteration."""
    records = layer.num_records
    if not records:
        return f"drawn at random from {layer.source_name}; max_iter {max_iter} = {max_iter * whole} images"
    return (
        f"{records} images in {layer.source_name} = {records / whole:.1f} iterations an epoch; "
        f"max_iter {max_iter} = {max_iter * whole / records:.1f} epochs"
    )


def resume_path(snapshot: str, settings: Settings, comm: Communicator) -> Path | None:
    """The snapshot to go on from; `auto` is the newest whole one, or none. Collective."""
    if snapshot != AUTO:
        return Path(snapshot) if snapshot else None
    found = newest_snapshot(settings, comm)
    if found is None:
        logger.info("no whole snapshot of %s yet: starting anew", prefix_of(settings))
    return found
