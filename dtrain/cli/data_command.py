"""`dtrain data info SOURCE`, `dtrain data check SOURCE`: what a source holds, and whether all can be read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from dtrain.cli.app import app
from dtrain.cli.convert_command import progress_bar
from dtrain.cli.job import refuse_ranks

if TYPE_CHECKING:  # a command imports what it runs, so that others start soon
    from dtrain.data.convert.items import Items
    from dtrain.data.inspect import Summary

BAD_STATUS: Final = 2  # some records are bad; 1 says that the source itself cannot be opened
INFO_FAULTS: Final = 3  # that `info` tells; `check` tells more
SHOWN: Final = 10  # kinds of labels or shapes that are listed

Source: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A database, Arrow, Parquet or HDF5 files, or whatever else dtrain convert records reads.",
    ),
]
Backend: TypeAlias = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="LMDB, ARROW, LEVELDB or HDF5; default: by what lies there.",
        show_default=False,
    ),
]
ListFile: TypeAlias = Annotated[
    str,
    typer.Option(
        "--list", metavar="FILE", help="`path label` lines for the images in SOURCE.", show_default=False
    ),
]

EPILOG = """\b
Examples:
  dtrain data info data/mnist/mnist_train_lmdb
  dtrain data check data/imagenet/train_arrow       exit status 2 if a record is bad
  dtrain data check train/ --list train.txt         images in files
"""

data = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(
    data,
    name="data",
    help="Look into a data source.",
    short_help="Look into a data source.",
    epilog=EPILOG,
)


@data.callback()
def alone() -> None:
    """One process looks."""
    refuse_ranks("data")


@data.command()
def info(source: Source, backend: Backend = "", list_file: ListFile = "") -> None:
    """Number of records, and shapes, labels and encodings of up to a thousand of them."""
    from dtrain.data.inspect import sample

    items = opened(source, backend, list_file)
    try:
        summary = sample(items)
        typer.echo(f"{items.source}: {len(items)} records")
    finally:
        items.close()
    tell_faults(summary, INFO_FAULTS)
    tell(summary, f"of {summary.records} records looked at")
    raise typer.Exit(BAD_STATUS if summary.bad else 0)


@data.command()
def check(
    source: Source,
    backend: Backend = "",
    list_file: ListFile = "",
    threads: Annotated[
        int, typer.Option("--threads", metavar="N", min=0, help="0: as many as there are cores.")
    ] = 0,
) -> None:
    """Read and decode every record; the bad ones are told, and make the exit status 2."""
    from dtrain.data.inspect import check as check_all

    items = opened(source, backend, list_file)
    try:
        with progress_bar(len(items)) as progress:
            summary = check_all(items, threads=threads or os.cpu_count() or 1, progress=progress)
    finally:
        items.close()
    tell_faults(summary, len(summary.faults))
    typer.echo(f"{items.source}: {summary.records} records, {summary.bad} of them bad")
    tell(summary, "of all good records")
    raise typer.Exit(BAD_STATUS if summary.bad else 0)


def opened(source: str, backend: str, list_file: str) -> Items:
    """The records, as the backend that is named or that lies there."""
    from dtrain.data.inspect import open_any

    return open_any(source, backend.upper(), list_file)


def tell_faults(summary: Summary, most: int) -> None:
    """The first bad records, a line each, and how many more there are."""
    told = summary.faults[:most]
    for fault in told:
        typer.echo(f"bad: {fault}")
    if summary.bad > len(told):
        typer.echo(f"bad: and {summary.bad - len(told)} more")


def tell(summary: Summary, what: str) -> None:
    """What was counted, a line each."""
    good = summary.records - summary.bad
    if not good:
        return
    typer.echo(f"encodings {what}: {listed(dict(summary.encodings))}")
    shapes = {" x ".join(map(str, shape)): num for shape, num in summary.shapes.items()}
    typer.echo(f"shapes (C x H x W): {listed(shapes)}")
    labels = {" ".join(f"{value:g}" for value in label): num for label, num in summary.labels.items()}
    typer.echo(f"labels: {len(labels)} different: {listed(labels)}")
    typer.echo(f"bytes an image: {summary.num_bytes / good:,.0f}")


def listed(counts: dict[str, int]) -> str:
    """The most frequent ones, with how many there are."""
    most = sorted(counts.items(), key=lambda item: -item[1])[:SHOWN]
    rest = f", and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    return ", ".join(f"{name} ({num})" for name, num in most) + rest
