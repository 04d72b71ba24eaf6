"""`dtrain train SOLVER`: train a net on all ranks, from scratch, from weights or from a snapshot."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from dtrain.cli import options as o
from dtrain.cli.device import choose_backend
from dtrain.cli.job import Job, Telling, agreed, open_job
from dtrain.cli.main import app
from dtrain.comm.communicator import Communicator
from dtrain.comm.launcher import describe
from dtrain.errors import ConfigError
from dtrain.kernels.backend import Backend
from dtrain.layers.record_layer import RecordLayer
from dtrain.metrics.progress import Show
from dtrain.net import Net
from dtrain.plan import Plan
from dtrain.proto.files import read_solver
from dtrain.solvers.loop import Solver
from dtrain.solvers.nets import build_test_nets, build_train_net, seed_of
from dtrain.solvers.settings import Settings
from dtrain.solvers.signals import Signals, effect_of
from dtrain.solvers.snapshots import newest

logger = logging.getLogger(__name__)

Snapshot = Annotated[
    str,
    typer.Option(
        "--snapshot",
        "-snapshot",
        help="Go on from this .solverstate; auto takes the newest whole one, or starts anew.",
        show_default=False,
    ),
]
SigintEffect = Annotated[
    str, typer.Option("--sigint-effect", "-sigint_effect", help="On Ctrl-C: stop, snapshot or none.")
]
SighupEffect = Annotated[
    str, typer.Option("--sighup-effect", "-sighup_effect", help="On SIGHUP: stop, snapshot or none.")
]


@app.command()
def train(
    solver: o.Solver = "",
    solver_flag: o.SolverFlag = "",
    snapshot: Snapshot = "",
    weights: o.Weights = "",
    gpu: o.Gpu = None,
    cpu: o.Cpu = False,
    threads: o.Threads = None,
    engine: o.Engine = "DEFAULT",
    plan: o.PlanSwitch = "auto",
    level: o.Level = 0,
    stage: o.Stage = "",
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
            signals = Signals(
                effect_of(sigint_effect, "-sigint_effect"), effect_of(sighup_effect, "-sighup_effect")
            )
            backend = choose_backend(settings, job.comm, gpu=gpu, cpu=cpu, threads=threads, engine=engine)
        trainer = build_solver(settings, backend, job, signals, plan)
        trainer.solve(resume_path(snapshot, settings, job.comm))


def read_settings(argument: str, flag: str, level: int, stages: list[str]) -> Settings:
    """The solver file that the command line names once."""
    if bool(argument) == bool(flag):
        got = "both" if flag else "none"
        raise ConfigError(f"command line: the solver's prototxt must be given once, got {got}; dtrain SOLVER")
    param, source = read_solver(Path(argument or flag))
    settings = Settings(param, source)
    if level:
        param.train_state.level = level
    param.train_state.stage.extend(stages)
    if not param.snapshot_prefix:
        param.snapshot_prefix = str(Path(argument or flag).with_suffix(""))
    elif Path(param.snapshot_prefix).is_dir():
        param.snapshot_prefix = str(Path(param.snapshot_prefix) / Path(argument or flag).stem)
    return settings


def build_solver(settings: Settings, backend: Backend, job: Job, signals: Signals, plan: str) -> Solver:
    """The solver with its nets; collective."""
    comm = job.comm
    planner = planner_of(plan, comm)
    for line in describe(comm):
        logger.info("%s", line)
    seed = seed_of(settings, comm)
    train_net = build_train_net(settings, backend, comm, seed, planner)
    test_nets = build_test_nets(settings, backend, comm, seed, train_net, planner)
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
    formats = {"auto": "auto", "blocked": "blocked", "channels_last": "channels_last"}
    if switch not in formats:
        raise ConfigError(f"--plan must be one of {', '.join((*formats, 'off'))}, got {switch}")

    def first_of(choice: str) -> str:
        return str(comm.allgather_object(choice)[0])

    return Plan(memory_format=formats[switch], agree=first_of)


def tell_scale(settings: Settings, net: Net, comm: Communicator) -> None:
    """One line for each source: what a batch means, and how many epochs the run is."""
    iter_size, max_iter = settings.param.iter_size, settings.param.max_iter
    for layer in net.layers:
        if isinstance(layer, RecordLayer):
            whole = layer.batch_size * iter_size * comm.size
            records = len(layer.reader)
            logger.info(
                "%s: batch %d x iter_size %d x %d ranks = %d images an iteration; %d images in %s = %.1f "
                "iterations an epoch; max_iter %d = %.1f epochs",
                layer.name,
                layer.batch_size,
                iter_size,
                comm.size,
                whole,
                records,
                layer.reader.name,
                records / whole,
                max_iter,
                max_iter * whole / records,
            )


def resume_path(snapshot: str, settings: Settings, comm: Communicator) -> Path | None:
    """The snapshot to go on from; `auto` is the newest whole one that rank 0 sees, or none."""
    if not snapshot:
        return None
    if snapshot != "auto":
        return Path(snapshot)
    found = newest(Path(settings.param.snapshot_prefix)) if comm.rank == 0 else None
    chosen = comm.allgather_object(None if found is None else str(found))[0]
    if chosen is None:
        logger.info("no whole snapshot of %s yet: starting anew", settings.param.snapshot_prefix)
        return None
    logger.info("going on from %s", chosen)
    return Path(chosen)
