"""Threads that read and transform batches ahead of the step, in order."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import NamedTuple, TypeAlias, final

import numpy as np

from dtrain.data.bad_records import BadRecords
from dtrain.data.batch_ring import Allocate, Ring, Slot, aligned_zeros
from dtrain.data.fill import fill
from dtrain.data.reader import Reader
from dtrain.data.record import Record
from dtrain.data.sample_writer import Floats, Samples, SampleWriter
from dtrain.data.sampler import Draw, Numbers

Schedule: TypeAlias = Callable[[int], Draw]
"""From the number of a local batch to its records; called from the feeder's threads."""

_PART_VALUES = 1 << 20  # a thread takes samples of so many values at a time: some milliseconds
_PART_BATCHES = 8  # or for so many batches, if they are fewer values
_LARGER = 4  # so many times as many values, where a batch is that large and all threads still have work
_PREFETCH = 4  # Caffe's


class Batch(NamedTuple):
    """Arrays that are the feeder's: they hold this batch until the next one is asked for."""

    data: Samples
    """What the writer makes of each sample: images (N, C, h, w), or bytes that become images."""
    labels: Floats
    """(N,), or (N, L) if records have several"""
    indices: Numbers
    """The records' numbers in the reader; where a bad one was replaced, that of the one in its place."""


@final
class Feeder:
    """Local batches 0, 1, 2, ... of a schedule, each filled before it is asked for if the threads keep up.

    Image sizes are those of the schedule's first record; batches of one image that is not cropped have its
    own size, as Caffe's. An error in a thread is raised by the `next` whose batch it spoiled. `close` ends
    the threads; so do dropping the feeder and the end of the program.
    """

    def __init__(
        self,
        reader: Reader,
        writer: SampleWriter,
        schedule: Schedule,
        *,
        batch_size: int,
        prefetch: int | None = None,
        threads: int = 1,
        bad: BadRecords | None = None,
        allocate: Allocate = aligned_zeros,
        name: str = "feeder",
    ) -> None:
        """prefetch: how many batches may be filled ahead; by default 4, and more where they are small.

        allocate: called once for the data of all batches and once for their labels; again for a larger
        image, where a batch is one image of any size.
        """
        bad = BadRecords() if bad is None else bad
        first = first_record(reader, writer, int(schedule(0).records[0]), bad)
        self.shape = (batch_size, *writer.output_shape(first))
        """Of every batch: that of a sample behind their number."""
        self.label_shape = (batch_size,) if len(first.labels) == 1 else (batch_size, len(first.labels))
        self.wait_s = 0.0
        """Seconds that the last `next` waited for data; 0 if its batch was ready."""
        self.total_wait_s = 0.0
        self.num_waits = 0
        """How many times `next` found its batch not ready."""
        threads = max(1, threads)
        per_part = max(1, _PART_VALUES // max(1, int(np.prod(self.shape[1:]))))
        at_once = max(1, min(per_part // batch_size, _PART_BATCHES))
        if prefetch is None:
            prefetch = _PREFETCH if at_once == 1 else max(_PREFETCH, at_once * (threads + 1))
        prefetch = max(1, prefetch)
        if per_part < batch_size:
            per_part = min(
                batch_size, max(per_part, min(_LARGER * per_part, batch_size * prefetch // threads))
            )
        # The threads' parts and the batches that wait for the consumer share the ring.
        at_once = min(at_once, -(-prefetch // (threads + 1)))
        num_slots = -(-(prefetch + 1) // at_once) * at_once
        ring = Ring(num_slots, self.shape, writer.dtype, self.label_shape, allocate)
        self._work = _Work(reader, writer, schedule, ring, batch_size, per_part, at_once, bad, allocate)
        self._stop = weakref.finalize(self, _Work.stop, self._work)
        for number in range(threads):
            # A daemon, since the interpreter joins other threads before it runs finalizers.
            thread = threading.Thread(target=self._work.run, name=f"{name}-{number}", daemon=True)
            self._work.threads.append(thread)
            thread.start()

    def next(self) -> Batch:
        """The next batch; what the last call returned may be overwritten from now on."""
        batch, self.wait_s = self._work.take()
        self.num_waits += self.wait_s > 0
        self.total_wait_s += self.wait_s
        return batch

    @property
    def num_ready(self) -> int:
        """How many batches `next` would return without waiting."""
        return self._work.num_ready()

    def seek(self, step: int) -> None:
        """Make `next` return local batch number `step`."""
        self._work.seek(step)

    def close(self) -> None:
        """End the threads; the reader stays open."""
        self._stop()


def first_record(reader: Reader, writer: SampleWriter, index: int, bad: BadRecords) -> Record:
    """The first record from `index` on that can be read and transformed."""

    def use(index: int) -> None:
        writer.output_shape(reader.read(index))

    return reader.read(bad.first_good(index, len(reader), use))


@final
@dataclass(slots=True)
class _Part:
    """What a thread takes at once: some samples of a large batch, or several small batches."""

    number: int
    """The first batch."""
    count: int
    start: int
    stop: int
    """Samples of each batch."""


@final
@dataclass
class _Work:
    """What the feeder and its threads share; the threads hold no reference to the feeder itself.

    A switch between threads costs as much as a small batch. So threads take several of those at once, wake
    the consumer when all are there and only if it waits, and are woken when there is room for as many.
    """

    reader: Reader
    writer: SampleWriter
    schedule: Schedule
    ring: Ring
    batch_size: int
    per_part: int  # images that a thread takes at once
    at_once: int  # batches that a thread takes at once, if they are that small
    bad: BadRecords
    allocate: Allocate
    threads: list[threading.Thread] = field(default_factory=list)
    taken: int = 0  # the batch that `take` returns next
    filling: int = 0  # the batch that threads take parts of
    busy: int = 0  # threads with parts
    parked: int = 0  # threads that sleep until `room` has something for them
    is_awaited: bool = False  # the consumer sleeps until `ready` has something
    seeking: bool = False
    stopped: bool = False
    # One that its owner can take again, since collecting garbage may call `stop` anywhere.
    lock: threading.RLock = field(default_factory=threading.RLock)
    room: SimpleQueue[None] = field(default_factory=SimpleQueue)
    ready: SimpleQueue[None] = field(default_factory=SimpleQueue)

    def run(self) -> None:
        part: _Part | None = None
        while True:
            with self.lock:
                if part is not None:
                    self._finish(part)
                if self.stopped:
                    return
                part = self._next_part()
                if part is None:
                    self.parked += 1
                    if self.stopped:  # by the collection of garbage, since it was asked above
                        return
            if part is None:
                self.room.get()
            else:
                self._fill(part)

    def _next_part(self) -> _Part | None:
        """What a thread does next; nothing while all slots are full."""
        room = self._free()
        if self.seeking or room == 0:
            return None
        self.busy += 1
        number, size = self.filling, self.batch_size
        if self.per_part >= size:
            count = min(room, self.at_once, len(self.ring.slots) - number % len(self.ring.slots))
            self.filling += count
            return _Part(number, count, 0, size)
        slot = self.ring.at(number)
        if slot.given_out == 0:
            self._draw(number)
        part = _Part(number, 1, slot.given_out, min(size, slot.given_out + self.per_part))
        slot.given_out = part.stop
        self.filling += part.stop == size
        return part

    def _free(self) -> int:
        """Slots for batches that no thread has begun; one more is the consumer's, the batch taken last."""
        return self.taken + len(self.ring.slots) - 1 - self.filling

    def _draw(self, number: int) -> None:
        slot = self.ring.at(number)
        try:
            slot.draw = self.schedule(number)
        except BaseException as error:
            slot.error = error

    def _fill(self, part: _Part) -> None:
        numbers = range(part.number, part.number + part.count)
        if self.per_part >= self.batch_size:
            for number in numbers:
                self._draw(number)
        slots = [self.ring.at(number) for number in numbers]
        if part.count > 1 and self.ring.is_dense and self._fill_joined(part.number, slots):
            return
        for slot in slots:
            try:
                if slot.draw is not None:
                    self._fill_slot(slot, slot.draw, slice(part.start, part.stop))
            except BaseException as error:
                slot.error = error

    def _fill_joined(self, number: int, slots: list[Slot]) -> bool:
        """Fill several batches as one; False if they have to be filled one by one."""
        draws = [slot.draw for slot in slots if slot.draw is not None]
        if len(draws) < len(slots) or self._takes_any_size:
            return False
        records = np.concatenate([draw.records for draw in draws])
        samples = np.concatenate([draw.samples for draw in draws])
        data, labels = self.ring.joined(number, len(slots))
        try:
            fill(self.reader, self.writer, records, samples, data, labels, self.bad)
        except BaseException:
            return False  # one by one they show whose error it is
        for slot, draw, read in zip(slots, draws, records.reshape(len(slots), -1), strict=True):
            slot.draw = Draw(read, draw.samples)
        return True

    def _fill_slot(self, slot: Slot, draw: Draw, where: slice) -> None:
        if self._takes_any_size:
            record = first_record(self.reader, self.writer, int(draw.records[0]), self.bad)
            slot.fit((1, *self.writer.output_shape(record)), self.allocate)
        fill(
            self.reader,
            self.writer,
            draw.records[where],
            draw.samples[where],
            slot.data[where],
            slot.labels[where],
            self.bad,
        )

    @property
    def _takes_any_size(self) -> bool:
        return self.batch_size == 1 and self.writer.keeps_size

    def _finish(self, part: _Part) -> None:
        self.busy -= 1
        for number in range(part.number, part.number + part.count):
            self.ring.at(number).filled += part.stop - part.start
        if self.is_awaited and (self.busy == 0 or self._is_full(self.taken)):
            self._call_consumer()

    def _call_consumer(self) -> None:
        if self.is_awaited:
            self.is_awaited = False
            self.ready.put(None)

    def _call_threads(self, most: int) -> None:
        for _ in range(min(most, self.parked)):
            self.parked -= 1
            self.room.put(None)

    def take(self) -> tuple[Batch, float]:
        """The next batch, and for how many seconds it had to be waited for."""
        wait_s = 0.0
        while True:
            with self.lock:
                if self.stopped:
                    raise RuntimeError("next() on a closed feeder")
                slot = self.ring.at(self.taken)
                if slot.filled == self.batch_size:
                    if slot.error is not None:
                        raise slot.error
                    assert slot.draw is not None
                    # The slot after the ring's last free one is the batch taken before this one.
                    self.ring.at(self.taken - 1).reset()
                    self.taken += 1
                    if self.parked and self._free() >= self.at_once:
                        self._call_threads(1 if self.per_part >= self.batch_size else self.parked)
                    return Batch(slot.data, slot.labels, slot.draw.records), wait_s
                self.is_awaited = True
            begin = time.perf_counter()
            self.ready.get()
            wait_s += time.perf_counter() - begin

    def num_ready(self) -> int:
        with self.lock:
            ready = 0
            while ready < len(self.ring.slots) - 1 and self._is_full(self.taken + ready):
                ready += 1
            return ready

    def _is_full(self, number: int) -> bool:
        return self.ring.at(number).filled == self.batch_size

    def seek(self, step: int) -> None:
        self.seeking = True
        while True:
            with self.lock:
                if not self.busy:
                    for slot in self.ring.slots:
                        slot.reset()
                    self.taken = self.filling = step
                    self.seeking = False
                    self._call_threads(self.parked)
                    return
                self.is_awaited = True
            self.ready.get()

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
            self._call_consumer()
            self._call_threads(self.parked)
        if threading.current_thread() in self.threads:
            return  # which may hold the lock, so that the others cannot end before it
        for thread in self.threads:
            thread.join()
