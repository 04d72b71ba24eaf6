"""One part of a run that is killed and resumed: trains under mpirun and writes down what every step read.

    mpirun -n R python -m tests.data.resumed_run FOLDER MAX_ITER [KILL_AT]

Goes on from the newest snapshot in FOLDER; one is taken EVERY iterations. With KILL_AT the last rank
kills itself, as kill -9 would, when it is about to update the weights for the KILL_AT-th time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from dtrain.comm.mpi import MpiCommunicator
from dtrain.layers.record_layer import RecordLayer
from dtrain.solvers.snapshots import newest
from tests.solvers.nets import make_solver

EVERY, ITER_SIZE = 3, 2
SETTINGS = f"snapshot: {EVERY} iter_size: {ITER_SIZE}"
DATA = "shuffle: true"
BATCH = 2


def run(folder: Path, max_iter: int, kill_at: int) -> None:
    comm = MpiCommunicator(warn_s=20.0, abort_s=50.0)
    solver = make_solver(folder / "tiny_lmdb", SETTINGS, comm=comm, batch=BATCH, seed=comm.size, data=DATA)
    data = solver.net.layer("data")
    assert isinstance(data, RecordLayer)
    found = comm.allgather_object(newest(folder / "tiny") if comm.rank == 0 else None)[0]
    if found is not None:
        solver.restore(found)
    read: list[list[int]] = []
    forward = solver.net.forward

    def noting() -> float:
        loss = forward()
        read.append(data.records.tolist())
        return loss

    solver.net.forward = noting  # type: ignore[method-assign]
    with Path(folder, f"read.{comm.size}.{comm.rank}.jsonl").open("a", encoding="utf-8") as log:

        def tell() -> None:
            if kill_at and solver.iter + 1 == kill_at and comm.rank == comm.size - 1:
                written = folder / f"tiny_iter_{(kill_at - 1) // EVERY * EVERY}.dtrain.json"
                while not written.exists():  # by a thread of rank 0; the other ranks wait for this one
                    time.sleep(0.01)
                os.kill(os.getpid(), signal.SIGKILL)
            log.write(json.dumps({"iter": solver.iter, "records": read}) + "\n")
            log.flush()
            read.clear()

        solver.on_gradients_ready.append(tell)
        solver.step(max_iter - solver.iter)
    solver.snapshot(wait=True)
    comm.close()


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
