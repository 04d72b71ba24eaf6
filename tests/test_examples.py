"""The scripts in examples run as a person would run them, at toy size, and do what they say."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from dtrain import pycaffe as caffe
from tests.test_nets import draw

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NOT_SCRIPTS = {"digits"}  # what the others import

ARGUMENTS = {
    "filters": ["out.png", "--iterations", "2"],
    "feature_extraction": ["out.png", "features.npz", "--iterations", "2"],
    "finetune": ["out.png", "--iterations", "2"],
    "net_surgery": ["out.png", "--iterations", "2"],
    "siamese_embedding": ["out.png", "--iterations", "2"],
    "toy_vectors": ["data"],
    "toy_captions": ["data"],
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a script in an empty folder, as `python examples/NAME.py ARGUMENTS`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def run(name: str, arguments: list[str]) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")

    return run


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a script defines, without running it."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return lambda name: runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name=name)


def test_every_script_is_run() -> None:
    assert set(ARGUMENTS) == {path.stem for path in EXAMPLES.glob("*.py")} - NOT_SCRIPTS


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_script_runs(name: str, run: Any, tmp_path: Path) -> None:
    run(name, ARGUMENTS[name])
    if "out.png" in ARGUMENTS[name]:
        picture = cv2.imread(str(tmp_path / "out.png"))
        assert picture is not None
        assert picture.std() > 5, "an empty picture"
    else:
        listed = (tmp_path / "data/train.txt").read_text().split()
        assert all(Path(path).exists() for path in listed)


def test_the_pictures_that_the_readme_shows_exist() -> None:
    text = (EXAMPLES / "README.md").read_text()
    shown = [part.split(")")[0] for part in text.split("](")[1:]]
    assert len(shown) == 5
    assert all((EXAMPLES / path).exists() for path in shown)
    assert {f"examples/{name}.py" for name in ARGUMENTS} <= set(text.replace("`", " ").split())


def narrow_caffenet(folder: Path) -> str:
    """CaffeNet with 64 outputs of fc6 and fc7, ended by its scores."""
    text = (ROOT / "configs/caffenet/deploy.prototxt").read_text()
    assert text.count("num_output: 4096") == 2
    path = folder / "deploy.prototxt"
    path.write_text(text.replace("num_output: 4096", "num_output: 64").replace("dim: 10 ", "dim: 1 "))
    return str(path)


def test_a_fully_convolutional_caffenet_answers_as_the_classifier_does(module: Any, tmp_path: Path) -> None:
    surgery = module("net_surgery")
    deploy = narrow_caffenet(tmp_path)
    net = caffe.Net(deploy, caffe.TEST)
    for name, blobs in net.params.items():
        for j, blob in enumerate(blobs):
            blob.data[...] = draw(name, "", j, blob.shape)
    weights = str(tmp_path / "random.caffemodel")
    net.save(weights)
    image = np.random.default_rng(3).random((1, 3, 227, 227), np.float32)
    classifier, same = surgery["operate"](deploy, weights, (227, 227), tmp_path)
    expected = classifier.forward(data=image)["prob"]
    assert np.ptp(expected) > 0
    got = same.forward(data=image)["prob"]
    assert got.shape == (1, 1000, 1, 1)
    np.testing.assert_allclose(got[:, :, 0, 0], expected, rtol=1e-4, atol=1e-7)
    assert same.params["fc6-conv"][0].data.shape == (64, 256, 6, 6)
    _, wide = surgery["operate"](deploy, weights, (259, 291), tmp_path)
    larger = np.random.default_rng(4).random((1, 3, 259, 291), np.float32)
    assert wide.forward(data=larger)["prob"].shape == (1, 1000, 2, 3)


def test_fine_tuning_freezes_the_convolutions_and_renames_the_last_layer(module: Any, tmp_path: Path) -> None:
    finetune, digits = module("finetune"), module("digits")
    weights = digits["train_digits"](tmp_path, 2)
    _, score, tuned = finetune["learn"](tmp_path, weights, 2)
    before = caffe.Net(digits["deploy"](), weights, caffe.TEST)
    assert 0 <= score <= 1
    for name in ("conv1", "conv2"):
        for old, new in zip(before.params[name], tuned.params[name], strict=True):
            np.testing.assert_array_equal(new.data, old.data)
    assert not np.array_equal(tuned.params["ip1"][0].data, before.params["ip1"][0].data)
    assert tuned.params["ip2_parity"][0].data.shape == (2, 500)
    assert "ip2" not in tuned.params


def test_features_do_not_depend_on_the_batch(module: Any, tmp_path: Path) -> None:
    script, digits = module("feature_extraction"), module("digits")
    net = caffe.Net(digits["deploy"](), digits["train_digits"](tmp_path, 2), caffe.TEST)
    images = digits["load"]()[0][:130]
    features = script["extract"](net, images)
    assert features.shape == (130, 500)
    np.testing.assert_allclose(
        script["extract"](net, images[101:104]), features[101:104], rtol=1e-4, atol=1e-6
    )
    assert 7 not in script["nearest"](features, 7)


def test_rows_of_the_toys_are_what_the_nets_read(run: Any, tmp_path: Path) -> None:
    run("toy_captions", ["captions"])
    with h5py.File(tmp_path / "captions/train.h5") as file:
        rows = {name: file[name][:] for name in ("data", "cont", "input", "target")}
    assert rows["data"].shape == (1600, 3, 24, 24)
    assert {rows[name].shape for name in ("cont", "input", "target")} == {(1600, 9)}
    assert not rows["cont"][:, 0].any()
    assert (rows["input"][:, 1:7] == rows["target"][:, :6]).all()
    assert (rows["target"][:, 7:] == -1).all()
