"""How many cores a rank may keep busy: its affinity, its cgroup's quota, and the ranks that share them."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dtrain.errors import ConfigError

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def cores_of(masks: Sequence[frozenset[int]], index: int, quota: float = math.inf) -> int:
    """Whole cores for rank `index` of the ranks on one machine, at least 1.

    `masks` holds the cores that each rank may run on; a core that several ranks may use is split evenly
    between them, as is `quota`, the number of cores' worth of time that the ranks get together.
    """
    share = sum(1 / sum(core in mask for mask in masks) for core in masks[index])
    return max(1, math.floor(min(share, quota / len(masks)) + 1e-9))


def crowded(masks: Sequence[frozenset[int]], quota: float = math.inf) -> bool:
    """Whether the ranks of one machine outnumber the cores they may use, so that spinning robs another."""
    return len(masks) > min(len(frozenset().union(*masks)), quota)


def affinity() -> frozenset[int]:
    """The cores that this process may run on."""
    if sys.platform == "linux":
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def quota(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> float:
    """Cores' worth of time that this process's control groups allow; infinite where none is set.

    Source: kernel documentation, cgroup-v2 `cpu.max` ("max 100000" or "150000 100000", microseconds) and
    cgroup-v1 `cpu.cfs_quota_us` (-1 for none). A group's limit holds for the groups below it too.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return math.inf
    limits = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            limits += [_limit_v2(folder) for folder in _upwards(root, path)]
        elif "cpu" in controllers.split(","):
            limits += [_limit_v1(folder) for folder in _upwards(root / "cpu", path)]
    return min(limits)


def own_cores(masks: Sequence[frozenset[int]] = (), index: int = 0) -> int:
    """Cores for this rank; OMP_NUM_THREADS decides where it is set. `masks`: those of the machine's ranks."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if not asked:
        return cores_of(masks or (affinity(),), index, quota())
    if not asked.isdecimal() or int(asked) < 1:
        raise ConfigError(f'environment: OMP_NUM_THREADS must be a whole number of at least 1, got "{asked}"')
    return int(asked)


def _upwards(root: Path, path: str) -> list[Path]:
    inner = root / path.strip("/")
    return [inner, *(folder for folder in inner.parents if folder == root or root in folder.parents)]


def _limit_v2(folder: Path) -> float:
    try:
        allowed, period = (folder / "cpu.max").read_text().split()
    except OSError:
        return math.inf
    return math.inf if allowed == "max" else int(allowed) / int(period)


def _limit_v1(folder: Path) -> float:
    try:
        allowed = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except OSError:
        return math.inf
    return math.inf if allowed <= 0 else allowed / period
