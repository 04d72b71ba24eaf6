"""A stand-in for the module `cudnn`: it runs a drawn graph by NumPy on raw addresses, from the definitions.

It is as strict as the library: every tensor that is no intermediate has dims, packed strides of one of the
two orders, a type and a uid; steps come in order; a run gets exactly the addresses that the graph names.
`refuses` names what there shall be no engine for: operations, or an operation with its output's type
("conv_wgrad FLOAT"), or "fused" for every graph of more than one operation.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection, Sequence
from math import prod
from types import SimpleNamespace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dtrain.kernels.cuda.form import ValueType, to_floats
from tests.kernels.cuda.cpu_device import from_floats

TYPES = {"FLOAT": ValueType.FLOAT32, "HALF": ValueType.FLOAT16, "BFLOAT16": ValueType.BFLOAT16}
WORKSPACE_BYTES = 300
NUM_PLANS = 3
STEPS = ("validate", "build_operation_graph", "create_execution_plans", "check_support", "build_plans")

Floats = NDArray[np.float32]


class GraphNotSupportedError(Exception):
    """There is no engine for a graph."""


def names(*told: str) -> SimpleNamespace:
    """An enumeration whose values are their names."""
    return SimpleNamespace(**{name: name for name in told})


@final
class NumpyTensor:
    """A tensor of a graph; one without a uid is an intermediate value."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dim: list[int] = []
        self.stride: list[int] = []
        self.kind = ""
        self.uid: int | None = None
        self.is_output = False

    def set_output(self, value: bool) -> NumpyTensor:
        self.is_output = value
        return self

    def set_dim(self, dim: list[int]) -> NumpyTensor:
        self.dim = dim
        return self

    def set_stride(self, stride: list[int]) -> NumpyTensor:
        self.stride = stride
        return self

    def set_data_type(self, kind: str) -> NumpyTensor:
        self.kind = kind
        return self

    def set_uid(self, uid: int) -> NumpyTensor:
        self.uid = uid
        return self

    def check(self) -> None:
        """All is said that the library would otherwise infer."""
        _, c, h, w = self.dim
        assert self.stride in ([c * h * w, h * w, w, 1], [c * h * w, 1, w * c, c]), (
            f"{self.name}: {self.stride}"
        )
        assert self.kind in TYPES, f"{self.name} must have a type, got {self.kind!r}"

    def at(self, address: int) -> Any:
        """The memory there, as an array of these dims."""
        storage = TYPES[self.kind].storage
        memory = (ctypes.c_char * (prod(self.dim) * storage.itemsize)).from_address(address)
        flat = np.frombuffer(memoryview(memory), storage)
        return np.lib.stride_tricks.as_strided(flat, self.dim, [s * storage.itemsize for s in self.stride])


@final
class NumpyGraph:
    """A graph: what is read, and operations in the order in which they were drawn."""

    def __init__(self, refuses: Collection[str], planning: dict[str, str | int]) -> None:
        self._refuses = refuses
        self.planning = planning
        self._inputs: list[NumpyTensor] = []
        self._operations: list[tuple[str, NumpyTensor, Callable[..., Floats], list[NumpyTensor]]] = []
        self._steps: list[str] = []
        self.notes: list[str] = []
        self.ran: list[int | None] = []

    # -- drawing

    def tensor(self, name: str, dim: list[int], stride: list[int], data_type: str, uid: int) -> NumpyTensor:
        made = NumpyTensor(name).set_dim(dim).set_stride(stride).set_data_type(data_type).set_uid(uid)
        made.check()
        self._inputs.append(made)
        return made

    def _made(self, name: str, compute: Callable[..., Floats], *sides: NumpyTensor) -> NumpyTensor:
        made = NumpyTensor(name)
        self._operations.append((name, made, compute, list(sides)))
        return made

    def conv_fprop(
        self,
        image: NumpyTensor,
        weight: NumpyTensor,
        padding: list[int],
        stride: list[int],
        dilation: list[int],
    ) -> NumpyTensor:
        def compute(x: Floats, w: Floats, made: NumpyTensor) -> Floats:
            y = np.zeros(made.dim, np.float32)
            for seen, wanted, group, (i, j) in windows(x.shape, w.shape, y.shape, padding, stride, dilation):
                x_padded = padded(x, padding)
                part = w[group[1], :, i, j]
                y[(slice(None), group[1], *wanted)] += np.einsum(
                    "nchw,kc->nkhw", x_padded[(slice(None), group[0], *seen)], part
                )
            return y

        return self._made("conv_fprop", compute, image, weight)

    def conv_dgrad(
        self,
        loss: NumpyTensor,
        filter: NumpyTensor,
        padding: list[int],
        stride: list[int],
        dilation: list[int],
    ) -> NumpyTensor:
        def compute(dy: Floats, w: Floats, made: NumpyTensor) -> Floats:
            h, width = made.dim[2:]
            dx = padded(np.zeros(made.dim, np.float32), padding)
            for seen, wanted, group, (i, j) in windows(
                made.dim, w.shape, dy.shape, padding, stride, dilation
            ):
                part = w[group[1], :, i, j]
                dx[(slice(None), group[0], *seen)] += np.einsum(
                    "nkhw,kc->nchw", dy[(slice(None), group[1], *wanted)], part
                )
            return dx[:, :, padding[0] : padding[0] + h, padding[1] : padding[1] + width]

        return self._made("conv_dgrad", compute, loss, filter)

    def conv_wgrad(
        self,
        image: NumpyTensor,
        loss: NumpyTensor,
        padding: list[int],
        stride: list[int],
        dilation: list[int],
    ) -> NumpyTensor:
        def compute(x: Floats, dy: Floats, made: NumpyTensor) -> Floats:
            dw = np.zeros(made.dim, np.float32)
            x_padded = padded(x, padding)
            for seen, wanted, group, (i, j) in windows(
                x.shape, dw.shape, dy.shape, padding, stride, dilation
            ):
                dw[group[1], :, i, j] += np.einsum(
                    "nkhw,nchw->kc",
                    dy[(slice(None), group[1], *wanted)],
                    x_padded[(slice(None), group[0], *seen)],
                )
            return dw

        return self._made("conv_wgrad", compute, image, loss)

    def bias(self, input: NumpyTensor, bias: NumpyTensor) -> NumpyTensor:
        return self._made("bias", lambda x, b, made: x + b, input, bias)

    def relu(self, input: NumpyTensor) -> NumpyTensor:
        return self._made("relu", lambda x, made: np.maximum(x, 0), input)

    # -- planning

    def _step(self, name: str) -> None:
        assert [*self._steps, name] == list(STEPS[: len(self._steps) + 1]), f"{name} after {self._steps}"
        self._steps.append(name)

    def validate(self) -> None:
        self._step("validate")
        for name, made, _, _ in self._operations:
            made.check()
            assert made.is_output == (made.uid is not None), f"{name}: an output has a uid"
        assert any(made.is_output for _, made, _, _ in self._operations)
        uids = [tensor.uid for tensor in self._outside()]
        assert len(set(uids)) == len(uids), f"uids are unique, got {uids}"

    def build_operation_graph(self) -> None:
        self._step("build_operation_graph")

    def create_execution_plans(self, modes: Sequence[str]) -> None:
        self._step("create_execution_plans")

    def deselect_numeric_notes(self, notes: Sequence[str]) -> None:
        assert self._steps[-1] == "create_execution_plans"
        self.notes.extend(notes)

    def deselect_workspace_greater_than(self, limit: int) -> None:
        assert self._steps[-1] == "create_execution_plans"

    def check_support(self) -> None:
        self._step("check_support")
        told = {name for name, *_ in self._operations}
        told |= {f"{name} {made.kind}" for name, made, *_ in self._operations}
        told |= {"fused"} if len(self._operations) > 1 else set()
        if told & set(self._refuses):
            raise GraphNotSupportedError(f"no engine for {sorted(told)}")

    def build_plans(self, policy: str) -> None:
        self._step("build_plans")

    def build_plan_at_index(self, index: int) -> None:
        if index == 0:
            raise GraphNotSupportedError("the first plan was refused")

    def get_workspace_size(self) -> int:
        return WORKSPACE_BYTES

    def get_workspace_size_plan_at_index(self, index: int) -> int:
        return WORKSPACE_BYTES * (index + 1)

    def get_execution_plan_count(self) -> int:
        return NUM_PLANS

    # -- running

    def _outside(self) -> list[NumpyTensor]:
        return [*self._inputs, *(made for _, made, _, _ in self._operations if made.is_output)]

    def execute(self, pack: dict[int, int], workspace: int, handle: object) -> None:
        self._run(pack, workspace, None)

    def execute_plan_at_index(self, pack: dict[int, int], workspace: int, index: int, handle: object) -> None:
        assert index > 0, "a plan runs that was built"
        self._run(pack, workspace, index)

    def _run(self, pack: dict[int, int], workspace: int, plan: int | None) -> None:
        assert self._steps == list(STEPS), f"a graph that is planned, got {self._steps}"
        assert pack.keys() == {tensor.uid for tensor in self._outside()}, f"got {pack.keys()}"
        assert all(address % 16 == 0 for address in pack.values()), "tensors are aligned to 16 bytes"
        ctypes.memset(workspace, 0xA7, WORKSPACE_BYTES * (1 if plan is None else plan + 1))
        self.ran.append(plan)
        values: dict[int, Floats] = {}
        for tensor in self._inputs:
            assert tensor.uid is not None
            values[id(tensor)] = to_floats(tensor.at(pack[tensor.uid]).copy(), TYPES[tensor.kind])
        for _, made, compute, sides in self._operations:
            result = compute(*(values[id(side)] for side in sides), made)
            assert list(result.shape) == made.dim, f"{made.name}: {result.shape} is not {made.dim}"
            held = from_floats(result, TYPES[made.kind])
            values[id(made)] = to_floats(held, TYPES[made.kind])
            if made.uid is not None:
                made.at(pack[made.uid])[...] = held


def padded(x: Floats, padding: Sequence[int]) -> Floats:
    return np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))


def windows(
    x: Sequence[int],
    w: Sequence[int],
    y: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Any:
    """(places in the padded image, in the result, channels of both, place in the kernel) of every product.

    The number of groups is what the weights' channels say.
    """
    groups = x[1] // w[1]
    ins, outs = x[1] // groups, y[1] // groups
    for g in range(groups):
        group = slice(g * ins, (g + 1) * ins), slice(g * outs, (g + 1) * outs)
        for i in range(w[2]):
            for j in range(w[3]):
                seen = tuple(
                    slice(k * d, k * d + (extent - 1) * s + 1, s)
                    for k, d, s, extent in zip((i, j), dilation, stride, y[2:], strict=True)
                )
                yield seen, (slice(None), slice(None)), group, (i, j)


@final
class NumpyCudnn:
    """What the module offers; `graphs` are all that were drawn."""

    __version__ = "1.0"
    cudnnGraphNotSupportedError = GraphNotSupportedError
    data_type = names(*TYPES)
    heur_mode = names("A", "FALLBACK")
    build_plan_policy = names("HEURISTICS_CHOICE")
    numerical_note = names("TENSOR_CORE", "DOWN_CONVERT_INPUTS", "NONDETERMINISTIC")

    def __init__(self, refuses: Collection[str] = (), fault: str = "") -> None:
        self._refuses = refuses
        self._fault = fault
        self.stream: int | None = None
        self.graphs: list[NumpyGraph] = []

    def create_handle(self) -> object:
        if self._fault:
            raise RuntimeError(self._fault)
        return self

    def set_stream(self, handle: object, stream: int) -> None:
        assert handle is self
        self.stream = stream

    def backend_version_string(self) -> str:
        return "9.0"

    def create_device_properties(self, told: str) -> str:
        return told

    def pygraph(
        self,
        io_data_type: str,
        intermediate_data_type: str,
        compute_data_type: str,
        handle: object = None,
        device_property: str = "",
        sm_version: int = 0,
    ) -> NumpyGraph:
        assert (handle is self) is not bool(device_property), "a graph is for a handle or for a card to be"
        assert io_data_type in TYPES
        assert intermediate_data_type == compute_data_type == "FLOAT", "sums are float32"
        planning = {"device_property": device_property, "sm_version": sm_version}
        self.graphs.append(NumpyGraph(self._refuses, planning))
        return self.graphs[-1]
