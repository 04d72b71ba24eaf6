"""Options that several commands share. Caffe's spelling of each is accepted too: see main.spelled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from dtrain.metrics.progress import Show

SolverFile: TypeAlias = Annotated[
    str, typer.Argument(metavar="SOLVER", help="The solver's prototxt.", show_default=False)
]
SolverFlag: TypeAlias = Annotated[
    str, typer.Option("--solver", metavar="SOLVER", help="The same, as Caffe wants it.", show_default=False)
]
Weights: TypeAlias = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="FILES",
        help="Take the weights of these .caffemodel files, comma-separated.",
        show_default=False,
    ),
]
Gpu: TypeAlias = Annotated[
    str | None,
    typer.Option("--gpu", metavar="IDS", help="GPUs to use: 0, or 0,1, or all.", show_default=False),
]
Cpu: TypeAlias = Annotated[bool, typer.Option("--cpu", help="Compute on the CPU.")]
Threads: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        help="CPU threads per rank; default: the cores that the rank may use.",
        show_default=False,
    ),
]
Engine: TypeAlias = Annotated[
    str,
    typer.Option(
        "--engine", metavar="NAME", help="Engine of layers that name none: DEFAULT, CAFFE or MKLDNN."
    ),
]
Precision: TypeAlias = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="On a GPU: fp32, tf32, bf16 or fp16 for layers that name none; default: the net's, or fp32.",
        show_default=False,
    ),
]
Autotune: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--autotune",
        help="On a GPU: time cuDNN's algorithms at the start and take the fastest; runs may then differ in "
        "rounding.",
    ),
]
PlanSwitch: TypeAlias = Annotated[
    str,
    typer.Option(
        "--plan",
        metavar="HOW",
        help="auto fuses layers and takes the faster of blocked and channels_last memory, which may be named "
        "too; off runs the net layer by layer.",
    ),
]
Comm: TypeAlias = Annotated[
    str,
    typer.Option(
        "--comm",
        metavar="NAME",
        help="What sums gradients: nccl, mpi through host memory, or auto: nccl between GPUs.",
    ),
]
Compress: TypeAlias = Annotated[
    str,
    typer.Option(
        "--compress", metavar="FORMAT", help="Send gradients between GPUs as fp16 or bf16 numbers, or none."
    ),
]
Level: TypeAlias = Annotated[int, typer.Option("--level", metavar="N", help="The net's level.")]
Stage: TypeAlias = Annotated[
    str,
    typer.Option("--stage", metavar="NAMES", help="The net's stages, comma-separated.", show_default=False),
]
Model: TypeAlias = Annotated[
    str, typer.Option("--model", metavar="NET", help="The net's prototxt.", show_default=False)
]
Iterations: TypeAlias = Annotated[
    int, typer.Option("--iterations", metavar="N", help="How many iterations to run.")
]
Progress: TypeAlias = Annotated[
    Show, typer.Option("--progress", help="Draw a progress line: on a terminal, always, never.")
]
LogJson: TypeAlias = Annotated[
    Path | None,
    typer.Option("--log-json", metavar="FILE", help="Also write events as JSON lines.", show_default=False),
]
MetricsPort: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        metavar="PORT",
        help="Serve Prometheus metrics; a rank listens on this port plus its number on its machine.",
        show_default=False,
    ),
]
MetricsHost: TypeAlias = Annotated[
    str, typer.Option("--metrics-host", metavar="ADDRESS", help="The address to listen on.")
]
MetricsTextfile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--metrics-textfile",
        metavar="FOLDER",
        help="Write metrics into this folder for node_exporter.",
        show_default=False,
    ),
]


def split(text: str) -> list[str]:
    """Comma-separated words, none of them empty."""
    return [word.strip() for word in text.split(",") if word.strip()]
