"""Threads that read and transform batches of images with boxes ahead of the step, in order."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import NamedTuple, TypeAlias, final

import numpy as np

from dtrain.data.annotated import AnnotatedRecord, decode_annotated
from dtrain.data.annotated_boxes import ROW_VALUES, Objects
from dtrain.data.annotated_transformer import AnnotatedTransformer, Shape
from dtrain.data.bad_records import BadRecords
from dtrain.data.reader import DatumReader
from dtrain.data.sampler import Draw, Numbers
from dtrain.data.transform_kernels import Floats
from dtrain.errors import DataError

Schedule: TypeAlias = Callable[[int], Draw]
"""From the number of a local batch to its records."""


@final
class AnnotatedBatch(NamedTuple):
    """`data` is the feeder's: it holds this batch until the next one is asked for."""

    data: Floats
    """(N, C, h, w)"""
    rows: Floats
    """(1, 1, objects, 8); one row of -1 where no image has any."""
    indices: Numbers
    """The records' numbers in the reader; where a bad one was replaced, that of the one in its place."""


@final
@dataclass(frozen=True)
class AnnotatedSource:
    """Records by number, ready to be transformed."""

    reader: DatumReader
    labels: Set[int] | None = None
    """Those that a group of objects may have."""
    has_type: bool = False
    """Records without a type hold boxes."""

    def read(self, index: int) -> AnnotatedRecord:
        """Raises DataError that names source and key."""
        with self.reader.datums(np.array([index])) as messages:
            value = messages.bytes_of(0).tobytes()
        return decode_annotated(value, self.reader.where(index), labels=self.labels, has_type=self.has_type)


@final
@dataclass
class _Pending:
    """A batch on its way."""

    draw: Draw
    data: Floats | None  # None while the only sample's size is not known
    is_any_size: bool
    objects: list[Objects | None]
    missing: int
    errors: dict[int, BaseException] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: threading.Event = field(default_factory=threading.Event)

    def finish(self, n: int, error: BaseException | None) -> None:
        """Sample n needs no more work."""
        with self.lock:
            if error is not None:
                self.errors[n] = error
            self.missing -= 1
            if self.missing == 0:
                self.done.set()


_Job: TypeAlias = tuple[_Pending, int]


@final
@dataclass(frozen=True)
class _Work:
    """What the feeder and its threads share; the threads hold no reference to the feeder itself."""

    source: AnnotatedSource
    transformer: AnnotatedTransformer
    bad: BadRecords
    jobs: SimpleQueue[_Job | None] = field(default_factory=SimpleQueue)
    stopped: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def run(self) -> None:
        while (job := self.jobs.get()) is not None and not self.stopped.is_set():
            pending, n = job
            error: BaseException | None = None
            try:
                self._fill(pending, n)
            except BaseException as caught:
                error = caught
            pending.finish(n, error)

    def _fill(self, pending: _Pending, n: int) -> None:
        sample = int(pending.draw.samples[n])

        def use(index: int) -> None:
            record = self.source.read(index)
            cut = self.transformer.cut(record, sample)
            if pending.data is None or pending.is_any_size:
                pending.data = np.empty((1, *cut.shape), np.float32)
            if cut.shape != pending.data.shape[1:]:
                raise DataError(
                    f"{record.image.where}: all images of a batch must get the same shape, got "
                    f"{cut.shape} after {pending.data.shape[1:]}; set resize_param, crop_size or force_color"
                )
            self.transformer.write(cut, pending.data[n])
            pending.objects[n] = cut.objects

        records, num = pending.draw.records, len(self.source.reader)
        records[n] = self.bad.first_good(int(records[n]), num, use)

    def stop(self) -> None:
        self.stopped.set()
        for _ in self.threads:
            self.jobs.put(None)
        for thread in self.threads:
            if thread is not threading.current_thread():
                thread.join()


@final
class AnnotatedFeeder:
    """Local batches 0, 1, 2, ... of a schedule, `prefetch` of them ahead of the one that was asked for.

    An error of a sample is raised by the `next` whose batch it spoiled. `close` ends the threads; so do
    dropping the feeder and the end of the program.
    """

    def __init__(
        self,
        source: AnnotatedSource,
        transformer: AnnotatedTransformer,
        schedule: Schedule,
        *,
        shape: Shape | None,
        batch_size: int,
        prefetch: int = 4,
        threads: int = 1,
        bad: BadRecords | None = None,
        name: str = "feeder",
    ) -> None:
        """shape: (C, h, w) of every image; None if each batch, which is then one image, has its own."""
        assert shape is not None or batch_size == 1
        self.wait_s = 0.0
        """Seconds that the last `next` waited for data."""
        self._schedule = schedule
        self._shape = shape
        self._batch_size = batch_size
        self._prefetch = max(1, prefetch)
        self._ahead: deque[_Pending] = deque()
        self._free: list[Floats] = []  # arrays of batches that the consumer is through with
        self._last: Floats | None = None
        self._number = 0
        self._work = _Work(source, transformer, BadRecords() if bad is None else bad)
        self._stop = weakref.finalize(self, _Work.stop, self._work)
        for number in range(max(1, threads)):
            # A daemon, since the interpreter joins other threads before it runs finalizers.
            thread = threading.Thread(target=self._work.run, name=f"{name}-{number}", daemon=True)
            self._work.threads.append(thread)
            thread.start()

    def next(self) -> AnnotatedBatch:
        """The next batch; the data that the last call returned may be overwritten from now on."""
        if self._work.stopped.is_set():
            raise RuntimeError("next() on a closed feeder")
        start = time.perf_counter()
        if self._last is not None and self._shape is not None:
            self._free.append(self._last)
        while len(self._ahead) <= self._prefetch:
            self._begin()
        pending = self._ahead.popleft()
        pending.done.wait()
        self.wait_s = time.perf_counter() - start
        if pending.errors:
            raise pending.errors[min(pending.errors)]
        assert pending.data is not None
        self._last = pending.data
        return AnnotatedBatch(pending.data, _rows(pending.objects), pending.draw.records)

    def close(self) -> None:
        """End the threads; the reader stays open."""
        self._stop()

    def _begin(self) -> None:
        draw = self._schedule(self._number)
        self._number += 1
        data = None
        if self._shape is not None:
            data = self._free.pop() if self._free else np.zeros((self._batch_size, *self._shape), np.float32)
        pending = _Pending(draw, data, data is None, [None] * self._batch_size, self._batch_size)
        self._ahead.append(pending)
        for n in range(self._batch_size):
            self._work.jobs.put((pending, n))


def _rows(objects: list[Objects | None]) -> Floats:
    rows = np.concatenate([one.rows(item) for item, one in enumerate(objects) if one is not None])
    return (rows if len(rows) else np.full((1, ROW_VALUES), -1, np.float32))[None, None]
