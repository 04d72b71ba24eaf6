"""The command line's root, which every command's module adds itself to."""

from __future__ import annotations

from typing import Annotated, Final

import typer

import dtrain

EPILOG: Final = """\b
Examples:
  dtrain convert digits data/digits                      a data set to begin with
  mpirun -n 2 dtrain configs/digits/solver.prototxt      train on two processes
  dtrain train --snapshot auto SOLVER                    go on where a run was stopped
  dtrain test SOLVER --snapshot auto                     score the newest snapshot
  dtrain time --model NET --iterations 20                where the time goes, by layer

Calls of caffe work with dtrain in its place, one dash or two: dtrain train -solver=SOLVER -gpu all
"""

app = typer.Typer(
    name="dtrain",
    help="Train Caffe-style nets in one process or in many: mpirun -n 8 dtrain SOLVER",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dtrain {dtrain.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Options before any command."""
