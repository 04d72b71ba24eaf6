"""Which card each rank of a machine computes on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import final

from dtrain.comm.communicator import Communicator
from dtrain.errors import BackendError, ConfigError
from dtrain.kernels.cuda import cupy_device

SHARE = "DTRAIN_SHARE_CARDS"  # for tests on a machine with fewer cards than ranks
UUID_BYTES = 16


@final
@dataclass(frozen=True)
class Card:
    """`number` is the rank's own count; `bus` names the card on its machine whoever counts."""

    number: int
    bus: str
    uuid: str


@final
@dataclass(frozen=True)
class Choice:
    """What one rank may compute on, by its own flags and eyes: no cards mean the CPU.

    `told` is who asked for cards, for messages; `is_free` says that nobody did.
    """

    host: str
    cards: tuple[Card, ...] = ()
    told: str = ""
    is_free: bool = False


def card(number: int) -> Card:
    """What tells a card from all others."""
    runtime = cupy_device.load().cuda.runtime
    raw = bytes(runtime.getDeviceProperties(number)["uuid"])
    # CuPy cuts the bytes at the first zero.
    text = raw.hex() if len(raw) == UUID_BYTES else ""
    uuid = "-".join(("GPU", text[:8], text[8:12], text[12:16], text[16:20], text[20:])) if text else ""
    return Card(number, str(runtime.deviceGetPCIBusId(number)), uuid)


def choice(numbers: Sequence[int], told: str, *, is_free: bool = False) -> Choice:
    """This rank's, of cards by their numbers."""
    return Choice(platform.node(), tuple(card(number) for number in numbers), told, is_free)


def shares_cards() -> bool:
    """Whether the environment lets several ranks use one card."""
    text = os.environ.get(SHARE, "")
    if text not in ("", "0", "1"):
        raise ConfigError(f'environment: {SHARE} must be 1 or 0, got "{text}"')
    return text == "1"


def deal(seen: Sequence[Sequence[str]], *, share: bool) -> list[int] | None:
    """For each rank of a machine the index of its card among those that it sees; None if they do not suffice.

    A launcher may show each rank cards of its own, or all ranks the same.
    """
    if all(not set(mine) & set(theirs) for mine, theirs in combinations(seen, 2)):
        return [0] * len(seen)
    places = [rank if rank < len(cards) else -1 for rank, cards in enumerate(seen)]
    taken = [cards[place] for cards, place in zip(seen, places, strict=True) if place >= 0]
    if len(set(taken)) == len(seen):
        return places
    return [rank % len(cards) for rank, cards in enumerate(seen)] if share else None


def own_card(comm: Communicator, mine: Choice, *, share: bool) -> tuple[Card | None, list[str]]:
    """This rank's card, or None for the CPU, and a line for each rank that has one. Collective.

    Raises on all ranks alike where cards do not suffice; a free choice then is the CPU.
    """
    choices: list[Choice] = comm.allgather_object(mine)
    on_cards = [rank for rank, choice in enumerate(choices) if choice.cards]
    if on_cards and len(on_cards) < len(choices):
        if any(choice.is_free for choice in choices):
            return None, []
        lacking = next(rank for rank, choice in enumerate(choices) if not choice.cards)
        raise BackendError(
            f"{choices[on_cards[0]].told}: all ranks must compute on cards or none, got cards at rank "
            f"{on_cards[0]} on {choices[on_cards[0]].host} and the CPU at rank {lacking} on "
            f"{choices[lacking].host}; pass -gpu all or -cpu"
        )
    dealt: dict[int, Card] = {}
    for host in sorted({choice.host for choice in choices}):
        ranks = [rank for rank in on_cards if choices[rank].host == host]
        places = deal([[card.bus for card in choices[rank].cards] for rank in ranks], share=share)
        if places is None:
            if all(choice.is_free for choice in choices):
                return None, []
            first = choices[ranks[0]]
            raise BackendError(
                f"{first.told}: there must be a card for each of the {len(ranks)} ranks on {host}, got "
                f"{len(first.cards)}; start fewer ranks, or name more cards"
            )
        dealt |= {rank: choices[rank].cards[place] for rank, place in zip(ranks, places, strict=True)}
    lines = [
        f"rank {rank} of {comm.size} on {choices[rank].host}, GPU {card.number}, {card.uuid or card.bus}"
        for rank, card in sorted(dealt.items())
    ]
    return dealt.get(comm.rank), lines
