"""Workers that answer, fail, hang and die; the time that is left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from benchmarks.card_worker import Case
from benchmarks.turns import Budget, CardWorker, WorkerError, module_worker
from tests.benchmarks.pretended import MEMORY_BYTES


@pytest.fixture
def worker() -> Iterator[CardWorker]:
    made = module_worker("pretended", "tests.benchmarks.pretended", ["2"])
    yield made
    made.kill()


def build(net: str) -> dict[str, object]:
    return {"do": "build", "case": asdict(Case(net, 8, "bf16")), "way": "plainly"}


def test_a_worker_builds_times_and_drops(worker: CardWorker) -> None:
    built = worker.ask(build("lenet"), 30)
    assert built["told"] == "pretended, plainly"
    assert built["notes"] == ["it pretends"]
    answer = worker.ask({"do": "time", "seconds": 0.1}, 30)
    assert answer["steps"] == pytest.approx(0.1 / answer["wall_s"], rel=0.5)
    assert 0.002 <= answer["wall_s"] < 0.01
    assert answer["busy"] == {"seconds": pytest.approx(0.0018), "ahead": True}
    assert answer["memory_bytes"] == MEMORY_BYTES
    assert worker.ask({"do": "drop"}, 30) == {}


def test_an_error_is_told_and_the_next_request_starts_anew(worker: CardWorker) -> None:
    with pytest.raises(WorkerError, match="ValueError: no such") as told:
        worker.ask(build("broken"), 30)
    assert not told.value.out_of_memory
    assert told.value.short() == "ValueError: no such net"
    assert worker.ask(build("lenet"), 30)["told"] == "pretended, plainly"


def test_running_out_of_memory_is_told_as_that(worker: CardWorker) -> None:
    with pytest.raises(WorkerError) as told:
        worker.ask(build("full"), 30)
    assert told.value.out_of_memory
    assert told.value.short() == "out of memory"


def test_a_worker_that_hangs_is_ended_in_time(worker: CardWorker) -> None:
    worker.ask(build("lenet"), 30)
    begin = time.monotonic()
    with pytest.raises(WorkerError, match="no answer within 1 s"):
        worker.ask(build("stuck"), 1)
    assert time.monotonic() - begin < 10


def test_a_worker_that_dies_leaves_its_last_words(worker: CardWorker) -> None:
    with pytest.raises(WorkerError, match=r"ended with status 3: .*the last words"):
        worker.ask(build("dead"), 30)


def test_a_long_reason_is_cut_for_a_column() -> None:
    assert WorkerError("x" * 100).short(10) == "xxxxxxx..."
    assert WorkerError("x" * 10).short(10) == "x" * 10


def test_a_budget_is_shared_among_what_is_to_come() -> None:
    now = 100.0
    budget = Budget(60, lambda: now)
    assert budget.share_s(3) == 20
    now = 130.0
    assert budget.left_s() == 30
    assert budget.share_s(2) == 15
    assert budget.part(50).left_s() == 30
    part = budget.part(10)
    now = 135.0
    assert part.left_s() == 5
    now = 170.0
    assert budget.left_s() == part.left_s() == 0
