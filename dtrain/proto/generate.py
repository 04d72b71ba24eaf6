"""Write dtrain_pb2.py and dtrain_pb2.pyi from dtrain.proto: `python -m dtrain.proto.generate`.

The generated module loads on no protobuf older than its compiler's. The one checked in was written by
grpcio-tools 1.72.2, so that it loads on protobuf 6.30 and all later ones; a newer compiler raises that floor.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCE = "dtrain/proto/dtrain.proto"
ROOT = Path(__file__).parents[2]
# The compiler writes Mapping where mypy --strict wants Mapping[K, V], and **kwargs for a field `lambda`.
STUB_HEADER = '# mypy: disable-error-code="type-arg, no-untyped-def"\n'


def generate(folder: Path) -> None:
    """Write the two modules to `folder`/dtrain/proto, which must exist."""
    command = [sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", f"--proto_path={ROOT}"]
    command += [f"--python_out={folder}", f"--pyi_out={folder}", SOURCE]
    subprocess.run(command, check=True, cwd=ROOT)
    stub = folder / "dtrain/proto/dtrain_pb2.pyi"
    stub.write_text(STUB_HEADER + stub.read_text())


if __name__ == "__main__":
    generate(ROOT)
