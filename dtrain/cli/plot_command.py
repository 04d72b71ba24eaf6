"""`dtrain plot LOG...`: the curves of training logs as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dtrain.cli.app import app
from dtrain.cli.report.caffe_log import TrainingLog, read_log
from dtrain.cli.report.charts import draw
from dtrain.errors import ConfigError

AGAINST = ("iteration", "seconds")

Logs = Annotated[
    list[Path], typer.Argument(metavar="LOG...", help="Logs of dtrain or of caffe.", show_default=False)
]
Out = Annotated[
    Path, typer.Option("-o", "--out", metavar="FILE", help="A .png, .svg or .pdf file.", show_default=False)
]
Against = Annotated[
    str, typer.Option("--against", "-x", metavar="WHAT", help="The x axis: iteration or seconds.")
]
Title = Annotated[str, typer.Option("--title", metavar="TEXT", help="Above the panels.")]
LogLoss = Annotated[bool, typer.Option("--log-loss", help="A logarithmic axis for losses.")]

EPILOG = """\b
Examples:
  dtrain train SOLVER 2>&1 | tee run.log
  dtrain plot run.log -o run.png
  dtrain plot sgd.log adam.log -x seconds -o compared.svg
"""


@app.command(epilog=EPILOG, short_help="Draw the curves of logs.")
def plot(
    logs: Logs,
    out: Out,
    against: Against = "iteration",
    title: Title = "",
    log_loss: LogLoss = False,
) -> None:
    """Draw loss, accuracy and learning rate against iteration or seconds, of one or many logs."""
    if against not in AGAINST:
        raise ConfigError(f"--against must be one of {', '.join(AGAINST)}, got {against}")
    draw(named(logs), out, against=against, title=title, log_loss=log_loss)
    typer.echo(f"{out}: written")


def named(paths: list[Path]) -> dict[str, TrainingLog]:
    """The logs by file name, or by path where two files have one name."""
    stems = [path.stem for path in paths]
    names = [path.stem if stems.count(path.stem) == 1 else str(path) for path in paths]
    return {name: read_log(path) for name, path in zip(names, paths, strict=True)}
