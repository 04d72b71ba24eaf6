"""What LSTM and RNN share: bottoms, tops, parameters, and the hidden state between batches.

Source: Caffe's RecurrentLayer. Caffe builds a net with a copy of the cell for each time step; here an
operator runs over the steps, and the parameters have the same order and shapes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from dtrain.kernels.array import SyncedArray
from dtrain.layers.layer import Blob, Blobs, Count, Layer


class RecurrentLayer(Layer):
    """bottom x (T, N, ...), cont (T, N), x_static (N, ...) if given -> top[0] (T, N, num_output).

    cont is 0 where a new sequence begins, which forgets the state, and 1 where one goes on. The state at
    the end of a batch is that at the start of the next. With `expose_hidden` the states at the start
    (1, N, num_output) are the last bottoms instead, those at the end the last tops; no gradient flows
    through them.
    """

    num_bottoms = Count(2, None)
    num_tops = Count(1, None)
    gates: ClassVar[int]  # rows of the weights for each output
    states: ClassVar[tuple[str, ...]]

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.recurrent_param
        self.exposed = len(self.states) if param.expose_hidden else 0
        self._check_counts(len(bottom), len(top))
        if param.num_output < 1:
            raise self.bad_param(("recurrent_param", "num_output"), "at least 1", param.num_output)
        self.outputs: int = param.num_output
        self.has_static = len(bottom) > 2 + self.exposed
        self._check_shapes(bottom)
        self.values = self._values(bottom[0], 2)
        self.static_values = self._values(bottom[2], 1) if self.has_static else 0
        rows = self.gates * self.outputs
        self.add_blob((rows, self.values), param.weight_filler)
        self.add_blob((rows,), param.bias_filler)
        if self.has_static:
            self.add_blob((rows, self.static_values), param.weight_filler)
        self.add_blob((rows, self.outputs), param.weight_filler)
        self.add_output_blobs()
        self.state = [Blob(self.scope.backend) for _ in self.states]

    def add_output_blobs(self) -> None:
        """The parameters behind the recurrent ones; none by default."""

    def _check_counts(self, bottoms: int, tops: int) -> None:
        least = 2 + self.exposed
        names = "".join(f", {state}_0" for state in self.states[: self.exposed])
        if bottoms not in (least, least + 1):
            raise self.error(
                f"the bottoms must be x, cont, x_static or not{names} ({least} or {least + 1}), "
                f"got {bottoms}",
                "bottom",
            )
        if tops != 1 + self.exposed:
            raise self.error(
                f"the number of tops must be {1 + self.exposed} with {self.exposed} exposed states, "
                f"got {tops}",
                "top",
            )

    @staticmethod
    def _values(blob: Blob, axis: int) -> int:
        count = 1
        for extent in blob.shape[axis:]:
            count *= extent
        return count

    def _check_shapes(self, bottom: Blobs) -> None:
        shape = bottom[0].shape
        if len(shape) < 2 or min(shape) < 1:
            raise self.bad_shape("bottom[0]", "at least 2 axes (time steps, streams, ...), none empty", shape)
        if bottom[1].shape != shape[:2]:
            raise self.bad_shape("bottom[1] (cont)", f"shape {shape[:2]}, as bottom[0]", bottom[1].shape)
        if self.has_static and bottom[2].shape[:1] != shape[1:2]:
            raise self.bad_shape("bottom[2] (x_static)", f"{shape[1]} streams on axis 0", bottom[2].shape)
        wanted = (1, shape[1], self.outputs)
        for i in range(len(bottom) - self.exposed, len(bottom)):
            if bottom[i].shape != wanted:
                raise self.bad_shape(f"bottom[{i}] (a state)", f"shape {wanted}", bottom[i].shape)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self._check_shapes(bottom)
        for blob, axis, values, name in (
            (bottom[0], 2, self.values, "bottom[0]"),
            *([(bottom[2], 1, self.static_values, "bottom[2]")] if self.has_static else []),
        ):
            if self._values(blob, axis) != values:
                raise self.bad_shape(name, f"{values} values from axis {axis} on, as at set-up", blob.shape)
        steps, streams = bottom[0].shape[:2]
        top[0].reshape((steps, streams, self.outputs))
        for blob in (*self.state, *top[1:]):
            if blob.shape != (1, streams, self.outputs):
                blob.reshape((1, streams, self.outputs))
                blob.data.clear()
        self.build(bottom, top)

    @abstractmethod
    def build(self, bottom: Blobs, top: Blobs) -> None:
        """Make `self.op` for these shapes."""

    def forget(self) -> None:
        """Begin anew: the state before the next batch is zero."""
        for blob in self.state:
            blob.data.clear()

    def start(self, bottom: Blobs) -> tuple[SyncedArray, ...]:
        """The states before the first time step."""
        return tuple(blob.data for blob in (bottom[-self.exposed :] if self.exposed else self.state))

    def end(self, top: Blobs) -> tuple[SyncedArray, ...]:
        """Where the states after the last time step go."""
        return tuple(blob.data for blob in (top[1:] if self.exposed else self.state))

    def static(self, bottom: Blobs) -> SyncedArray | None:
        """The values of x_static, if there is one."""
        return bottom[2].data if self.has_static else None

    def weights(self) -> list[SyncedArray | None]:
        """w_x, bias, w_static or None, w_h, and what follows."""
        arrays: list[SyncedArray | None] = [blob.data for blob in self.blobs]
        return arrays if self.has_static else [*arrays[:2], None, *arrays[2:]]

    def diffs(self, propagate_down: Sequence[bool], bottom: Blobs) -> list[SyncedArray | None]:
        """The wanted diffs of x, x_static and the weights, in that order; None where not wanted."""
        if propagate_down[1]:
            raise self.error("cont must not need a gradient, got propagate_down: true for bottom[1]")
        for i in range(2 + self.has_static, len(bottom)):
            if propagate_down[i]:
                bottom[i].diff.clear()
        wanted = zip(self.blobs, self.param_propagate_down, strict=True)
        of_weights = [blob.diff if wants else None for blob, wants in wanted]
        if not self.has_static:
            of_weights.insert(2, None)
        return [
            bottom[0].diff if propagate_down[0] else None,
            bottom[2].diff if self.has_static and propagate_down[2] else None,
            *of_weights,
        ]

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 1
