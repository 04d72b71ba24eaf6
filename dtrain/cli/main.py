"""`dtrain COMMAND ...`: finds the command, and tells errors as one line.

A command exists because its file does: `dtrain time` is in time_command.py.
`dtrain solver.prototxt` is short for `dtrain train solver.prototxt`. Options may be spelled as Caffe's are:
with one dash, with underscores, and yes-or-no options with =true or =false.
"""

from __future__ import annotations

import faulthandler
import functools
import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Sequence
from typing import Any, Final

import typer

import dtrain.cli
from dtrain.cli.app import app
from dtrain.errors import DtrainError

HELP: Final = ("", "-h", "--help")
GLOBAL: Final = (*HELP, "--version")
SUFFIX: Final = "_command"
SWITCHES: Final = ("gray", "shuffle", "encoded", "check-size")  # what gflags lets a caller say yes or no to
RANK_VARIABLES: Final = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")
STDERR: Final = 2  # the descriptor, which outlives a closed or redirected sys.stderr
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count

_OPTION = re.compile(r"--?([A-Za-z][\w-]+)(=.*)?", re.DOTALL)
_TRUE, _FALSE = ("=true", "=t", "=1", "=yes", "=y"), ("=false", "=f", "=0", "=no", "=n")


def spelled(arguments: Sequence[str]) -> list[str]:
    """The arguments with every option as `--its-name`; a switch is there or not, as its value says.

    Source of the spellings: gflags, which reads the command lines of Caffe's tools.
    """
    words: list[str] = []
    for place, word in enumerate(arguments):
        if word == "--":
            return [*words, *arguments[place:]]
        option = _OPTION.fullmatch(word)
        if option is None:
            words.append(word)
            continue
        name, value = option[1].replace("_", "-"), option[2] or ""
        if name in SWITCHES and value.lower() in _TRUE:
            value = ""
        off = name in SWITCHES and value.lower() in _FALSE
        if not off and not (name.startswith("no") and name[2:] in SWITCHES and not value):
            words.append(f"--{name}{value}")
    return words


@functools.cache
def commands() -> tuple[str, ...]:
    """The names of all commands."""
    modules = [module.name for module in pkgutil.iter_modules(dtrain.cli.__path__)]
    return tuple(name.removesuffix(SUFFIX) for name in modules if name.endswith(SUFFIX))


def with_command(words: Sequence[str]) -> list[str]:
    """The words with `train` put before a solver file or an option of training."""
    first = words[0] if words else ""
    if first.replace("-", "_") in commands():
        return [first.replace("-", "_"), *words[1:]]
    return list(words) if first in GLOBAL else ["train", *words]


def speaks() -> bool:
    """Whether this process tells what strikes all ranks alike, before there is a communicator."""
    given = [os.environ[name] for name in RANK_VARIABLES if name in os.environ]
    return not given or given[0] == "0"


def tell(text: str) -> None:
    """One line of error from one rank."""
    if speaks():
        sys.stderr.write(f"error: {text}\n")


def usage_error() -> type[Exception]:
    """What typer raises for a wrong command line: click's own class, or that of typer's copy of click."""
    return next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def run(arguments: Sequence[str]) -> int:
    """Run a command line; the exit status."""
    words = with_command(spelled(arguments))
    named = words[0] if words else ""
    for name in commands():
        if name == named or named in HELP:
            importlib.import_module(f"dtrain.cli.{name}{SUFFIX}")
    try:
        status = app(words, standalone_mode=False)
    except usage_error() as error:
        return _wrong_usage(error, named)
    except (typer.Abort, KeyboardInterrupt):
        tell("interrupted")
        return INTERRUPTED
    except DtrainError as error:
        tell(str(error))
        return 1
    if status == INTERRUPTED:  # typer makes this of a KeyboardInterrupt, or the Abort above
        tell("interrupted")
    return int(status or 0)


def _wrong_usage(error: Any, command: str) -> int:
    if type(error).__name__ != "NoArgsIsHelpError":
        message = " ".join(error.format_message().split()).rstrip(".")
        tell(f"command line: {message}; see dtrain {command} --help".replace("  ", " "))
    elif speaks():
        sys.stderr.write(f"{error.format_message()}\n")
    return int(error.exit_code)


def main() -> None:
    """The console script."""
    # A data file that is cut while it is mapped, or a disk that fails under it, kills the process by SIGBUS.
    faulthandler.enable(STDERR)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
