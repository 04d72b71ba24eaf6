"""The data path against its limits: a JPEG library alone, and copying memory.

    python -m benchmarks.data [--images FOLDER] [--rounds 7] [--threads 1 2 4]
    python -m benchmarks.data --wait [--iterations 500]

Images: encoded JPEGs in an LMDB through the whole path (read, decode, shrink to a shorter side of 256, random
crop of 227, mirror, subtract the mean) to a batch, against libjpeg-turbo (simplejpeg) decoding the same bytes
in a loop on one core. Raw: records of CIFAR's and MNIST's size, random, in an LMDB, against a NumPy loop that
copies uint8 images of memory to a float32 batch and subtracts the mean. The two sides of a ratio take turns.
Rates a core count the processor's time, of all threads, so that other load on the machine matters little;
the last two columns are by the clock, the last one over the first number of feeder threads. A figure is the
median over the rounds.

--wait trains configs/lenet on such an LMDB and prints the share of a step that waited for data.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg

from dtrain.data.backends import open_reader
from dtrain.data.convert.items import FileItems
from dtrain.data.convert.lmdb_writer import write_lmdb
from dtrain.data.convert.shards import Layout, convert_shards
from dtrain.data.datum import encode_pixels
from dtrain.data.feeder import Feeder
from dtrain.data.reader import Reader
from dtrain.data.sampler import Draw, TrainSchedule
from dtrain.data.transform_settings import TransformSettings
from dtrain.data.transformer import Transformer
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.data_source import DataSource
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.plan import Plan
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.proto.files import read_net
from dtrain.solvers.loop import Solver

CONFIGS = Path(__file__).parents[1] / "configs"
IMAGES = Path(__file__).parents[2] / "shared" / "data" / "imagenet-sample"
WAYS = {
    "short side 256, crop 227": "random_resize_param { min_size: 256 max_size: 256 } crop_size: 227",
    "random area, crop 224": "random_aspect_ratio_param { min_area_ratio: 0.08 max_area_ratio: 1 "
    "aspect_ratio_change: 1.333 max_attempt: 10 } crop_size: 224",
}
MEAN = "mirror: true mean_value: 104 mean_value: 117 mean_value: 123 force_color: true"
IMAGE_BATCH, RAW_BATCH, RAW_RECORDS, RAW_BATCHES = 50, 100, 20_000, 200


def main() -> None:
    parser = argparse.ArgumentParser(description="the data path against its limits")
    parser.add_argument("--images", type=Path, default=IMAGES, help="a folder of JPEGs")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each measurement (default 7)")
    cores = len(os.sched_getaffinity(0))
    sweep = sorted({1, 2, *(2**n for n in range(2, cores.bit_length())), cores})
    parser.add_argument("--threads", type=int, nargs="+", default=sweep, help=f"feeder threads ({sweep})")
    parser.add_argument("--wait", action="store_true", help="measure how long LeNet's steps wait for data")
    parser.add_argument("--iterations", type=int, default=500, help="of LeNet with --wait (default 500)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.wait:
            measure_wait(Path(folder), arguments.iterations)
            return
        heads = "peer/core", "dtrain/core", "ratio", "dtrain", "scaling"
        print(f"{'images a second':<56}{heads[0]:>12}{heads[1]:>12}{heads[2]:>8}{heads[3]:>12}{heads[4]:>9}")
        for name, shape in (("CIFAR", (3, 32, 32)), ("MNIST", (1, 28, 28))):
            measure_raw(Path(folder, name), name, shape, arguments.rounds, arguments.threads)
        if arguments.images.is_dir():
            measure_images(Path(folder), arguments.images, arguments.rounds, arguments.threads)
        else:
            print(f"no JPEGs measured: {arguments.images} is no folder; give one with --images")


def measure_images(folder: Path, images: Path, rounds: int, sweep: Sequence[int]) -> None:
    files = sorted(path.name for path in images.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    items = FileItems(str(images), f"{images}/", [(name, 0) for name in files])
    for form in ("lmdb", "arrow"):
        convert_shards(items, str(folder / form), Layout(format=form))
    encoded = [np.frombuffer(items.read(n).encoded or b"", np.uint8) for n in range(len(files))]
    batches = len(files) // IMAGE_BATCH

    def library() -> None:
        for content in encoded[: batches * IMAGE_BATCH]:
            simplejpeg.decode_jpeg(content, "BGR")

    for form in ("lmdb", "arrow"):
        for way, fields in WAYS.items():
            alone = 0.0
            for threads in sweep:
                reader = open_reader(str(folder / form), form.upper())
                name = f"{len(files)} JPEGs, {form}, {way}, {in_words(threads)}"
                with feeding(reader, f"{fields} {MEAN}", IMAGE_BATCH, batches, threads) as run:
                    alone = tell(name, library, run, batches * IMAGE_BATCH, rounds, alone)


def write_raw(path: Path, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """An LMDB of random images, labelled 0 to 9; returns their pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (RAW_RECORDS, *shape), dtype=np.uint8)
    write_lmdb(str(path), ((b"%08d" % n, encode_pixels(image, n % 10)) for n, image in enumerate(pixels)))
    return pixels


def measure_raw(
    path: Path, name: str, shape: tuple[int, int, int], rounds: int, sweep: Sequence[int]
) -> None:
    pixels = write_raw(path, shape)
    mean = np.full(shape, 120, np.float32)
    target = np.empty((RAW_BATCH, *shape), np.float32)

    def loop() -> None:
        for start in range(0, RAW_BATCHES * RAW_BATCH, RAW_BATCH):
            np.subtract(pixels[start % RAW_RECORDS :][:RAW_BATCH], mean, out=target)

    alone = 0.0
    for threads in sweep:
        row = f"{name} raw, lmdb, {in_words(threads)}"
        with feeding(
            open_reader(str(path), "LMDB"), "mean_value: 120", RAW_BATCH, RAW_BATCHES, threads
        ) as run:
            alone = tell(row, loop, run, RAW_BATCHES * RAW_BATCH, rounds, alone)


def measure_wait(folder: Path, iterations: int) -> None:
    """LeNet on one rank and one thread, as `dtrain` trains it."""
    write_raw(folder / "mnist", (1, 28, 28))
    param, _ = read_net(CONFIGS / "lenet" / "train_val.prototxt")
    for layer in param.layer:
        if layer.type == "Data":
            layer.data_param.source = str(folder / "mnist")
    net = Net(param, Scope(CpuBackend(num_threads=1), pb.TRAIN), plan=Plan())
    settings = pb.SolverParameter(
        base_lr=0.01, momentum=0.9, lr_policy="fixed", max_iter=10**9, random_seed=1
    )
    solver = Solver(settings, net)
    sources = [layer for layer in net.layers if isinstance(layer, DataSource)]
    solver.step(20)
    before, begin = sum(source.waited_s for source in sources), time.perf_counter()
    solver.step(iterations)
    elapsed = time.perf_counter() - begin
    waited = sum(source.waited_s for source in sources) - before
    solver.close()
    print(
        f"LeNet, batch 64: {1e3 * elapsed / iterations:.2f} ms a step, "
        f"{1e6 * waited / iterations:.0f} us of it waiting for data ({waited / elapsed:.2%})"
    )


def in_words(threads: int) -> str:
    return f"{threads} thread{'s'[: threads - 1]}"


@contextmanager
def feeding(
    reader: Reader, fields: str, batch_size: int, batches: int, threads: int
) -> Iterator[Callable[[], None]]:
    """A call that takes so many batches of a feeder that has nothing ready when it starts."""
    param = pb.TransformationParameter()
    text.parse(fields, param)
    settings = TransformSettings.from_param(param, train=True, seed=1, where="benchmark")
    schedule = TrainSchedule(num_records=len(reader), batch_size=batch_size)
    transformer = Transformer(settings, "benchmark")

    def limited(n: int) -> Draw:
        if n >= batches:
            raise EOFError  # so that nothing is read while the peer runs
        return schedule(n)

    feeder = Feeder(reader, transformer, limited, batch_size=batch_size, threads=threads)

    def run() -> None:
        feeder.seek(0)
        for _ in range(batches):
            feeder.next()

    try:
        yield run
    finally:
        feeder.close()
        reader.close()


def tell(
    name: str,
    peer: Callable[[], None],
    ours: Callable[[], None],
    images: int,
    rounds: int,
    alone: float,
) -> float:
    """A line: rates of both sides, in turns. Returns `alone`, or if that is 0 the rate by the clock."""
    cpu: list[list[float]] = [[], []]
    wall: list[float] = []
    for _ in range(rounds + 1):
        for way, times in zip((peer, ours), cpu, strict=True):
            begin, begin_cpu = time.perf_counter(), time.process_time()
            way()
            times.append(time.process_time() - begin_cpu)
            elapsed = time.perf_counter() - begin
        wall.append(elapsed)
    theirs, own = (statistics.median(times[1:]) for times in cpu)
    passed = statistics.median(wall[1:])
    print(
        f"{name:<56}{images / theirs:>12,.0f}{images / own:>12,.0f}{theirs / own:>8.2f}"
        f"{images / passed:>12,.0f}{images / passed / (alone or images / passed):>9.2f}",
        flush=True,
    )
    return alone or images / passed


if __name__ == "__main__":
    main()
