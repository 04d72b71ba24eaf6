"""launch/imagenet from tar files to a score, on a small tree of real images."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from dtrain.data.backends import open_reader
from tests.shared import shared_path

ROOT = Path(__file__).parents[1]
SCRIPTS = ("prepare", "train", "evaluate")
CLASSES, PER_CLASS, VALIDATION = 3, 6, 4

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


def script(name: str, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    surroundings = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **settings}
    command = ["bash", str(ROOT / "launch/imagenet" / name), *words]
    return subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four files that `prepare` takes: classes of six images each, and four for validation."""
    folder = tmp_path_factory.mktemp("ilsvrc")
    images = sorted(shared_path("data", "imagenet-sample").glob("*.JPEG"))
    names = [f"n0000000{label}" for label in range(CLASSES)]
    with tarfile.open(folder / "train.tar", "w") as train:
        for label, name in enumerate(names):
            with tarfile.open(folder / f"{name}.tar", "w") as inner:
                for n, image in enumerate(images[label * PER_CLASS : (label + 1) * PER_CLASS]):
                    inner.add(image, f"{name}_{n}.JPEG")
            train.add(folder / f"{name}.tar", f"{name}.tar")
    with tarfile.open(folder / "val.tar", "w") as val:
        for n in range(VALIDATION):
            val.add(images[-1 - n], f"ILSVRC2012_val_0000000{n}.JPEG")
    lines = (f"ILSVRC2012_val_0000000{n}.JPEG {n % CLASSES}\n" for n in range(VALIDATION))
    (folder / "val.txt").write_text("".join(lines))
    (folder / "synsets.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


def files_of(tars: Path) -> list[str]:
    return [str(tars / name) for name in ("train.tar", "val.tar", "val.txt", "synsets.txt")]


@pytest.mark.parametrize(
    ("model", "form", "ranks", "resumes"), [("caffenet", "lmdb", 1, False), ("resnet50", "arrow", 2, True)]
)
def test_a_model_goes_from_tars_to_a_score_and_on_from_its_snapshot(
    tars: Path, tmp_path: Path, model: str, form: str, ranks: int, resumes: bool
) -> None:
    settings = {
        "DATA": str(tmp_path / "data"),
        "RUNS": str(tmp_path / "runs"),
        "FORMAT": form,
        "SHARDS": "2",
        "RANKS": str(ranks),
        "GLOBAL_BATCH": "2",
        "TRAIN_IMAGES": "2",
        "VAL_IMAGES": str(VALIDATION),
        "TEST_BATCH": "2",
        "DTRAIN_FLAGS": "--plan off --progress off",
    }
    for attempt in range(2):
        done = script("prepare", model, *files_of(tars), **settings)
        assert done.returncode == 0, done.stderr
        assert ("writing" in done.stdout) == (attempt == 0)
        assert f"{model}_train_{form}: {CLASSES * PER_CLASS} records" in done.stdout
    reader = open_reader(f"{tmp_path}/data/{model}_train_{form}", form.upper())
    labels = [reader.read(n).labels[0] for n in range(len(reader))]
    reader.close()
    assert sorted(labels) == sorted(list(range(CLASSES)) * PER_CLASS)
    assert labels != sorted(labels)
    assert (tmp_path / "data/caffenet_mean.binaryproto").exists() == (model == "caffenet")
    for epochs in (1, 2) if resumes else (1,):
        done = script("train", model, **settings, EPOCHS=str(epochs))
        assert done.returncode == 0, done.stderr
        assert ("_iter_1.solverstate" in done.stderr.split("Snapshotting")[0]) == (epochs == 2)
        assert (tmp_path / f"runs/{model}/{model}_iter_{epochs}.caffemodel").exists()
    done = script("evaluate", model, **settings)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout + done.stderr
    shutil.rmtree(tmp_path / "runs")  # hundreds of megabytes


@pytest.mark.parametrize("model", ["caffenet", "resnet50"])
def test_a_dry_run_tells_every_command_and_writes_nothing(tmp_path: Path, model: str) -> None:
    settings = {"DATA": str(tmp_path / "data"), "RUNS": str(tmp_path / "runs"), "RANKS": "8"}
    settings |= {"DTRAIN_FLAGS": "-gpu all --precision bf16", "TEST_FLAGS": "-gpu all"}
    told = ""
    for name, words in (
        ("prepare", ["a.tar", "b.tar", "val.txt", "synsets.txt"]),
        ("train", []),
        ("evaluate", []),
    ):
        done = script(name, model, *words, "--dry-run", **settings)
        assert done.returncode == 0, done.stderr
        told += done.stdout
    assert not list(tmp_path.iterdir())
    for command in ("dtrain convert records a.tar", "mpirun -n 8 dtrain train", "mpirun -n 8 dtrain test"):
        assert f"+ {command}" in told
    assert told.count(" -gpu all --precision bf16\n") == 1
    assert told.count(" -gpu all\n") == 1
    rate = {"caffenet": "stepsize: 100100", "resnet50": "warmup_iter: 25025"}
    assert rate[model] in told
    assert "max_iter: 450450" in told


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_parses_and_names_what_is_wrong(name: str, tmp_path: Path) -> None:
    path = ROOT / "launch/imagenet" / name
    assert subprocess.run(["bash", "-n", str(path)], timeout=20).returncode == 0
    assert "set -euo pipefail" in path.read_text()
    done = script(name, "vgg")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the model must be caffenet or resnet50, got vgg" in done.stderr
    done = script(name, "caffenet", "--dryrun")
    assert "a flag must be --dry-run or --help, got --dryrun" in done.stderr
    done = script(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"bash launch/imagenet/{name} MODEL" in done.stdout
    assert "RANKS  " in done.stdout
    done = script(name, "caffenet", RANKS="3")
    assert "GLOBAL_BATCH must be a multiple of RANKS (3), got 256" in done.stderr


def test_what_is_missing_is_named_with_what_to_do(tmp_path: Path) -> None:
    settings = {"DATA": str(tmp_path / "data"), "RUNS": str(tmp_path / "runs")}
    done = script("train", "resnet50", **settings)
    assert "resnet50_train_lmdb must exist, got none; bash launch/imagenet/prepare resnet50" in done.stderr
    done = script("evaluate", "resnet50", **settings)
    assert "solver.prototxt must exist, got none; bash launch/imagenet/train resnet50" in done.stderr
    done = script("prepare", "resnet50", "a.tar", "b.tar", "c", "d", **settings)
    assert "a.tar must be a readable file, got none" in done.stderr
