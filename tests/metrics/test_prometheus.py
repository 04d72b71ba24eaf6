"""What Prometheus reads: a real scrape over HTTP, and the textfile."""

import logging
import os
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dtrain.errors import ConfigError
from dtrain.metrics.prometheus import MetricsServer, TextfileWriter
from dtrain.metrics.recorder import Recorder
from dtrain.metrics.training import TrainingMetrics
from tests.metrics.events import short_run

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples_of(text: str) -> Samples:
    """(name, labels without rank 3) -> value of every sample that is ours."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("dtrain_"):
                assert sample.labels.pop("rank") == "3"
                found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def scrape(server: MetricsServer) -> str:
    with urllib.request.urlopen(f"http://{server.host}:{server.port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def label(name: str, *pairs: tuple[str, str]) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(pairs)


def test_a_scrape_gives_the_runs_numbers() -> None:
    recorder = Recorder()
    server = MetricsServer(recorder, 0, rank=3)
    try:
        short_run(TrainingMetrics(recorder))
        samples = samples_of(scrape(server))
    finally:
        server.close()
    assert samples[label("dtrain_loss")] == 0.25
    assert samples[label("dtrain_lr")] == 0.01
    assert samples[label("dtrain_iteration")] == 200
    assert samples[label("dtrain_ranks")] == 2
    assert samples[label("dtrain_samples_total")] == 200 * 64
    assert samples[label("dtrain_snapshot_seconds_count")] == 1
    assert samples[label("dtrain_running")] == 0
    accuracy = (("net", "0"), ("output", "accuracy"), ("index", "0"))
    assert samples[label("dtrain_test_output", *accuracy)] == 0.9914
    run = (("net", "LeNet"), ("solver", "SGD"), ("lr_policy", "inv"))
    assert samples[label("dtrain_run_info", *run)] == 1
    assert samples[label("dtrain_step_seconds_sum")] == pytest.approx(200 * 0.0057)


@pytest.mark.parametrize("phase", ["data_wait", "forward", "backward", "allreduce_exposed", "update"])
def test_each_phase_has_a_cumulative_histogram(phase: str) -> None:
    recorder = Recorder()
    server = MetricsServer(recorder, 0, rank=3)
    try:
        short_run(TrainingMetrics(recorder))
        samples = samples_of(scrape(server))
    finally:
        server.close()
    name, tag = "dtrain_step_phase_seconds", ("phase", phase)
    buckets = {
        float(dict(labels)["le"]): value
        for (sample, labels), value in samples.items()
        if sample == f"{name}_bucket" and tag in labels
    }
    assert buckets[float("inf")] == samples[label(f"{name}_count", tag)] == 200
    assert buckets[0.0001] == (200 if phase == "data_wait" else 0)
    assert [buckets[bound] for bound in sorted(buckets)] == sorted(buckets.values())


def test_two_runs_in_one_process_serve_their_own_numbers() -> None:
    one, two = Recorder(), Recorder()
    servers = [MetricsServer(one, 0, rank=3), MetricsServer(two, 0, rank=3)]
    try:
        one.gauge("loss", "Loss.").set(1.0)
        two.gauge("loss", "Loss.").set(2.0)
        values = [samples_of(scrape(server))[label("dtrain_loss")] for server in servers]
    finally:
        for server in servers:
            server.close()
    assert values == [1.0, 2.0]


def test_a_port_in_use_is_named() -> None:
    first = MetricsServer(Recorder(), 0)
    try:
        with pytest.raises(ConfigError, match=rf"free on 127.0.0.1, got {first.port} for rank 5") as error:
            MetricsServer(Recorder(), first.port - 1, rank=5, local_rank=1)
        assert "port plus its rank on the machine" in str(error.value)
    finally:
        first.close()


def test_a_port_beyond_the_last_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must be in 0..65535, got 65535 \+ 1"):
        MetricsServer(Recorder(), 65535, local_rank=1)


def test_closing_gives_the_port_back() -> None:
    server = MetricsServer(Recorder(), 0)
    server.close()
    MetricsServer(Recorder(), server.port).close()


def test_the_textfile_is_whole_and_ends_with_the_last_numbers(tmp_path: Path) -> None:
    recorder = Recorder()
    writer = TextfileWriter(recorder, tmp_path / "new", name="digits", rank=3, every_s=3600)
    metrics = TrainingMetrics(recorder)
    short_run(metrics)
    writer.close()
    assert os.listdir(tmp_path / "new") == ["digits_rank3.prom"]
    assert samples_of(writer.path.read_text())[label("dtrain_iteration")] == 200


def test_the_textfile_is_rewritten_while_the_run_goes_on(tmp_path: Path) -> None:
    recorder = Recorder()
    writer = TextfileWriter(recorder, tmp_path, every_s=0.01)
    try:
        recorder.gauge("loss", "Loss.").set(7.0)
        for _ in range(500):
            if "dtrain_loss" in writer.path.read_text():
                break
            writer._stop.wait(0.01)
        assert 'dtrain_loss{rank="0"} 7.0' in writer.path.read_text()
    finally:
        writer.close()


def test_a_textfile_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--metrics-textfile: folder must be writable"):
        TextfileWriter(Recorder(), tmp_path / "file")


def test_a_textfile_lost_later_warns_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = TextfileWriter(Recorder(), tmp_path / "gone", every_s=3600)
    writer.path.unlink()
    (tmp_path / "gone").rmdir()
    with caplog.at_level(logging.WARNING):
        writer.close()
    assert "could not write" in caplog.text
