"""A graph of cuDNN: drawn from tensors and operations, planned once, run many times on raw pointers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.form import Form, ValueType

if TYPE_CHECKING:
    from dtrain.kernels.cuda.cudnn.library import Cudnn

Dims: TypeAlias = tuple[int, ...]  # (N, C, H, W), whatever the order in memory

TYPE_NAMES: Final = {
    ValueType.FLOAT32: "FLOAT",
    ValueType.FLOAT16: "HALF",
    ValueType.BFLOAT16: "BFLOAT16",
}
PLAIN: Final = Form(ValueType.FLOAT32)
MOST_PLANS: Final = 4  # that are timed


def strides(dims: Dims, channels_last: bool) -> list[int]:
    """Of a packed tensor."""
    _, c, h, w = dims
    return [c * h * w, 1, w * c, c] if channels_last else [c * h * w, h * w, w, 1]


@final
class Draft:
    """A graph being drawn. Sums are float32; every tensor's dims and strides are said, none is inferred."""

    def __init__(self, module: Any, form: Form, settings: Mapping[str, Any]) -> None:
        self.module = module
        self.form = form
        wide = module.data_type.FLOAT
        kinds = {
            "io_data_type": self._kind(form),
            "intermediate_data_type": wide,
            "compute_data_type": wide,
        }
        self.ops: Any = module.pygraph(**kinds, **settings)

    def _kind(self, form: Form) -> Any:
        return getattr(self.module.data_type, TYPE_NAMES[form.type])

    def tensor(self, uid: int, dims: Dims, form: Form | None = None) -> Any:
        """What the graph reads."""
        form = form or self.form
        return self.ops.tensor(
            name=f"t{uid}",
            dim=list(dims),
            stride=strides(dims, form.channels_last),
            data_type=self._kind(form),
            uid=uid,
        )

    def between(self, made: Any, dims: Dims) -> Any:
        """What one operation hands to the next, in float32."""
        last = self.form.channels_last
        return made.set_dim(list(dims)).set_stride(strides(dims, last)).set_data_type(self._kind(PLAIN))

    def output(self, made: Any, uid: int, dims: Dims, form: Form | None = None) -> None:
        """What the graph writes."""
        form = form or self.form
        made.set_output(True).set_dim(list(dims)).set_stride(strides(dims, form.channels_last))
        made.set_data_type(self._kind(form)).set_uid(uid)

    def planned(self, limit_bytes: int, *, strict: bool, repeatable: bool) -> Any:
        """The graph with its plan; raises what cuDNN says if it has none."""
        modes, notes, ops = self.module.heur_mode, self.module.numerical_note, self.ops
        ops.validate()
        ops.build_operation_graph()
        ops.create_execution_plans([modes.A, modes.FALLBACK])
        refused = [notes.NONDETERMINISTIC] if repeatable else []
        if strict:
            refused += [notes.TENSOR_CORE, notes.DOWN_CONVERT_INPUTS]
        if refused:
            ops.deselect_numeric_notes(refused)
        ops.deselect_workspace_greater_than(limit_bytes)
        ops.check_support()
        ops.build_plans(self.module.build_plan_policy.HEURISTICS_CHOICE)
        return ops


@final
class Graph:
    """A planned graph; `run` gets a buffer for each uid that was drawn."""

    def __init__(self, cudnn: Cudnn, ops: Any) -> None:
        self._cudnn = cudnn
        self._ops = ops
        self._plan: int | None = None  # the one that was timed as the fastest, if any was
        self._is_timed = False
        self.workspace_bytes = int(ops.get_workspace_size())

    @property
    def num_plans(self) -> int:
        """That cuDNN proposed."""
        return int(self._ops.get_execution_plan_count())

    def run(self, buffers: Mapping[int, Buffer]) -> None:
        """Queue it; outputs are overwritten."""
        device = self._cudnn.device
        assert device is not None, "what is only planned does not run"
        if self._cudnn.autotune and not self._is_timed and not device.is_capturing:
            self._is_timed = True
            self._plan = self._fastest(buffers)
        self._queue(buffers, self._plan)

    def _queue(self, buffers: Mapping[int, Buffer], plan: int | None) -> None:
        device, handle, uids = self._cudnn.device, self._cudnn.handle, tuple(buffers)
        assert device is not None, "what is only planned does not run"
        needed = self.workspace_bytes
        if plan is not None:
            needed = int(self._ops.get_workspace_size_plan_at_index(plan))

        def queue(addresses: Sequence[int]) -> None:
            pack = dict(zip(uids, addresses, strict=False))
            if plan is None:
                self._ops.execute(pack, addresses[-1], handle=handle)
            else:
                self._ops.execute_plan_at_index(pack, addresses[-1], plan, handle=handle)

        device.call(queue, [*buffers.values(), self._cudnn.workspace(needed)])

    def _fastest(self, buffers: Mapping[int, Buffer]) -> int | None:
        """Of the first few plans that may be taken; None is the one that cuDNN chose."""
        times: dict[int, float] = {}
        for plan in range(self.num_plans):
            try:
                self._ops.build_plan_at_index(plan)
                times[plan] = self._cudnn.seconds(partial(self._queue, buffers, plan))
            except (self._cudnn.module.cudnnGraphNotSupportedError, RuntimeError):
                continue  # refused when the graph was planned, or not for this card
            if len(times) == MOST_PLANS:
                break
        return min(times, key=lambda plan: times[plan]) if times else None
