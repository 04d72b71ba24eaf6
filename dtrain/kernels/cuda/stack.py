"""Which cards this machine has, and which of the libraries that compute on them are installed."""

from __future__ import annotations

import importlib
import re
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from dtrain.errors import BackendError
from dtrain.kernels.cuda import cupy_device
from dtrain.kernels.cuda.cublas_lt import version_text

DRIVER: Final = Path("/proc/driver/nvidia/version")
GIB: Final = 2**30


def cards() -> list[str]:
    """Every usable card; BackendError, which says why, where there is none."""
    found = cupy_device.count()
    cuda = cupy_device.load().cuda
    driver = driver_version()
    told = []
    for number in range(found):
        about = cuda.runtime.getDeviceProperties(number)
        told.append(
            f"{number}: {about['name'].decode()}, {about['totalGlobalMem'] / GIB:.1f} GiB, "
            f"sm_{about['major']}{about['minor']}, driver {driver} for CUDA up to "
            f"{cuda_version(cuda.runtime.driverGetVersion())}"
        )
    return told


def driver_version() -> str:
    """Of NVIDIA's kernel module."""
    try:
        text = DRIVER.read_text().partition("\n")[0]
    except OSError:
        return "of unknown version"
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found.group() if found else "of unknown version"


def cuda_version(code: int) -> str:
    """13020 is 13.2."""
    return f"{code // 1000}.{code % 1000 // 10}"


def libraries() -> list[tuple[str, str]]:
    """By name: the version, or how to install it."""
    return [("CuPy", _cupy()), ("cuBLASLt", _cublas_lt()), ("cuDNN", _cudnn())]


def _cupy() -> str:
    try:
        cupy = cupy_device.load()
    except BackendError:
        return "not installed: pip install 'dtrain[cuda12]', or 'dtrain[cuda13]' for a driver of CUDA 13"
    try:
        cuda = cuda_version(cupy.cuda.runtime.runtimeGetVersion())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"{cupy.__version__}, CUDA's runtime not usable: {error}"
    return f"{cupy.__version__}, CUDA {cuda}"


def _cublas_lt() -> str:
    without = "so no products of 16 bits and no CUDA graphs"
    try:
        library: Any = importlib.import_module("nvmath.bindings.cublasLt")
        return f"{version_text(library)}, by nvmath-python {metadata.version('nvmath-python')}"
    except ImportError as error:
        return f"not installed ({error}), {without}: pip install nvmath-python"
    except RuntimeError as error:
        return f"not usable, {without}: {first_line(error)}"


def _cudnn() -> str:
    try:
        library: Any = importlib.import_module("cudnn")
        return f"{library.backend_version_string()}, by nvidia-cudnn-frontend {library.__version__}"
    except ImportError as error:
        return (
            f"not installed ({error}), so dtrain's own kernels: pip install nvidia-cudnn-frontend "
            f"nvidia-cudnn-cu13, or nvidia-cudnn-cu12"
        )
    except (RuntimeError, OSError) as error:
        return f"not usable, so dtrain's own kernels: {first_line(error)}"


def first_line(error: Exception) -> str:
    """Of what it says."""
    return str(error).strip().partition("\n")[0]
