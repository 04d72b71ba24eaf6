"""The card's benchmark: which way is the peer, what a row says, what happens when time or a worker ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, final

import pytest

from benchmarks import gpu
from benchmarks.card_worker import Case
from benchmarks.gpu import WAYS, Row, Timing, arguments, cases_of, line_of, measure, notes_of, verdict
from benchmarks.turns import WorkerError, module_worker

GIB = 2**30
CASE = Case("caffenet", 256, "bf16", 227)


@final
class Clock:
    """Time that passes when a worker says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@final
class Told:
    """A worker that answers from a list of step times by way; a string is an error."""

    def __init__(
        self, clock: Clock, steps: Mapping[str, float | str], *, build_s: float = 1.0, ahead: bool = True
    ) -> None:
        self.asked: list[str] = []
        self._clock = clock
        self._steps = steps
        self._build_s = build_s
        self._ahead = ahead
        self._way = ""

    def ask(self, request: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        self.asked.append(request["do"])
        if request["do"] == "build":
            self._way = request["way"]
            self._clock.now += self._build_s
            step = self._steps[self._way]
            if isinstance(step, str):
                raise WorkerError(step, out_of_memory=step == "full")
            return {"told": f"told {self._way}", "built_s": self._build_s, "notes": ["a note"]}
        if request["do"] == "time":
            self._clock.now += request["seconds"]
            step = self._steps[self._way]
            assert isinstance(step, float)
            return {
                "steps": 10,
                "wall_s": step,
                "busy": {"seconds": 0.98 * step, "ahead": self._ahead},
                "memory_bytes": 2 * GIB,
                "pool_bytes": GIB,
            }
        return {}

    def kill(self) -> None:
        """Nothing runs."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(gpu, "Budget", lambda seconds: gpu_budget(seconds, made))
    return made


gpu_budget = gpu.Budget


def run(clock: Clock, ours: Told, peer: Told | None, *given: str) -> list[Row]:
    asked = arguments(["caffenet", "--precision", "bf16", *given])
    return measure(asked, ours, peer, lambda line: None)


def ways(step_s: float, others: Mapping[str, float | str]) -> dict[str, float | str]:
    return {**dict.fromkeys(WAYS, step_s), **others}


def test_the_peer_is_pytorchs_fastest_way(clock: Clock) -> None:
    ours = Told(clock, {"plan on": 0.010})
    peer = Told(clock, ways(0.030, {"reduce-overhead/channels_last": 0.015}))
    (row,) = run(clock, ours, peer)
    best = row.best()
    assert best is not None
    assert best.way == "reduce-overhead/channels_last"
    assert row.ratio() == pytest.approx(1.5)
    assert line_of(row).split() == [
        *("caffenet", "256", "bf16", "25600", "17067", "reduce-overhead/channels_last", "1.50"),
        *("2.00", "2.00", "2.0%"),
    ]
    assert verdict([row]) == "ratio >= 1.2: 1 of 1 cases (1 compared); outside < 3%: 1 of 1 (1 measured)"


def test_both_take_turns_and_each_goes_first_as_often(clock: Clock) -> None:
    ours, peer = Told(clock, {"plan on": 0.01}), Told(clock, ways(0.02, {}))
    (row,) = run(clock, ours, peer, "--rounds", "4", "--budget-s", "2000", "--net-s", "2000")
    assert ours.asked == ["build", *["time"] * 4 * len(WAYS), "drop"]
    assert peer.asked == ["build", *["time"] * 4, "drop"] * len(WAYS)
    assert all(len(timing.ratios) == 4 for timing in row.theirs)


def test_a_way_that_fails_is_told_and_the_others_count(clock: Clock) -> None:
    peer = Told(clock, ways(0.02, {"eager/channels_last": "full", "default/channels_last": "it broke"}))
    (row,) = run(clock, Told(clock, {"plan on": 0.01}), peer)
    assert row.ratio() == pytest.approx(2.0)
    notes = notes_of(row)
    assert notes[0] == "caffenet bf16: PyTorch eager/channels_last: out of memory"
    assert notes[1] == "caffenet bf16: PyTorch default/channels_last: it broke"
    assert notes[-1] == "caffenet bf16: a note"


def test_pytorch_is_measured_where_dtrain_fails(clock: Clock) -> None:
    (row,) = run(clock, Told(clock, {"plan on": "no such engine"}), Told(clock, ways(0.02, {})))
    assert row.ours.failed == "no such engine"
    assert row.best() is not None
    assert row.ratio() is None
    assert line_of(row).endswith("dtrain: no such engine")
    assert " 12800 " in line_of(row)
    assert "0 of 1 cases (0 compared)" in verdict([row])


def test_dtrain_is_measured_alone_without_pytorch(clock: Clock) -> None:
    ours = Told(clock, {"plan on": 0.01}, ahead=False)
    (row,) = run(clock, ours, None, "--no-torch", "--rounds", "3")
    assert ours.asked == ["build", "time", "time", "time", "drop"]
    assert line_of(row).split()[3:] == ["25600", "-", "-", "-", "2.00", "-", ">2.0%"]


def test_optional_ways_wait_for_nothing_but_their_share_of_the_time(clock: Clock) -> None:
    peer = Told(clock, ways(0.02, {}), build_s=30)
    (row,) = run(clock, Told(clock, {"plan on": 0.01}), peer, "--budget-s", "78")
    tried = [timing.way for timing in row.theirs if timing.rounds_s]
    assert tried == list(WAYS)[: gpu.NEEDED]
    assert {timing.failed for timing in row.theirs[gpu.NEEDED :]} == {"no time left"}
    assert clock.now < 78


def test_the_command_ends_in_time_and_names_what_it_did_not_reach(clock: Clock) -> None:
    ours, peer = Told(clock, {"plan on": 0.01}, build_s=20), Told(clock, ways(0.02, {}), build_s=40)
    asked = arguments(["--budget-s", "200"])
    rows = measure(asked, ours, peer, lambda line: None)
    assert len(rows) == 6
    assert clock.now < 200 + 60
    assert rows[0].ratio() == pytest.approx(2.0)
    assert rows[-1].ours.failed == "no time left"
    assert "no time left" in line_of(rows[-1])


def test_json_holds_every_round(clock: Clock, tmp_path: Any) -> None:
    path = tmp_path / "gpu.json"
    run(clock, Told(clock, {"plan on": 0.01}), Told(clock, ways(0.02, {})), "--json", str(path))
    (found,) = json.loads(path.read_text())
    assert found["case"]["net"] == "caffenet"
    assert found["dtrain_images_per_s"] == pytest.approx(25600)
    assert found["ratio"] == pytest.approx(2.0)
    assert found["best"] == "eager/channels_last"
    assert found["theirs"][0]["rounds_s"] == [0.02] * 5


def test_the_share_outside_is_of_the_median_step_and_never_negative() -> None:
    timing = Timing("plan on", rounds_s=[0.01, 0.02, 0.05], busy_s=0.015)
    assert timing.outside == pytest.approx(0.25)
    assert Timing("plan on", rounds_s=[0.01], busy_s=0.011).outside == 0


def test_the_first_precision_comes_first_for_all_nets() -> None:
    cases = cases_of(["caffenet", "resnet50"], ["bf16", "tf32"], None)
    assert [(case.net, case.precision, case.batch) for case in cases] == [
        ("caffenet", "bf16", 256),
        ("resnet50", "bf16", 256),
        ("caffenet", "tf32", 256),
        ("resnet50", "tf32", 256),
    ]
    assert cases[0].shape == (256, 3, 227, 227)
    assert cases_of(["googlenet"], ["bf16"], 8)[0].batch == 8


def test_an_unknown_net_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(["vgg"])
    assert "NET must be one of caffenet, googlenet, resnet50, got vgg" in capsys.readouterr().err


def test_precisions_and_limits_are_read() -> None:
    given = arguments(["resnet50", "--precision", "fp16", "fp32", "--budget-s", "60", "--no-torch"])
    assert given.nets == ["resnet50"]
    assert given.precision == ["fp16", "fp32"]
    assert (given.budget_s, given.no_torch, given.dry_run) == (60.0, True, False)
    assert arguments([]).precision == ["bf16", "tf32"]


def test_processes_in_turns_give_a_row() -> None:
    ours = module_worker("dtrain", "tests.benchmarks.pretended", ["2"])
    peer = module_worker("PyTorch", "tests.benchmarks.pretended", ["6"])
    asked = arguments(["caffenet", "--precision", "bf16", "--rounds", "2", "--seconds", "0.05"])
    asked.budget_s = 40.0
    try:
        (row,) = measure(asked, ours, peer, lambda line: None)
    finally:
        ours.kill()
        peer.kill()
    ratio = row.ratio()
    assert ratio is not None
    assert 2 < ratio < 4
    assert row.ours.memory_bytes == 3 * GIB
