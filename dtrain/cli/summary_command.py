"""`dtrain summary NET`: what every layer makes and costs."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from dtrain.cli import options as o
from dtrain.cli.app import app
from dtrain.cli.inputs import phase_of, read_model
from dtrain.cli.report.layer_costs import NetCost, costs_of, feed, without_fillers
from dtrain.errors import ConfigError
from dtrain.kernels.array import Shape
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net

WIDTH_OF_FILES = 140  # columns where there is no terminal

NetFile = Annotated[str, typer.Argument(metavar="NET", help="The net's prototxt.", show_default=False)]
Phase = Annotated[str, typer.Option("--phase", metavar="PHASE", help="TRAIN or TEST.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="BLOB=N,C,H,W",
        help="Feed this blob instead of reading the source of its layer; may be given again.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON; its layers count whole batches.")]

EPILOG = """\b
Examples:
  dtrain summary configs/caffenet/deploy.prototxt
  dtrain summary configs/lenet/train_val.prototxt --phase TRAIN --input data=64,1,28,28
"""


@app.command(epilog=EPILOG, short_help="Tell what every layer makes and costs.")
def summary(
    net: NetFile,
    phase: Phase = "TEST",
    inputs: Inputs = None,
    as_json: Json = False,
    level: o.Level = 0,
    stage: o.Stage = "",
) -> None:
    """Tell every layer's type, output shapes, parameters, multiply-adds and activation memory."""
    number = phase_of(phase)
    spec = read_model(net, number, level, o.split(stage))
    feed(spec.param, dict(shape_of(text) for text in inputs or ()))
    without_fillers(spec.param)
    scope = Scope(CpuBackend(engine="CAFFE"), number, rng=np.random.default_rng(0))
    cost = costs_of(Net(spec.param, scope, source=spec.source))
    if as_json:
        typer.echo(json.dumps(as_values(cost), indent=2))
    else:
        print_table(cost)


def shape_of(text: str) -> tuple[str, Shape]:
    """ "data=1,3,227,227" -> ("data", (1, 3, 227, 227))."""
    name, _, dims = text.partition("=")
    try:
        shape = tuple(int(word) for word in dims.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not name or not shape or min(shape) < 1:
        raise ConfigError(f"--input must be BLOB=N,C,H,W with positive numbers, got {text}")
    return name, shape


def as_values(cost: NetCost) -> dict[str, Any]:
    """For JSON: the layers count a whole batch, the totals one image."""
    return {
        "name": cost.name,
        "phase": cost.phase,
        "batch": cost.batch,
        "layers": [
            {
                "name": layer.name,
                "type": layer.type,
                "tops": {name: list(shape) for name, shape in layer.tops.items()},
                "parameter_shapes": [list(shape) for shape in layer.parameter_shapes],
                "parameters": layer.parameters,
                "multiply_adds": layer.multiply_adds,
                "activation_bytes": layer.activation_bytes,
            }
            for layer in cost.layers
        ],
        "parameters": cost.parameters,
        "multiply_adds_per_image": cost.multiply_adds,
        "activation_bytes_per_image": cost.activation_bytes,
    }


def print_table(cost: NetCost) -> None:
    """The same for people, all of it for one image."""
    title = f"{cost.name or 'net'}, phase {cost.phase}, batch {cost.batch}"
    table = Table(title=title, title_justify="left", show_footer=True, header_style="bold")
    table.add_column("Layer", "Total", overflow="fold")
    table.add_column("Type", "", no_wrap=True)
    table.add_column("Output", "", overflow="fold")
    table.add_column("Parameters", f"{cost.parameters:,}", justify="right", no_wrap=True)
    table.add_column("Multiply-adds", f"{cost.multiply_adds:,}", justify="right", no_wrap=True)
    table.add_column("Activations", size(cost.activation_bytes), justify="right", no_wrap=True)
    for layer in cost.layers:
        shapes = [" x ".join(map(str, shape)) or "scalar" for shape in layer.tops.values()]
        table.add_row(
            layer.name,
            layer.type,
            "\n".join(shapes),
            f"{layer.parameters:,}" if layer.parameters else "",
            f"{layer.multiply_adds // cost.batch:,}" if layer.multiply_adds else "",
            size(layer.activation_bytes // cost.batch) if layer.activation_bytes else "in place",
        )
    console = Console(width=None if sys.stdout.isatty() else WIDTH_OF_FILES)
    console.print(table)
    console.print(
        "Multiply-adds and activations are of one image going forward, in float32; "
        "a training step holds the activations' gradients too.",
        style="dim",
    )


def size(count: int) -> str:
    """Bytes with a unit."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:,.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):,.1f} MiB"
