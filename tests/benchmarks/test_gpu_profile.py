"""What is read from a trace of a card, and what is said where there is none."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from benchmarks import gpu, gpu_allreduce, gpu_profile
from benchmarks.gpu_profile import busy_ms, by_kernel, on_the_card, span_ms, table
from dtrain.errors import BackendError
from dtrain.kernels.cuda import cupy_device


def event(name: str, ts: float, dur: float, cat: str = "kernel") -> dict[str, object]:
    return {"name": name, "ts": ts, "dur": dur, "cat": cat, "ph": "X"}


EVENTS = [
    event("conv", 0, 4000),
    event("relu", 3000, 2000),  # beside the convolution for a while
    event("conv", 6000, 4000),
    event("Memcpy", 7000, 1000, "gpu_memcpy"),  # within it
]


def test_only_what_runs_on_the_card_counts() -> None:
    trace = {"traceEvents": [*EVENTS, event("cudaGraphLaunch", 0, 9000, "cuda_runtime"), {"ph": "M"}]}
    assert on_the_card(trace) == EVENTS


def test_what_runs_beside_each_other_counts_once() -> None:
    assert busy_ms(EVENTS) == pytest.approx(9.0)
    assert span_ms(EVENTS) == pytest.approx(10.0)
    assert busy_ms([]) == span_ms([]) == 0


def test_kernels_are_told_by_the_step_the_longest_first() -> None:
    found = by_kernel(EVENTS, steps=2)
    assert [(one.name, one.ms, one.launches) for one in found] == [
        ("conv", 4.0, 1.0),
        ("relu", 1.0, 0.5),
        ("Memcpy", 0.5, 0.5),
    ]


def test_the_table_ends_with_the_share_in_which_no_kernel_runs() -> None:
    lines = table(EVENTS, 2, wall_ms=6.0, top=1)
    assert lines[1].split() == ["4.000", "88.9%", "1.0", "conv"]
    assert lines[2].split() == ["1.500", "33.3%", "2", "others"]
    assert lines[3] == (
        "a step: 6.000 ms by the host, 5.000 ms on the card, a kernel runs 4.500 ms, none 10.0%; 2 launches"
    )


@pytest.mark.parametrize("module", [gpu, gpu_allreduce, gpu_profile])
def test_a_machine_without_a_card_is_told_in_a_line(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_card() -> int:
        raise BackendError("GPU: at least 1 card must be visible, got 0")

    monkeypatch.setattr(cupy_device, "count", no_card)
    monkeypatch.setattr(sys, "argv", ["benchmark", *(["resnet50"] if module is gpu_profile else [])])
    with pytest.raises(SystemExit, match=r"^not measured: GPU: at least 1 card must be visible"):
        module.main()
