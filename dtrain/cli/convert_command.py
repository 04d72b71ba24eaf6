"""`dtrain convert KIND ...`: write data sets as what Data layers read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from dtrain.cli.app import app
from dtrain.cli.job import refuse_ranks
from dtrain.errors import ConfigError, DtrainError

Progress: TypeAlias = Callable[[int], None]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Out: TypeAlias = Annotated[str, typer.Argument(metavar="OUT", help="The folder to write into.")]

FIRST_CONFIGS: Final = {"digits": "digits", "mnist": "lenet", "cifar10": "cifar10_quick"}

BACKENDS: Final = {"lmdb": "LMDB", "leveldb": "LEVELDB", "arrow": "ARROW", "parquet": "ARROW"}
NEXT: Final = {
    **{kind: f"name it as data_param source, with backend: {name}," for kind, name in BACKENDS.items()},
    "hdf5": "name {out}/list.txt as hdf5_data_param source",
    "images": "name {out}/list.txt as image_data_param source, and {out}/ as root_folder,",
}

EPILOG = """\b
Examples:
  dtrain convert digits data/digits
  dtrain convert mnist DIR data/mnist               DIR holds the four idx files, gzipped or not
  dtrain convert cifar10 DIR data/cifar10           DIR holds the binary batches, or images, or tars of either
  dtrain convert imageset -shuffle --resize_height=256 --resize_width=256 train/ train.txt data/train_lmdb
  dtrain convert records train/ data/train_arrow --to arrow --shards 64 --short-side 256 --shuffle
  dtrain convert records data/train_arrow data/train_lmdb
  dtrain convert records data/digits/digits_train_lmdb data/digits_h5 --to hdf5 --shards 4
  dtrain convert annotated VOCdevkit/ trainval.txt labelmap.prototxt data/voc_lmdb   lines of: image xml
  dtrain convert mean data/train_lmdb data/mean.binaryproto
"""

convert = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(
    convert,
    name="convert",
    help="Write a data set as the LMDBs that Data layers read.",
    short_help="Write data sets as LMDBs.",
    epilog=EPILOG,
)


@convert.callback()
def alone() -> None:
    """One process converts."""
    refuse_ranks("convert")


@convert.command()
def mnist(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where the idx or idx.gz files are.")],
    out: Out,
    overwrite: Overwrite = False,
) -> None:
    """MNIST's four idx files to OUT/mnist_train_lmdb and OUT/mnist_test_lmdb."""
    from dtrain.data.convert.mnist import convert_mnist

    with progress_bar() as progress:
        written = convert_mnist(folder, out, overwrite=overwrite, progress=progress)
    tell("mnist", written)


@convert.command()
def cifar10(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="A folder or tar of the binary batches, or of images train/CLASS/NAME.jpg and "
            "test/CLASS/NAME.jpg; tars in the folder are looked into.",
        ),
    ],
    out: Out,
    overwrite: Overwrite = False,
) -> None:
    """CIFAR-10 to OUT/cifar10_train_lmdb, OUT/cifar10_test_lmdb and OUT/mean.binaryproto."""
    from dtrain.data.convert.cifar10 import convert_cifar10

    with progress_bar() as progress:
        written = convert_cifar10(source, out, overwrite=overwrite, progress=progress)
    tell("cifar10", written, [os.path.join(out, "mean.binaryproto")])


@convert.command()
def digits(out: Out, overwrite: Overwrite = False) -> None:
    """The 1,797 handwritten digits of scikit-learn to OUT/digits_train_lmdb and OUT/digits_test_lmdb."""
    from dtrain.data.convert.digits import convert_digits

    with progress_bar() as progress:
        written = convert_digits(out, overwrite=overwrite, progress=progress)
    tell("digits", written)


@convert.command()
def imageset(
    root_folder: Annotated[
        str,
        typer.Argument(
            metavar="ROOT/", help="Put before every path of the list as it is: end it in a slash."
        ),
    ],
    list_file: Annotated[str, typer.Argument(metavar="LISTFILE", help="Lines of: path label.")],
    out: Annotated[str, typer.Argument(metavar="DB", help="The database to write.")],
    gray: Annotated[bool, typer.Option("--gray", help="Store one channel.")] = False,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Write the images in a shuffled order.")] = False,
    backend: Annotated[
        str, typer.Option("--backend", metavar="NAME", help="The database's kind: lmdb or leveldb.")
    ] = "lmdb",
    resize_width: Annotated[int, typer.Option("--resize-width", metavar="N", min=0, help="0: as it is.")] = 0,
    resize_height: Annotated[
        int, typer.Option("--resize-height", metavar="N", min=0, help="0: as it is.")
    ] = 0,
    check_size: Annotated[
        bool, typer.Option("--check-size", help="All images must have the size of the first.")
    ] = False,
    encoded: Annotated[bool, typer.Option("--encoded", help="Store encoded images.")] = False,
    encode_type: Annotated[
        str,
        typer.Option(
            "--encode-type",
            metavar="TYPE",
            help="Store images encoded so: png, jpg, ...; default: as the file is.",
            show_default=False,
        ),
    ] = "",
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the shuffle.")] = 1,
    overwrite: Overwrite = False,
) -> None:
    """A list of images to a database, with the flags of Caffe's convert_imageset."""
    from dtrain.data.convert.imageset import ImagesetFlags, convert_imageset

    flags = ImagesetFlags(
        gray=gray,
        shuffle=shuffle,
        resize_width=resize_width,
        resize_height=resize_height,
        check_size=check_size,
        encoded=encoded,
        encode_type=encode_type,
        seed=seed,
    )
    with progress_bar() as progress:
        written = convert_imageset(
            root_folder, list_file, out, flags, backend=backend, overwrite=overwrite, progress=progress
        )
    tell("imageset", {out: written}, next_step=NEXT[backend.lower()])


@convert.command()
def records(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="A database, Arrow, Parquet or HDF5 files, a folder CLASS/NAME.jpg, a tar of such, a list "
            "of `path label` lines, an idx file of images, or a CIFAR batch.",
        ),
    ],
    out: Annotated[str, typer.Argument(metavar="OUT", help="What to write.")],
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="lmdb, arrow, parquet, leveldb, hdf5 or images.")
    ] = "lmdb",
    shards: Annotated[
        int, typer.Option("--shards", metavar="N", min=1, help="Parts; a restart goes on after the last.")
    ] = 1,
    backend: Annotated[
        str,
        typer.Option("--backend", metavar="NAME", help="What SRC is, if unclear.", show_default=False),
    ] = "",
    list_file: Annotated[
        str,
        typer.Option(
            "--list", metavar="FILE", help="`path label` lines for the images in SRC.", show_default=False
        ),
    ] = "",
    classes: Annotated[
        str,
        typer.Option(
            "--classes", metavar="FILE", help="Class names in the order of their labels.", show_default=False
        ),
    ] = "",
    short_side: Annotated[
        int,
        typer.Option("--short-side", metavar="N", min=0, help="Shrink larger images to this shorter side."),
    ] = 0,
    resize_width: Annotated[int, typer.Option("--resize-width", metavar="N", min=0, help="0: as it is.")] = 0,
    resize_height: Annotated[
        int, typer.Option("--resize-height", metavar="N", min=0, help="0: as it is.")
    ] = 0,
    quality: Annotated[
        int, typer.Option("--quality", metavar="N", min=0, max=100, help="Of JPEGs that are written anew.")
    ] = 95,
    raw: Annotated[bool, typer.Option("--raw", help="Store pixels instead of encoded images.")] = False,
    gray: Annotated[bool, typer.Option("--gray", help="Write all images with one channel.")] = False,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Write in one fixed shuffled order.")] = False,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the shuffle.")] = 1,
    threads: Annotated[
        int, typer.Option("--threads", metavar="N", min=0, help="0: as many as there are cores.")
    ] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Any source to any format, sharded, in parallel; stopped, it goes on where it was."""
    from dtrain.data.convert.recode import Recode
    from dtrain.data.convert.shards import Layout, convert_shards
    from dtrain.data.convert.sources import open_items

    if (resize_width > 0) != (resize_height > 0) or (resize_width and short_side):
        raise ConfigError(
            "convert records: both --resize-width and --resize-height, or --short-side alone, must be given, "
            f"got {resize_width}, {resize_height} and {short_side}"
        )
    recode = Recode(
        short_side=short_side,
        width=resize_width,
        height=resize_height,
        quality=quality,
        raw=raw,
        colour="grey" if gray else "colour",
    )
    layout = Layout(format=to.lower(), shards=shards, shuffle=shuffle, seed=seed)
    items = open_items(source, backend=backend.upper(), list_file=list_file, classes_file=classes)
    workers = threads or os.cpu_count() or 1
    try:
        with progress_bar(len(items)) as progress:
            written = convert_shards(
                items, out, layout, recode, threads=workers, overwrite=overwrite, progress=progress
            )
    finally:
        items.close()
    tell("records", {out: written}, next_step=NEXT[layout.format].format(out=out))


@convert.command()
def annotated(
    root_folder: Annotated[
        str,
        typer.Argument(metavar="ROOT/", help="Put before both paths of a line as it is: end it in a slash."),
    ],
    list_file: Annotated[str, typer.Argument(metavar="LISTFILE", help="Lines of: image xml.")],
    label_map: Annotated[
        str, typer.Argument(metavar="LABELMAP", help="A prototxt of items, each with a name and a label.")
    ],
    out: Annotated[str, typer.Argument(metavar="DB", help="The LMDB to write.")],
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Write the images in a shuffled order.")] = False,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the shuffle.")] = 1,
    overwrite: Overwrite = False,
) -> None:
    """Images with Pascal VOC's XML files of boxes to an LMDB for AnnotatedData, as SSD's convert_annoset."""
    from dtrain.data.convert.annotated import convert_annotated

    with progress_bar() as progress:
        written = convert_annotated(
            root_folder,
            list_file,
            label_map,
            out,
            shuffle=shuffle,
            seed=seed,
            overwrite=overwrite,
            progress=progress,
        )
    tell("annotated", {out: written})


@convert.command()
def mean(
    source: Annotated[str, typer.Argument(metavar="DB", help="The database.")],
    out: Annotated[str, typer.Argument(metavar="FILE", help="The mean, such as mean.binaryproto.")],
    backend: Annotated[
        str,
        typer.Option(
            "--backend",
            metavar="NAME",
            help="The database's kind; default: by what lies there.",
            show_default=False,
        ),
    ] = "",
    overwrite: Overwrite = False,
) -> None:
    """The mean image of a database, as Caffe's compute_image_mean."""
    from dtrain.data.backends import backend_of
    from dtrain.data.convert.mean import compute_mean
    from dtrain.data.convert.whole_folder import refuse_existing

    refuse_existing(out, overwrite)
    if not Path(out).absolute().parent.is_dir():
        raise ConfigError(f"{out}: folder must exist, got no {Path(out).parent}")
    with progress_bar() as progress:
        kind = backend.upper() or (backend_of(source) if os.path.exists(source) else "LMDB")
        shape = compute_mean(source, out, backend=kind, progress=progress).shape
    typer.echo(f"wrote {out}: mean of shape {' x '.join(map(str, shape))}")


@contextmanager
def progress_bar(total: int | None = None) -> Iterator[Progress | None]:
    """What counts records on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("records", total=total)
        yield lambda num: bar.update(task, completed=num, description="records")


def tell(
    kind: str, written: dict[str, int], files: Sequence[str] = (), next_step: str = NEXT["lmdb"]
) -> None:
    """What was written, and what to run next where a config of this folder reads just that."""
    for path, num in written.items():
        typer.echo(f"wrote {path}: {num} records")
    for path in files:
        typer.echo(f"wrote {path}")
    solver = f"configs/{FIRST_CONFIGS[kind]}/solver.prototxt" if kind in FIRST_CONFIGS else ""
    if solver and sources_of(solver) >= {os.path.normpath(path) for path in written}:
        typer.echo(f"next: mpirun -n 2 dtrain {solver}")
    else:
        typer.echo(f"next: {next_step} in a net, then dtrain SOLVER")


def sources_of(solver: str) -> set[str]:
    """The databases that the solver's net reads; empty where there is no such solver here."""
    from dtrain.proto.files import read_net, read_solver

    try:
        param, _ = read_solver(Path(solver))
        net, _ = read_net(Path(param.net))
    except DtrainError:  # this folder holds no configs, or other ones
        return set()
    return {os.path.normpath(layer.data_param.source) for layer in net.layer if layer.data_param.source}
