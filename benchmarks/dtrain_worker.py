"""A training step in dtrain: the net of configs/NET, fed by Input layers, through the solver's own loop."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.worker import serve
from dtrain.comm.communicator import Communicator
from dtrain.comm.single import SingleCommunicator
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.plan import Plan
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import read_net
from dtrain.solvers.loop import Solver

CONFIGS = Path(__file__).parents[1] / "configs"


def fed_by_input(param: pb.NetParameter, shape: list[int]) -> None:
    """Put Input layers of this shape in the place of the training data layers."""
    for layer in param.layer:
        if layer.type == "Data":
            layer.type = "Input"
            layer.ClearField("data_param")
            layer.ClearField("transform_param")
            layer.input_param.shape.add(dim=shape)
            layer.input_param.shape.add(dim=shape[:1])


def make_solver(
    net_name: str, shape: list[int], classes: int, threads: int, comm: Communicator | None = None
) -> Solver:
    """A solver for configs/NET on random images and labels."""
    param, _ = read_net(CONFIGS / net_name / "train_val.prototxt")
    fed_by_input(param, shape)
    comm = comm or SingleCommunicator()
    scope = Scope(CpuBackend(num_threads=threads), pb.TRAIN, rank=comm.rank, size=comm.size)

    def agree(choice: str) -> str:
        return str(comm.allgather_object(choice)[0])

    net = Net(param, scope, plan=Plan(agree=agree), allocate_diff=comm.allocate)
    rng = np.random.default_rng(comm.rank)
    net.blob("data").data.plain_overwrite()[...] = rng.standard_normal(shape)
    net.blob("label").data.plain_overwrite()[...] = rng.integers(0, classes, shape[0])
    settings = pb.SolverParameter(
        base_lr=1e-3, momentum=0.9, weight_decay=5e-4, lr_policy="fixed", max_iter=10**9, random_seed=1
    )
    return Solver(settings, net, comm=comm)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("net")
    parser.add_argument("shape", type=int, nargs=4)
    parser.add_argument("classes", type=int)
    parser.add_argument("--threads", type=int, required=True)
    given = parser.parse_args()
    solver = make_solver(given.net, given.shape, given.classes, given.threads)
    serve(lambda: solver.step(1))


if __name__ == "__main__":
    main()
