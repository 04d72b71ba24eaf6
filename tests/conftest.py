"""Runs tests that are marked with a number of ranks under mpirun, each on all of its ranks.

`@pytest.mark.world_size(2)` or `@pytest.mark.world_size(1, 2, 4)`: one test, or one for each size. All tests
of one file and size share one mpirun. Each rank writes its reports to a file. A test passes when it did on
each rank. A failure on one rank ends that mpirun, since others may wait for it; the rest of the group then
starts afresh.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtrain.comm.communicator import Communicator
from dtrain.comm.launcher import declared
from dtrain.comm.single import SingleCommunicator

REPORTS = "DTRAIN_TEST_REPORTS"  # set in ranks: the folder for their reports
START_S, TEST_S = 60.0, 60.0  # longest start of a group and longest test, before the group is killed
Reports = list[dict[str, Any]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("world_size")
    if marker is not None and len(marker.args) > 1:
        metafunc.fixturenames.append("world_size")
        metafunc.parametrize("world_size", marker.args, ids=[f"{n}ranks" for n in marker.args])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under mpirun only the tests of this number of ranks are run."""
    job = declared(os.environ)
    if job is None:
        return
    own = [item for item in items if ranks_of(item) == job.size]
    config.hook.pytest_deselected(items=[item for item in items if ranks_of(item) != job.size])
    items[:] = own


def ranks_of(item: pytest.Item) -> int:
    """How many ranks the test asks for; 0 for a test of one ordinary process."""
    marker = item.get_closest_marker("world_size")
    if marker is None:
        return 0
    if len(marker.args) == 1:
        return int(marker.args[0])
    assert isinstance(item, pytest.Function)
    return int(item.callspec.params["world_size"])


@pytest.fixture(scope="session")
def comm() -> Iterator[Communicator]:
    """All ranks of the job that runs the test; a group of one outside mpirun."""
    if declared(os.environ) is None:
        yield SingleCommunicator()
        return
    from dtrain.comm.mpi import MpiCommunicator

    joined = MpiCommunicator(warn_s=20.0, abort_s=50.0)
    yield joined
    joined.close()


# In a rank: write each report down, and end the job at the first failure.


class RankReporter:
    def __init__(self, config: pytest.Config, folder: str) -> None:
        from mpi4py import MPI

        self.config = config
        self.world = MPI.COMM_WORLD
        self.file = Path(folder, f"{self.world.rank}.jsonl")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(data, default=str) + "\n")
        if report.failed:
            self.world.Abort(1)


def pytest_configure(config: pytest.Config) -> None:
    folder = os.environ.get(REPORTS)
    if folder is not None:
        config.pluginmanager.register(RankReporter(config, folder))


# Outside: run the group of a marked test when its first test comes up, then tell what its ranks reported.

GROUPS = pytest.StashKey[dict[tuple[Path, int], dict[str, Reports]]]()


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    size = ranks_of(item)
    if size == 0 or declared(os.environ) is not None:
        return None
    groups = item.session.stash.setdefault(GROUPS, {})
    key = (item.path, size)
    if key not in groups:
        ids = [i.nodeid for i in item.session.items if (i.path, ranks_of(i)) == key]
        groups[key] = run_group(item.config, ids, size)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for data in groups[key][item.nodeid]:
        report = item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
        if isinstance(report.longrepr, list):  # a skip's place and reason, which JSON made a list
            report.longrepr = tuple(report.longrepr)
        item.ihook.pytest_runtest_logreport(report=report)
    item.session._setupstate.teardown_exact(nextitem)  # what the test before this one left for this module
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def run_group(config: pytest.Config, ids: list[str], size: int) -> dict[str, Reports]:
    """The reports of each test; every launch decides at least one test."""
    decided: dict[str, Reports] = {}
    while remaining := [nodeid for nodeid in ids if nodeid not in decided]:
        with tempfile.TemporaryDirectory() as folder:
            output, status = launch(config.rootpath, remaining, size, folder)
            ranks = [read_reports(Path(folder, f"{rank}.jsonl")) for rank in range(size)]
        undecided = []
        for nodeid in remaining:
            reports = verdict([rank.get(nodeid, []) for rank in ranks])
            if reports:
                decided[nodeid] = reports
            else:
                undecided.append(nodeid)
        failed = any(report["outcome"] == "failed" for n in remaining for report in decided.get(n, []))
        if undecided and not failed:
            lost = undecided[0]
            decided[lost] = [failure(config, lost, f"mpirun -n {size} ended with status {status}\n{output}")]
    return decided


def launch(root: Path, ids: list[str], size: int, folder: str) -> tuple[str, int]:
    mpirun = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert mpirun is not None, "tests with ranks need an mpirun; pip install -e '.[mpi,dev]'"
    # capture=sys leaves the standard error of the process to the stall watch and its witness
    options = ["-q", "-p", "no:cacheprovider", "--capture=sys"]
    command = [mpirun, "-n", str(size), sys.executable, "-m", "pytest", *options, *ids]
    environment = {**os.environ, REPORTS: folder, "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as out:
        process = subprocess.Popen(
            command, cwd=root, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(START_S + TEST_S * len(ids))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            status = process.wait(10)
        out.seek(0)
        return out.read()[-8000:], status


def read_reports(file: Path) -> dict[str, Reports]:
    reports: dict[str, Reports] = {}
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            data = json.loads(line)
            reports.setdefault(data["nodeid"], []).append(data)
    return reports


def verdict(ranks: list[Reports]) -> Reports:
    """The first failed rank's reports, or those of rank 0 if all ranks have finished; else none."""
    for rank, reports in enumerate(ranks):
        for report in reports:
            if report["outcome"] == "failed":
                report["sections"].append(["Rank", f"failed on rank {rank} of {len(ranks)}"])
                return reports
    finished = all(reports and reports[-1]["when"] == "teardown" for reports in ranks)
    return ranks[0] if finished else []


def failure(config: pytest.Config, nodeid: str, text: str) -> dict[str, Any]:
    file, name = nodeid.split("::", 1)
    report = pytest.TestReport(nodeid, (file, 0, name), {}, "failed", text, "call")
    return dict(config.hook.pytest_report_to_serializable(config=config, report=report))
