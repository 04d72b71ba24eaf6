"""Is there a terminal where this process's stderr ends up, and how wide is it?

Under mpirun a rank writes into a pipe that the launcher copies to its own stderr. So the ranks' pipes hide
a terminal that a person looks at; on Linux the launcher's stderr can be looked up.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, TextIO

LAUNCHERS = frozenset(
    ("mpirun", "mpiexec", "mpiexec.hydra", "hydra_pmi_proxy", "orterun", "orted", "prterun", "prted", "prte")
)


class Process(NamedTuple):
    """One line of the process table; `stderr` is "" where it cannot be read."""

    name: str
    parent: int
    stderr: str


def process(pid: int) -> Process | None:
    """The process of that id, or None: not Linux, or gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # pid (name) state parent ...; the name may hold spaces and brackets
    name, after = stat[stat.index("(") + 1 :].rsplit(")", 1)
    try:
        stderr = os.readlink(f"/proc/{pid}/fd/2")
    except OSError:
        stderr = ""
    return Process(name, int(after.split()[1]), stderr)


def terminal_width(stream: TextIO) -> int | None:
    """Columns of the terminal that shows `stream`, or None where none does."""
    if stream.isatty():
        return _columns(os.ttyname(stream.fileno()))
    pid = os.getppid()
    while (ancestor := process(pid)) is not None and ancestor.name in LAUNCHERS:
        if ancestor.stderr.startswith(("/dev/pts/", "/dev/tty")):
            return _columns(ancestor.stderr)
        pid = ancestor.parent
    return None


def _columns(device: str) -> int | None:
    try:
        # O_NOCTTY: looking must not make it this process's controlling terminal
        descriptor = os.open(device, os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return None
    try:
        # a terminal that was never told its size says 0
        return os.get_terminal_size(descriptor).columns or 80
    except OSError:
        return None
    finally:
        os.close(descriptor)
