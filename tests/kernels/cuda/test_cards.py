"""Which card a rank takes, by flag, solver_mode and what the ranks of a machine see."""

from __future__ import annotations

import logging
import platform
import re
from collections.abc import Sequence
from typing import Any

import pytest

from dtrain.cli import device
from dtrain.cli.cards import Card, Choice, choice, deal, own_card, shares_cards
from dtrain.cli.device import choice_of, choose_backend
from dtrain.comm.communicator import Communicator
from dtrain.comm.single import SingleCommunicator
from dtrain.errors import BackendError, CommError, ConfigError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.solvers.settings import Settings
from tests.kernels.cuda.numpy_cupy import Cupy

UUID = bytes(range(0x10, 0x20))


def settings(prototxt: str) -> Settings:
    param = pb.SolverParameter()
    text.parse(prototxt, param)
    return Settings(param)


def ranks(local_rank: int = 0, local_size: int = 1) -> SingleCommunicator:
    comm = SingleCommunicator()
    comm.local_rank, comm.local_size = local_rank, local_size
    return comm


def machine_of(monkeypatch: pytest.MonkeyPatch, cards: int, *, uuid: bytes = UUID) -> None:
    """A machine with so many cards."""
    cupy = Cupy(cards=cards).install(monkeypatch)
    runtime = cupy.cuda.runtime
    about = runtime.getDeviceProperties
    monkeypatch.setattr(runtime, "getDeviceProperties", lambda number: {**about(number), "uuid": uuid})
    monkeypatch.setattr(runtime, "deviceGetPCIBusId", lambda number: f"0000:{number:02x}:00.0", raising=False)


def numbers(found: Choice) -> list[int]:
    return [card.number for card in found.cards]


# -- what a rank may compute on


@pytest.mark.parametrize(("flag", "cards"), [("0", [0]), ("2", [2]), ("all", [0, 1, 2, 3]), ("3,1", [3, 1])])
def test_the_flag_names_cards(monkeypatch: pytest.MonkeyPatch, flag: str, cards: list[int]) -> None:
    machine_of(monkeypatch, 4)
    assert numbers(choice_of(None, ranks(), flag)) == cards


@pytest.mark.parametrize("flag", ["4", "0,9", "x", "0,", "-1", ""])
def test_what_is_no_card_is_an_error(monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    machine_of(monkeypatch, 4)
    with pytest.raises(BackendError, match=r"cards must be numbers in \[0, 4\)"):
        choice_of(None, ranks(), flag)


def test_solver_mode_gpu_takes_the_solvers_card(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_of(monkeypatch, 4)
    assert numbers(choice_of(settings("solver_mode: GPU device_id: 2"), ranks(), None)) == [2]
    assert numbers(choice_of(settings("solver_mode: GPU device_id: 2"), ranks(1, 2), None)) == [0, 1, 2, 3]
    assert numbers(choice_of(settings("solver_mode: CPU"), ranks(), None)) == []


def test_solver_mode_gpu_without_a_card_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_of(monkeypatch, 0)
    with pytest.raises(BackendError, match=r"solver_mode GPU: a GPU must be usable, got none.*-cpu"):
        choice_of(settings("solver_mode: GPU"), ranks(), None)


def test_an_unset_solver_mode_takes_a_card_only_where_one_is_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "DRIVER", "libc.so.6")  # a driver is there
    machine_of(monkeypatch, 1)
    assert numbers(choice_of(settings(""), ranks(), None)) == [0]
    machine_of(monkeypatch, 0)
    assert numbers(choice_of(settings(""), ranks(), None)) == []
    monkeypatch.setattr(device, "DRIVER", "libnothing.so.1")
    monkeypatch.setattr(device.cupy_device, "count", lambda: pytest.fail("nobody asks for cards"))
    assert choice_of(settings(""), ranks(), None).is_free


def test_a_card_is_told_by_its_uuid_or_its_place_on_the_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_of(monkeypatch, 2)
    (found,) = choice([1], "-gpu 1").cards
    assert found == Card(1, "0000:01:00.0", "GPU-10111213-1415-1617-1819-1a1b1c1d1e1f")
    machine_of(monkeypatch, 2, uuid=UUID[:9])  # as CuPy gives one that has a zero
    (found,) = choice([1], "-gpu 1").cards
    assert found.uuid == ""


# -- which of them it takes


@pytest.mark.parametrize(
    ("seen", "places"),
    [
        (["a"], [0]),
        (["abcd"], [0]),
        (["abcd"] * 4, [0, 1, 2, 3]),
        (["abcd"] * 2, [0, 1]),
        (["ca", "ca"], [0, 1]),
        (["a", "b", "c"], [0, 0, 0]),  # each rank sees one of its own
        (["ab", "cd"], [0, 0]),
        (["ab", "bc"], [0, 1]),
        (["a", "a"], None),
        (["ab", "ba"], None),  # two numberings: both would take card a
        (["abcd"] * 5, None),
    ],
)
def test_every_rank_of_a_machine_has_a_card_to_itself(seen: list[str], places: list[int] | None) -> None:
    assert deal(seen, share=False) == places
    if places is None:
        assert deal(seen, share=True) == [rank % len(cards) for rank, cards in enumerate(seen)]


def job(*choices: Choice) -> list[Any]:
    """The communicator of each rank of a job whose ranks may compute on these."""

    class Fixed(SingleCommunicator):  # type: ignore[misc]
        """A group that has gathered this already."""

        def allgather_object(self, obj: object) -> list[Any]:
            return list(choices)

    made = []
    for rank in range(len(choices)):
        comm = Fixed()
        comm.rank, comm.size = rank, len(choices)
        made.append(comm)
    return made


def on(host: str, buses: Sequence[str], *, is_free: bool = False) -> Choice:
    cards = tuple(Card(i, bus, f"GPU-{host}-{bus}") for i, bus in enumerate(buses))
    return Choice(host, cards, "-gpu all", is_free)


def test_ranks_of_two_machines_are_dealt_the_cards_of_each() -> None:
    choices = [on("b", "xy"), on("a", "xy"), on("b", "xy"), on("a", "xy")]
    found = [own_card(comm, mine, share=False) for comm, mine in zip(job(*choices), choices, strict=True)]
    assert [card.number for card, _ in found if card] == [0, 0, 1, 1]
    assert found[0][1] == [
        "rank 0 of 4 on b, GPU 0, GPU-b-x",
        "rank 1 of 4 on a, GPU 0, GPU-a-x",
        "rank 2 of 4 on b, GPU 1, GPU-b-y",
        "rank 3 of 4 on a, GPU 1, GPU-a-y",
    ]
    assert all(lines == found[0][1] for _, lines in found)


def test_more_ranks_than_cards_is_an_error_on_every_rank() -> None:
    choices = [on("a", "xy"), on("a", "xy"), on("a", "xy")]
    for comm, mine in zip(job(*choices), choices, strict=True):
        with pytest.raises(
            BackendError,
            match="-gpu all: there must be a card for each of the 3 ranks on a, got 2; start fewer",
        ):
            own_card(comm, mine, share=False)


def test_ranks_that_may_share_cards_do() -> None:
    choices = [on("a", "x"), on("a", "x")]
    for comm, mine in zip(job(*choices), choices, strict=True):
        card, _ = own_card(comm, mine, share=True)
        assert card is not None
        assert card.bus == "x"


def test_ranks_on_cards_beside_ranks_on_the_cpu_are_an_error_that_names_both() -> None:
    choices = [on("a", "x"), on("b", "")]
    told = "-gpu all: all ranks must .*, got cards at rank 0 on a and the CPU at rank 1 on b; pass -gpu all"
    for comm, mine in zip(job(*choices), choices, strict=True):
        with pytest.raises(BackendError, match=told):
            own_card(comm, mine, share=False)


@pytest.mark.parametrize("other", [("b", ""), ("a", "x")], ids=["no card", "the same card"])
def test_where_nobody_asked_for_cards_and_they_do_not_suffice_all_ranks_take_the_cpu(
    other: tuple[str, str],
) -> None:
    choices = [on("a", "x", is_free=True), on(*other, is_free=True)]
    for comm, mine in zip(job(*choices), choices, strict=True):
        assert own_card(comm, mine, share=False) == (None, [])


@pytest.mark.parametrize(("value", "shares"), [("", False), ("0", False), ("1", True)])
def test_the_environment_says_whether_cards_are_shared(
    monkeypatch: pytest.MonkeyPatch, value: str, shares: bool
) -> None:
    monkeypatch.setenv("DTRAIN_SHARE_CARDS", value)
    assert shares_cards() is shares
    monkeypatch.setenv("DTRAIN_SHARE_CARDS", "yes")
    with pytest.raises(ConfigError, match='DTRAIN_SHARE_CARDS must be 1 or 0, got "yes"'):
        shares_cards()


# -- all of it


def test_the_backend_computes_on_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_of(monkeypatch, 2)
    backend = choose_backend(None, ranks(), gpu="1", cpu=False, threads=None, engine="DEFAULT")
    assert backend.describe().startswith("GPU 1: NumPy")


def test_a_free_choice_that_fails_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device, "DRIVER", "libc.so.6")
    machine_of(monkeypatch, 1)
    monkeypatch.setattr(device, "own_card", lambda comm, mine, share: (None, []))
    with caplog.at_level(logging.WARNING):
        backend = choose_backend(settings(""), ranks(), gpu=None, cpu=False, threads=1, engine="CAFFE")
    assert backend.name == "cpu"
    assert "Computing on the CPU, since the cards do not suffice" in caplog.text


@pytest.mark.world_size(2)
def test_two_ranks_take_two_cards_and_say_so(
    comm: Communicator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine_of(monkeypatch, 2)
    with caplog.at_level(logging.INFO):
        backend = choose_backend(None, comm, gpu="all", cpu=False, threads=None, engine="DEFAULT")
    assert backend.describe().startswith(f"GPU {comm.rank}: NumPy")
    for rank in range(2):
        line = f"rank {rank} of 2 on {platform.node()}, GPU {rank}, GPU-10111213-1415-1617-1819-1a1b1c1d1e1f"
        assert line in caplog.messages


@pytest.mark.world_size(2)
def test_a_rank_without_cards_is_told_on_both(comm: Communicator, monkeypatch: pytest.MonkeyPatch) -> None:
    from dtrain.cli.job import agreed

    machine_of(monkeypatch, 2 if comm.rank == 0 else 0)
    told = re.escape("rank 1 (of ranks 1 that failed): -gpu all: a GPU must be usable, got none")
    with pytest.raises(CommError, match=told), agreed(comm):
        choose_backend(None, comm, gpu="all", cpu=False, threads=None, engine="DEFAULT")
