"""What a snapshot holds beyond Caffe's two files, in a JSON file beside them; and which snapshot is whole.

PREFIX_iter_N.caffemodel, PREFIX_iter_N.solverstate (both with .h5 in HDF5) and PREFIX_iter_N.dtrain.json,
which is written last and holds digests of the others: a snapshot is whole when all are there and agree.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, final

from dtrain.errors import SnapshotError
from dtrain.solvers.whole_file import digest_of, replacing

FORMAT: Final = 1
STATE_SUFFIXES: Final = (".solverstate", ".solverstate.h5")
MANIFEST_SUFFIX: Final = ".dtrain.json"


@final
@dataclass(frozen=True)
class Stream:
    """How far one net has come: forward passes of a rank, and samples of the whole job by data layer."""

    passes: int
    samples: dict[str, int]


@final
@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The state of a run at one iteration, as far as Caffe's files do not hold it."""

    format: int
    version: str
    """Of dtrain."""
    iteration: int
    solver_type: str
    world_size: int
    seed: int
    train: Stream
    test: list[Stream]
    digests: dict[str, str]
    """BLAKE2b of the model and the state, in this order, by file name."""
    loss_scale: list[float] | None = None
    """The numbers of a ScaleState, where losses are scaled."""


@final
@dataclass(frozen=True)
class SnapshotPaths:
    """The files of one snapshot."""

    model: Path
    state: Path
    manifest: Path

    @classmethod
    def of(cls, prefix: Path, iteration: int, hdf5: bool) -> SnapshotPaths:
        stem, tail = f"{prefix}_iter_{iteration}", ".h5" if hdf5 else ""
        return cls(
            Path(f"{stem}.caffemodel{tail}"), Path(f"{stem}.solverstate{tail}"), Path(stem + MANIFEST_SUFFIX)
        )


def write(path: Path, manifest: Manifest) -> None:
    """Raises OSError."""
    with replacing(path) as beside:
        beside.write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")


def read(path: Path) -> Manifest:
    """Raises SnapshotError for a file that is absent, partial or of another format."""
    try:
        stored: Any = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            raise SnapshotError(f"{path}: format must be {FORMAT}, got {stored['format']}")
        stored.setdefault("loss_scale", None)  # older manifests have none
        known = {field.name: stored[field.name] for field in fields(Manifest)}
        known["train"] = Stream(**stored["train"])
        known["test"] = [Stream(**one) for one in stored["test"]]
        return Manifest(**known)
    except OSError as fault:
        raise SnapshotError(f"{path}: must be a readable file, got {fault.strerror or fault}") from fault
    except (ValueError, KeyError, TypeError) as fault:
        raise SnapshotError(f"{path}: must describe a snapshot, got {fault!r}") from fault


def manifest_of(state: Path) -> Path:
    """The path of the manifest beside a solver state."""
    for suffix in reversed(STATE_SUFFIXES):
        if state.name.endswith(suffix):
            return state.with_name(state.name.removesuffix(suffix) + MANIFEST_SUFFIX)
    raise SnapshotError(f"{state}: a snapshot's name must end in {' or '.join(STATE_SUFFIXES)}")


def fault_of(path: Path, manifest: Manifest) -> str:
    """What is wrong with the files that the manifest at `path` lists; empty if all is well."""
    for name, digest in manifest.digests.items():
        file = path.with_name(name)
        if not file.exists():
            return f"{file} is missing"
        if digest_of(file) != digest:
            return f"{file} has changed since it was written"
    return ""
