"""LeNet learns MNIST to 99% by the command line, on a card."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from dtrain.data.convert.mnist import convert_mnist
from tests.cli.running import ROOT, surroundings
from tests.shared import shared_path

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

PRECISIONS = ("fp32", "bf16")
LEAST_RIGHT = 0.99
LIMIT_S = 200
SCORE = re.compile(r"Test net output #\d+: accuracy = ([\d.]+)")
FEW = {
    "max_iter: 10000": "max_iter: 4",
    "test_interval: 500": "test_interval: 2",
    "test_iter: 100": "test_iter: 1",
}


@pytest.fixture(scope="module")
def logs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `dtrain train` printed, by precision; all precisions train side by side."""
    folder = tmp_path_factory.mktemp("lenet")
    convert_mnist(str(shared_path("data", "mnist")), str(folder / "data" / "mnist"))
    shutil.copytree(ROOT / "configs" / "lenet", folder / "configs" / "lenet")
    module = "dtrain.cli.main"
    if request.config.getoption("--stand-in", default=False):
        module = "tests.cli.on_stand_ins"
        solver = folder / "configs" / "lenet" / "solver.prototxt"
        text = solver.read_text()
        for whole, few in FEW.items():
            assert whole in text
            text = text.replace(whole, few)
        solver.write_text(text)
    (folder / "runs" / "lenet").mkdir(parents=True)
    command = [sys.executable, "-m", module, "train", "configs/lenet/solver.prototxt", "-gpu", "0"]
    processes = {}
    for precision in PRECISIONS:
        with (folder / f"{precision}.log").open("w") as log:
            more = ["--precision", precision, "--seed", "1"]
            processes[precision] = subprocess.Popen(
                [*command, *more], cwd=folder, env=surroundings(), stdout=log, stderr=subprocess.STDOUT
            )
    try:
        for process in processes.values():
            process.wait(LIMIT_S)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    told = {precision: (folder / f"{precision}.log").read_text() for precision in PRECISIONS}
    for precision, process in processes.items():
        told[precision] += f"exit status {process.returncode}"
    return told


@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_lenet_learns_mnist(
    request: pytest.FixtureRequest, logs: dict[str, str], precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logs[precision]
    assert log.endswith("exit status 0"), log[-3000:]
    scores = [float(score) for score in SCORE.findall(log)]
    assert scores, log[-3000:]
    assert "runs without a CUDA graph" not in log
    if not request.config.getoption("--stand-in", default=False):
        assert len(scores) >= 20
        assert max(scores) >= LEAST_RIGHT, scores
