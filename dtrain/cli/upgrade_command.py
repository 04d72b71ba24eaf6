"""`dtrain upgrade IN OUT`: an old net or solver file as a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.message import Message

from dtrain.cli.app import app
from dtrain.errors import DataError, DtrainError, PrototxtError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.proto.files import read_binary, write_binary
from dtrain.proto.upgrade import upgrade_net, upgrade_solver
from dtrain.solvers.whole_file import replacing

In = Annotated[
    Path,
    typer.Argument(
        metavar="IN", help="A net or solver in text, or a net with weights in binary.", show_default=False
    ),
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="Written in the form of IN.", show_default=False)]


@app.command(short_help="Bring an old net or solver up to date.")
def upgrade(source: In, out: Out) -> None:
    """Bring a file of an older Caffe up to date, and tell what was changed."""
    try:
        data = source.read_bytes()
    except OSError as error:
        raise DataError(f"{source}: must be a readable file, got {error.strerror or error}") from error
    if is_text(data):
        message, done = read_text(source)
        write_text(out, message)
    else:
        message = pb.NetParameter()
        done = read_binary(source, message)
        write_binary(out, message)
    for change in done:
        typer.echo(f"{source}: {change}")
    typer.echo(f"{out}: written" if done else f"{out}: written, nothing was out of date")


def is_text(data: bytes) -> bool:
    """A binary message of this schema has control bytes among its first ones: tags and lengths."""
    return not any(byte < 32 and byte not in b"\t\n\r\f" for byte in data[:4096])


def read_text(path: Path) -> tuple[Message, list[str]]:
    """The file as whichever of net and solver it is, up to date, and what was changed."""
    net, solver = pb.NetParameter(), pb.SolverParameter()
    try:
        sources = text.read(path, net)
    except PrototxtError as net_fault:
        try:
            sources = text.read(path, solver)
        except PrototxtError as solver_fault:
            raise furthest(net_fault, solver_fault) from None
        return solver, sources.old_spellings + upgrade_solver(solver, sources)
    return net, sources.old_spellings + upgrade_net(net, sources)


def furthest(first: PrototxtError, second: PrototxtError) -> DtrainError:
    """The error of the reading that came further is the one that tells what is wrong."""
    return second if (second.line, second.column) > (first.line, first.column) else first


def write_text(path: Path, message: Message) -> None:
    """Whole, or as it was before."""
    try:
        with replacing(path) as beside:
            beside.write_text(text.format(message), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: must be writable, got {error.strerror or error}") from error
