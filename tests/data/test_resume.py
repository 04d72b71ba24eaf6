"""A job that is killed and resumed on other numbers of ranks reads every sample once, in one order.

python -m pytest -s tests/data/test_resume.py        prints what each part of the run consumed
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from dtrain.data.sampler import records_of
from dtrain.solvers.snapshots import newest
from tests.data.resumed_run import BATCH, EVERY, ITER_SIZE
from tests.solvers.nets import RECORDS, make_lmdb

ROOT = Path(__file__).parents[2]
LIMIT_S = 100


def train(folder: Path, ranks: int, max_iter: int, kill_at: int = 0) -> int:
    """Exit status of that part of the run; negative or not 0 when a rank was killed."""
    mpirun = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert mpirun is not None, "tests with ranks need an mpirun; pip install -e '.[mpi,dev]'"
    words = [mpirun, "-n", str(ranks), sys.executable, "-m", "tests.data.resumed_run"]
    process = subprocess.Popen(
        [*words, str(folder), str(max_iter), str(kill_at)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def consumed(folder: Path, ranks: int) -> dict[int, list[int]]:
    """The records that the job read in each iteration, in the order of its samples."""
    logs = []
    for rank in range(ranks):
        lines = (folder / f"read.{ranks}.{rank}.jsonl").read_text().splitlines()
        logs.append({line["iter"]: line["records"] for line in map(json.loads, lines)})
    whole = set.intersection(*(set(log) for log in logs))
    return {it: np.stack([log[it] for log in logs], axis=2).ravel().tolist() for it in sorted(whole)}


def shown(records: list[int]) -> str:
    """How many there are, and the first and last."""
    ends = [", ".join(map(str, part)) for part in (records[:4], records[-4:])]
    return f"{len(records)} samples, records {ends[0]}, ... {ends[1]}"


def tell(kept: list[int]) -> None:
    """What became of every epoch."""
    for start in range(0, len(kept), RECORDS):
        epoch = kept[start : start + RECORDS]
        repeated = len(epoch) - len(set(epoch))
        if len(epoch) == RECORDS:
            lost = len(set(range(RECORDS)) - set(epoch))
            print(f"epoch {start // RECORDS}: {RECORDS} records, lost {lost}, repeated {repeated}")
        else:
            print(f"epoch {start // RECORDS}, unfinished: {len(epoch)} samples, repeated {repeated}")


def test_a_run_killed_and_resumed_at_2_4_and_1_ranks_loses_and_repeats_no_sample(tmp_path: Path) -> None:
    make_lmdb(tmp_path)
    kept: list[int] = []
    print(
        f"\n{RECORDS} records, shuffled; batch {BATCH} a rank, iter_size {ITER_SIZE}, snapshot every {EVERY}"
    )
    for ranks, max_iter, kill_at, resumes_at in ((2, 100, 5, 0), (4, 100, 8, 3), (1, 16, 0, 6)):
        state = newest(tmp_path / "tiny")
        assert (state is None) == (resumes_at == 0)
        assert state is None or state.name == f"tiny_iter_{resumes_at}.solverstate"
        status = train(tmp_path, ranks, max_iter, kill_at)
        assert (status != 0) == (kill_at > 0)
        steps = consumed(tmp_path, ranks)
        assert min(steps) == resumes_at
        # iterations after the last snapshot were undone by the kill
        until = (kill_at - 1) // EVERY * EVERY if kill_at else max_iter
        assert set(range(resumes_at, until)) <= set(steps)
        begin = len(kept)
        for it in range(resumes_at, until):
            assert len(steps[it]) == BATCH * ITER_SIZE * ranks
            kept += steps[it]
        end = f"kill -9 of rank {ranks - 1} in iteration {kill_at - 1}" if kill_at else "ran to its end"
        undone = sum(len(records) for it, records in steps.items() if it >= until)
        print(
            f"ranks: {ranks}, from {state.name if state else 'scratch'}: {end}, exit status {status}\n"
            f"  iterations {resumes_at} to {until - 1} count: {shown(kept[begin:])}\n"
            f"  undone, as no snapshot holds them: {undone} samples"
        )
    tell(kept)
    seed = 2  # the first part's; later ones take it from the snapshot
    expected = records_of(np.arange(len(kept)), RECORDS, seed).tolist()
    print(f"sample by sample as one run that was never stopped: {kept == expected}")
    assert kept == expected
    epochs = [kept[start : start + RECORDS] for start in range(0, len(kept) - RECORDS + 1, RECORDS)]
    assert len(epochs) >= 2
    for epoch in epochs:
        assert sorted(epoch) == list(range(RECORDS))
