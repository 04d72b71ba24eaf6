"""Every .cu file compiles for the cards in use, with no card, by the compiler that a run uses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

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
Variant: TypeAlias = tuple[str, str, tuple[str, ...]]
"""File, architecture, macros."""
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


@pytest.fixture(scope="module")
def machine_code(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Variant], bytes]]:
    """What the compiler makes of a variant. It works on all cores, on what the tests of this run ask for."""
    calls = [
        item.callspec
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module and "file" in item.fixturenames
    ]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as compilers:
        under_way: dict[Variant, Future[bytes]] = {}
        for call in calls:
            file, architecture, defines = (call.params[name] for name in ("file", "architecture", "defines"))
            options = [f"-D{define}" for define in defines]
            under_way[file, architecture, defines] = compilers.submit(
                cubin, SOURCES / file, options, architecture, tmp_path_factory.mktemp("cubin")
            )
        yield lambda variant: under_way[variant].result()


@pytest.mark.parametrize(("architecture", "defines"), VARIANTS)
@pytest.mark.parametrize("file", files())
def test_every_kernel_compiles(
    file: str, architecture: str, defines: tuple[str, ...], machine_code: Callable[[Variant], bytes]
) -> None:
    check_kernels(file, machine_code((file, architecture, defines)))


@pytest.mark.parametrize(("architecture", "defines"), OF_16_BITS)
@pytest.mark.parametrize("file", IN_FORMS)
def test_kernels_on_16_bits_compile(
    file: str, architecture: str, defines: tuple[str, ...], machine_code: Callable[[Variant], bytes]
) -> None:
    check_kernels(file, machine_code((file, architecture, defines)))


def check_kernels(file: str, made: bytes) -> None:
    assert made.startswith(b"\x7fELF")
    for name in kernels_of(file):
        assert name.encode() in made, f"{name} of {file} is not in the machine code"


def test_a_mistake_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.cu"
    wrong.write_text('#include "kernel.cuh"\nextern "C" __global__ void f(Real* x) { x[0] = nothing; }\n')
    with pytest.raises(nvrtc.CompileError, match="nothing"):
        cubin(wrong, [], "90", tmp_path)
