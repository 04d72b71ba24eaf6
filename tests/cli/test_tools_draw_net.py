"""`dtrain draw_net`: the graph, and who lays it out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dtrain.cli.main import run

CONFIGS = Path(__file__).parents[2] / "configs"
NET = """
name: "a \\"net\\""
layer { name: "train" type: "Data" top: "data" include { phase: TRAIN } }
layer { name: "test" type: "Data" top: "data" include { phase: TEST } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_h: 1 kernel_w: 3 stride: 2 pad: 1 group: 2 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE kernel_size: 2 } }
"""


def drawn(tmp_path: Path, *words: str) -> str:
    (tmp_path / "net.prototxt").write_text(NET)
    out = tmp_path / "net.dot"
    assert run(["draw_net", str(tmp_path / "net.prototxt"), str(out), *words]) == 0
    return out.read_text()


def arrows(text: str) -> set[tuple[str, str]]:
    """Arrows by the first line of both labels."""
    names = dict(re.findall(r'^  (\w+) \[label="(.*?)(?:\\n|")', text, re.MULTILINE))
    return {(names[a], names[b]) for a, b in re.findall(r"^  (\w+) -> (\w+)", text, re.MULTILINE)}


def test_a_layer_in_place_stands_in_the_chain(tmp_path: Path) -> None:
    assert arrows(drawn(tmp_path, "--phase", "TEST")) == {
        ("test", "conv"),
        ("conv", "relu"),
        ("relu", "pool"),
        ("pool", "pool"),  # the last is the blob, which nobody reads
    }


def test_a_blob_of_both_phases_has_an_arrow_from_both_makers(tmp_path: Path) -> None:
    assert {("train", "conv"), ("test", "conv")} <= arrows(drawn(tmp_path))


def test_labels_tell_windows_and_outputs(tmp_path: Path) -> None:
    text = drawn(tmp_path, "--rankdir", "tb")
    assert r'"conv\nConvolution\n1 x 3, stride 2, pad 1, group 2\n8 outputs"' in text
    assert r'"pool\nPooling\nAVE 2 x 2"' in text
    assert "rankdir=TB;" in text
    assert text.startswith(r'digraph "a \"net\"" {')


NETS = sorted(path for path in CONFIGS.glob("*/*.prototxt") if not path.name.startswith("solver"))


@pytest.mark.parametrize("path", NETS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_is_drawn(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.dot"
    assert run(["draw_net", str(path), str(out)]) == 0
    assert arrows(out.read_text())


def a_dot(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name, the only one to be found."""
    (folder / "dot").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


def test_a_picture_is_what_graphviz_makes_of_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_dot(tmp_path, 'echo "$1" > "$3"; cat >> "$3"', monkeypatch)
    out = tmp_path / "net.svg"
    assert run(["draw_net", str(CONFIGS / "lenet" / "deploy.prototxt"), str(out)]) == 0
    assert out.read_text().startswith("-Tsvg\ndigraph ")


def test_without_graphviz_the_error_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["draw_net", str(CONFIGS / "lenet" / "deploy.prototxt"), str(tmp_path / "net.png")]) == 1
    assert "the program dot of Graphviz must be installed, got none" in capsys.readouterr().err
    assert not (tmp_path / "net.png").exists()


def test_a_failing_graphviz_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_dot(tmp_path, "cat > /dev/null; echo no fonts >&2; exit 3", monkeypatch)
    assert run(["draw_net", str(CONFIGS / "lenet" / "deploy.prototxt"), str(tmp_path / "net.png")]) == 1
    assert "got status 3: no fonts" in capsys.readouterr().err
    assert not (tmp_path / "net.png").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["net.jpg"], "OUT must end in one of .dot, .gv, .png, .svg, .pdf, got net.jpg"),
        (["net.dot", "--rankdir", "UP"], "--rankdir must be one of LR, RL, TB, BT, got UP"),
    ],
)
def test_a_wrong_call_is_told(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["draw_net", str(CONFIGS / "lenet" / "deploy.prototxt"), *words]) == 1
    assert told in capsys.readouterr().err
