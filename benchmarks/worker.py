"""A process timed in turns with others: `N` on its input, N step times in seconds on its output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

WARM_UP_STEPS = 5

# PyTorch returns large buffers to the system after every step and pays for their pages again; with these
# the allocator keeps them. The fair peer is the tuned one.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_TOP_PAD_": "100000000",
}


def serve(step: Callable[[], object]) -> None:
    """The worker's side: warm up, say so, then time steps on demand until the input ends."""
    for _ in range(WARM_UP_STEPS):
        step()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        step()  # wakes the threads, which have slept while others ran
        times = []
        for _ in range(int(line)):
            begin = time.perf_counter()
            step()
            times.append(time.perf_counter() - begin)
        print(json.dumps(times), flush=True)


class Worker:
    """The driver's side of one process."""

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.times: list[float] = []
        self.rounds: list[float] = []  # the median of each round
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self._read()

    def _read(self) -> object:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(("[", '"ready"')):
                return json.loads(line)
        raise SystemExit(f"{self.name}: ended with status {self._process.wait()} before it was done")

    def run(self, steps: int) -> None:
        """One round."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        times = self._read()
        assert isinstance(times, list)
        self.times += times
        self.rounds.append(sorted(times)[len(times) // 2])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
