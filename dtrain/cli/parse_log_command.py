"""`dtrain parse_log LOG OUTDIR`: a training log as CSV files, as Caffe's parse_log.py writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dtrain.cli.app import app
from dtrain.cli.report.caffe_log import read_log, write_csv
from dtrain.errors import ConfigError

LogFile = Annotated[
    Path, typer.Argument(metavar="LOG", help="A log of dtrain or of caffe.", show_default=False)
]
OutDir = Annotated[
    Path, typer.Argument(metavar="OUTDIR", help="An existing folder for the CSV files.", show_default=False)
]
Delimiter = Annotated[str, typer.Option("--delimiter", metavar="CHAR", help="Between columns.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Tell what is written.")]


@app.command(name="parse_log", short_help="Write a log as CSV files.")
def parse_log(log: LogFile, outdir: OutDir, delimiter: Delimiter = ",", verbose: Verbose = False) -> None:
    """Write OUTDIR/LOG.train and OUTDIR/LOG.test; test net k > 0 goes to LOG.test.k."""
    if len(delimiter) != 1:
        raise ConfigError(f"--delimiter must be one character, got {delimiter!r}")
    if not outdir.is_dir():
        raise ConfigError(f"command line: OUTDIR must be an existing folder, got {outdir}")
    parsed = read_log(log)
    files = {outdir / f"{log.name}.train": parsed.train, outdir / f"{log.name}.test": parsed.test.get(0, [])}
    files |= {outdir / f"{log.name}.test.{net}": rows for net, rows in parsed.test.items() if net}
    for path, rows in files.items():
        if rows:
            write_csv(path, rows, delimiter)
        if verbose:
            typer.echo(f"{path}: {len(rows)} rows" if rows else f"{path}: not written, no rows")
