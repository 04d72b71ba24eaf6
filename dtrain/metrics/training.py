"""A run's events as instruments: the catalogue of what a run exports.

Names get the prefix `dtrain_` where they are served.
"""

from __future__ import annotations

import time
from typing import final

from dtrain.metrics.recorder import Counter, Gauge, Histogram, Recorder
from dtrain.metrics.reporter import Display, PhaseSeconds, Reporter, Score, Snapshot, Start, Step

SNAPSHOT_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)


@final
class TrainingMetrics(Reporter):
    """Hands every event's numbers to a recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        gauge, counter, histogram = recorder.gauge, recorder.counter, recorder.histogram
        self._running: Gauge = gauge("running", "1 while the run goes on, 0 once it has ended.")
        self._ranks: Gauge = gauge("ranks", "Processes that train together.")
        self._iteration: Gauge = gauge("iteration", "Updates that the weights have had.")
        self._max_iter: Gauge = gauge("max_iteration", "Iteration at which the run ends.")
        self._loss: Gauge = gauge("loss", "Smoothed training loss of the newest display.")
        self._lr: Gauge = gauge("lr", "Learning rate of the newest display.")
        self._samples: Counter = counter("samples_total", "Samples that this rank has trained on.")
        self._step: Histogram = histogram("step_seconds", "Seconds of one training iteration.")
        about = "Seconds of one training iteration by phase; allreduce_exposed is what backward did not hide."
        self._phases: tuple[Histogram, ...] = tuple(
            histogram("step_phase_seconds", about, {"phase": phase}) for phase in PhaseSeconds._fields
        )
        self._tests: Histogram = histogram(
            "test_seconds", "Seconds of one pass over a test net.", None, SNAPSHOT_SECONDS
        )
        self._snapshots: Histogram = histogram(
            "snapshot_seconds",
            "Seconds from a snapshot's begin to its last whole file.",
            None,
            SNAPSHOT_SECONDS,
        )
        self._last_snapshot: Gauge = gauge(
            "snapshot_timestamp_seconds", "Unix time of the newest whole snapshot; 0 before the first."
        )

    def start(self, event: Start) -> None:
        self._running.set(1)
        self._ranks.set(event.ranks)
        self._iteration.set(event.iteration)
        self._max_iter.set(event.max_iter)
        labels = {"net": event.net, "solver": event.solver, "lr_policy": event.lr_policy}
        self._recorder.gauge("run_info", "Always 1; the labels say what is trained.", labels).set(1)

    def step(self, event: Step) -> None:
        self._iteration.set(event.iteration)
        self._samples.add(event.samples)
        total = 0.0
        for histogram, seconds in zip(self._phases, event.seconds, strict=True):
            histogram.observe(seconds)
            total += seconds
        self._step.observe(total)

    def display(self, event: Display) -> None:
        self._loss.set(event.loss)
        self._lr.set(event.lr)

    def testing(self, iteration: int, net_id: int) -> None:
        pass  # the score tells all

    def test(self, event: Score) -> None:
        about = "One output of a test net, its mean over the test set, such as accuracy."
        for index, (name, value, _) in enumerate(event.outputs):
            labels = {"net": str(event.net_id), "output": name, "index": str(index)}
            self._recorder.gauge("test_output", about, labels).set(value)
        if event.loss is not None:
            self._recorder.gauge(
                "test_loss", "Loss of a test net, its mean over the test set.", {"net": str(event.net_id)}
            ).set(event.loss)
        self._tests.observe(event.seconds)

    def test_interrupted(self) -> None:
        pass

    def snapshot(self, event: Snapshot) -> None:
        pass  # counted once it is whole

    def snapshot_done(self, iteration: int, seconds: float) -> None:
        self._snapshots.observe(seconds)
        self._last_snapshot.set(time.time())

    def final_loss(self, iteration: int, loss: float) -> None:
        self._loss.set(loss)

    def done(self) -> None:
        self._running.set(0)

    def stopped_early(self) -> None:
        self._running.set(0)

    def close(self) -> None:
        self._running.set(0)
