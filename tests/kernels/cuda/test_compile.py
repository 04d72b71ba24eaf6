"""Every .cu file compiles for the cards in use, with no card, by the compiler that a run uses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dtrain.kernels.cuda.device import SOURCES
from tests.kernels.cuda import nvrtc
from tests.kernels.cuda.cpu_device import files, kernels_of

VARIANTS = [  # architecture, macros: both types of values and of indices
    ("80", ("REAL=float",)),
    ("90", ("REAL=float",)),
    ("90", ("REAL=double", "WIDE_INDEX")),
]
OF_16_BITS = [  # for files whose arrays may be of another type than what is computed in
    ("80", ("REAL=float", "VALUE=Half")),
    ("90", ("REAL=float", "VALUE=Half", "WIDE_INDEX")),
    ("90", ("REAL=float", "VALUE=Bfloat16")),
]
IN_FORMS = [file for file in files() if re.search(r"\bValue\b", (SOURCES / file).read_text())]


def cubin(source: Path, options: list[str], architecture: str, folder: Path) -> bytes:
    """By NVRTC if it is installed, else by nvcc; neither is a failure in CI and a skip elsewhere."""
    options = ["-std=c++17", f"-arch=sm_{architecture}", f"-I{SOURCES}", *options]
    library = nvrtc.find()
    if library is not None:
        return nvrtc.cubin(library, source.read_text(), source.name, options)
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        reason = (
            "no CUDA compiler: pip install nvidia-cuda-nvrtc (or nvidia-cuda-nvrtc-cu12), or an nvcc on PATH"
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    made = folder / "made.cubin"
    done = subprocess.run(
        [nvcc, "-cubin", *options, str(source), "-o", str(made)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise nvrtc.CompileError(done.stderr)
    return made.read_bytes()


@pytest.mark.parametrize(("architecture", "defines"), VARIANTS)
@pytest.mark.parametrize("file", files())
def test_every_kernel_compiles(
    file: str, architecture: str, defines: tuple[str, ...], tmp_path: Path
) -> None:
    compile_all(file, architecture, defines, tmp_path)


@pytest.mark.parametrize(("architecture", "defines"), OF_16_BITS)
@pytest.mark.parametrize("file", IN_FORMS)
def test_kernels_on_16_bits_compile(
    file: str, architecture: str, defines: tuple[str, ...], tmp_path: Path
) -> None:
    compile_all(file, architecture, defines, tmp_path)


def compile_all(file: str, architecture: str, defines: tuple[str, ...], tmp_path: Path) -> None:
    options = [f"-D{define}" for define in defines]
    made = cubin(SOURCES / file, options, architecture, tmp_path)
    assert made.startswith(b"\x7fELF")
    for name in kernels_of(file):
        assert name.encode() in made, f"{name} of {file} is not in the machine code"


def test_a_mistake_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.cu"
    wrong.write_text('#include "kernel.cuh"\nextern "C" __global__ void f(Real* x) { x[0] = nothing; }\n')
    with pytest.raises(nvrtc.CompileError, match="nothing"):
        cubin(wrong, [], "90", tmp_path)
