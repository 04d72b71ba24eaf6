"""Which communicator a process gets, and the refusal of processes that only pose as one job."""

import os
import subprocess
import sys

import pytest

from dtrain.comm.launcher import Declared, check_size, connect, declared
from dtrain.comm.single import SingleCommunicator
from dtrain.errors import CommError, ConfigError


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({}, None),
        ({"PMI_SIZE": "4", "PMI_RANK": "1"}, Declared("PMI_SIZE", 4)),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, Declared("OMPI_COMM_WORLD_SIZE", 2)),
        ({"MV2_COMM_WORLD_SIZE": "2"}, Declared("MV2_COMM_WORLD_SIZE", 2)),
        ({"PMIX_RANK": "0"}, Declared("PMIX_RANK", 0)),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "3"}, Declared("SLURM_NTASKS", 8)),
        # mpirun in a Slurm job: one step task a machine, the ranks are what mpirun says
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "2", "PMI_SIZE": "8"}, Declared("PMI_SIZE", 8)),
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"}, Declared("SLURM_STEP_NUM_TASKS", 1)),
    ],
)
def test_the_innermost_launcher_declares_the_job(environment, job) -> None:
    assert declared(environment) == job


def test_singletons_that_pose_as_one_job_are_refused_with_the_variable_and_both_values() -> None:
    with pytest.raises(CommError, match=r"SLURM_NTASKS must be the number of MPI ranks \(1\), got 8"):
        check_size(Declared("SLURM_NTASKS", 8), 1)
    check_size(Declared("PMI_SIZE", 2), 2)
    check_size(Declared("PMIX_RANK", 0), 2)


def without_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in os.environ:
        if variable.startswith(("PMI", "PALS", "OMPI_", "MV2_", "SLURM_", "JSM_", "FLUX_", "DTRAIN_")):
            monkeypatch.delenv(variable)


def test_a_process_without_launcher_is_a_group_of_one(monkeypatch) -> None:
    without_launcher(monkeypatch)
    assert isinstance(connect(), SingleCommunicator)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert isinstance(connect(), SingleCommunicator)


def test_a_bad_number_in_the_environment_is_named(monkeypatch) -> None:
    without_launcher(monkeypatch)
    monkeypatch.setenv("DTRAIN_STALL_ABORT_S", "soon")
    with pytest.raises(ConfigError, match='DTRAIN_STALL_ABORT_S must be a number above 0, got "soon"'):
        connect()


def test_a_missing_mpi4py_names_the_extra_to_install(monkeypatch) -> None:
    without_launcher(monkeypatch)
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(CommError, match=r"PMI_SIZE says .* pip install 'dtrain\[mpi\]'"):
        connect()


def test_a_lone_process_that_slurm_counts_as_two_is_refused() -> None:
    code = "from dtrain.comm.launcher import connect; connect()"
    environment = {**os.environ, "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert run.returncode != 0
    assert "SLURM_NTASKS must be the number of MPI ranks (1), got 2" in run.stderr


def test_a_group_of_one_does_not_import_mpi() -> None:
    code = "import sys; from dtrain.comm.launcher import connect; connect(); print('mpi4py' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "False\n"
