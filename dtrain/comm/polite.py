"""Waiting: spin for latency while every rank has its core, sleep where ranks outnumber cores."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

SPINS = 100
SLEEP_STEP_S = 50e-6
SLEEP_MOST_S = 1e-3


def wait_until(done: Callable[[], bool], *, polite: bool) -> None:
    """Call `done` until it is true.

    A polite wait sleeps after `SPINS` calls, longer and longer, because MPI spins inside its own waits and
    a spinning rank takes the core from the rank that it waits for. The other kind yields, but never sleeps.
    """
    tries = 0
    while not done():
        tries += 1
        if tries <= SPINS:
            continue
        if polite:
            time.sleep(min(SLEEP_MOST_S, SLEEP_STEP_S * (tries - SPINS)))
        else:
            os.sched_yield()
            time.sleep(0)  # gives up the interpreter lock, which sched_yield keeps before Python 3.13
