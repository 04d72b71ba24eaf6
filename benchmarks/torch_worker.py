"""A training step in PyTorch: forward, loss, backward, fused SGD with momentum and weight decay."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.worker import serve

LRN_SIZE = 5


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2, 2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2, 2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(inplace=True),
        nn.Linear(500, 10),
    )


def cifar10_quick() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 32, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(1024, 64),
        nn.Linear(64, 10),
    )


def caffenet() -> nn.Module:
    def block(*convolution: int, groups: int = 1, padding: int = 0, stride: int = 1) -> list[nn.Module]:
        inputs, outputs, kernel = convolution
        layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)
        return [layer, nn.ReLU(inplace=True)]

    def shrink() -> list[nn.Module]:
        return [
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.LocalResponseNorm(LRN_SIZE, alpha=1e-4, beta=0.75, k=1.0),
        ]

    return nn.Sequential(
        *block(3, 96, 11, stride=4),
        *shrink(),
        *block(96, 256, 5, padding=2, groups=2),
        *shrink(),
        *block(256, 384, 3, padding=1),
        *block(384, 384, 3, padding=1, groups=2),
        *block(384, 256, 3, padding=1, groups=2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(9216, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(4096, 1000),
    )


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with batch normalisation and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, width, 1, stride, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 4 * width, 1, bias=False),
            nn.BatchNorm2d(4 * width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != 4 * width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.relu(self.branch(x) + self.shortcut(x))
        return y


def resnet50() -> nn.Module:
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, ceil_mode=True),
    ]
    inputs = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            layers.append(Bottleneck(inputs, width, 2 if stage and block == 0 else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AvgPool2d(7), nn.Flatten(), nn.Linear(2048, 1000))


def convolved(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the extent (divided by the stride), and its ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2), nn.ReLU(inplace=True)
    )


class Inception(nn.Module):
    """1x1, 3x3, 5x5 and pooling beside each other; `widths` in the order of GoogLeNet's table."""

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pooled = widths
        self.branches = nn.ModuleList(
            [
                convolved(inputs, one, 1),
                nn.Sequential(convolved(inputs, reduce3, 1), convolved(reduce3, three, 3)),
                nn.Sequential(convolved(inputs, reduce5, 1), convolved(reduce5, five, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, padding=1), convolved(inputs, pooled, 1)),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class GoogLeNet(nn.Module):
    """Three classifiers' outputs, the last one's first: what training takes."""

    def __init__(self) -> None:
        super().__init__()

        def auxiliary(inputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.AvgPool2d(5, 3),
                convolved(inputs, 128, 1),
                nn.Flatten(),
                nn.Linear(2048, 1024),
                nn.ReLU(inplace=True),
                nn.Dropout(0.7),
                nn.Linear(1024, 1000),
            )

        self.until_4a = nn.Sequential(
            convolved(3, 64, 7, 2),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.LocalResponseNorm(LRN_SIZE, alpha=1e-4, beta=0.75, k=1.0),
            convolved(64, 64, 1),
            convolved(64, 192, 3),
            nn.LocalResponseNorm(LRN_SIZE, alpha=1e-4, beta=0.75, k=1.0),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Inception(192, (64, 96, 128, 16, 32, 32)),
            Inception(256, (128, 128, 192, 32, 96, 64)),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Inception(480, (192, 96, 208, 16, 48, 64)),
        )
        self.first = auxiliary(512)
        self.until_4d = nn.Sequential(
            Inception(512, (160, 112, 224, 24, 64, 64)),
            Inception(512, (128, 128, 256, 24, 64, 64)),
            Inception(512, (112, 144, 288, 32, 64, 64)),
        )
        self.second = auxiliary(528)
        self.until_the_end = nn.Sequential(
            Inception(528, (256, 160, 320, 32, 128, 128)),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Inception(832, (256, 160, 320, 32, 128, 128)),
            Inception(832, (384, 192, 384, 48, 128, 128)),
            nn.AvgPool2d(7),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(1024, 1000),
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.until_4a(x)
        first = self.first(x)
        x = self.until_4d(x)
        second = self.second(x)
        return self.until_the_end(x), first, second


NETS: dict[str, Callable[[], nn.Module]] = {
    "lenet": lenet,
    "cifar10_quick": cifar10_quick,
    "caffenet": caffenet,
    "googlenet": GoogLeNet,
    "resnet50": resnet50,
}
AUXILIARY_WEIGHT = 0.3  # of GoogLeNet's two other losses


def training_loss(outputs: torch.Tensor | tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
    """The softmax loss; of several classifiers, the first one's and a share of each other."""
    if isinstance(outputs, torch.Tensor):
        return nn.functional.cross_entropy(outputs, labels)
    last, *others = (nn.functional.cross_entropy(output, labels) for output in outputs)
    return last + AUXILIARY_WEIGHT * torch.stack(others).sum()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("net", choices=NETS)
    parser.add_argument("shape", type=int, nargs=4)
    parser.add_argument("classes", type=int)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--channels-last", action="store_true")
    given = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(given.threads)
    net = NETS[given.net]()
    images = torch.randn(*given.shape)
    labels = torch.randint(0, given.classes, (given.shape[0],))
    if given.channels_last:
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.to(memory_format=torch.channels_last)
    solver = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True)

    def step() -> float:
        solver.zero_grad(set_to_none=True)
        loss = training_loss(net(images), labels)
        torch.autograd.backward(loss)
        solver.step()
        return loss.item()

    serve(step)


if __name__ == "__main__":
    main()
