"""A training step in PyTorch on a card, as its users would tune it.

A way is MODE/FORMAT: eager, or torch.compile's mode (default, reduce-overhead, max-autotune), on contiguous
or channels_last tensors. bf16 and fp16 are autocast with float32 weights, fp16 with a GradScaler; fp32 is
strict. cuDNN times its algorithms; SGD is fused; the loss stays on the card.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, final

import torch

from benchmarks.card_worker import Busy, Case, Subject, serve
from benchmarks.torch_worker import NETS, training_loss

CYCLES_PER_S = 2e9  # no less than a card's clock, so that it is held long enough
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def set_precision(precision: str) -> None:
    """TF32 for what stays in float32, except where float32 is asked for by name."""
    strict = precision == "fp32"
    torch.set_float32_matmul_precision("highest" if strict else "high")
    torch.backends.cudnn.allow_tf32 = not strict


@final
class TorchSubject(Subject):
    """`device` is "cuda", or "cpu" to prove the nets without a card; compiled by `backend`."""

    def __init__(self, device: str = "cuda", backend: str = "inductor") -> None:
        self._device = device
        self._backend = backend
        self._cuda: Any = torch.cuda  # its events have no types
        self._one: Callable[[], torch.Tensor] | None = None
        torch.backends.cudnn.benchmark = True

    def build(self, case: Case, way: str) -> str:
        mode, memory_format = way.split("/")
        set_precision(case.precision)
        torch.manual_seed(1)
        if self._device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        net = NETS[case.net]().to(self._device)
        images = torch.randn(case.shape, device=self._device)
        labels = torch.randint(0, case.classes, (case.batch,), device=self._device)
        if memory_format == "channels_last":
            net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            images = images.to(memory_format=torch.channels_last)
        solver = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True)
        scaler = torch.amp.GradScaler(self._device, enabled=case.precision == "fp16")
        low = AUTOCAST.get(case.precision)
        if low is not None:
            images = images.to(low)  # once, as in dtrain, which keeps what it has made of images that stay

        def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            with torch.autocast(self._device, dtype=low, enabled=low is not None):
                return training_loss(net(images), labels)

        run = loss_of
        if mode != "eager":
            # only inductor knows modes
            run = torch.compile(
                loss_of, backend=self._backend, mode=mode if self._backend == "inductor" else None
            )

        begin_step: Callable[[], None] = torch.compiler.cudagraph_mark_step_begin

        def one() -> torch.Tensor:
            begin_step()
            solver.zero_grad(set_to_none=True)
            loss = run(images, labels)
            torch.autograd.backward(scaler.scale(loss))
            scaler.step(solver)
            scaler.update()
            return loss

        self._one = one
        return f"PyTorch {torch.__version__}, {way}"

    def step(self, count: int) -> None:
        assert self._one is not None, "built first"
        for _ in range(count):
            self._one()

    def loss(self) -> float:
        """Of one more step."""
        assert self._one is not None, "built first"
        return self._one().item()

    def synchronize(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

    def busy(self, spin_s: float) -> Busy:
        self.synchronize()
        first, last = (self._cuda.Event(enable_timing=True) for _ in range(2))
        self._cuda._sleep(int(spin_s * CYCLES_PER_S))
        first.record()
        self.step(1)
        ahead = not first.query()
        last.record()
        last.synchronize()
        return Busy(first.elapsed_time(last) / 1e3, ahead)

    def used_bytes(self) -> int:
        free, total = torch.cuda.mem_get_info()
        return total - free

    def pool_bytes(self) -> int:
        return torch.cuda.max_memory_reserved()

    def notes(self) -> list[str]:
        return []

    def is_out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()

    def drop(self) -> None:
        self._one = None
        torch.compiler.reset()
        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    serve(TorchSubject())
