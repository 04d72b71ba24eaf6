"""A job on real cards whose rank 1 gets stuck as its argument says; run by test_nccl.py under mpirun."""

import sys
import time

from dtrain.cli.cards import card
from dtrain.comm.abort import ending_together
from dtrain.comm.cupy_lane import CupyLane
from dtrain.comm.launcher import connect
from dtrain.comm.mpi import MpiCommunicator
from dtrain.comm.nccl import NcclCommunicator, load, share_cards
from dtrain.kernels.cuda import cupy_device


def sleep_in_layer() -> None:
    time.sleep(1000)


def main(mode: str) -> None:
    inner = connect()
    assert isinstance(inner, MpiCommunicator)
    with ending_together(inner):
        library = load()
        number = inner.rank % cupy_device.count()
        if len(set(inner.allgather_object(card(number).bus))) < inner.size:
            share_cards(library, inner.rank)
        device = cupy_device.CupyDevice(number)
        lane = CupyLane()
        comm = NcclCommunicator(inner, lane, library)
        diff = device.empty(1 << 20, "f4")
        device.clear(diff)
        comm.note("forward")
        for _ in range(2):
            for bucket in (1, 2):
                comm.wait(comm.allreduce(diff, f"gradient bucket {bucket} of 2"))
            device.synchronize()
        lane.compute.begin_capture()
        for bucket in (1, 2):
            comm.wait(comm.allreduce(diff, f"gradient bucket {bucket} of 2"))
        graph = lane.compute.end_capture()
        graph.launch(lane.compute)
        device.synchronize()
        inner.barrier()
        if comm.rank == 1:
            if mode == "stuck_in_graph":
                comm.wait(comm.allreduce(diff, "gradient bucket 1 of 2"))
                device.synchronize()
            sleep_in_layer()
        comm.note("backward")
        if mode == "stuck_in_graph":
            graph.launch(lane.compute)
        else:
            comm.wait(comm.allreduce(diff, "gradient bucket 2 of 2"))
        device.synchronize()


main(sys.argv[1])
