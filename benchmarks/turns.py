"""The driver's side of a timing on a card: workers that may fail or hang, and the time that is left."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

STDERR_LINES = 3
LEAST_WAIT_S = 1.0


@final
class WorkerError(Exception):
    """A worker did not answer, or answered with an error; `out_of_memory` is the card's."""

    def __init__(self, told: str, *, out_of_memory: bool = False) -> None:
        super().__init__(told)
        self.out_of_memory = out_of_memory

    def short(self, width: int = 60) -> str:
        """For a column of a table."""
        if self.out_of_memory:
            return "out of memory"
        told = " ".join(str(self).split())
        return told if len(told) <= width else told[: width - 3] + "..."


@final
class CardWorker:
    """A process that is started when it is first asked, and anew after it failed."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._command = list(command)
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: Any = None
        self._pending = b""

    def ask(self, request: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """The answer; WorkerError if it is an error or does not come in time, and the process is gone."""
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            answer = self._read(process, time.monotonic() + max(limit_s, LEAST_WAIT_S), limit_s)
        except (WorkerError, OSError) as error:
            told = self._last_words()
            self.kill()
            raise WorkerError(f"{error}{told}") from None
        if "ok" in answer:
            return dict(answer["ok"])
        self.kill()
        raise WorkerError(str(answer["error"]), out_of_memory=bool(answer["out_of_memory"]))

    def kill(self) -> None:
        """End the process and what it started."""
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._errors.close()

    def _start(self) -> subprocess.Popen[bytes]:
        self._pending = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **self._environment},
            start_new_session=True,  # compilers that it starts end with it
        )
        return self._process

    def _read(self, process: subprocess.Popen[bytes], deadline: float, limit_s: float) -> dict[str, Any]:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise WorkerError(f"no answer within {limit_s:.0f} s")
                got = os.read(process.stdout.fileno(), 65536)
                if not got:
                    raise WorkerError(f"ended with status {process.wait()}")
                self._pending += got
        line, _, self._pending = self._pending.partition(b"\n")
        return dict(json.loads(line))

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return f": {' | '.join(lines[-STDERR_LINES:])}" if lines else ""


def module_worker(
    name: str, module: str, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> CardWorker:
    """A worker that is a module of this program's Python."""
    return CardWorker(name, [sys.executable, "-m", module, *arguments], environment)


@final
class Budget:
    """Seconds that a whole program may take, shared among the parts that are still to come."""

    def __init__(self, total_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + total_s

    def left_s(self) -> float:
        """Never less than 0."""
        return max(0.0, self._end - self._clock())

    def share_s(self, parts: int) -> float:
        """What one of so many equal parts may take of the rest."""
        return self.left_s() / max(1, parts)

    def part(self, seconds: float) -> Budget:
        """A budget within this one."""
        return Budget(min(seconds, self.left_s()), self._clock)
