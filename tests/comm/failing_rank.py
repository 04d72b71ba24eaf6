"""A job whose rank 1 fails in the way that its argument names; run by test_failure.py under mpirun."""

import os
import signal
import sys
import threading
import time

import numpy as np

from dtrain.comm.abort import agree, ending_together
from dtrain.comm.communicator import Communicator
from dtrain.comm.launcher import connect
from dtrain.errors import ConfigError


def sleep_in_layer() -> None:
    time.sleep(1000)


def fail(mode: str) -> None:
    match mode:
        case "raise":
            raise ValueError("no such thing")
        case "user":
            raise ConfigError('net.prototxt:3: layer "a": pad must be 0, got 1')
        case "thread":
            threading.Thread(target=fail, args=("raise",)).start()
            time.sleep(1000)
        case "status":
            sys.exit(4)
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sleep":
            sleep_in_layer()


def join(machines: bool) -> Communicator:
    """All ranks of the job; with `machines`, as if every rank ran on one of its own."""
    if not machines:
        return connect()
    from dtrain.comm.mpi import MpiCommunicator

    return MpiCommunicator(warn_s=1.0, abort_s=3.0, machine_size=1)


def main(mode: str, machines: bool) -> None:
    comm = join(machines)
    with ending_together(comm):
        comm.note("forward")
        diff = comm.allocate(1000)
        comm.wait(comm.allreduce(diff, "gradient bucket 1 of 2"))
        error = ConfigError("net.prototxt: must be a file, got nothing there")
        if mode == "agree_all":
            agree(comm, error)
        if mode == "agree_one":
            agree(comm, error if comm.rank == 1 else None)
        if mode == "mismatch":
            comm.allreduce(np.zeros(3 + comm.rank))
        if comm.rank == 1:
            fail(mode)
        comm.note("backward")
        comm.wait(comm.allreduce(diff, "gradient bucket 2 of 2"))
        comm.close()


main(sys.argv[1], "machines" in sys.argv)
