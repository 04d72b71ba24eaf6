"""The dashboard and the launchers name only what a run exports."""

import json
import re
from pathlib import Path

from dtrain.comm.single import SingleCommunicator
from dtrain.data.bad_records import BadRecords
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.data_source import DataSource
from dtrain.layers.layer import Scope
from dtrain.metrics.prometheus import registry_of
from dtrain.metrics.recorder import Recorder
from dtrain.metrics.reporter import Output, Score
from dtrain.metrics.training import TrainingMetrics
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.solvers.skipped_records import SkippedRecords
from tests.metrics.events import START, short_run
from tests.solvers.test_loss_scaling import solver

SOURCE = """
layer { name: "data" type: "MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 1 channels: 1 height: 1 width: 1 } }
"""
LAUNCH = Path(__file__).parents[2] / "launch"


def exported() -> set[str]:
    recorder = Recorder()
    metrics = TrainingMetrics(recorder)
    metrics.start(START)
    short_run(metrics)
    metrics.test(Score(0, 0, [Output("accuracy", 1.0)], loss=0.5))
    solver("fp16", record=recorder)
    SkippedRecords([net_with_a_source()], SingleCommunicator(), recorder)
    return {sample.name for family in registry_of(recorder, 0).collect() for sample in family.samples}


def net_with_a_source() -> Net:
    """Whose source may replace records."""
    param = pb.NetParameter()
    text.parse(SOURCE, param)
    net = Net(param, Scope(CpuBackend(engine="CAFFE"), pb.TRAIN))
    (source,) = net.layers
    assert isinstance(source, DataSource)
    source.bad_records = BadRecords()
    return net


def expressions() -> list[str]:
    board = json.loads((LAUNCH / "grafana-dashboard.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def test_every_number_on_the_dashboard_is_exported() -> None:
    named = {name for text in expressions() for name in re.findall(r"\b(?:dtrain|process)_\w+", text)}
    assert len(named) > 10
    assert named <= exported()


def test_every_phase_on_the_dashboard_exists() -> None:
    phases = set(re.findall(r'phase=~?"([^"]+)"', " ".join(expressions())))
    assert {phase for group in phases for phase in group.split("|")} <= {
        *("data_wait", "forward", "backward", "allreduce_exposed", "update")
    }


def test_panels_do_not_overlap() -> None:
    board = json.loads((LAUNCH / "grafana-dashboard.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
