"""What of the card's benchmark can be tried without a card; a line each, with the reason where it is not."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from benchmarks.card_worker import NETS, PRECISIONS, Case
from benchmarks.turns import Budget

ARCHITECTURES = ("80", "90")
CUDA_ON_CPU_S = 60.0  # of one net in one precision
STEPPED = ("bf16", "tf32")
CAPTURING_STEPS = "4"  # one as it is, one followed, one captured, one replayed
TINY_BATCH = 2
MIB = 2**20


@final
@dataclass(frozen=True)
class Line:
    """One row of the table; `state` is "ok", "FAILED" or "skipped"."""

    what: str
    state: str
    told: str

    def __str__(self) -> str:
        return f"{self.what:34} {self.state:8} {self.told}"


def dry_run(nets: list[str], budget_s: float, libraries: Path | None) -> int:
    """Everything, as it comes and again as a table; the program's exit status."""
    budget = Budget(budget_s)
    lines: list[Line] = []
    stages: list[tuple[str, Callable[[], Iterator[Line]]]] = [
        ("kernels", compiled_kernels),
        ("cuDNN", lambda: cudnn_plans(nets, libraries, budget)),
        ("PyTorch", lambda: torch_steps(nets)),
        ("dtrain", lambda: dtrain_steps(nets, budget)),
    ]
    for name, stage in stages:
        for line in whole(name, stage):
            print(line, flush=True)
            lines.append(line)
    print("\nwithout a card:")
    print("\n".join(map(str, lines)))
    failed = sum(line.state == "FAILED" for line in lines)
    skipped = sum(line.state == "skipped" for line in lines)
    print(f"{len(lines) - failed - skipped} ok, {failed} failed, {skipped} skipped")
    return int(failed > 0)


def whole(name: str, stage: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    """A stage's lines; what it raises is the last of them."""
    try:
        yield from stage()
    except Exception as error:  # the other stages go on
        yield Line(name, "FAILED", f"{type(error).__name__}: {error}"[:200])


def compiled_kernels() -> Iterator[Line]:
    """Every .cu file by NVRTC, for both generations of cards and every type of values."""
    from benchmarks.cubin import usage
    from dtrain.kernels.cuda.device import SOURCES
    from dtrain.kernels.cuda.form import ValueType
    from tests.kernels.cuda import nvrtc

    library = nvrtc.find()
    if library is None:
        yield Line("kernels", "skipped", "pip install nvidia-cuda-nvrtc")
        return
    for architecture in ARCHITECTURES:
        for values in (ValueType.FLOAT32, ValueType.BFLOAT16, ValueType.FLOAT16):
            options = ["-std=c++17", f"-arch=sm_{architecture}", f"-I{SOURCES}", "-DREAL=float"]
            options.append(f"-DVALUE={values.c_name}")
            most, stacked, count, refused = 0, [], 0, []
            for source in sorted(SOURCES.glob("**/*.cu")):
                try:
                    made = nvrtc.cubin(library, source.read_text(), source.name, options)
                except nvrtc.CompileError as error:
                    refused.append(f"{source.name}: {first_error(str(error))}")
                    continue
                for name, used in usage(made).items():
                    count += 1
                    most = max(most, used.registers)
                    if used.stack_bytes:
                        stacked.append(f"{name} {used.stack_bytes} B")
            told = f"{count} kernels, at most {most} registers"
            told += f", on the stack: {', '.join(stacked)}" if stacked else ", none spills"
            what = f"kernels sm_{architecture} {values.c_name}"
            yield Line(what, "FAILED" if refused else "ok", "; ".join([told, *refused]))


def first_error(log: str) -> str:
    """The first line of a compiler's log that is an error."""
    lines = log.splitlines()
    return next((line for line in lines if "error" in line), lines[0] if lines else "no log")


def cudnn_plans(nets: list[str], libraries: Path | None, budget: Budget) -> Iterator[Line]:
    """Plans for an H100 of each net's convolutions and normalisations, in every precision."""
    from benchmarks.inventory import inventory, training_net
    from benchmarks.without_card import MissingError, build_stub, environment
    from benchmarks.without_card import libraries as folders_of

    with tempfile.TemporaryDirectory() as folder:
        try:
            folders = folders_of(libraries)
            around = environment(build_stub(Path(folder)), folders)
        except MissingError as error:
            yield Line("cuDNN plans", "skipped", str(error))
            return
        for name in nets:
            batch, side = NETS[name]
            layers = inventory(training_net(name, 1, side), batch)
            for precision in PRECISIONS:
                what = f"cuDNN {name} b{batch} {precision}"
                given = json.dumps([asdict(layer) for layer in layers])
                yield planned(what, given, precision, around, budget.left_s())


def planned(what: str, layers: str, precision: str, around: dict[str, str], limit_s: float) -> Line:
    """The plans of one net in one precision, in a process that has the driver's stub."""
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.cudnn_plans", precision],
            input=layers,
            env=around,
            capture_output=True,
            text=True,
            timeout=max(limit_s, 1.0),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Line(what, "skipped", "no time left")
    if done.returncode:
        return Line(what, "FAILED", last_line(done.stderr))
    found = json.loads(done.stdout)
    told = (
        f"{found['planned']} graphs planned ({found['second']} not as asked first), {len(found['failed'])} "
        f"failed, workspace {found['workspace_bytes'] / MIB:.0f} MiB, {time.perf_counter() - begin:.0f} s "
        f"(cuDNN {found['cudnn']})"
    )
    return Line(what, "FAILED" if found["failed"] else "ok", "; ".join([told, *found["failed"][:2]]))


def last_line(text: str) -> str:
    """What a program said last."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "nothing said"


def torch_steps(nets: list[str]) -> Iterator[Line]:
    """Steps of the peer's nets on the CPU, eager in every precision and compiled once."""
    try:
        from benchmarks.torch_gpu_worker import TorchSubject
    except ImportError:
        yield Line("PyTorch", "skipped", "pip install torch --index-url https://download.pytorch.org/whl/cpu")
        return
    for name in nets:
        begin = time.perf_counter()
        try:
            losses = [
                one_torch_loss(TorchSubject("cpu"), name, precision, "eager/channels_last")
                for precision in PRECISIONS
            ]
            # traced whole, not compiled: what takes long is the compiler, not the net
            subject = TorchSubject("cpu", backend="aot_eager")
            losses.append(one_torch_loss(subject, name, "bf16", "default/channels_last"))
        except Exception as error:  # whatever PyTorch raises
            yield Line(f"PyTorch {name} b{TINY_BATCH}", "FAILED", f"{type(error).__name__}: {error}"[:200])
            continue
        told = f"losses {', '.join(f'{loss:.3f}' for loss in losses)} ({', '.join(PRECISIONS)}, traced)"
        yield Line(f"PyTorch {name} b{TINY_BATCH}", "ok", f"{told}, {time.perf_counter() - begin:.0f} s")


def one_torch_loss(subject: object, name: str, precision: str, way: str) -> float:
    """Of a first step."""
    from benchmarks.torch_gpu_worker import TorchSubject

    assert isinstance(subject, TorchSubject)
    subject.build(Case(name, TINY_BATCH, precision, NETS[name][1]), way)
    loss = subject.loss()
    subject.drop()
    return loss


def dtrain_steps(nets: list[str], budget: Budget) -> Iterator[Line]:
    """The worker's own solver: steps by the CUDA kernels, run on the CPU; enough to capture a graph."""
    for name in nets:
        for precision in STEPPED:
            what, limit_s = f"dtrain {name} b1 {precision}", min(CUDA_ON_CPU_S, budget.left_s())
            command = [sys.executable, "-m", "benchmarks.cuda_on_cpu_step", name, precision, CAPTURING_STEPS]
            begin = time.perf_counter()
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=max(limit_s, 1.0), check=False
                )
            except subprocess.TimeoutExpired:
                yield Line(what, "skipped", f"CUDA on the CPU takes more than {limit_s:.0f} s")
                continue
            told = last_line(done.stderr if done.returncode else done.stdout)[:200]
            took = f"{time.perf_counter() - begin:.0f} s"
            yield Line(what, "FAILED" if done.returncode else "ok", f"CUDA on the CPU: {told}, {took}")
