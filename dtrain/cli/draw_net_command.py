"""`dtrain draw_net NET OUT`: the graph of a net as Graphviz text or as a picture."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Annotated, Final

import typer

from dtrain import graph
from dtrain.cli.app import app
from dtrain.cli.inputs import phase_of
from dtrain.cli.report.dot import DIRECTIONS, dot_of
from dtrain.errors import BackendError, ConfigError, DataError
from dtrain.proto.files import read_net
from dtrain.solvers.whole_file import replacing

TEXT: Final = (".dot", ".gv")
PICTURES: Final = (".png", ".svg", ".pdf")

NetFile = Annotated[str, typer.Argument(metavar="NET", help="The net's prototxt.", show_default=False)]
Out = Annotated[
    Path, typer.Argument(metavar="OUT", help="A .dot, .png, .svg or .pdf file.", show_default=False)
]
Rankdir = Annotated[str, typer.Option("--rankdir", metavar="DIR", help="LR, RL, TB or BT.")]
Phase = Annotated[str, typer.Option("--phase", metavar="PHASE", help="TRAIN, TEST or ALL.")]


@app.command(name="draw_net", short_help="Draw a net as a graph.")
def draw_net(net: NetFile, out: Out, rankdir: Rankdir = "LR", phase: Phase = "ALL") -> None:
    """Draw the layers of a net and the blobs between them. Pictures need the program dot of Graphviz."""
    if rankdir.upper() not in DIRECTIONS:
        raise ConfigError(f"--rankdir must be one of {', '.join(DIRECTIONS)}, got {rankdir}")
    if out.suffix.lower() not in (*TEXT, *PICTURES):
        raise ConfigError(f"command line: OUT must end in one of {', '.join((*TEXT, *PICTURES))}, got {out}")
    param, _ = read_net(net)
    layers = list(param.layer)
    if phase.upper() != "ALL":
        param.state.phase = phase_of(phase)  # type: ignore[assignment]
        layers, _ = graph.of_state(param, param.state)
    text = dot_of(param, layers, rankdir.upper())
    try:
        with replacing(out) as beside:
            if out.suffix.lower() in TEXT:
                beside.write_text(text, encoding="utf-8")
            else:
                picture(text, beside, out)
    except OSError as error:
        raise DataError(f"{out}: must be writable, got {error.strerror or error}") from error
    typer.echo(f"{out}: {len(layers)} layers")


def picture(text: str, path: Path, out: Path) -> None:
    """Let Graphviz lay it out."""
    program = shutil.which("dot")
    kind = out.suffix.lower().lstrip(".")
    if program is None:
        raise BackendError(
            f"{out}: to write {kind}, the program dot of Graphviz must be installed, got none; "
            f"apt-get install graphviz, or name OUT {out.with_suffix('.dot').name}"
        )
    done = subprocess.run(
        [program, f"-T{kind}", "-o", str(path)], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BackendError(f"{out}: dot must end well, got status {done.returncode}: {done.stderr.strip()}")
