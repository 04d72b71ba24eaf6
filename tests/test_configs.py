"""The model zoo: every file parses, its parts belong together, and it is the published net."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import read_net, read_solver
from tests.shared import shared_path

ROOT = Path(__file__).parents[1]
SOLVERS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/*/solver*.prototxt"))
NETS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/*/*.prototxt"))
NETS = [net for net in NETS if net not in SOLVERS]
DEPLOYS = [net for net in NETS if net.endswith("/deploy.prototxt")]

# our folder -> the deploy net that BVLC Caffe itself ran for golden/nets.npz
GOLDEN = {
    "lenet": "examples_mnist_lenet",
    "cifar10_quick": "examples_cifar10_cifar10_quick",
    "cifar10_full": "examples_cifar10_cifar10_full",
    "mnist_siamese": "examples_siamese_mnist_siamese",
    "caffenet": "models_bvlc_reference_caffenet_deploy",
    "googlenet": "models_bvlc_googlenet_deploy",
}


@pytest.fixture(autouse=True)
def _at_the_repository_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths inside the files count from there."""
    monkeypatch.chdir(ROOT)


def shape_of(layer: pb.LayerParameter) -> bytes:
    """What decides a layer's connections, weights' shapes and results, but not how it is trained."""
    kept = pb.LayerParameter()
    kept.CopyFrom(layer)
    for field in ("param", "include"):
        kept.ClearField(field)
    for part in (kept.convolution_param, kept.inner_product_param):
        part.ClearField("weight_filler")
        part.ClearField("bias_filler")
    if list(kept.convolution_param.stride) == [1]:  # written or not, it is the default
        del kept.convolution_param.stride[:]
    if kept.pooling_param.stride == 1:
        kept.pooling_param.ClearField("stride")
    for name in ("convolution_param", "inner_product_param", "pooling_param"):
        if not getattr(kept, name).ByteSize():
            kept.ClearField(name)
    return kept.SerializeToString(deterministic=True)


def learning(layers: Iterable[pb.LayerParameter]) -> dict[str, bytes]:
    """The layers with weights, by name."""
    kinds = ("Convolution", "InnerProduct", "BatchNorm", "Scale")
    return {layer.name: shape_of(layer) for layer in layers if layer.type in kinds}


def test_the_zoo_is_found() -> None:
    models = {Path(net).parent.name for net in NETS}
    assert {"digits", "lenet", "cifar10_quick", "cifar10_full", "caffenet", "mnist_autoencoder"} <= models
    assert models == {Path(solver).parent.name for solver in SOLVERS}


@pytest.mark.parametrize("path", NETS)
def test_a_net_parses_and_needs_no_upgrade(path: str, caplog: pytest.LogCaptureFixture) -> None:
    net, _ = read_net(path)
    assert net.name
    assert len(net.layer) > 3
    assert caplog.text == ""


@pytest.mark.parametrize("path", SOLVERS)
def test_a_solver_parses_and_its_net_exists(path: str, caplog: pytest.LogCaptureFixture) -> None:
    solver, _ = read_solver(path)
    assert caplog.text == ""
    model = Path(path).parent.name
    assert solver.net == f"configs/{model}/train_val.prototxt"
    assert solver.net in NETS
    assert solver.snapshot_prefix.startswith(f"runs/{model}/")
    assert not solver.HasField("solver_mode")  # a GPU where there is one, the CPU elsewhere
    assert 0 < solver.snapshot <= solver.max_iter
    assert len(solver.test_iter) == max(len(solver.test_state), 1)


@pytest.mark.parametrize("path", SOLVERS)
def test_solvers_of_one_model_write_different_snapshots(path: str) -> None:
    siblings = [other for other in SOLVERS if Path(other).parent == Path(path).parent and other != path]
    prefix = read_solver(path)[0].snapshot_prefix
    assert prefix not in [read_solver(other)[0].snapshot_prefix for other in siblings]


@pytest.mark.parametrize(("model", "images"), [("digits", 355), ("lenet", 10_000), ("cifar10_quick", 10_000)])
def test_a_test_pass_sees_every_test_image_once(model: str, images: int) -> None:
    solver, _ = read_solver(f"configs/{model}/solver.prototxt")
    net, _ = read_net(solver.net)
    [data] = [layer for layer in net.layer if layer.type == "Data" and layer.include[0].phase == pb.TEST]
    assert solver.test_iter[0] * data.data_param.batch_size == images


@pytest.mark.parametrize("path", DEPLOYS)
def test_trained_weights_fit_the_deploy_net(path: str) -> None:
    deploy = learning(read_net(path)[0].layer)
    trained = learning(read_net(path.replace("deploy", "train_val"))[0].layer)
    assert deploy
    assert deploy.items() <= trained.items()


@pytest.mark.parametrize("model", sorted(GOLDEN))
def test_a_deploy_net_is_the_one_that_caffe_ran(model: str) -> None:
    golden = np.load(shared_path("golden", "nets.npz"))
    theirs = text_format.Parse(str(golden[f"{GOLDEN[model]}|prototxt|"]), pb.NetParameter())
    ours, _ = read_net(f"configs/{model}/deploy.prototxt")
    assert [shape_of(layer) for layer in ours.layer] == [shape_of(layer) for layer in theirs.layer]
