"""Operators by cuDNN give what the CPU gives, on a stand-in that computes graphs from the definitions."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dtrain.kernels.cuda.cudnn
from dtrain.errors import BackendError
from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.cudnn.convolution_graphs import ConvolutionGraphs
from dtrain.kernels.cuda.cudnn.library import Cudnn
from dtrain.kernels.cuda.form import Form, ValueType
from dtrain.kernels.window import ConvolutionWindow
from tests.kernels.cuda.bench import Bench, Run
from tests.kernels.cuda.cpu_device import CpuDevice, KernelError
from tests.kernels.cuda.more_operators import ROWS
from tests.kernels.cuda.numpy_cudnn import WORKSPACE_BYTES, NumpyCudnn
from tests.kernels.cuda.test_golden import build, check
from tests.layers.golden import cases
from tests.shared import SHARED

FORMS = {  # (precision, channels last): relative and absolute tolerance; 16-bit results are rounded once each
    ("fp32", False): (1e-5, 1e-5),
    ("fp32", True): (1e-5, 1e-5),
    ("tf32", True): (1e-5, 1e-5),
    ("bf16", False): (2**-7, 2**-4),
    ("bf16", True): (2**-7, 2**-4),
    ("fp16", False): (2**-10, 2**-7),
    ("fp16", True): (2**-10, 2**-7),
}
BY_CUDNN = [name for name in ROWS if name.startswith(("Convolution", "Deconvolution"))]
OTHER_AXES = ("line", "volume")


def backend_of(
    module: NumpyCudnn | None, precision: str = "fp32", channels_last: bool = False, **device: bool
) -> CudaBackend:
    libraries = {} if module is None else {"cudnn": module}
    backend = CudaBackend(CpuDevice(libraries=libraries, **device), precision=precision)
    backend.card.channels_last = channels_last
    return backend


def compare(run: Run, backend: CudaBackend, engine: str, rtol: float, atol: float, values: ValueType) -> None:
    """As bench.compare, through an engine; inputs are numbers that the type can hold."""
    form = Form(values) if values is not ValueType.FLOAT32 else None
    mine, theirs = Bench(backend, form), Bench(CpuBackend(engine="CAFFE"), form)
    mine.ops = backend.operators(engine)
    run(mine)
    run(theirs)
    assert mine.results.keys() == theirs.results.keys()
    for name, expected in theirs.results.items():
        np.testing.assert_allclose(mine.results[name], expected, rtol, atol, err_msg=name)


@pytest.mark.parametrize(("precision", "channels_last"), FORMS)
@pytest.mark.parametrize("name", BY_CUDNN)
def test_cudnn_gives_what_the_cpu_gives(name: str, precision: str, channels_last: bool) -> None:
    module = NumpyCudnn()
    backend = backend_of(module, precision, channels_last)
    values = backend.form.type
    compare(ROWS[name], backend, "DEFAULT", *FORMS[precision, channels_last], values)
    assert bool(module.graphs) is not name.endswith(OTHER_AXES)


# -- which implementation serves


def convolution_on(backend: CudaBackend, engine: str, kernel: tuple[int, ...] = (3, 3)) -> Any:
    """A small convolution's operator."""
    ones = (1,) * len(kernel)
    window = ConvolutionWindow(kernel=kernel, stride=ones, pad=ones, dilation=ones)
    x, w, y = (backend.array((2, 3, *(4 for _ in kernel))), backend.array((3, 3, *kernel)), None)
    y = backend.array((2, 3, *window.convolved((4,) * len(kernel))))
    return backend.operators(engine).Convolution(window, x, w, None, y)


def test_the_engine_chooses() -> None:
    backend = backend_of(NumpyCudnn())
    assert convolution_on(backend, "DEFAULT").implementation == "cudnn"
    assert convolution_on(backend, "CUDNN").implementation == "cudnn"
    assert convolution_on(backend, "MKLDNN").implementation == "cudnn"
    assert convolution_on(backend, "CAFFE").implementation == "cuda im2col + gemm"
    assert convolution_on(backend, "DEFAULT", (3,)).implementation == "cuda im2col + gemm"


def test_without_the_frontend_the_default_is_direct_and_cudnn_is_an_error() -> None:
    backend = backend_of(None)
    assert convolution_on(backend, "DEFAULT").implementation == "cuda im2col + gemm"
    with pytest.raises(
        BackendError, match=r"engine CUDNN: .* got nvidia-cudnn-frontend is not installed; pip"
    ):
        backend.operators("CUDNN")


def test_a_library_that_does_not_load_is_told(caplog: pytest.LogCaptureFixture) -> None:
    backend = backend_of(NumpyCudnn(fault="libcudnn.so.9 is missing"))
    with caplog.at_level("WARNING"):
        assert convolution_on(backend, "DEFAULT").implementation == "cuda im2col + gemm"
        assert convolution_on(backend, "DEFAULT").implementation == "cuda im2col + gemm"
    assert [record.getMessage() for record in caplog.records] == [
        "cuDNN cannot be used, the kernels of dtrain serve: libcudnn.so.9 is missing"
    ]
    with pytest.raises(BackendError, match=r"got libcudnn.so.9 is missing; pip install 'dtrain\[cuda12\]'"):
        backend.operators("CUDNN")


def test_the_library_is_told_with_its_versions() -> None:
    on_cpu = "CUDA kernels on the CPU"
    assert backend_of(NumpyCudnn()).describe() == f"{on_cpu}, cuDNN 9.0 (frontend 1.0)"
    assert backend_of(None).describe() == f"{on_cpu}, no cuDNN (nvidia-cudnn-frontend is not installed)"
    direct = CudaBackend(CpuDevice(libraries={"cudnn": NumpyCudnn(fault="not to be asked")}), engine="CAFFE")
    assert direct.describe() == f"{on_cpu}, no cuDNN (engine CAFFE)"


@pytest.mark.parametrize("kernel", [(3,), (3, 3, 3)])
def test_engine_cudnn_refuses_what_cudnn_does_not_compute(kernel: tuple[int, ...]) -> None:
    with pytest.raises(BackendError, match=r"engine CUDNN: cuDNN must support .* got cuDNN graphs are over"):
        convolution_on(backend_of(NumpyCudnn()), "CUDNN", kernel)


def test_engine_cudnn_refuses_float64() -> None:
    backend = CudaBackend(CpuDevice(libraries={"cudnn": NumpyCudnn()}), dtype=np.float64)
    assert convolution_on(backend, "DEFAULT").implementation == "cuda im2col + gemm"
    with pytest.raises(BackendError, match=r"engine CUDNN: .* got float64"):
        convolution_on(backend, "CUDNN")


def test_operators_that_cudnn_has_not_are_dtrains_own() -> None:
    backend = backend_of(NumpyCudnn())
    x, y = backend.array((2, 3, 4, 4)), backend.array((2, 3, 4, 4))
    assert backend.operators("CUDNN").BatchNorm(1e-5, 0.9, False, x, y).implementation == "cuda"
    with pytest.raises(BackendError, match="operator Nothing must have a file"):
        backend.operators("CUDNN").Nothing  # noqa: B018


def test_engine_cudnn_names_what_no_engine_takes() -> None:
    backend = backend_of(NumpyCudnn(refuses=("conv_fprop",)))
    assert convolution_on(backend, "DEFAULT").implementation == "cuda im2col + gemm"
    with pytest.raises(BackendError, match=r"got cuDNN has no engine: no engine for \['conv_fprop'"):
        convolution_on(backend, "CUDNN")


# -- what cuDNN has no engine for


def run_what_cudnn_leaves() -> None:
    """The kernels of cudnn.cu, for a test that looks whether every kernel was run."""
    bench = Bench(backend := backend_of(NumpyCudnn(("fused", "conv_wgrad FLOAT")), "bf16"))
    bench.ops = backend.operators("CUDNN")
    ROWS["Convolution 3x3"](bench)


REFUSED_ROWS = [
    "Convolution in groups",
    "Convolution with ReLU",
    "Convolution 1x1 with ReLU",
    "Deconvolution in groups",
    "Deconvolution with stride and uneven kernel",
]
REFUSALS = [
    ("fused",),
    ("fused", "conv_wgrad FLOAT"),
    ("conv_wgrad FLOAT",),
    ("conv_wgrad",),
    ("conv_dgrad",),
    ("conv_dgrad", "conv_wgrad"),
    ("conv_fprop",),
]


@pytest.mark.parametrize("refuses", REFUSALS, ids=" and ".join)
@pytest.mark.parametrize(("precision", "channels_last"), [("fp32", False), ("bf16", True), ("fp16", False)])
@pytest.mark.parametrize("name", REFUSED_ROWS)
def test_kernels_compute_what_cudnn_does_not(
    name: str, precision: str, channels_last: bool, refuses: tuple[str, ...]
) -> None:
    backend = backend_of(NumpyCudnn(refuses), precision, channels_last)
    compare(ROWS[name], backend, "DEFAULT", *FORMS[precision, channels_last], backend.form.type)


# -- graphs


def notes_of(precision: str, refuses: tuple[str, ...] = ()) -> list[list[str]]:
    module = NumpyCudnn(refuses)
    convolution_on(backend_of(module, precision), "DEFAULT")
    return [graph.notes for graph in module.graphs]


def test_float32_is_not_rounded_to_tf32_unless_it_is_asked_for() -> None:
    strict = ["NONDETERMINISTIC", "TENSOR_CORE", "DOWN_CONVERT_INPUTS"]
    assert notes_of("fp32") == [strict]
    assert notes_of("tf32") == [["NONDETERMINISTIC"]]
    assert notes_of("bf16") == [["NONDETERMINISTIC"]]


def test_a_sum_in_any_order_is_taken_where_there_is_no_other() -> None:
    assert notes_of("bf16", ("conv_fprop",)) == [["NONDETERMINISTIC"], []]


def test_graphs_are_planned_for_a_card_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    module = NumpyCudnn()
    monkeypatch.setitem(sys.modules, "cudnn", module)
    window = ConvolutionWindow(kernel=(3, 3), stride=(1, 1), pad=(1, 1), dilation=(1, 1))
    shapes = (2, 4, 5, 5), (8, 4, 3, 3), (2, 8, 5, 5)
    cudnn = Cudnn.plan_only({"multiProcessorCount": 132}, 90)
    form = Form(ValueType.BFLOAT16, True)
    graphs = ConvolutionGraphs(cudnn, window, *shapes, form, strict=False)
    for graph in (graphs.forward(), graphs.image_gradient(), graphs.weights_gradient(ValueType.FLOAT32)):
        assert graph.workspace_bytes == WORKSPACE_BYTES
    (told,) = {tuple(sorted(graph.planning.items())) for graph in module.graphs}
    assert told == (("device_property", '{"multiProcessorCount": 132}'), ("sm_version", 90))


def test_equal_operators_share_their_graphs() -> None:
    module = NumpyCudnn()
    backend = backend_of(module)
    ROWS["Convolution 3x3"](bench := Bench(backend))
    bench.ops = backend.operators("DEFAULT")
    ROWS["Convolution 3x3"](bench)
    count = len(module.graphs)
    assert count > 0
    ROWS["Convolution 3x3"](bench)
    assert len(module.graphs) == count


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_fused_bias_is_planned_in_one_type_where_an_engine_knows_it(precision: str) -> None:
    """A fused graph of 16 bits is compiled when it is planned, which takes a good part of a second."""
    module = NumpyCudnn()
    passes_on(backend_of(module, precision, True))
    assert len(module.graphs) == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", REFUSED_ROWS)
def test_timed_plans_give_what_the_cpu_gives(name: str, precision: str) -> None:
    module = NumpyCudnn()
    backend = backend_of(module, precision, True)
    backend.cudnn.autotune = True
    compare(ROWS[name], backend, "DEFAULT", *FORMS[precision, True], backend.form.type)
    assert {1, 2} <= {plan for graph in module.graphs for plan in graph.ran}


def test_plans_are_timed_of_graphs_in_one_type() -> None:
    """The engine that gives gradients of weights in float32 is compiled for each of them, timed or not."""
    module = NumpyCudnn()
    backend = backend_of(module, "bf16", True)
    backend.cudnn.autotune = True
    run, _, x = passes_on(backend)
    del x
    run()
    made = [(name, tensor.kind) for graph in module.graphs for name, tensor, _, _ in graph._operations]
    assert {kind for name, kind in made if name == "conv_wgrad"} == {"BFLOAT16"}


# -- captures


def passes_on(backend: CudaBackend) -> tuple[Callable[[], None], Callable[[], list[Any]], SyncedArray]:
    """(forward and backward of a convolution with ReLU, what they gave, the bottom)."""
    window = ConvolutionWindow(kernel=(3, 3), stride=(1, 1), pad=(1, 1), dilation=(1, 1))
    rng = np.random.default_rng(3)

    def holding(*shape: int) -> SyncedArray:
        array = backend.array(shape)
        array.plain_overwrite()[...] = rng.standard_normal(shape)
        return array

    x, w, b, dy = holding(2, 4, 5, 5), holding(8, 4, 3, 3), holding(8), holding(2, 8, 5, 5)
    y, dx, dw, db = (backend.array(a.shape) for a in (dy, x, w, b))
    operator = backend.operators("CUDNN").Convolution(window, x, w, b, y, True)

    def run() -> None:
        dw.clear()
        db.clear()
        operator.forward(x, w, b, y)
        operator.backward(dy, x, w, dx, dw, db)

    return run, lambda: [array.plain().copy() for array in (y, dx, dw, db)], x


@pytest.mark.parametrize(("precision", "channels_last"), FORMS)
def test_a_captured_convolution_is_replayed(precision: str, channels_last: bool) -> None:
    backend = backend_of(NumpyCudnn(), precision, channels_last)
    replayer = backend.replayer()
    run, results, x = passes_on(backend)
    for number in range(5):
        x.plain_overwrite()[...] = np.random.default_rng(number).standard_normal(x.shape)
        replayer.run(("pass",), run, lambda: None)
        got = results()
        run()
        for mine, again in zip(got, results(), strict=True):
            np.testing.assert_array_equal(mine, again)
    assert replayer.num_graphs == 1


def test_a_workspace_is_not_taken_in_a_capture() -> None:
    backend = backend_of(NumpyCudnn())
    run, _, x = passes_on(backend)
    del x
    backend.device.begin_capture()
    with pytest.raises((BackendError, KernelError), match="captur"):
        run()
    backend.device.abandon_capture()


# -- Caffe's numbers, and the house


NAMES = sorted(cases()) if SHARED.is_dir() else ["none"]  # then cases() skips, or fails in CI
TYPES = ("Convolution", "Deconvolution", "DepthwiseConvolution", "BatchNorm")


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith((*TYPES, "none"))])
def test_layer_gives_the_numbers_of_caffe(name: str, channels_last: bool) -> None:
    case = cases()[name]
    check(build(case, backend_of(NumpyCudnn(), "fp32", channels_last)), case)


def parameters(path: Path) -> dict[str, list[str]]:
    """What the methods of a file's class of operators take, by name."""
    letters = path.stem.replace("_", "")
    classes = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef)]
    (operator,) = (c for c in classes if c.name.lower() == letters)
    methods = [m for m in operator.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]
    built = [m for m in operator.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"]
    return {m.name: [f"{a.arg}: {ast.unparse(a.annotation)}" for a in m.args.args[2:] if a.annotation]
            for m in (*methods, *built)}  # fmt: skip


@pytest.mark.parametrize("file", ["convolution.py", "deconvolution.py"])
def test_operators_have_the_signatures_of_the_cpus(file: str) -> None:
    here = Path(dtrain.kernels.cuda.cudnn.__path__[0])
    assert parameters(here / file) == parameters(here.parents[1] / "cpu" / file)
