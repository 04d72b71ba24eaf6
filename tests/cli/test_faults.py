"""A fault of the input is one line on stderr from one rank, and no rank ends well."""

import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dtrain.cli.main import run
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.blobproto import fill_blobproto
from dtrain.proto.files import write_binary
from tests.cli.running import Outcome, dtrain

Break = Callable[[Path], object]


@dataclass(frozen=True)
class Fault:
    """What is done to a good folder, the command that meets it, and the line that it tells."""

    name: str
    arguments: str
    told: str
    breaks: Break = lambda at: None
    status: int = 1
    is_pattern: bool = False
    by_rank: bool = False  # met by ranks while they run, or by the one rank that reads


def edit(file: str, old: str, new: str) -> Break:
    def breaks(at: Path) -> None:
        text = (at / file).read_text()
        assert old in text
        (at / file).write_text(text.replace(old, new, 1))

    return breaks


def narrow(at: Path) -> None:
    """A net of three classes, and weights that fit it."""
    edit("net.prototxt", "num_output: 10", "num_output: 3")(at)
    net = pb.NetParameter()
    for name, shapes in {"ip1": [(32, 196), (32,)], "ip2": [(3, 32), (3,)]}.items():
        layer = net.layer.add(name=name, type="InnerProduct")
        for shape in shapes:
            fill_blobproto(layer.blobs.add(), np.zeros(shape, np.float32))
    write_binary(at / "narrow.caffemodel", net)


FAULTS = [
    Fault(
        "no_such_file", "none.prototxt", "none.prototxt: must be a readable prototxt file, got No such file"
    ),
    Fault(
        "an_unknown_field",
        "solver.prototxt",
        'solver.prototxt:4:1: unknown SolverParameter field "base_rl"; did you mean "base_lr"?',
        edit("solver.prototxt", "base_lr", "base_rl"),
    ),
    Fault(
        "an_unknown_field_of_the_net",
        "solver.prototxt",
        'net.prototxt:19:16: layer "ip1": unknown LayerParameter field "tpye"; did you mean "type"?',
        edit("net.prototxt", '"ip1"  type', '"ip1"  tpye'),
    ),
    Fault(
        "a_missing_net",
        "solver.prototxt",
        "solver.prototxt:1: net must be an existing file, got none.prototxt",
        edit("solver.prototxt", "net.prototxt", "none.prototxt"),
    ),
    Fault(
        "an_unknown_policy",
        "solver.prototxt",
        'unknown lr_policy "fixd"; did you mean "fixed"?',
        edit("solver.prototxt", '"fixed"', '"fixd"'),
    ),
    Fault(
        "an_unknown_rule",
        "solver.prototxt",
        'unknown solver type "SDG"; did you mean "SGD"?',
        edit("solver.prototxt", "momentum", 'type: "SDG"\nmomentum'),
    ),
    Fault(
        "an_unknown_layer",
        "solver.prototxt",
        'net.prototxt:15: layer "pool": unknown layer type "Poling"; did you mean "Pooling"?',
        edit("net.prototxt", '"Pooling"', '"Poling"'),
    ),
    Fault(
        "a_broken_rule_of_a_layer",
        "solver.prototxt",
        'net.prototxt:16: layer "pool" (Pooling): pad must be less than kernel_size (2, 2), got (2, 2)',
        edit("net.prototxt", "kernel_size: 2", "kernel_size: 2  pad: 2"),
    ),
    Fault(
        "a_missing_database",
        "solver.prototxt",
        "data/none_lmdb: must be an LMDB, got no such path",
        edit("net.prototxt", "digits_train_lmdb", "none_lmdb"),
    ),
    Fault(
        "a_label_outside_the_classes",
        "solver.prototxt",
        r'layer "\w+" \(\w+\): label of sample \d+ of the batch must be in \[0, 3\), got \d',
        edit("net.prototxt", "num_output: 10", "num_output: 3"),
        is_pattern=True,
        by_rank=True,
    ),
    Fault(
        "weights_of_another_shape",
        "train solver.prototxt --weights {trained}/runs/small_iter_20.caffemodel",
        "the shape of blob 0 must be (33, 196), got (32, 196); rename the layer to train it from scratch",
        edit("net.prototxt", "num_output: 32", "num_output: 33"),
    ),
    Fault(
        "weights_and_a_snapshot",
        "train solver.prototxt -weights a -snapshot b",
        "command line: at most one of -snapshot and -weights must be given, got both",
    ),
    Fault(
        "a_snapshot_that_is_missing",
        "train solver.prototxt -snapshot none.solverstate",
        "none.solverstate: must be a readable SolverState file, got No such file",
        by_rank=True,
    ),
    Fault(
        "a_wrong_flag",
        "train solver.prototxt --snapshoot=auto",
        "command line: No such option: --snapshoot",
        status=2,
    ),
    Fault(
        "a_wrong_value_of_a_flag",
        "train solver.prototxt -sigint_effect sotp",
        '-sigint_effect: unknown effect "sotp"; did you mean "stop"?',
    ),
    Fault(
        "a_wrong_plan", "train solver.prototxt --plan of", '--plan: unknown plan "of"; did you mean "off"?'
    ),
    Fault("no_solver", "train", "command line: the solver's prototxt must be given once, got none"),
    Fault(
        "a_gpu_that_is_not_there",
        "train -solver solver.prototxt -gpu all",
        "-gpu all: a GPU must be usable, got none",
    ),
    Fault(
        "a_port_in_use",
        "train solver.prototxt --metrics-port {port}",
        "--metrics-port: port must be free on 127.0.0.1, got {port} for rank 0",
        by_rank=True,
    ),
    Fault(
        "test_without_weights",
        "test solver.prototxt",
        "command line: either -weights or -snapshot must be given, got none",
    ),
    Fault(
        "test_of_no_snapshot",
        "test solver.prototxt -snapshot auto",
        "runs/small: a whole snapshot must be there, got none; train first",
    ),
    Fault(
        "test_of_weights_that_lack_a_layer",
        "test solver.prototxt -weights {trained}/runs/small_iter_20.caffemodel",
        "small_iter_20.caffemodel: weights of all layers of the net must be there, got none for ip3",
        edit("net.prototxt", 'name: "ip2"', 'name: "ip3"'),
    ),
    Fault(
        "test_with_a_label_outside_the_classes",
        "test solver.prototxt -weights narrow.caffemodel",
        r'layer "\w+" \(\w+\): label of sample \d+ of the batch must be in \[0, 3\), got \d',
        narrow,
        is_pattern=True,
    ),
    Fault("time_of_nothing", "time", "command line: either a SOLVER or -model NET must be given, got none"),
    Fault(
        "no_iterations",
        "time -model net.prototxt -iterations 0",
        "--iterations must be at least 1, got 0",
    ),
]
ONE_EACH = (  # of what meets a fault before, between and behind the collectives of a run
    "no_such_file",
    "an_unknown_field_of_the_net",
    "an_unknown_rule",
    "a_missing_database",
    "a_label_outside_the_classes",
    "weights_of_another_shape",
    "weights_and_a_snapshot",
    "a_wrong_flag",
    "a_port_in_use",
    "test_with_a_label_outside_the_classes",
)


@pytest.fixture
def port() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def words(fault: Fault, trained: Path, port: int) -> list[str]:
    return fault.arguments.format(trained=trained, port=port).split()


def told(fault: Fault, port: int, line: str) -> bool:
    text = fault.told.replace("{port}", str(port))
    return re.search(text, line) is not None if fault.is_pattern else text in line


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_one_line(
    fault: Fault,
    here: Path,
    trained: Path,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fault.breaks(here)
    monkeypatch.chdir(here)
    status = run(words(fault, trained, port))
    (line,) = Outcome(status, "", capfd.readouterr().err).faults
    assert status == fault.status
    assert line.startswith("error: ")
    assert told(fault, port, line), line


@pytest.mark.parametrize("name", ONE_EACH)
def test_a_fault_under_mpirun_is_one_line_from_one_rank(
    name: str, here: Path, trained: Path, port: int
) -> None:
    (fault,) = [fault for fault in FAULTS if fault.name == name]
    fault.breaks(here)
    done = dtrain(*words(fault, trained, port), at=here, ranks=2)
    (line,) = done.faults
    assert done.status == fault.status
    if not name.startswith("test_"):  # ranks see other samples, so one may be at fault or all
        assert re.match(r"error: rank \d" if fault.by_rank else r"error: (?!rank)", line), line
    assert told(fault, port, line), line


def test_a_fault_on_one_rank_alone_names_it(here: Path) -> None:
    with socket.socket() as taken:  # the port of rank 1
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = dtrain("train", "solver.prototxt", f"--metrics-port={port - 1}", at=here, ranks=2)
    assert done.status != 0
    (line,) = done.faults
    assert line.startswith("error: rank 1 (of ranks 1 that failed): --metrics-port: port must be free")
