"""A job whose rank 1 or whose NCCL fails as its argument says; run by test_nccl.py under mpirun."""

import sys
import time

import numpy as np

from dtrain.comm.abort import ending_together
from dtrain.comm.launcher import connect
from dtrain.comm.mpi import MpiCommunicator
from dtrain.comm.nccl import NcclCommunicator
from tests.comm.nccl_stand_in import Machine, NcclError, StandInLane, StandInNccl
from tests.kernels.cuda.cpu_device import guarded


def sleep_in_layer() -> None:
    time.sleep(1000)


def main(mode: str) -> None:
    inner = connect()
    assert isinstance(inner, MpiCommunicator)
    with ending_together(inner):
        machine = Machine()
        nccl = StandInNccl(machine)
        comm = NcclCommunicator(inner, StandInLane(machine), nccl)
        diff = guarded(1000, np.dtype(np.float32))
        machine.compute.run(lambda: diff.fill(1))
        comm.note("forward")
        for _ in range(2):
            for bucket in (1, 2):
                comm.wait(comm.allreduce(diff, f"gradient bucket {bucket} of 2"))
            machine.finish()
        machine.compute.begin_capture()
        for bucket in (1, 2):
            comm.wait(comm.allreduce(diff, f"gradient bucket {bucket} of 2"))
        graph = machine.compute.end_capture()
        comm.wait(comm.allreduce(diff, "gradient bucket 1 of 2"))
        machine.finish()
        if mode == "stuck_in_graph":
            graph.launch()
            if comm.rank != 1:
                comm.note("backward")
                graph.launch()
            machine.finish()
        if comm.rank == 1:
            match mode:
                case "stuck" | "stuck_in_graph":
                    sleep_in_layer()
                case "fault":
                    nccl.fault = NcclError("NCCL_ERROR_SYSTEM_ERROR: unhandled system error")
                case "unnamed_fault":
                    nccl.fault = KeyError(6)
            if nccl.fault is not None:  # the card stands in the bucket, the host in a sleep
                comm._progress.enter("gradient bucket 2 of 2", comm._stream)
                comm.lane.machine.finish()
                sleep_in_layer()
        comm.note("backward")
        comm.wait(comm.allreduce(diff, "gradient bucket 2 of 2"))
        machine.finish()
        comm.close()


main(sys.argv[1])
