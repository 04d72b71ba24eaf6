"""Numbers that any part may hand over: counters, gauges and histograms, by name and labels.

Ask once for an instrument and keep it: `add`, `set` and `observe` cost well under a microsecond, so a
training step can afford one for each of its phases. Nothing here knows who reads the numbers.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

Labels = tuple[tuple[str, str], ...]

STEP_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper bounds in seconds: a phase of LeNet takes 0.1 ms, a stalled step a minute."""


class Point(NamedTuple):
    """One instrument at one moment; `counts` has one more entry than the histogram has bounds."""

    labels: Labels
    value: float
    counts: tuple[int, ...] = ()


class Family(NamedTuple):
    """All instruments of one name. `kind` is "counter", "gauge" or "histogram"."""

    name: str
    kind: str
    help: str
    bounds: tuple[float, ...]
    points: list[Point]


class Instrument(ABC):
    """A number under one name and one set of labels."""

    kind: str

    @abstractmethod
    def point(self, labels: Labels) -> Point:
        """The instrument as it stands."""


@final
class Counter(Instrument):
    """A sum that only grows; safe from several threads."""

    __slots__ = ("_lock", "_value")
    kind = "counter"

    def __init__(self) -> None:
        self._value = 0.0
        self._lock = threading.Lock()

    def add(self, amount: float = 1.0) -> None:
        assert amount >= 0, f"a counter must not fall, got {amount}"
        with self._lock:
            self._value += amount

    def point(self, labels: Labels) -> Point:
        return Point(labels, self._value)


@final
class Gauge(Instrument):
    """The newest value of something that rises and falls."""

    __slots__ = ("_value",)
    kind = "gauge"

    def __init__(self) -> None:
        self._value = 0.0

    def set(self, value: float) -> None:
        self._value = value

    def point(self, labels: Labels) -> Point:
        return Point(labels, float(self._value))


@final
class Histogram(Instrument):
    """How often a value fell at or below each bound, and the sum of all; safe from several threads."""

    __slots__ = ("_bounds", "_counts", "_lock", "_sum")
    kind = "histogram"

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        index = bisect_left(self._bounds, value)
        with self._lock:
            self._counts[index] += 1
            self._sum += value

    def point(self, labels: Labels) -> Point:
        with self._lock:
            return Point(labels, self._sum, tuple(self._counts))


@final
class Recorder:
    """The instruments of one run. Asking twice for a name and labels gives the same instrument."""

    def __init__(self) -> None:
        self._heads: dict[str, tuple[str, str, tuple[float, ...]]] = {}
        self._instruments: dict[str, dict[Labels, Instrument]] = {}
        self._lock = threading.Lock()

    def counter(self, name: str, about: str, labels: Mapping[str, str] | None = None) -> Counter:
        found = self._instrument(name, about, (), labels, Counter())
        assert isinstance(found, Counter)
        return found

    def gauge(self, name: str, about: str, labels: Mapping[str, str] | None = None) -> Gauge:
        found = self._instrument(name, about, (), labels, Gauge())
        assert isinstance(found, Gauge)
        return found

    def histogram(
        self,
        name: str,
        about: str,
        labels: Mapping[str, str] | None = None,
        bounds: Sequence[float] = STEP_SECONDS,
    ) -> Histogram:
        limits = tuple(bounds)
        assert list(limits) == sorted(set(limits)), f"{name}: bounds must rise, got {limits}"
        found = self._instrument(name, about, limits, labels, Histogram(limits))
        assert isinstance(found, Histogram)
        return found

    def read(self) -> list[Family]:
        """Every family with its points, in the order in which names were first asked for."""
        with self._lock:
            rows = [(name, *self._heads[name], dict(self._instruments[name])) for name in self._heads]
        return [
            Family(name, kind, about, bounds, [one.point(labels) for labels, one in instruments.items()])
            for name, kind, about, bounds, instruments in rows
        ]

    def _instrument(
        self,
        name: str,
        about: str,
        bounds: tuple[float, ...],
        labels: Mapping[str, str] | None,
        fresh: Instrument,
    ) -> Instrument:
        key: Labels = tuple(sorted((labels or {}).items()))
        with self._lock:
            head = self._heads.setdefault(name, (fresh.kind, about, bounds))
            assert head[0] == fresh.kind, f"{name} is a {head[0]}, asked for as a {fresh.kind}"
            assert head[2] == bounds, f"{name} has bounds {head[2]}, asked for with {bounds}"
            same_name = self._instruments.setdefault(name, {})
            for other in same_name:
                assert [k for k, _ in other] == [k for k, _ in key], f"{name} has labels {other}, got {key}"
                break
            return same_name.setdefault(key, fresh)
