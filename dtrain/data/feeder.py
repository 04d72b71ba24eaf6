"""Threads that read and transform batches ahead of the step, in order."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt

from dtrain.data.bad_records import BadRecords
from dtrain.data.fill import Floats, fill
from dtrain.data.reader import Reader
from dtrain.data.record import Record
from dtrain.data.sampler import Draw, Numbers
from dtrain.data.transformer import Transformer

Schedule = Callable[[int], Draw]
"""From the number of a local batch to its records; called from the feeder's threads."""

_PART_FLOATS = 1 << 20  # a thread takes images for so many values at a time: 4 MB, some milliseconds
_ALIGNMENT_BYTES = 64


class Batch(NamedTuple):
    """Arrays that are the feeder's: they hold this batch until the next one is asked for."""

    data: Floats
    """(N, C, h, w)"""
    labels: Floats
    """(N,), or (N, L) if records have several"""
    indices: Numbers
    """The records' numbers in the reader; where a bad one was replaced, that of the one in its place."""


@final
class Feeder:
    """Local batches 0, 1, 2, ... of a schedule, each filled before it is asked for if the threads keep up.

    Image sizes are those of the schedule's first record; batches of one image that is not cropped have its
    own size, as Caffe's. An error in a thread is raised by the `next` whose
    batch it spoiled. `close` ends the threads; so do dropping the feeder and the end of the program.
    """

    def __init__(
        self,
        reader: Reader,
        transformer: Transformer,
        schedule: Schedule,
        *,
        batch_size: int,
        prefetch: int = 4,
        threads: int = 1,
        bad: BadRecords | None = None,
        name: str = "feeder",
    ) -> None:
        bad = BadRecords() if bad is None else bad
        first = first_record(reader, transformer, int(schedule(0).records[0]), bad)
        self.shape = (batch_size, *transformer.output_shape(first))
        """(N, C, h, w) of every batch."""
        self.label_shape = (batch_size,) if len(first.labels) == 1 else (batch_size, len(first.labels))
        self.wait_s = 0.0
        """Seconds that the last `next` waited for data."""
        self.total_wait_s = 0.0
        slots = [_Slot(_aligned(self.shape), _aligned(self.label_shape)) for _ in range(max(1, prefetch) + 1)]
        per_part = max(1, _PART_FLOATS // max(1, int(np.prod(self.shape[1:]))))
        self._work = _Work(reader, transformer, schedule, slots, batch_size, per_part, bad)
        self._stop = weakref.finalize(self, _Work.stop, self._work)
        for number in range(max(1, threads)):
            # A daemon, since the interpreter joins other threads before it runs finalizers.
            thread = threading.Thread(target=self._work.run, name=f"{name}-{number}", daemon=True)
            self._work.threads.append(thread)
            thread.start()

    def next(self) -> Batch:
        """The next batch; what the last call returned may be overwritten from now on."""
        start = time.perf_counter()
        batch = self._work.take()
        self.wait_s = time.perf_counter() - start
        self.total_wait_s += self.wait_s
        return batch

    def seek(self, step: int) -> None:
        """Make `next` return local batch number `step`."""
        self._work.seek(step)

    def close(self) -> None:
        """End the threads; the reader stays open."""
        self._stop()


def first_record(reader: Reader, transformer: Transformer, index: int, bad: BadRecords) -> Record:
    """The first record from `index` on that can be read and transformed."""

    def use(index: int) -> None:
        transformer.output_shape(reader.read(index))

    return reader.read(bad.first_good(index, len(reader), use))


@final
@dataclass(slots=True)
class _Slot:
    """A batch's arrays, and how far it is."""

    data: Floats
    labels: Floats
    draw: Draw | None = None
    given_out: int = 0  # samples that threads have taken
    filled: int = 0
    error: BaseException | None = None


@final
@dataclass
class _Work:
    """What the feeder and its threads share; the threads hold no reference to the feeder itself."""

    reader: Reader
    transformer: Transformer
    schedule: Schedule
    slots: list[_Slot]
    batch_size: int
    per_part: int
    bad: BadRecords
    threads: list[threading.Thread] = field(default_factory=list)
    taken: int = 0  # the batch that `take` returns next
    filling: int = 0  # the batch that threads take parts of
    busy: int = 0  # threads inside a part
    stopped: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)
    seeking: bool = False

    def run(self) -> None:
        while (part := self._next_part()) is not None:
            slot, draw, start, stop = part
            error: BaseException | None = None
            try:
                where = slice(start, stop)
                if self.batch_size == 1 and self.transformer.keeps_size:
                    self._fit(slot, draw)
                fill(
                    self.reader,
                    self.transformer,
                    draw.records[where],
                    draw.samples[where],
                    slot.data[where],
                    slot.labels[where],
                    self.bad,
                )
            except BaseException as caught:
                error = caught
            with self.changed:
                self.busy -= 1
                slot.filled += stop - start
                slot.error = slot.error or error
                if slot.filled == self.batch_size or self.busy == 0:
                    self.changed.notify_all()

    def _fit(self, slot: _Slot, draw: Draw) -> None:
        """Give the slot the size of its image, which in a batch of one may be any."""
        record = first_record(self.reader, self.transformer, int(draw.records[0]), self.bad)
        shape = (1, *self.transformer.output_shape(record))
        if slot.data.shape != shape:
            slot.data = _aligned(shape)

    def _next_part(self) -> tuple[_Slot, Draw, int, int] | None:
        with self.changed:
            while True:
                # One slot is the consumer's: the batch that it took last.
                while not self.stopped and (self.seeking or self.filling >= self.taken + len(self.slots) - 1):
                    self.changed.wait()
                if self.stopped:
                    return None
                slot = self.slots[self.filling % len(self.slots)]
                if slot.draw is not None:
                    break
                try:
                    slot.draw = self.schedule(self.filling)
                    break
                except BaseException as error:
                    slot.error = error
                    slot.filled = self.batch_size
                    self.filling += 1
                    self.changed.notify_all()
            start = slot.given_out
            stop = min(self.batch_size, start + self.per_part)
            slot.given_out = stop
            if stop == self.batch_size:
                self.filling += 1
            self.busy += 1
            return slot, slot.draw, start, stop

    def take(self) -> Batch:
        with self.changed:
            slot = self.slots[self.taken % len(self.slots)]
            while slot.filled < self.batch_size and not self.stopped:
                self.changed.wait()
            if self.stopped:
                raise RuntimeError("next() on a closed feeder")
            if slot.error is not None:
                raise slot.error
            assert slot.draw is not None
            batch = Batch(slot.data, slot.labels, slot.draw.records)
            # The slot after the ring's last free one is the batch taken before this one.
            _reset(self.slots[(self.taken - 1) % len(self.slots)])
            self.taken += 1
            self.changed.notify_all()
            return batch

    def seek(self, step: int) -> None:
        with self.changed:
            self.seeking = True
            while self.busy:
                self.changed.wait()
            for slot in self.slots:
                _reset(slot)
            self.taken = self.filling = step
            self.seeking = False
            self.changed.notify_all()

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
        for thread in self.threads:
            if thread is not threading.current_thread():
                thread.join()


def _reset(slot: _Slot) -> None:
    slot.draw = None
    slot.given_out = slot.filled = 0
    slot.error = None


def _aligned(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Zeros that start at a multiple of 64 bytes; written now so that no page is first touched in a step."""
    count = int(np.prod(shape))
    memory = np.zeros(count * 4 + _ALIGNMENT_BYTES, np.uint8)
    memory.fill(0)
    start = -memory.ctypes.data % _ALIGNMENT_BYTES
    return memory[start : start + count * 4].view(np.float32).reshape(shape)
