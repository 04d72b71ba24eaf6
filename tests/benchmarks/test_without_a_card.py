"""What the dry run reads from compilers, from nets and from the folders of libraries."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import dry_run
from benchmarks.cubin import usage
from benchmarks.dry_run import Line, first_error, last_line, whole
from benchmarks.inventory import Planned, decoded, inventory, training_net
from benchmarks.without_card import MissingError, libraries
from tests.kernels.cuda import nvrtc

SOURCE = """
extern "C" __global__ void plain(float* x) { x[threadIdx.x] = 1.0f; }
extern "C" __global__ void heavy(float* x, int n) {
    float kept[64];
    for (int i = 0; i < 64; ++i) kept[(i * n) & 63] = x[i];
    for (int i = 0; i < 64; ++i) x[i] = kept[(i + n) & 63];
}
"""


def test_a_cubin_tells_registers_and_stack() -> None:
    library = nvrtc.find()
    if library is None:
        pytest.skip("pip install nvidia-cuda-nvrtc")
    used = usage(nvrtc.cubin(library, SOURCE, "two.cu", ["-arch=sm_90"]))
    assert set(used) == {"plain", "heavy"}
    assert used["plain"].stack_bytes == 0
    assert used["heavy"].stack_bytes == 64 * 4
    assert 4 <= used["plain"].registers < used["heavy"].registers <= 255


def test_the_inventory_has_each_convolution_once_at_the_batch_asked_for() -> None:
    found = inventory(training_net("cifar10_quick", 1, 32), 100)
    assert [(p.kind, p.x, p.y, p.relu, p.needs_dx) for p in found] == [
        ("convolution", (100, 3, 32, 32), (100, 32, 32, 32), False, False),
        ("convolution", (100, 32, 16, 16), (100, 32, 16, 16), True, True),
        ("convolution", (100, 32, 8, 8), (100, 64, 8, 8), True, True),
    ]
    assert found[0].weights == (32, 3, 5, 5)
    assert (found[0].stride, found[0].pad, found[0].bias) == ((1, 1), (2, 2), True)


def test_a_layer_comes_back_from_json_with_tuples() -> None:
    given = Planned("batch_norm", (1, 2, 3, 4), (1, 2, 3, 4))
    lists = {name: list(v) if isinstance(v, tuple) else v for name, v in vars(given).items()}
    assert decoded(lists) == given


def test_libraries_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"purelib": str(tmp_path / "site")})
    folder = tmp_path / "nvidia" / "cudnn" / "lib"
    folder.mkdir(parents=True)
    (folder / "libcudnn.so.9").touch()
    with pytest.raises(MissingError, match="nvidia-cublas nvidia-cuda-nvrtc, then --libraries DIR"):
        libraries(tmp_path)
    for file in ("libcublasLt.so.13", "libnvrtc.so.13"):
        (folder / file).touch()
    assert libraries(tmp_path) == [folder]


def test_what_a_stage_raises_is_its_last_line() -> None:
    def stage():  # type: ignore[no-untyped-def]
        yield Line("first", "ok", "")
        raise KeyError("gone")

    assert [line.state for line in whole("all", stage)] == ["ok", "FAILED"]
    assert [line.told for line in whole("all", stage)][1] == "KeyError: 'gone'"


def test_the_dry_run_fails_if_a_line_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in ("compiled_kernels", "cudnn_plans", "torch_steps", "dtrain_steps"):
        monkeypatch.setattr(dry_run, stage, lambda *given: iter([Line("a", "skipped", "b")]))
    assert dry_run.dry_run(["caffenet"], 10, None) == 0
    monkeypatch.setattr(dry_run, "compiled_kernels", lambda: iter([Line("a", "FAILED", "b")]))
    assert dry_run.dry_run(["caffenet"], 10, None) == 1


def test_the_first_error_of_a_log_and_the_last_line_of_a_text() -> None:
    assert first_error("a warning\nx.cu(3): error: no\nx.cu(4): error: more") == "x.cu(3): error: no"
    assert last_line("one\ntwo\n") == "two"
    assert last_line("") == "nothing said"
