"""Which card a rank takes, by flag and solver_mode."""

from __future__ import annotations

import pytest

from dtrain.cli import device
from dtrain.cli.device import card_of, choose_backend
from dtrain.comm.single import SingleCommunicator
from dtrain.errors import BackendError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.solvers.settings import Settings
from tests.kernels.cuda import numpy_cupy
from tests.kernels.cuda.test_cupy_device import stand_in


def settings(prototxt: str) -> Settings:
    param = pb.SolverParameter()
    text.parse(prototxt, param)
    return Settings(param)


def ranks(local_rank: int, local_size: int) -> SingleCommunicator:
    comm = SingleCommunicator()
    comm.local_rank, comm.local_size = local_rank, local_size
    return comm


@pytest.mark.parametrize(
    ("flag", "local_rank", "local_size", "card"),
    [("0", 0, 1, 0), ("2", 0, 1, 2), ("all", 0, 1, 0), ("all", 3, 4, 3), ("3,1", 1, 2, 1)],
)
def test_the_local_rank_picks_the_card(
    monkeypatch: pytest.MonkeyPatch, flag: str, local_rank: int, local_size: int, card: int
) -> None:
    stand_in(monkeypatch, numpy_cupy.module(cards=4))
    assert card_of(None, ranks(local_rank, local_size), flag) == card


@pytest.mark.parametrize(("flag", "local_size"), [("0", 2), ("all", 5)])
def test_more_ranks_than_cards_is_an_error(
    monkeypatch: pytest.MonkeyPatch, flag: str, local_size: int
) -> None:
    stand_in(monkeypatch, numpy_cupy.module(cards=4))
    with pytest.raises(BackendError, match=f"a card for each of the {local_size} ranks"):
        card_of(None, ranks(0, local_size), flag)


@pytest.mark.parametrize("flag", ["4", "0,9", "x", "0,", "-1", ""])
def test_what_is_no_card_is_an_error(monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    stand_in(monkeypatch, numpy_cupy.module(cards=4))
    with pytest.raises(BackendError, match=r"cards must be numbers in \[0, 4\)"):
        card_of(None, ranks(0, 1), flag)


def test_solver_mode_gpu_takes_the_solvers_card(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, numpy_cupy.module(cards=4))
    assert card_of(settings("solver_mode: GPU device_id: 2"), ranks(0, 1), None) == 2
    assert card_of(settings("solver_mode: GPU device_id: 2"), ranks(1, 2), None) == 1
    assert card_of(settings("solver_mode: CPU"), ranks(0, 1), None) is None


def test_solver_mode_gpu_without_a_card_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, numpy_cupy.module(cards=0))
    with pytest.raises(BackendError, match=r"solver_mode GPU: a GPU must be usable, got none.*-cpu"):
        card_of(settings("solver_mode: GPU"), ranks(0, 1), None)


def test_an_unset_solver_mode_takes_a_card_only_where_one_is_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "DRIVER", "libc.so.6")  # a driver is there
    stand_in(monkeypatch, numpy_cupy.module(cards=1))
    assert card_of(settings(""), ranks(0, 1), None) == 0
    stand_in(monkeypatch, numpy_cupy.module(cards=0))
    assert card_of(settings(""), ranks(0, 1), None) is None
    monkeypatch.setattr(device, "DRIVER", "libnothing.so.1")
    stand_in(monkeypatch, None)
    assert card_of(settings(""), ranks(0, 1), None) is None


def test_the_backend_computes_on_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, numpy_cupy.module(cards=2))
    backend = choose_backend(None, ranks(0, 1), gpu="1", cpu=False, threads=None, engine="DEFAULT")
    assert backend.describe().startswith("GPU 1: NumPy")
