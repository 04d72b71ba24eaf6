"""Skips, with the reason, where no card is usable, and ends with a table of what ran on which card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtrain.errors import BackendError
from dtrain.kernels.cuda import cupy_device
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.cupy_device import CupyDevice

HERE = Path(__file__).parent
TOLD = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs a card")


def why_not() -> str:
    """Why no card can be used; empty where one can."""
    try:
        cupy_device.count()
    except BackendError as error:
        return str(error)
    return ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a card one test is left, which is skipped and says why."""
    if not why_not():
        return
    idle = [i for i in items if i.get_closest_marker("gpu") and i.name != "test_a_card_is_usable"]
    config.hook.pytest_deselected(items=idle)
    kept = {id(item) for item in items} - {id(item) for item in idle}
    items[:] = [item for item in items if id(item) in kept]


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> CupyDevice:
    """The first card."""
    if reason := why_not():
        pytest.skip(reason)
    found = CupyDevice(0)
    request.config.stash[TOLD] = found.describe()
    return found


@pytest.fixture
def backend(device: CupyDevice) -> Iterator[CudaBackend]:
    """A backend on it; what a kernel did wrong shows at the end of its test."""
    yield CudaBackend(device)
    device.synchronize()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    for outcome in ("passed", "failed", "skipped", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            file, _, name = report.nodeid.partition("::")
            if file.startswith("tests/gpu/"):
                counts[name.split("[")[0].removeprefix("test_"), outcome] += 1
    if not counts:
        return
    terminalreporter.section("on the card")
    terminalreporter.write_line(config.stash.get(TOLD, "no card"))
    for name in dict.fromkeys(name for name, _ in counts):
        told = ", ".join(
            f"{counts[name, outcome]} {outcome}"
            for outcome in ("passed", "failed", "skipped", "error")
            if counts[name, outcome]
        )
        terminalreporter.write_line(f"{name.replace('_', ' '):<70} {told}")
