"""What stands in for a card where there is none: cuDNN's own libraries, and a stub of the driver for them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

STUB = Path(__file__).with_name("stub_driver.c")
NEEDED = {  # file -> the wheel that holds it
    "libcudnn.so.9": "nvidia-cudnn-cu13",
    "libcublasLt.so.13": "nvidia-cublas",
    "libnvrtc.so.13": "nvidia-cuda-nvrtc",
}


class MissingError(Exception):
    """Something is not installed; the message says what to install."""


def libraries(extra: Path | None) -> list[Path]:
    """Folders of the libraries that cuDNN needs to plan, from `extra` or this Python's packages."""
    if importlib.util.find_spec("cudnn") is None:
        raise MissingError("pip install 'nvidia-cudnn-frontend>=1.23,<1.29'")
    roots = [folder for folder in (extra, Path(sysconfig.get_paths()["purelib"])) if folder is not None]
    folders, missing = [], []
    for file, wheel in NEEDED.items():
        found = [path for root in roots for path in sorted(root.glob(f"nvidia/*/lib/{file}"))]
        if found:
            folders.append(found[0].parent)
        else:
            missing.append(wheel)
    if missing:
        raise MissingError(f"pip install --target DIR {' '.join(missing)}, then --libraries DIR")
    return list(dict.fromkeys(folders))


def build_stub(folder: Path) -> Path:
    """The driver's stub as a library in that folder."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise MissingError("a C compiler (cc) for the driver's stub")
    made = folder / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", str(made), str(STUB)], check=True)
    return made


def environment(stub: Path, folders: list[Path]) -> dict[str, str]:
    """This process' environment, with those libraries found first."""
    places = [str(stub.parent), *map(str, folders), os.environ.get("LD_LIBRARY_PATH", "")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(place for place in places if place)}
