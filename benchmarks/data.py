"""The data path against its limits: a JPEG library alone, and copying memory.

    python -m benchmarks.data [--images FOLDER] [--rounds 7]

Images: encoded JPEGs in an LMDB through the whole path (read, decode, shrink to a shorter side of 256, random
crop of 227, mirror, subtract the mean) to a batch, against the JPEG library decoding the same bytes in a loop
on one core. Raw: records of CIFAR's and MNIST's size, random, in an LMDB, against a NumPy loop that copies
uint8 images of memory to a float32 batch and subtracts the mean. The two sides of a ratio take turns.
Rates a core count the processor's time, of all threads, so that other load on the machine does not matter;
the last column is by the clock. A figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dtrain.data.convert.items import FileItems
from dtrain.data.convert.lmdb_writer import write_lmdb
from dtrain.data.convert.shards import Layout, convert_shards
from dtrain.data.datum import encode_pixels
from dtrain.data.decode import opencv
from dtrain.data.feeder import Feeder
from dtrain.data.reader import Reader, open_reader
from dtrain.data.sampler import Draw, TrainSchedule
from dtrain.data.transform_settings import TransformSettings
from dtrain.data.transformer import Transformer
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text

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
    arguments = parser.parse_args()
    print(f"{'images a second':<56}{'peer/core':>12}{'dtrain/core':>12}{'ratio':>8}{'dtrain':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in (("CIFAR", (3, 32, 32)), ("MNIST", (1, 28, 28))):
            measure_raw(Path(folder, name), name, shape, arguments.rounds)
        if arguments.images.is_dir():
            measure_images(Path(folder), arguments.images, arguments.rounds)
        else:
            print(f"no JPEGs measured: {arguments.images} is no folder; give one with --images")


def measure_images(folder: Path, images: Path, rounds: int) -> None:
    files = sorted(path.name for path in images.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    items = FileItems(str(images), f"{images}/", [(name, 0) for name in files])
    for form in ("lmdb", "arrow"):
        convert_shards(items, str(folder / form), Layout(format=form))
    encoded = [np.frombuffer(items.read(n).encoded or b"", np.uint8) for n in range(len(files))]
    cv2 = opencv()
    batches = len(files) // IMAGE_BATCH

    def library() -> None:
        for content in encoded[: batches * IMAGE_BATCH]:
            cv2.imdecode(content, cv2.IMREAD_COLOR)

    for form in ("lmdb", "arrow"):
        for way, fields in WAYS.items():
            for threads in (1, 2):
                with_feeder(
                    open_reader(str(folder / form), form.upper()),
                    f"{fields} {MEAN}",
                    IMAGE_BATCH,
                    batches,
                    threads,
                    Ratio(
                        f"{len(files)} JPEGs, {form}, {way}, {threads} thread{'s'[: threads - 1]}",
                        library,
                        batches * IMAGE_BATCH,
                        rounds,
                    ),
                )


def measure_raw(path: Path, name: str, shape: tuple[int, int, int], rounds: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (RAW_RECORDS, *shape), dtype=np.uint8)
    write_lmdb(str(path), ((b"%08d" % n, encode_pixels(image, n % 10)) for n, image in enumerate(pixels)))
    mean = np.full(shape, 120, np.float32)
    target = np.empty((RAW_BATCH, *shape), np.float32)

    def loop() -> None:
        for start in range(0, RAW_BATCHES * RAW_BATCH, RAW_BATCH):
            np.subtract(pixels[start % RAW_RECORDS :][:RAW_BATCH], mean, out=target)

    for threads in (1, 2):
        with_feeder(
            open_reader(str(path), "LMDB"),
            "mean_value: 120",
            RAW_BATCH,
            RAW_BATCHES,
            threads,
            Ratio(
                f"{name} raw, lmdb, {threads} thread{'s'[: threads - 1]}",
                loop,
                RAW_BATCHES * RAW_BATCH,
                rounds,
            ),
        )


def with_feeder(
    reader: Reader,
    fields: str,
    batch_size: int,
    batches: int,
    threads: int,
    ratio: Ratio,
) -> None:
    """Measure taking so many batches of a feeder that has nothing ready when it starts."""
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

    tell(ratio, run)
    feeder.close()
    reader.close()


class Ratio(NamedTuple):
    """What is measured against which peer, and how often; a run handles so many images."""

    name: str
    peer: Callable[[], None]
    images: int
    rounds: int


def tell(ratio: Ratio, ours: Callable[[], None]) -> None:
    """A line: rates of both sides, in turns."""
    name, peer, images, rounds = ratio
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
        f"{images / passed:>12,.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
