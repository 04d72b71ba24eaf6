"""`dtrain summary`: what it counts is what a person counts by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dtrain.cli.main import run

CONFIGS = Path(__file__).parents[2] / "configs"

NET = """
name: "small"
layer { name: "data" type: "Data" top: "data" top: "label" data_param { source: "absent" batch_size: 4 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 6 kernel_size: 3 group: 2 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "up" type: "Deconvolution" bottom: "conv" top: "up"
  convolution_param { num_output: 2 kernel_size: 2 stride: 2 bias_term: false } }
layer { name: "flat" type: "Flatten" bottom: "up" top: "flat" }
layer { name: "a" type: "InnerProduct" bottom: "flat" top: "a" param { name: "w" }
  inner_product_param { num_output: 5 bias_term: false } }
layer { name: "b" type: "InnerProduct" bottom: "flat" top: "b" param { name: "w" }
  inner_product_param { num_output: 5 bias_term: false } }
"""


def summary_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert run(["summary", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def net(tmp_path: Path) -> str:
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    return str(path)


def test_summary_counts_every_layer(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = summary_of(capsys, net, "--input", "data=4,4,6,6")
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert list(layers) == ["data", "conv", "relu", "up", "flat", "a", "b"]
    assert layers["data"]["tops"] == {"data": [4, 4, 6, 6], "label": [4]}
    assert layers["conv"]["tops"] == {"conv": [4, 6, 4, 4]}
    assert layers["conv"]["parameters"] == 6 * 2 * 3 * 3 + 6
    assert layers["conv"]["multiply_adds"] == 4 * (6 * 4 * 4) * (2 * 3 * 3)
    assert layers["up"]["multiply_adds"] == 4 * (6 * 4 * 4) * (2 * 2 * 2)
    assert layers["a"]["multiply_adds"] == 4 * 5 * (2 * 8 * 8)
    assert layers["a"]["parameters"] == 5 * 2 * 8 * 8
    assert layers["conv"]["activation_bytes"] == 4 * 4 * 6 * 4 * 4


def test_summary_counts_shared_parameters_and_shared_memory_once(
    net: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = summary_of(capsys, net, "--input", "data=4,4,6,6")
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert layers["b"]["parameters"] == 0
    assert layers["relu"]["activation_bytes"] == layers["flat"]["activation_bytes"] == 0
    assert found["parameters"] == (6 * 2 * 9 + 6) + 6 * 2 * 4 + 5 * 128
    images = 4 * 6 * 6 + 1 + 6 * 4 * 4 + 2 * 8 * 8 + 5 + 5
    assert found["activation_bytes_per_image"] == 4 * images


@pytest.mark.parametrize(
    ("config", "parameters", "multiply_adds"),
    [
        ("caffenet", 60_965_224, 724_406_816),
        ("squeezenet", 1_235_496, None),  # version 1.1
        ("googlenet", 6_998_552, None),
    ],
)
def test_totals_of_known_nets_are_those_that_are_published(
    config: str, parameters: int, multiply_adds: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    found = summary_of(capsys, str(CONFIGS / config / "deploy.prototxt"))
    assert found["parameters"] == parameters
    assert multiply_adds is None or found["multiply_adds_per_image"] == multiply_adds


def test_the_table_shows_layers_and_totals(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["summary", str(CONFIGS / "lenet" / "deploy.prototxt")]) == 0
    shown = capsys.readouterr().out
    assert "Convolution" in shown
    assert "431,080" in shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--input", "image=1,3,4,4"], 'unknown blob that comes from outside "image"'),
        (["--input", "data=1,x"], "--input must be BLOB=N,C,H,W"),
        (["--phase", "BOTH"], "--phase must be TRAIN or TEST, got BOTH"),
        ([], "absent"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(
    words: list[str], told: str, net: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["summary", net, *words]) != 0
    err = capsys.readouterr().err
    assert told in err
    assert len(err.splitlines()) == 1
