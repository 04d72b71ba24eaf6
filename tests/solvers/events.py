"""A reporter that keeps what it hears."""

from __future__ import annotations

from collections.abc import Callable

from dtrain.metrics.reporter import Display, Reporter, Score, Snapshot, Start, Step

Event = tuple[str, object]


class Heard(Reporter):
    """Every event with its name, in order; `then` is called after each step."""

    def __init__(self, then: Callable[[Step], None] = lambda _: None) -> None:
        self.events: list[Event] = []
        self._then = then

    def of(self, name: str) -> list[object]:
        return [value for kind, value in self.events if kind == name]

    def displays(self) -> list[Display]:
        return [value for _, value in self.events if isinstance(value, Display)]

    def scores(self) -> list[Score]:
        return [value for _, value in self.events if isinstance(value, Score)]

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def start(self, event: Start) -> None:
        self.events.append(("start", event))

    def step(self, event: Step) -> None:
        self.events.append(("step", event))
        self._then(event)

    def display(self, event: Display) -> None:
        self.events.append(("display", event))

    def testing(self, iteration: int, net_id: int) -> None:
        self.events.append(("testing", (iteration, net_id)))

    def test(self, event: Score) -> None:
        self.events.append(("test", event))

    def test_interrupted(self) -> None:
        self.events.append(("test_interrupted", None))

    def snapshot(self, event: Snapshot) -> None:
        self.events.append(("snapshot", event))

    def snapshot_done(self, iteration: int, seconds: float) -> None:
        self.events.append(("snapshot_done", iteration))

    def final_loss(self, iteration: int, loss: float) -> None:
        self.events.append(("final_loss", loss))

    def done(self) -> None:
        self.events.append(("done", None))

    def stopped_early(self) -> None:
        self.events.append(("stopped_early", None))

    def close(self) -> None:
        self.events.append(("close", None))
