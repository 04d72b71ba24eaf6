"""Options that several commands share, each with Caffe's spelling and the usual one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from dtrain.metrics.progress import Show

Solver: TypeAlias = Annotated[
    str, typer.Argument(metavar="SOLVER", help="The solver's prototxt.", show_default=False)
]
SolverFlag: TypeAlias = Annotated[
    str, typer.Option("--solver", "-solver", help="The same, as Caffe spells it.", show_default=False)
]
Weights: TypeAlias = Annotated[
    str,
    typer.Option(
        "--weights",
        "-weights",
        help="Start from these .caffemodel files, comma-separated.",
        show_default=False,
    ),
]
Gpu: TypeAlias = Annotated[
    str | None, typer.Option("--gpu", "-gpu", help="GPUs to use: 0, 0,1 or all.", show_default=False)
]
Cpu: TypeAlias = Annotated[bool, typer.Option("--cpu", "-cpu", help="Compute on the CPU.")]
Threads: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--threads",
        "-threads",
        help="CPU threads per rank; default: the cores that the rank may use.",
        show_default=False,
    ),
]
Engine: TypeAlias = Annotated[
    str,
    typer.Option("--engine", "-engine", help="Engine of layers that name none: DEFAULT, CAFFE or MKLDNN."),
]
PlanSwitch: TypeAlias = Annotated[
    str,
    typer.Option(
        "--plan", "-plan", help="auto fuses layers and times memory formats; off runs the net layer by layer."
    ),
]
Level: TypeAlias = Annotated[int, typer.Option("--level", "-level", help="The net's level.")]
Stage: TypeAlias = Annotated[
    str, typer.Option("--stage", "-stage", help="The net's stages, comma-separated.", show_default=False)
]
Model: TypeAlias = Annotated[
    str, typer.Option("--model", "-model", help="The net's prototxt.", show_default=False)
]
Iterations: TypeAlias = Annotated[
    int, typer.Option("--iterations", "-iterations", help="How many iterations to run.")
]
Progress: TypeAlias = Annotated[
    Show, typer.Option("--progress", "-progress", help="Draw a progress line: on a terminal, always, never.")
]
LogJson: TypeAlias = Annotated[
    Path | None,
    typer.Option("--log-json", "-log_json", help="Also write events as JSON lines.", show_default=False),
]
MetricsPort: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        "-metrics_port",
        help="Serve Prometheus metrics; a rank listens on this port plus its number on its machine.",
        show_default=False,
    ),
]
MetricsHost: TypeAlias = Annotated[
    str, typer.Option("--metrics-host", "-metrics_host", help="The address to listen on.")
]
MetricsTextfile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--metrics-textfile",
        "-metrics_textfile",
        help="Write metrics into this folder for node_exporter.",
        show_default=False,
    ),
]


def split(text: str) -> list[str]:
    """Comma-separated words, none of them empty."""
    return [word.strip() for word in text.split(",") if word.strip()]
