"""The command `dtrain` on a machine with two cards, which stand-ins are; run by test_group.py."""

import sys
from collections.abc import Sequence

from dtrain.cli import device, group
from dtrain.cli.cards import Card, Choice
from dtrain.cli.main import main
from dtrain.kernels.cuda import cupy_device
from tests.comm.nccl_stand_in import Machine, StandInLane, StandInNccl
from tests.kernels.cuda.cpu_device import CpuDevice


def choice(numbers: Sequence[int], told: str, *, is_free: bool = False) -> Choice:
    return Choice("here", tuple(Card(n, f"0000:0{n}:00.0", f"GPU-{n}") for n in numbers), told, is_free)


if __name__ == "__main__":
    made = CpuDevice()
    machine = Machine(device=made)
    cupy_device.count = lambda: 2
    cupy_device.CupyDevice = lambda number: made  # type: ignore[assignment, misc]
    device.choice = choice
    group.CupyLane = lambda: StandInLane(machine)  # type: ignore[assignment, misc]
    group.nccl.load = lambda: StandInNccl(machine)
    sys.exit(main())
