"""`dtrain test`: one score at any number of ranks. `dtrain time`: where the time goes."""

import re
import signal
from pathlib import Path

import pytest

from tests.cli.running import dtrain, dtrain_signalled

MODEL = "runs/small_iter_20.caffemodel"


def lines_of(log: str) -> list[str]:
    """The log's texts without their heads, from the first batch on."""
    texts = [line.split("] ", 1)[1] for line in log.splitlines()]
    return texts[texts.index("Running for 7 iterations.") :]


def test_the_score_is_the_same_at_any_number_of_ranks(trained: Path) -> None:
    scores = [
        lines_of(
            dtrain(
                "test",
                "-model",
                "net.prototxt",
                f"-weights={MODEL}",
                "-iterations",
                "7",
                at=trained,
                ranks=ranks,
            ).err
        )
        for ranks in (1, 2, 3)
    ]
    assert scores[0] == scores[1] == scores[2]
    told = scores[0]
    batches = [
        float(line.rsplit(" ", 1)[1]) for line in told if re.fullmatch(r"Batch \d, accuracy = .*", line)
    ]
    assert len(batches) == 7
    correct = sum(round(25 * share) for share in batches)
    assert told[-2] == f"accuracy = {correct / 175:.6g} ({correct} of 175)"
    assert re.fullmatch(r"loss = (\S+) \(\* 1 = \1 loss\)", told[-1])
    assert f"Loss: {told[-1].split()[2]}" in told


def test_a_solver_scores_its_newest_snapshot_as_training_did(trained: Path) -> None:
    done = dtrain("test", "solver.prototxt", "--snapshot", "auto", at=trained)
    assert done.status == 0, done.err
    by_hand = dtrain("test", "--model=net.prototxt", "--weights", MODEL, "--iterations=7", at=trained)
    assert lines_of(done.err)[-2:] == lines_of(by_hand.err)[-2:]
    assert "digits: 7 batches of 25 = 175 images, of 355 in data/digits_test_lmdb" in done.err
    assert not re.search(r"\] Batch", done.err)


def test_time_lists_every_layer_and_what_computes_it(trained: Path) -> None:
    done = dtrain("time", "-model=net.prototxt", "-iterations=3", at=trained)
    assert done.status == 0, done.err
    rows = {row.split()[0]: row for row in done.out.splitlines() if row}
    assert list(rows)[:8] == ["layer", "digits", "pool", "ip1", "relu1", "ip2", "loss", "Average"]
    assert re.search(r"InnerProduct +\d+\.\d{3} +\d+\.\d{3} +\d+\.\d% +\S", rows["ip1"])
    assert "fused into ip1" in rows["relu1"]
    shares = [float(share) for share in re.findall(r" (\d+\.\d)%", done.out)]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    for name in ("Forward pass", "Backward pass", "Forward-Backward", "Data wait"):
        assert re.search(rf"^Average {name}: \S+ ms\.$", done.out, re.MULTILINE)
    assert "Update" not in done.out


def test_time_of_a_solver_under_mpirun_tells_allreduce_and_update_once(trained: Path) -> None:
    done = dtrain("time", "solver.prototxt", "--iterations=3", at=trained, ranks=2)
    assert done.status == 0, done.err
    for name in ("Exposed allreduce", "Update"):
        assert len(re.findall(rf"^Average {name}: \S+ ms\.$", done.out, re.MULTILINE)) == 1


def test_time_of_the_test_phase_has_its_layers_and_without_a_plan_nothing_is_fused(trained: Path) -> None:
    done = dtrain(
        "time", "-model", "net.prototxt", "-phase", "TEST", "-iterations", "2", "--plan=off", at=trained
    )
    assert done.status == 0, done.err
    assert "\naccuracy " in done.out
    assert "fused" not in done.out


def test_ctrl_c_ends_a_test_in_one_line(here: Path, trained: Path) -> None:
    asked = ["-model", "net.prototxt", "-weights", str(trained / MODEL), "-iterations", "1000000"]
    done = dtrain_signalled(signal.SIGINT, "Batch 3, loss", "test", *asked, at=here)
    assert (done.status, done.faults) == (130, ["error: interrupted"])


@pytest.mark.parametrize("ranks", [1, 2])
def test_device_query_describes_the_machine_once(tmp_path: Path, ranks: int) -> None:
    done = dtrain("device_query", at=tmp_path, ranks=ranks)
    assert done.status == 0, done.err
    heads = [line.split()[0] for line in done.out.splitlines()]
    assert heads == ["CPU:", "device:", *["rank:"] * ranks, "MPI:", "GPU:"]
