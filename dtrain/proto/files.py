"""Nets and solvers from prototxt files; weights, snapshots and means from and to binary files."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from google.protobuf.message import DecodeError, EncodeError, Message

from dtrain.errors import DataError, DtrainError, SnapshotError, WeightsError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.proto.dialects import settle_net, settle_solver
from dtrain.proto.schema import Type, fields
from dtrain.proto.sources import SourceMap
from dtrain.proto.upgrade import upgrade_net, upgrade_solver

_LOG = logging.getLogger(__name__)
_MAX_BYTES = 2**31 - 1  # protobuf's limit of one message


def read_net(path: str | os.PathLike[str]) -> tuple[pb.NetParameter, SourceMap]:
    """A net of any age as today's message; one warning tells what was brought up to date."""
    net = pb.NetParameter()
    sources = text.read(path, net)
    _warn(path, sources.old_spellings + upgrade_net(net, sources))
    return net, sources


def read_solver(path: str | os.PathLike[str]) -> tuple[pb.SolverParameter, SourceMap]:
    """A solver of any age as today's message. Paths within it stay as written."""
    solver = pb.SolverParameter()
    sources = text.read(path, solver)
    _warn(path, sources.old_spellings + upgrade_solver(solver, sources))
    return solver, sources


def _warn(path: str | os.PathLike[str], done: list[str]) -> None:
    if done:
        _LOG.warning("%s: brought up to date: %s", os.fspath(path), "; ".join(done))


def read_binary(path: str | os.PathLike[str], message: Message) -> list[str]:
    """Fill `message` from a file of its binary form; a net is brought up to date and freed of dialects.

    Returns what was brought up to date.

    A net in a binary file is there for its weights: names, types and blobs of its layers.
    """
    file = os.fspath(path)
    error = _error_of(message)
    kind = message.DESCRIPTOR.name
    try:
        data = Path(file).read_bytes()
    except OSError as fault:
        raise error(f"{file}: must be a readable {kind} file, got {fault.strerror or fault}") from fault
    if not data:
        raise error(f"{file}: must be a {kind} file, got an empty file")
    if len(data) > _MAX_BYTES:
        raise error(f"{file}: must be at most {_MAX_BYTES} bytes, got {len(data)}; save as HDF5")
    message.Clear()
    try:
        message.MergeFromString(data)
    except DecodeError as fault:
        raise error(f"{file}: must be a whole {kind} file, got {_looks(data)}") from fault
    if (name := _not_utf8(message)) is not None:
        raise error(f"{file}: {name} must be UTF-8 text, got other bytes")
    if not message.ListFields():
        raise error(f"{file}: must be a {kind} file, got {_looks(data)}")
    done: list[str] = []
    if isinstance(message, pb.NetParameter):
        settle_net(message, file)
        done = upgrade_net(message, SourceMap(file))
        if done:
            _LOG.info("%s: brought up to date: %s", file, "; ".join(done))
    if isinstance(message, pb.SolverParameter):
        settle_solver(message, file)
    return done


def write_binary(path: str | os.PathLike[str], message: Message) -> None:
    """Write the binary form; the file is either whole or, after an error, as it was before."""
    target = Path(path)
    error = _error_of(message)
    try:
        data = message.SerializeToString()
    except EncodeError as fault:
        raise error(
            f"{target}: must be a complete message of at most {_MAX_BYTES} bytes, got {fault}"
        ) from fault
    if len(data) > _MAX_BYTES:
        raise error(f"{target}: must be at most {_MAX_BYTES} bytes, got {len(data)}; save as HDF5")
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(target)
        _sync_folder(target.parent)
    except OSError as fault:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise error(f"{target}: must be writable, got {fault.strerror or fault}") from fault


def _not_utf8(message: Message) -> str | None:
    """A string field that holds other bytes: protobuf hands these out as `bytes`, and checks nothing."""
    for descriptor, value in message.ListFields():
        field = fields(message.DESCRIPTOR)[descriptor.name]
        items = value if field.repeated else (value,)
        if field.type == Type.TYPE_STRING and any(isinstance(item, bytes) for item in items):
            return field.name
        if field.is_message:
            for item in items:
                if (name := _not_utf8(item)) is not None:
                    return f"{field.name}.{name}"
    return None


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _error_of(message: Message) -> type[DtrainError]:
    if isinstance(message, pb.NetParameter):
        return WeightsError
    if isinstance(message, pb.SolverState):
        return SnapshotError
    return DataError


def _looks(data: bytes) -> str:
    """What the bytes look like, for the error text."""
    if data.startswith(b"\x89HDF\r\n\x1a\n"):
        return "an HDF5 file"
    start = data[:4096]
    try:
        words = start.decode("utf-8", "strict" if len(data) <= len(start) else "ignore")
    except UnicodeDecodeError:
        words = ""
    if words and all(character.isprintable() or character in "\r\n\t" for character in words):
        return "text"
    return f"{len(data)} bytes that are truncated or of another format"
