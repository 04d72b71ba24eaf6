"""The flags that users and scripts rely on, in this project's spelling and in Caffe's."""

from importlib import import_module

import pytest
import typer

from dtrain.cli.app import app
from dtrain.cli.main import commands, run, spelled, with_command

COMPUTING = {"--gpu", "--cpu", "--threads", "--engine", "--precision", "--level", "--stage"}
FROZEN = {
    "train": COMPUTING
    | {"--solver", "--snapshot", "--weights", "--plan", "--sigint-effect", "--sighup-effect"}
    | {"--progress", "--log-json", "--metrics-port", "--metrics-host", "--metrics-textfile"}
    | {"--bad-records", "--seed", "--comm", "--compress", "--autotune"},
    "test": COMPUTING | {"--solver", "--model", "--weights", "--snapshot", "--iterations"},
    "time": COMPUTING | {"--solver", "--model", "--phase", "--iterations", "--plan", "--autotune"},
    "device_query": {"--gpu", "--cpu"},
    "convert mnist": {"--overwrite"},
    "convert cifar10": {"--overwrite"},
    "convert digits": {"--overwrite"},
    "convert mean": {"--overwrite", "--backend"},
    "convert imageset": {"--gray", "--shuffle", "--backend", "--resize-width", "--resize-height"}
    | {"--check-size", "--encoded", "--encode-type", "--seed", "--overwrite"},
    "convert annotated": {"--overwrite", "--seed", "--shuffle"},
    "convert records": {"--to", "--shards", "--classes", "--list", "--backend", "--raw", "--gray"}
    | {"--resize-height", "--resize-width", "--short-side", "--quality"}
    | {"--shuffle", "--seed", "--threads", "--overwrite"},
    "data info": {"--backend", "--list"},
    "data check": {"--backend", "--list", "--threads"},
    "summary": {"--input", "--json", "--level", "--phase", "--stage"},
    "upgrade": set(),
    "plot": {"--against", "--log-loss", "--out", "--title"},
    "parse_log": {"--delimiter", "--verbose"},
    "draw_net": {"--phase", "--rankdir"},
    "classify": {"--cpu", "--engine", "--gpu", "--precision", "--threads", "--top"},
    "extract_features": {"--engine", "--overwrite", "--threads"},
}


def flags_of(path: str) -> set[str]:
    """The flags of a command, help left out."""
    import_module(f"dtrain.cli.{path.split()[0]}_command")
    command = typer.main.get_command(app)
    for name in path.split():
        command = command.commands[name]
    return {flag for param in command.params for flag in param.opts if flag.startswith("--")} - {"--help"}


@pytest.mark.parametrize("path", FROZEN)
def test_no_flag_comes_or_goes_unseen(path: str) -> None:
    assert flags_of(path) == FROZEN[path]


def test_every_command_has_a_file() -> None:
    assert {path.split()[0] for path in FROZEN} <= set(commands())


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("-solver=a.prototxt", "--solver=a.prototxt"),
        ("-solver a.prototxt", "--solver a.prototxt"),
        ("--solver a.prototxt", "--solver a.prototxt"),
        ("-sigint_effect=stop", "--sigint-effect=stop"),
        ("--sighup_effect none", "--sighup-effect none"),
        ("-gpu all", "--gpu all"),
        ("-gpu 0,1", "--gpu 0,1"),
        ("-iterations=-1", "--iterations=-1"),
        ("--gray=true --shuffle=false -encoded=T", "--gray --encoded"),
        ("-noshuffle -check_size", "--check-size"),
        ("-resize_width=256", "--resize-width=256"),
        ("-h", "-h"),
        ("mean -1 a_b.lmdb", "mean -1 a_b.lmdb"),
        ("-a_b -- -c_d", "--a-b -- -c_d"),
    ],
)
def test_options_may_be_spelled_as_caffe_spells_them(given: str, meant: str) -> None:
    assert spelled(given.split()) == meant.split()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("solver.prototxt", "train solver.prototxt"),
        ("--solver=a", "train --solver=a"),
        ("test --model a", "test --model a"),
        ("device-query", "device_query"),
        ("", ""),
        ("--version", "--version"),
        ("--help", "--help"),
    ],
)
def test_what_is_no_command_is_something_to_train(given: str, meant: str) -> None:
    assert with_command(given.split()) == meant.split()


def test_help_names_every_command_and_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    told = capsys.readouterr().out
    for name in commands():
        assert f"\n  {name} " in told
    assert "mpirun -n 2 dtrain configs/digits/solver.prototxt" in told


@pytest.mark.parametrize(
    "path", [path for path in FROZEN if " " not in path] + ["convert", "convert imageset"]
)
def test_every_command_has_help_of_its_own(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*path.split(), "--help"]) == 0
    told = capsys.readouterr().out
    for flag in FROZEN.get(path, ()):
        assert flag in told


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    import dtrain

    assert run(["-version"]) == 0
    assert capsys.readouterr().out == f"dtrain {dtrain.__version__}\n"


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_a_wrong_command_line_is_told_by_rank_0(
    rank: str, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PMI_RANK", rank)
    assert run(["train", "--no-such-flag"]) == 2
    assert capsys.readouterr().err.count("\n") == lines
