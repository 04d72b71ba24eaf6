"""Skips, with the reason, where no card is usable, and ends with a table of what ran on which card.

python -m pytest tests/gpu                     all of it, the most telling first, in about 4 minutes
python -m pytest tests/gpu -m "not slow"       without trainings to the end, jobs of ranks, large nets
python -m pytest tests/gpu --report FILE       the table in a file too, up to date at any time
python -m pytest tests/gpu --stand-in          without a card: what is wrong with the tests themselves
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtrain.errors import BackendError
from dtrain.kernels.cuda import cupy_device
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.cupy_device import CupyDevice
from tests.gpu.table import Table
from tests.kernels.cuda.conftest import MakeBackend

HERE = Path(__file__).parent
TABLE = pytest.StashKey[Table]()
PATCH = pytest.StashKey[pytest.MonkeyPatch]()
# The most telling first: a run that is cut off has told most.
ORDER = (
    *("device", "operators", "layers", "training", "data", "memory", "pycaffe"),
    *("lenet", "cudnn", "nets", "nccl"),
)
OF_A_CARD = ("nccl",)  # files whose tests need more than the stand-ins here: tests/comm has its own
OF_LIBRARIES = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning", "UserWarning")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stand-in", action="store_true", help="run the tests of the card on stand-ins for it")
    parser.addoption("--report", type=Path, help="a file for the table, up to date while the tests run")


class Listener:
    """Hands every report to the table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._table.add(report)


def is_stand_in(config: pytest.Config) -> bool:
    return bool(config.getoption("--stand-in", default=False))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs a card")
    config.addinivalue_line("markers", "slow: takes many seconds on a card too")
    report = config.getoption("--report", default=None)
    config.stash[TABLE] = table = Table(report)
    config.pluginmanager.register(Listener(table))
    if report is not None:  # what limits the time asks first: end as by Ctrl-C, with the table
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    if is_stand_in(config):
        from tests.gpu import stand_in  # wants a compiler and nvmath-python

        config.stash[PATCH] = pytest.MonkeyPatch()
        stand_in.install(config.stash[PATCH])


def pytest_unconfigure(config: pytest.Config) -> None:
    if PATCH in config.stash:
        config.stash[PATCH].undo()


def why_not() -> str:
    """Why no card can be used; empty where one can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # of libraries that this machine has its own versions of
            cupy_device.count()
    except BackendError as error:
        return str(error)
    return ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a card one test is left, which is skipped and says why."""
    own = [item for item in items if item.get_closest_marker("gpu")]
    if why_not():
        idle = [item for item in own if item.name != "test_a_card_is_usable"]
    else:
        idle = []
        if is_stand_in(config):
            idle = [item for item in own if place(item) in OF_A_CARD]
        else:
            for item in own:
                for kind in OF_LIBRARIES:
                    item.add_marker(pytest.mark.filterwarnings(f"default::{kind}"))
    config.hook.pytest_deselected(items=idle)
    left_out = {id(item) for item in idle}
    items[:] = [item for item in items if id(item) not in left_out]
    items.sort(key=rank)


def place(item: pytest.Item) -> str:
    return item.path.stem.removeprefix("test_")


def rank(item: pytest.Item) -> int:
    """Tests of other folders keep their order, before these."""
    if not item.path.is_relative_to(HERE):
        return -1
    return ORDER.index(place(item)) if place(item) in ORDER else len(ORDER)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> CupyDevice:
    """The first card."""
    if reason := why_not():
        pytest.skip(reason)
    found = CupyDevice(0)
    request.config.stash[TABLE].card = CudaBackend(found).describe()
    return found


@pytest.fixture
def make_backend(device: CupyDevice) -> Iterator[MakeBackend]:
    """Backends on it; what a kernel did wrong shows at the end of its test."""

    def make(precision: str = "", *, with_cudnn: bool = True) -> CudaBackend:
        return CudaBackend(device, precision=precision, engine="DEFAULT" if with_cudnn else "CAFFE")

    yield make
    device.synchronize()


@pytest.fixture
def backend(make_backend: MakeBackend) -> CudaBackend:
    """One with all that is installed."""
    return make_backend()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode, config: pytest.Config
) -> None:
    table = config.stash[TABLE]
    state = "cut off" if exitstatus == pytest.ExitCode.INTERRUPTED else ""
    table.write(state)
    if lines := table.lines(state):
        terminalreporter.section("on the card")
        for line in lines:
            terminalreporter.write_line(line)
