"""`dtrain time`: how long each layer takes, and the other parts of an iteration."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from dtrain.cli import options as o
from dtrain.cli.app import app
from dtrain.cli.device import choose_backend
from dtrain.cli.group import on_device
from dtrain.cli.inputs import check_iterations, phase_of, read_model, read_settings
from dtrain.cli.job import Job, Telling, agreed, meeting, open_job
from dtrain.cli.timing import Timing, measure, table, totals
from dtrain.cli.train_command import check_rule, planner_of
from dtrain.errors import ConfigError
from dtrain.kernels.backend import Backend
from dtrain.layers.layer import Scope
from dtrain.metrics.progress import Show
from dtrain.net import Net
from dtrain.plan import Plan
from dtrain.solvers.gradients import Gradients
from dtrain.solvers.lr_policy import LearningRate
from dtrain.solvers.nets import build_train_net, seed_of
from dtrain.solvers.rules import rule_of
from dtrain.solvers.settings import Settings
from dtrain.solvers.update import Updater

EPILOG = """\b
Examples:
  dtrain time --model configs/caffenet/train_val.prototxt --iterations 10
  dtrain time -model=NET -phase=TEST                          the net as it is tested
  mpirun -n 2 dtrain time configs/lenet/solver.prototxt       with allreduce and update

A layer's times are medians over the iterations, the averages below are means, as those of caffe time.
"""

Phase = Annotated[str, typer.Option("--phase", metavar="PHASE", help="Build the net for TRAIN or TEST.")]


@app.command(epilog=EPILOG, short_help="Time every layer of a net.")
def time(
    solver: o.SolverFile = "",
    solver_flag: o.SolverFlag = "",
    model: o.Model = "",
    phase: Phase = "TRAIN",
    iterations: o.Iterations = 50,
    gpu: o.Gpu = None,
    cpu: o.Cpu = False,
    threads: o.Threads = None,
    engine: o.Engine = "DEFAULT",
    precision: o.Precision = "",
    autotune: o.Autotune = False,
    plan: o.PlanSwitch = "auto",
    level: o.Level = 0,
    stage: o.Stage = "",
) -> None:
    """Time every layer, forward and backward: of a net, or of a solver's training with its update."""
    with open_job(Telling(show=Show.OFF)) as job:
        settings: Settings | None = None
        with agreed(job.comm):
            check_iterations(iterations)
            named = solver or solver_flag
            if bool(named) == bool(model):
                got = "both" if model else "none"
                raise ConfigError(f"command line: either a SOLVER or -model NET must be given, got {got}")
            planner = planner_of(plan, job.comm)
            built_for = phase_of(phase)
            if named:
                settings = read_settings(solver, solver_flag, level, o.split(stage))
                check_rule(settings)
                if built_for != phase_of("TRAIN"):
                    raise ConfigError(
                        f"--phase must be TRAIN for a SOLVER, got {phase}; name its net by -model"
                    )
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
        if settings is not None:
            with on_device(job, backend) as joined:
                net, timing = time_training(settings, backend, joined, planner, iterations)
        else:
            with agreed(job.comm):
                spec = read_model(model, built_for, level, o.split(stage))
                scope = Scope(
                    backend,
                    built_for,
                    rank=job.comm.rank,
                    size=job.comm.size,
                    rng=np.random.default_rng(0),
                )
                net = Net(spec.param, scope, plan=meeting(job.comm, planner), source=spec.source)
            timing = measure(net, iterations)
        if job.comm.rank == 0:
            typer.echo("\n".join([*table(net, timing), "", *totals(timing)]))


def time_training(
    settings: Settings, backend: Backend, job: Job, planner: Plan | None, iterations: int
) -> tuple[Net, Timing]:
    """The training net with allreduce and update around it. Collective."""
    comm = job.comm
    seed = seed_of(settings, comm)
    with agreed(comm):
        net = build_train_net(settings, backend, comm, seed, meeting(comm, planner))
    gradients = Gradients(net, comm)
    updater = Updater(settings, backend, net.params, rule_of(settings))
    lr = LearningRate(settings).at(0)
    return net, measure(
        net,
        iterations,
        begin_backward=gradients.begin_last_pass,
        reduce=gradients.finish,
        update=lambda: updater.step(0, lr, comm.size),
    )
