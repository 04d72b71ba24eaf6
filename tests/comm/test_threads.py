"""Cores per rank from affinity masks, quotas and OMP_NUM_THREADS."""

import math
from pathlib import Path

import pytest

from dtrain.comm.threads import affinity, cores_of, crowded, own_cores, quota
from dtrain.errors import ConfigError

ALL = frozenset(range(8))


@pytest.mark.parametrize(
    ("masks", "index", "limit", "cores"),
    [
        ([ALL], 0, math.inf, 8),
        ([ALL] * 2, 1, math.inf, 4),
        ([ALL] * 3, 0, math.inf, 2),
        ([ALL] * 20, 0, math.inf, 1),
        ([frozenset({0, 1}), frozenset({2, 3})], 1, math.inf, 2),  # bound ranks share nothing
        ([frozenset({0, 1, 2}), frozenset({2})], 0, math.inf, 2),
        ([ALL], 0, 2.5, 2),
        ([ALL] * 2, 0, 4.0, 2),
        ([ALL], 0, 0.5, 1),
    ],
)
def test_cores_are_split_between_the_ranks_that_may_use_them(masks, index, limit, cores) -> None:
    assert cores_of(masks, index, limit) == cores


def test_ranks_are_crowded_when_they_outnumber_cores_or_quota() -> None:
    assert not crowded([ALL] * 8)
    assert crowded([ALL] * 9)
    assert crowded([ALL] * 3, 2.0)
    assert crowded([frozenset({0})] * 2)
    assert not crowded([frozenset({0}), frozenset({1})])


def test_omp_num_threads_decides_where_it_is_set(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert own_cores([ALL], 0) == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert 1 <= own_cores() <= len(affinity())
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    with pytest.raises(ConfigError, match='OMP_NUM_THREADS must be a whole number of at least 1, got "many"'):
        own_cores()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_tightest_quota_of_a_cgroup_and_those_above_it_holds(tmp_path) -> None:
    write(tmp_path / "membership", "0::/jobs/mine\n")
    write(tmp_path / "jobs" / "mine" / "cpu.max", "max 100000\n")
    assert quota(tmp_path, tmp_path / "membership") == math.inf
    write(tmp_path / "jobs" / "cpu.max", "250000 100000\n")
    assert quota(tmp_path, tmp_path / "membership") == 2.5


def test_a_quota_of_the_first_kind_of_cgroups_is_read(tmp_path) -> None:
    write(tmp_path / "membership", "9:name=systemd:/\n3:cpu,cpuacct:/box\n")
    write(tmp_path / "cpu" / "box" / "cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "cpu" / "box" / "cpu.cfs_period_us", "100000\n")
    assert quota(tmp_path, tmp_path / "membership") == math.inf
    write(tmp_path / "cpu" / "box" / "cpu.cfs_quota_us", "150000\n")
    assert quota(tmp_path, tmp_path / "membership") == 1.5


def test_no_cgroups_mean_no_quota(tmp_path) -> None:
    assert quota(tmp_path, tmp_path / "absent") == math.inf
