"""`dtrain device_query`: what it tells of GPUs and of the libraries that compute on them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dtrain.cli import device_query_command
from dtrain.cli.device_query_command import gpus
from dtrain.kernels.cuda import stack
from tests.kernels.cuda.numpy_cupy import Cupy

VERSION = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27\nGCC version: gcc 13.2.0\n"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where a driver would show its version and its cards."""
    monkeypatch.setattr(stack, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(device_query_command, "NVIDIA", tmp_path / "gpus")
    return tmp_path


def test_every_card_and_library_is_told_with_its_version(
    monkeypatch: pytest.MonkeyPatch, driver: Path
) -> None:
    Cupy(cards=2).install(monkeypatch)
    (driver / "version").write_text(VERSION)
    rows = gpus()
    assert [name for name, _ in rows] == ["GPU", "GPU", "CuPy", "cuBLASLt", "cuDNN", "NCCL"]
    told = [text for _, text in rows]
    assert told[1] == "1: NumPy, 80.0 GiB, sm_90, driver 580.65.06 for CUDA up to 13.3"
    assert told[2] == "14.2.0, CUDA 13.2"
    assert told[3].startswith("13.5.0, by nvmath-python ")
    assert told[5] == "2.27.3"


def test_what_is_not_installed_is_told_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, driver: Path
) -> None:
    Cupy(nvmath=ModuleNotFoundError("No module named 'nvmath'")).install(monkeypatch)
    rows = dict(gpus())
    assert "driver of unknown version" in rows["GPU"]
    assert rows["cuBLASLt"].endswith("no CUDA graphs: pip install nvmath-python")
    assert "not installed (No module named 'cudnn')" in rows["cuDNN"]
    assert "pip install nvidia-cudnn-frontend" in rows["cuDNN"]


def test_a_library_that_does_not_load_says_why(monkeypatch: pytest.MonkeyPatch, driver: Path) -> None:
    Cupy(nvmath=RuntimeError("Failed to dlopen libcublasLt.so.13\nand more")).install(monkeypatch)
    assert dict(gpus())["cuBLASLt"].endswith("no CUDA graphs: Failed to dlopen libcublasLt.so.13")


def test_cards_that_cannot_be_used_are_told_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, driver: Path
) -> None:
    for number in range(2):
        (driver / "gpus" / str(number)).mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "cupy", None)
    rows = dict(gpus())
    assert rows["GPU"].startswith("2 of NVIDIA that cannot be used: GPU: CuPy must be installed")
    assert rows["CuPy"].startswith("not installed: pip install")


def test_a_machine_without_a_card_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch, driver: Path) -> None:
    Cupy(cards=0).install(monkeypatch)
    assert gpus() == [("GPU", "none; on a machine with one `nvidia-smi` lists it")]
