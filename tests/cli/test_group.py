"""What sums gradients: --comm and --compress, on the CPU and between cards that stand-ins are."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtrain.cli import group
from dtrain.cli.group import check, compression_of, on_device
from dtrain.cli.job import Job
from dtrain.comm.abort import agree
from dtrain.comm.communicator import Communicator
from dtrain.comm.nccl import NcclCommunicator
from dtrain.comm.single import SingleCommunicator
from dtrain.comm.staged import StagedCommunicator
from dtrain.errors import CommError, ConfigError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.metrics.recorder import Recorder
from dtrain.metrics.reporter import Reporters
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import read_binary
from tests.cli.running import Outcome, command, dtrain, surroundings
from tests.comm.nccl_stand_in import Machine, StandInLane, StandInNccl, narrowed
from tests.kernels.cuda.cpu_device import CpuDevice


def job_of(comm: Communicator) -> Job:
    return Job(comm, Reporters(()), Recorder())


@pytest.fixture
def nccl(monkeypatch: pytest.MonkeyPatch) -> StandInNccl:
    """NCCL and the way to a card, both stand-ins."""
    machine = Machine(device=CpuDevice())
    found = StandInNccl(machine)
    monkeypatch.setattr(group, "CupyLane", lambda: StandInLane(machine))
    monkeypatch.setattr(group.nccl, "load", lambda: found)
    return found


@pytest.mark.parametrize(
    ("how", "compress", "told"),
    [
        ("ncl", "none", r'--comm: unknown communicator "ncl"; did you mean "nccl"\?'),
        ("auto", "bf61", r'--compress: unknown compression "bf61"; did you mean "bf16"\?'),
        ("nccl", "none", "--comm must be auto or mpi on the CPU, got nccl; pass -gpu all"),
        ("auto", "bf16", "--compress must be none on the CPU, .*, got bf16; pass -gpu all"),
    ],
)
def test_a_choice_that_cannot_be_is_an_error(how: str, compress: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check(CpuBackend(engine="CAFFE"), how, compress)


@pytest.mark.parametrize(
    "backend", [CpuBackend(engine="CAFFE"), CudaBackend(CpuDevice())], ids=["cpu", "gpu"]
)
def test_a_group_of_one_stays_as_it_is(backend: Any) -> None:
    job = job_of(SingleCommunicator())
    with on_device(job, backend) as joined:
        assert joined is job


@pytest.mark.world_size(2)
def test_ranks_on_the_cpu_sum_by_mpi(comm: Communicator) -> None:
    job = job_of(comm)
    for how in ("auto", "mpi"):
        with on_device(job, CpuBackend(engine="CAFFE"), how) as joined:
            assert joined is job


@pytest.mark.world_size(2)
@pytest.mark.parametrize(
    ("how", "compress", "told"),
    [
        ("auto", "none", "Gradients are summed by NCCL 2.32.3"),
        ("nccl", "bf16", "Gradients are summed by NCCL 2.32.3 as bf16"),
        ("mpi", "none", "Gradients are summed by MPI in host memory"),
        ("mpi", "fp16", "Gradients are summed by MPI in host memory, on their way there as fp16"),
    ],
)
def test_ranks_on_cards_sum_as_they_are_told(
    comm: Communicator,
    nccl: StandInNccl,
    caplog: pytest.LogCaptureFixture,
    how: str,
    compress: str,
    told: str,
) -> None:
    backend = CudaBackend(CpuDevice())
    with caplog.at_level(logging.INFO), on_device(job_of(comm), backend, how, compress) as joined:
        assert isinstance(joined.comm, StagedCommunicator if how == "mpi" else NcclCommunicator)
        array = backend.flat(5)
        array.fill(comm.rank + 1)
        joined.comm.wait(joined.comm.allreduce(array, "gradient bucket 1 of 1"))
        np.testing.assert_array_equal(array, 3)
    assert told in caplog.messages
    assert nccl.calls == ([] if how == "mpi" else ["allReduce of 5", "destroy"])
    comm.barrier()  # MPI's own group is still there


@pytest.mark.world_size(2)
def test_an_error_of_all_ranks_stops_what_nccl_has_under_way(comm: Communicator, nccl: StandInNccl) -> None:
    backend = CudaBackend(CpuDevice())

    def train() -> None:
        with on_device(job_of(comm), backend) as joined:
            joined.comm.allreduce(backend.flat(5), "gradient bucket 1 of 1")
            agree(comm, ConfigError("no such file"))

    with pytest.raises(CommError, match="no such file"):
        train()
    assert nccl.calls == ["allReduce of 5", "abort"]


@pytest.mark.world_size(2)
def test_nccl_that_one_rank_lacks_is_told_on_both(
    comm: Communicator, nccl: StandInNccl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> Any:
        raise CommError("NCCL: CuPy must find it")

    if comm.rank == 1:
        monkeypatch.setattr(group.nccl, "load", absent)
    told = r"rank 1 \(of ranks 1 that failed\): NCCL: CuPy must find it"
    with pytest.raises(CommError, match=told), on_device(job_of(comm), CudaBackend(CpuDevice())):
        raise AssertionError("there is no group")


@pytest.mark.world_size(2)
def test_ranks_that_may_share_a_card_tell_nccl(
    comm: Communicator, nccl: StandInNccl, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setenv("DTRAIN_SHARE_CARDS", "1")
    monkeypatch.setattr(group.nccl, "share_cards", lambda library, rank: asked.append(rank))
    with on_device(job_of(comm), CudaBackend(CpuDevice())):
        assert asked == [comm.rank]


@pytest.mark.parametrize("format", ["fp16", "bf16"])
def test_a_backends_casts_round_to_16_bits_and_scale(format: str) -> None:
    backend = CudaBackend(CpuDevice())
    compression = compression_of(backend, format)
    assert compression is not None
    values = backend.flat(1000)
    values[:] = np.random.default_rng(0).standard_normal(1000)
    narrow, wide = compression.empty(1000), backend.flat(1000)
    compression.narrow(values, narrow, 0.5)
    np.testing.assert_array_equal(narrow, narrowed(values * np.float32(0.5), format))
    compression.widen(narrow, wide, 2.0)
    np.testing.assert_allclose(wide, values, rtol=2**-8, atol=2**-24)
    assert compression_of(backend, "none") is None


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_wrong_communicator_is_told_once_by_the_command(here: Path, ranks: int) -> None:
    done = dtrain("solver.prototxt", "-cpu", "--comm=nccl", at=here, ranks=ranks)
    assert done.status != 0
    assert done.faults == [
        "error: --comm must be auto or mpi on the CPU, got nccl; pass -gpu all to compute on GPUs"
    ]


# -- the command, its cards and NCCL being stand-ins


def on_cards(*arguments: str, at: Path, ranks: int = 2) -> Outcome:
    """Run a command on a machine with two cards."""
    words = command([*arguments, "-gpu", "all"], ranks)
    words[words.index("dtrain.cli.main")] = "tests.cli.on_stand_ins"
    done = subprocess.run(words, cwd=at, env=surroundings(), capture_output=True, text=True, timeout=200)
    return Outcome(done.returncode, done.stdout, done.stderr)


def weights_in(folder: Path, it: int = 20) -> list[Any]:
    model = pb.NetParameter()
    read_binary(folder / "runs" / f"small_iter_{it}.caffemodel", model)
    return [np.array(blob.data, np.float32) for layer in model.layer for blob in layer.blobs]


@pytest.mark.timeout(400)
def test_two_cards_train_what_two_cpus_do_and_resume_bit_for_bit(here: Path) -> None:
    assert dtrain("solver.prototxt", "-cpu", at=here, ranks=2).status == 0
    expected = weights_in(here)
    shutil.rmtree(here / "runs")
    done = on_cards("solver.prototxt", at=here)
    assert (done.status, done.faults) == (0, []), done.err
    for line in ("rank 0 of 2 on here, GPU 0, GPU-0", "rank 1 of 2 on here, GPU 1, GPU-1"):
        assert line in done.err
    assert "Gradients are summed by NCCL 2.32.3" in done.err
    found = weights_in(here)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)
    (here / "runs" / "small_iter_20.caffemodel").unlink()
    again = on_cards("solver.prototxt", "--snapshot=runs/small_iter_10.solverstate", at=here)
    assert (again.status, again.faults) == (0, []), again.err
    for mine, theirs in zip(weights_in(here), found, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("flags", [["--comm=mpi"], ["--compress=bf16"]], ids=str)
def test_two_cards_train_with_these_flags(here: Path, flags: list[str]) -> None:
    done = on_cards("solver.prototxt", *flags, at=here)
    assert (done.status, done.faults) == (0, []), done.err
    assert re.search(r"Test net output #\d: accuracy = (1|0\.[6-9])", done.err), done.err


def test_a_third_rank_on_two_cards_is_told_once(here: Path) -> None:
    done = on_cards("solver.prototxt", at=here, ranks=3)
    assert done.status != 0
    assert done.faults == [
        "error: -gpu all: there must be a card for each of the 3 ranks on here, got 2; start fewer ranks, or "
        "name more cards"
    ]
