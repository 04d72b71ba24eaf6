"""The recorder's numbers for Prometheus: over HTTP, or as a file for node_exporter's textfile collector.

Each rank serves its own numbers, on the port asked for plus its rank on the machine, and labels them with
its rank in the job. Nothing is registered globally: two runs in one process have a registry each.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from dtrain.errors import ConfigError
from dtrain.metrics.recorder import Family, Recorder

LAST_PORT = 65535


@final
class RecorderCollector(Collector):
    """Reads a recorder whenever Prometheus asks; every sample carries the label `rank`."""

    def __init__(self, recorder: Recorder, rank: int) -> None:
        self._recorder = recorder
        self._rank = str(rank)

    def collect(self) -> Iterator[Metric]:
        for family in self._recorder.read():
            if family.points:
                yield self._metric(family)

    def _metric(self, family: Family) -> Metric:
        name = f"dtrain_{family.name}"
        names = [*(key for key, _ in family.points[0].labels), "rank"]
        values = [[*(value for _, value in point.labels), self._rank] for point in family.points]
        if family.kind == "histogram":
            histogram = HistogramMetricFamily(name, family.help, labels=names)
            bounds = [*(str(bound) for bound in family.bounds), "+Inf"]
            for labels, point in zip(values, family.points, strict=True):
                total, buckets = 0, []
                for bound, count in zip(bounds, point.counts, strict=True):
                    total += count
                    buckets.append((bound, float(total)))
                histogram.add_metric(labels, buckets, point.value)
            return histogram
        kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
        metric = kind(name, family.help, labels=names)
        for labels, point in zip(values, family.points, strict=True):
            metric.add_metric(labels, point.value)
        return metric


def registry_of(recorder: Recorder, rank: int) -> CollectorRegistry:
    """A registry of its own with the recorder's numbers and this process's CPU time and memory."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RecorderCollector(recorder, rank))
    ProcessCollector(registry=registry)
    return registry


@final
class MetricsServer:
    """Serves `/metrics` from a daemon thread until `close`. Port 0 takes any free one; see `port`."""

    def __init__(
        self, recorder: Recorder, port: int, *, host: str = "127.0.0.1", rank: int = 0, local_rank: int = 0
    ) -> None:
        own_port = port + local_rank if port else 0
        if not 0 <= own_port <= LAST_PORT:
            raise ConfigError(
                f"--metrics-port: port + local rank must be in 0..{LAST_PORT}, got {port} + {local_rank}"
            )
        try:
            self._server, self._thread = start_http_server(
                own_port, addr=host, registry=registry_of(recorder, rank)
            )
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(
                f"--metrics-port: port must be free on {host}, got {own_port} for rank {rank} ({reason}); "
                "choose another, each rank takes the port plus its rank on the machine"
            ) from None
        self.host = host
        self.port = int(self._server.server_port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@final
class TextfileWriter:
    """Writes `DIRECTORY/NAME_rank<rank>.prom` every `every_s` seconds and once more on `close`.

    For clusters where nobody scrapes jobs: node_exporter's --collector.textfile.directory reads it. The
    file stays behind with the last numbers and `dtrain_running` 0; the next run of that name replaces it.
    """

    def __init__(
        self,
        recorder: Recorder,
        directory: Path,
        *,
        name: str = "dtrain",
        rank: int = 0,
        every_s: float = 15.0,
    ) -> None:
        self.path = directory / f"{name}_rank{rank}.prom"
        self._registry = registry_of(recorder, rank)
        self._every_s = every_s
        self._stop = threading.Event()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self.write()
        except OSError as error:
            raise ConfigError(
                f"--metrics-textfile: folder must be writable, got {directory} ({error.strerror})"
            ) from None
        self._thread = threading.Thread(target=self._run, name="metrics-textfile", daemon=True)
        self._thread.start()

    def write(self) -> None:
        """Replace the file by the numbers of this moment; a reader sees the old one or the new one."""
        # node_exporter reads *.prom, so the unfinished file must not end so.
        unfinished = self.path.with_suffix(f".{os.getpid()}")
        try:
            with unfinished.open("wb") as file:
                file.write(generate_latest(self._registry))
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self.path)
        finally:
            unfinished.unlink(missing_ok=True)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._write_or_warn()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._write_or_warn()

    def _write_or_warn(self) -> None:
        try:
            self.write()
        except OSError as error:
            logging.getLogger(__name__).warning(
                "--metrics-textfile: could not write %s: %s", self.path, error.strerror
            )
