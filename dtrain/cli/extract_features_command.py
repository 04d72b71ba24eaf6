"""`dtrain extract_features`: the values of blobs over many batches, as a database for other programs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer

from dtrain.cli import options as o
from dtrain.cli.app import app
from dtrain.cli.device import choose_backend
from dtrain.cli.inputs import read_model
from dtrain.cli.job import refuse_ranks
from dtrain.cli.report.feature_files import Rows, writer_of
from dtrain.comm.single import SingleCommunicator
from dtrain.data.convert.whole_folder import refuse_existing
from dtrain.errors import ConfigError, DataError
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.solvers import weights as stored

DEVICES: Final = ("CPU", "GPU")

WeightsFile = Annotated[
    str, typer.Argument(metavar="WEIGHTS", help="One or more .caffemodel files, comma-separated.")
]
NetFile = Annotated[str, typer.Argument(metavar="NET", help="A net that reads its data, built for TEST.")]
BlobNames = Annotated[str, typer.Argument(metavar="BLOBS", help="Names of blobs, comma-separated.")]
Outs = Annotated[
    str, typer.Argument(metavar="OUTS", help="What to write, one for each blob, comma-separated.")
]
NumBatches = Annotated[int, typer.Argument(metavar="NUM_BATCHES", help="How many forward passes.")]
Kind = Annotated[str, typer.Argument(metavar="BACKEND", help="lmdb, hdf5 or arrow.")]
Device = Annotated[str, typer.Argument(metavar="[CPU|GPU]", help="Where to compute.")]
DeviceId = Annotated[str, typer.Argument(metavar="[DEVICE_ID=0]", help="Which GPU.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]

EPILOG = """\b
Example:
  dtrain extract_features caffenet.caffemodel train_val.prototxt fc6,fc7 fc6_lmdb,fc7_lmdb 10 lmdb
"""


@app.command(name="extract_features", epilog=EPILOG, short_help="Write the values of blobs as a database.")
def extract_features(
    weights: WeightsFile,
    net: NetFile,
    blobs: BlobNames,
    outs: Outs,
    num_batches: NumBatches,
    backend: Kind,
    device: Device = "CPU",
    device_id: DeviceId = "0",
    overwrite: Overwrite = False,
    threads: o.Threads = None,
    engine: o.Engine = "DEFAULT",
) -> None:
    """Run a net NUM_BATCHES times and write a row for each image. The arguments are those of Caffe's tool."""
    refuse_ranks("extract_features")
    names, paths = o.split(blobs), [Path(name) for name in o.split(outs)]
    if len(names) != len(paths) or not names:
        raise ConfigError(f"command line: OUTS must number as BLOBS ({len(names)}), got {len(paths)}")
    if num_batches < 1:
        raise ConfigError(f"command line: NUM_BATCHES must be at least 1, got {num_batches}")
    device = device.upper().removeprefix("DEVICE=")
    if device not in DEVICES:
        raise ConfigError(f"command line: the device must be one of {', '.join(DEVICES)}, got {device}")
    write = writer_of(backend)
    for path in paths:
        refuse_existing(str(path), overwrite)
    spec = read_model(net, pb.TEST, 0, ())
    chosen = choose_backend(
        None,
        SingleCommunicator(),
        gpu=device_id.removeprefix("DEVICE_ID=") if device == "GPU" else None,
        cpu=device == "CPU",
        threads=threads,
        engine=engine,
    )
    built = Net(spec.param, Scope(chosen, pb.TEST, rng=np.random.default_rng(0)), source=spec.source)
    for file in o.split(weights):
        stored.load(built, file)
    try:
        for name, path, rows in spooled(built, names, paths, num_batches):
            write(path, name, rows)
            told = " x ".join(map(str, rows.shape[1:])) or "1"
            typer.echo(f"{path}: {len(rows)} rows of {told} from {name}")
    except OSError as error:
        raise DataError(f"{outs}: must be writable, got {error.strerror or error}") from error


def spooled(
    net: Net, names: Sequence[str], paths: Sequence[Path], num_batches: int
) -> Iterator[tuple[str, Path, Rows]]:
    """Run the net, then give each blob's rows of all batches, mapped from a file beside its place."""
    wanted = [net.blob(name) for name in names]
    last = max(i for i, step in enumerate(net.steps) if any(blob in wanted for blob in step.top))
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile(dir=path.absolute().parent)) for path in paths]
        counts = [0] * len(names)
        for _ in range(num_batches):
            net.forward(end=last)
            for i, blob in enumerate(wanted):
                if not blob.shape:
                    raise ConfigError(f'blob "{names[i]}" must have an axis of images, got a scalar')
                files[i].write(np.ascontiguousarray(blob.data.plain(), np.float32).tobytes())
                counts[i] += blob.shape[0]
        for name, path, file, blob, count in zip(names, paths, files, wanted, counts, strict=True):
            file.flush()
            yield name, path, np.memmap(file, np.float32, "r", shape=(count, *blob.shape[1:]))
