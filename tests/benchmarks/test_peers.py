"""PyTorch's nets are the Caffe nets: as many parameters, the same losses added up."""

from __future__ import annotations

import math

import pytest

from benchmarks.inventory import training_net

torch = pytest.importorskip("torch", reason="the peer: pip install torch")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of PyTorch's own code

NETS = {
    "lenet": (1, 28),
    "cifar10_quick": (3, 32),
    "caffenet": (3, 227),
    "googlenet": (3, 224),
    "resnet50": (3, 224),
}


@pytest.mark.parametrize("name", NETS)
def test_the_peer_has_as_many_parameters(name: str) -> None:
    from benchmarks.torch_worker import NETS as PEERS

    channels, side = NETS[name]
    with torch.device("meta"):
        theirs = sum(parameter.numel() for parameter in PEERS[name]().parameters())
    net = training_net(name, 1, side, channels)
    assert theirs == sum(math.prod(p.blob.shape) for p in net.params.owned if p.lr_mult)


def test_other_classifiers_losses_count_three_tenths() -> None:
    from benchmarks.torch_worker import training_loss

    outputs = tuple(torch.randn(4, 10) for _ in range(3))
    labels = torch.tensor([1, 2, 3, 4])
    last, first, second = (torch.nn.functional.cross_entropy(output, labels) for output in outputs)
    torch.testing.assert_close(training_loss(outputs, labels), last + 0.3 * first + 0.3 * second)
    torch.testing.assert_close(training_loss(outputs[0], labels), last)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_of_the_peer_trains(precision: str) -> None:
    from benchmarks.card_worker import Case
    from benchmarks.torch_gpu_worker import TorchSubject

    subject = TorchSubject("cpu")
    subject.build(Case("caffenet", 2, precision, 227), "eager/channels_last")
    losses = [subject.loss() for _ in range(2)]
    subject.drop()
    assert losses[0] == pytest.approx(math.log(1000), abs=0.1)
    assert losses[0] != losses[1]


def test_strict_float32_has_no_tf32() -> None:
    from benchmarks.torch_gpu_worker import set_precision

    set_precision("tf32")
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.backends.cudnn.allow_tf32
    set_precision("fp32")
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32
