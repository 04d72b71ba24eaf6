"""A net as pycaffe shows it: blobs and parameters by name, passes that take and give NumPy arrays.

Source of the names and of what they mean: python/caffe/pycaffe.py and _caffe.cpp of BVLC Caffe 1.0.
"""

from __future__ import annotations

import os
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias, final

import numpy as np
from numpy.typing import ArrayLike

from dtrain import net as core
from dtrain.blob import Blobs
from dtrain.errors import ConfigError, WeightsError, unknown_name
from dtrain.kernels.array import Plain
from dtrain.layers.data_source import DataSource
from dtrain.layers.layer import Scope
from dtrain.layers.memory_data import MemoryData
from dtrain.layers.python_face import Layer as UserLayer
from dtrain.proto.files import read_net, write_binary
from dtrain.pycaffe import batches, caffe_name, process
from dtrain.pycaffe.blob import Blob, Layer, layer_of
from dtrain.solvers import hdf5, weights

File: TypeAlias = str | os.PathLike[str]
Arrays: TypeAlias = dict[str, Plain]

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class NetFace(ABC):
    """What a script does with a net; a subclass says how the net is made.

    Arrays in the results are those of the blobs: the next pass changes them.
    """

    @abstractmethod
    def __init__(self) -> None:
        """End with `_show`."""

    def _read(self, file: File, phase: int, level: int = 0, stages: Sequence[str] | None = None) -> None:
        """Make the net from a prototxt."""
        caffe_name.provide()
        param, source = read_net(file)
        seed = process.next_seed()
        scope = Scope(process.backend(), phase, seed=seed, rng=np.random.default_rng(seed))
        self._show(core.Net(param, scope, level=level, stages=stages or (), source=source))

    def _show(self, net: core.Net) -> None:
        """Stand in front of this net."""
        self._net = net
        self._shares_gradients = False  # a solver's: its update works on one buffer of all weights
        self.blobs = OrderedDict((name, Blob(blob)) for name, blob in net.blobs.items())
        self.layers: list[Layer | UserLayer] = [layer_of(layer) for layer in net.layers]
        self._layer_names = [layer.name for layer in net.layers]
        self._blob_names = list(net.blobs)
        self._index = {id(blob): i for i, blob in enumerate(net.blobs.values())}
        self.params = OrderedDict(
            (layer.name, [Blob(blob, f"parameter {layer.name}[{i}]") for i, blob in enumerate(layer.blobs)])
            for layer in net.layers
            if layer.blobs
        )
        self._inputs = [
            i for step in net.steps if step.layer.spec.type == "Input" for i in self._ids(step.top)
        ]
        self._outputs = [self._blob_names.index(name) for name in net.outputs]
        sources = [layer for layer in net.layers if isinstance(layer, DataSource)]
        if sources:
            weakref.finalize(self, _close, sources)

    # -- names

    @property
    def name(self) -> str:
        """The net's name."""
        return self._net.name

    @property
    def inputs(self) -> list[str]:
        """The names of the blobs that a script fills."""
        return [self._blob_names[i] for i in self._inputs]

    @property
    def outputs(self) -> list[str]:
        """The names of the blobs that no layer reads."""
        return list(self._net.outputs)

    @property
    def layer_dict(self) -> OrderedDict[str, Layer | UserLayer]:
        """The layers by name."""
        return OrderedDict(zip(self._layer_names, self.layers, strict=True))

    @property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """Each layer's tops."""
        return OrderedDict((step.layer.name, self._named(step.top)) for step in self._net.steps)

    @property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """Each layer's bottoms."""
        return OrderedDict((step.layer.name, self._named(step.bottom)) for step in self._net.steps)

    @property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """What each blob counts in the loss."""
        return OrderedDict(zip(self._blob_names, self._blob_loss_weights, strict=True))

    @property
    def _blob_loss_weights(self) -> list[float]:
        found = [0.0] * len(self._blob_names)
        for step in self._net.steps:
            for i, weight in zip(self._ids(step.top), step.layer.loss_weights, strict=True):
                found[i] = weight or found[i]
        return found

    def _ids(self, blobs: Blobs) -> list[int]:
        return [self._index[id(blob)] for blob in blobs]

    def _named(self, blobs: Blobs) -> list[str]:
        return [self._blob_names[i] for i in self._ids(blobs)]

    def _top_ids(self, layer: int) -> list[int]:
        return self._ids(self._net.steps[layer].top)

    def _bottom_ids(self, layer: int) -> list[int]:
        return self._ids(self._net.steps[layer].bottom)

    def _layer_index(self, name: str, argument: str) -> int:
        if name not in self._layer_names:
            raise ConfigError(f"{argument}: {unknown_name('layer', name, self._layer_names)}")
        return self._layer_names.index(name)

    # -- passes

    def forward(
        self,
        blobs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **inputs: ArrayLike,
    ) -> Arrays:
        """Run the layers from `start` to `end`, both included; all of them where none is named.

        `inputs` fills the input blobs, all or none of them. Returns the outputs (with `end`, that layer's
        tops) and `blobs`.
        """
        first, last = 0, len(self.layers) - 1
        wanted = self.outputs
        if start is not None:
            first = self._layer_index(start, "start")
        if end is not None:
            last = self._layer_index(end, "end")
            wanted = self.top_names[end]
        if inputs:
            self._check_names("forward", inputs, self.inputs, "inputs")
            for name, values in inputs.items():
                self._fill("forward", name, self.blobs[name].data, values)
        self._forward(first, last)
        return {name: self._blob(name).data for name in self._unique(wanted, blobs)}

    def backward(
        self,
        diffs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **outputs: ArrayLike,
    ) -> Arrays:
        """Run backward from layer `start` down to `end`, both included; all where none is named.

        `outputs` fills the diffs of the output blobs, all or none of them; without it they hold the loss
        weights, or what the script has written. Returns the diffs of the inputs (with `end`, of that
        layer's bottoms) and of `diffs`.
        """
        first, last = len(self.layers) - 1, 0
        wanted = self.inputs
        if start is not None:
            first = self._layer_index(start, "start")
        if end is not None:
            last = self._layer_index(end, "end")
            wanted = self.bottom_names[end]
        if outputs:
            self._check_names("backward", outputs, self.outputs, "outputs")
            for name, values in outputs.items():
                self._fill("backward", name, self.blobs[name].diff, values)
        self._backward(first, last)
        return {name: self._blob(name).diff for name in self._unique(wanted, diffs)}

    def _forward(self, start: int, end: int) -> float:
        """By index; returns the loss."""
        return self._net.forward(start, end)

    def _backward(self, start: int, end: int) -> None:
        self._net.backward(start, end)

    def forward_all(self, blobs: Sequence[str] | None = None, **inputs: ArrayLike) -> Arrays:
        """`forward` over any number of images, batch by batch; the last batch is padded with zeros.

        Returns copies, one row an image; one row a batch for a blob without an axis of images.
        """
        values, count = batches.as_arrays(inputs)
        rows = batches.Rows(count, self._batch_size())
        for batch in rows.split(values):
            rows.add(self.forward(blobs, None, None, **batch))
        return rows.joined()

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **arrays: ArrayLike
    ) -> tuple[Arrays, Arrays]:
        """`forward` and `backward` over any number of images; `arrays` names inputs and outputs.

        Returns the blobs and the diffs as `forward_all` does.
        """
        values, count = batches.as_arrays(arrays)
        self._check_known("forward_backward_all", values, [*self.inputs, *self.outputs])
        data, gradients = (batches.Rows(count, self._batch_size()) for _ in range(2))
        for batch in data.split(values):
            inputs = {name: batch[name] for name in self.inputs if name in batch}
            outputs = {name: batch[name] for name in self.outputs if name in batch}
            data.add(self.forward(blobs, None, None, **inputs))
            gradients.add(self.backward(diffs, None, None, **outputs))
        return data.joined(), gradients.joined()

    def _batch_size(self) -> int:
        return next(iter(self.blobs.values())).num

    def _blob(self, name: str) -> Blob:
        if name not in self.blobs:
            raise ConfigError(unknown_name("blob", name, self.blobs))
        return self.blobs[name]

    @staticmethod
    def _unique(wanted: Iterable[str], also: Sequence[str] | None) -> list[str]:
        return list(dict.fromkeys([*wanted, *(also or ())]))

    @staticmethod
    def _check_names(method: str, given: Iterable[str], names: list[str], what: str) -> None:
        if set(given) != set(names):
            raise ConfigError(
                f"{method}: arrays must be given for all {what} of the net ({', '.join(names) or 'none'}) or "
                f"for none, got {', '.join(given)}"
            )

    @staticmethod
    def _check_known(method: str, given: Iterable[str], names: list[str]) -> None:
        for name in given:
            if name not in names:
                raise ConfigError(f"{method}: {unknown_name('input or output', name, names)}")

    @staticmethod
    def _fill(method: str, name: str, target: Plain, values: ArrayLike) -> None:
        array = np.asarray(values)
        wrong = ConfigError(
            f"{method}: {name} must have shape {target.shape}, got {array.shape}; reshape the blob, or use "
            f"forward_all for any number of images"
        )
        if array.shape[:1] != target.shape[:1]:
            raise wrong
        try:
            target[...] = array
        except ValueError:
            raise wrong from None

    def before_forward(self, run: core.Hook) -> None:
        """Call `run(index of the layer)` before each layer; so the next three where their names say."""
        self._net.before_forward.append(run)

    def after_forward(self, run: core.Hook) -> None:
        """Call it after each layer's forward."""
        self._net.after_forward.append(run)

    def before_backward(self, run: core.Hook) -> None:
        """Call it before each layer's backward."""
        self._net.before_backward.append(run)

    def after_backward(self, run: core.Hook) -> None:
        """Call it after each layer's backward."""
        self._net.after_backward.append(run)

    def reshape(self) -> None:
        """Bring all blobs up to the shapes of the inputs; forward does so itself."""
        self._net.reshape()

    def clear_param_diffs(self) -> None:
        """Make the gradients of all parameters zero."""
        self._net.clear_param_diffs()

    def set_input_arrays(self, data: Plain, labels: Plain) -> None:
        """Let the MemoryData layer, which must be the first, serve these."""
        first = self._net.layers[0]
        if not isinstance(first, MemoryData):
            raise ConfigError(
                f"set_input_arrays: the first layer must be of type MemoryData, got {first.spec.type} "
                f'"{first.name}"'
            )
        first.reset(data, labels)

    # -- weights

    def save(self, file: File) -> None:
        """Write the weights as a caffemodel."""
        write_binary(file, weights.message_of(self._net.name, weights.copy_of(self._net)))

    def save_hdf5(self, file: File) -> None:
        """Write the weights as a caffemodel in HDF5."""
        hdf5.write(Path(file), weights.hdf5_of(weights.copy_of(self._net)))

    def copy_from(self, file: File) -> None:
        """Read weights into the layers that have a namesake in the file, binary or HDF5."""
        if _is_hdf5(Path(file)):
            self.load_hdf5(file)
        else:
            weights.load(self._net, Path(file))

    def load_hdf5(self, file: File) -> None:
        """`copy_from` for HDF5 whatever the file is called."""
        weights.load_hdf5(self._net, Path(file))

    def share_with(self, other: NetFace) -> None:
        """Use the weights of the layers of the same name in another net: what changes there changes here."""
        if self._shares_gradients:
            raise ConfigError(
                "share_with: a net must not be a solver's training net, got one; share the other way round"
            )
        known = {layer.name: layer for layer in self._net.layers}
        for source in other._net.layers:
            mine = known.get(source.name)
            if mine is None:
                continue
            shapes = [blob.shape for blob in source.blobs]
            if [blob.shape for blob in mine.blobs] != shapes:
                raise WeightsError(
                    f'share_with: layer "{source.name}" must have blobs of shapes {shapes}, got '
                    f"{[blob.shape for blob in mine.blobs]}"
                )
            for target, blob in zip(mine.blobs, source.blobs, strict=True):
                target.share_data(blob)
        self._net.rebuild()


@final
class Net(NetFace):
    """`Net(file, phase, level=0, stages=None, weights=None)`, or as of old `Net(file, weights, phase)`."""

    def __init__(
        self,
        network_file: File,
        *rest: int | File | Sequence[str] | None,
        phase: int | None = None,
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: File | None = None,
    ) -> None:
        names = ["phase", "level", "stages", "weights"]
        if rest and isinstance(rest[0], str | os.PathLike):
            names = ["weights", "phase"]
        if len(rest) > len(names):
            raise ConfigError(f"Net: at most {', '.join(names)} may follow the file, got {len(rest)} values")
        given = dict(zip(names, rest, strict=False))
        phase = phase if phase is not None else _integer("phase", given.get("phase"))
        level = level or _integer("level", given.get("level", 0))
        stage_list = stages if stages is not None else given.get("stages")
        weight_file = weights if weights is not None else given.get("weights")
        if isinstance(stage_list, str | int | os.PathLike):
            raise ConfigError(f"Net: stages must be a list of names, got {stage_list!r}")
        if weight_file is not None and not isinstance(weight_file, str | os.PathLike):
            raise ConfigError(f"Net: weights must be a file's name, got {weight_file!r}")
        self._read(network_file, phase, level, stage_list)
        if weight_file is not None:
            self.copy_from(weight_file)

    @classmethod
    def of_solver(cls, net: core.Net, *, trains: bool) -> Net:
        """Stand in front of a solver's net."""
        face = cls.__new__(cls)
        face._show(net)
        face._shares_gradients = trains
        return face


def _integer(name: str, value: object) -> int:
    if not isinstance(value, int | np.integer):
        remedy = "; Net(file, caffe.TEST)" if name == "phase" else ""
        raise ConfigError(f"Net: {name} must be an integer, got {value!r}{remedy}")
    return int(value)


def _is_hdf5(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE
    except OSError as error:
        raise WeightsError(f"{path}: must be a readable file of weights, got {error.strerror}") from error


def _close(sources: list[DataSource]) -> None:
    for source in sources:
        source.close()
