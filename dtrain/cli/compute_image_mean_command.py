"""`dtrain compute_image_mean`: Caffe's tool, which tells the mean of each channel too."""

from __future__ import annotations

from typing import Annotated

import typer

from dtrain.cli.app import app
from dtrain.cli.convert_command import progress_bar
from dtrain.cli.job import refuse_ranks
from dtrain.metrics.log import number

Database = Annotated[str, typer.Argument(metavar="INPUT_DB", help="The database.", show_default=False)]
Out = Annotated[
    str,
    typer.Argument(metavar="[OUTPUT_FILE]", help="The mean, such as mean.binaryproto; replaced if there."),
]
Kind = Annotated[str, typer.Option("--backend", metavar="KIND", help="The database's kind.")]


@app.command(name="compute_image_mean", short_help="The mean image of a database.")
def compute_image_mean(source: Database, out: Out = "", backend: Kind = "lmdb") -> None:
    """Write the mean image of a database and tell the mean of each channel, for mean_value."""
    from dtrain.data.convert.mean import compute_mean

    refuse_ranks("compute_image_mean")
    with progress_bar() as progress:
        image = compute_mean(source, out, backend=backend.upper(), progress=progress)
    if out:
        typer.echo(f"wrote {out}: mean of shape {' x '.join(map(str, image.shape))}")
    typer.echo(f"Number of channels: {image.shape[0]}")
    for channel, value in enumerate(image.mean(axis=(1, 2), dtype="float64")):
        typer.echo(f"mean_value channel [{channel}]: {number(float(value))}")
