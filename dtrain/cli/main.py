"""`dtrain COMMAND ...`: finds the command, and tells errors as one line.

`dtrain solver.prototxt` is short for `dtrain train solver.prototxt`. Options may be spelled with one dash
and underscores, as Caffe's are.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import click
import typer

import dtrain
from dtrain.errors import DtrainError

app = typer.Typer(
    name="dtrain",
    help="Train Caffe-style nets on one process or on many: mpirun -n 8 dtrain solver.prototxt",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help", "-help"], "max_content_width": 100},
)

COMMANDS = ("train", "test", "time", "convert")
RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dtrain {dtrain.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-version", help="Print the version.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options before any command."""


def with_command(arguments: Sequence[str]) -> list[str]:
    """The arguments with `train` put before a solver file or an option of training."""
    first = arguments[0] if arguments else ""
    is_global = first in ("", "-h", "--help", "-help", "--version", "-version")
    return list(arguments) if is_global or first in COMMANDS else ["train", *arguments]


def speaks() -> bool:
    """Whether this process tells what strikes all ranks alike, before there is a communicator."""
    given = [os.environ[name] for name in RANK_VARIABLES if name in os.environ]
    return not given or given[0] == "0"


def run(arguments: Sequence[str]) -> int:
    """Run a command line; the exit status."""
    words = with_command(arguments)
    for name in COMMANDS:
        if words and (words[0] == name or words[0] not in COMMANDS):
            importlib.import_module(f"dtrain.cli.{name}_command")
    try:
        status = app(words, standalone_mode=False)
    except click.ClickException as error:
        if speaks():
            error.show()
        return error.exit_code
    except click.exceptions.Abort:
        return 130
    except KeyboardInterrupt:
        sys.stderr.write("dtrain: interrupted\n")
        return 130
    except DtrainError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return int(status or 0)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
