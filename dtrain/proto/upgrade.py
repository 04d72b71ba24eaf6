"""Old nets and solvers to today's schema, as Caffe's own upgrade does it.

The order of the steps is Caffe's: 2013's layers to 2014's, these to today's with the transform settings out
of the data settings, input fields to an Input layer, BatchNorm's three param blocks.
"""

from __future__ import annotations

from typing import Final

from dtrain.errors import ConfigError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.sources import Path, SourceMap
from dtrain.proto.upgrade_v0 import upgrade_v0
from dtrain.proto.upgrade_v1 import DATA_PARAMS, MOVED_TO_TRANSFORM, upgrade_v1

_SOLVER_TYPES: Final = {
    pb.SolverParameter.SGD: "SGD",
    pb.SolverParameter.NESTEROV: "Nesterov",
    pb.SolverParameter.ADAGRAD: "AdaGrad",
    pb.SolverParameter.RMSPROP: "RMSProp",
    pb.SolverParameter.ADADELTA: "AdaDelta",
    pb.SolverParameter.ADAM: "Adam",
    pb.SolverParameter.SAG: "SAG",
}


def upgrade_net(net: pb.NetParameter, sources: SourceMap | None = None, at: Path = ()) -> list[str]:
    """Bring `net`, which stands at path `at` of its file, up to date in place; returns what was done."""
    sources = SourceMap("") if sources is None else sources
    done: list[str] = []
    if net.layers and net.layer:
        where = sources.where((*at, "layers", 0))
        raise ConfigError(
            f'{where}: a net must use either "layer" or "layers" blocks, got both; '
            'rewrite layers { type: RELU } as layer { type: "ReLU" }'
        )
    if any(layer.HasField("layer") for layer in net.layers):
        done += upgrade_v0(net, sources, at)
    if net.layers:
        done += upgrade_v1(net, sources, at)
    if net.input or net.input_shape or net.input_dim:
        done.append(_inputs_to_layer(net, sources, at))
    done += _batch_norm_params(net)
    done += _idle_transform_fields(net)
    return done


def upgrade_solver(solver: pb.SolverParameter, sources: SourceMap | None = None) -> list[str]:
    """Bring `solver` and the nets within it up to date in place; returns what was done."""
    sources = SourceMap("") if sources is None else sources
    done: list[str] = []
    if solver.HasField("solver_type"):
        if solver.HasField("type"):
            where = sources.where(("solver_type",))
            raise ConfigError(
                f"{where}: solver_type must not stand beside type, got both; remove solver_type"
            )
        solver.type = _SOLVER_TYPES[solver.solver_type]
        old = pb.SolverParameter.SolverType.Name(solver.solver_type)
        solver.ClearField("solver_type")
        done.append(f'solver_type: {old} is now type: "{solver.type}"')
    if solver.HasField("net_param"):
        done += upgrade_net(solver.net_param, sources, ("net_param",))
    if solver.HasField("train_net_param"):
        done += upgrade_net(solver.train_net_param, sources, ("train_net_param",))
    for index, net in enumerate(solver.test_net_param):
        done += upgrade_net(net, sources, ("test_net_param", index))
    return done


def _inputs_to_layer(net: pb.NetParameter, sources: SourceMap, at: Path) -> str:
    count = len(net.input)
    where = sources.where(
        (*at, "input", 0) if count else (*at, "input_shape" if net.input_shape else "input_dim")
    )
    shapes = [list(shape.dim) for shape in net.input_shape]
    if not shapes and net.input_dim:
        if len(net.input_dim) != 4 * count:
            raise ConfigError(
                f"{where}: input_dim must be given four times for each input ({4 * count} times), "
                f"got {len(net.input_dim)}"
            )
        shapes = [list(net.input_dim[4 * i : 4 * i + 4]) for i in range(count)]
    elif net.input_shape and net.input_dim:
        raise ConfigError(f"{where}: inputs must use either input_shape or input_dim, got both")
    if shapes and len(shapes) != count:
        raise ConfigError(
            f"{where}: input_shape must be given once for each of {count} inputs, got {len(shapes)}"
        )
    names = list(net.input)
    for field in ("input", "input_shape", "input_dim"):
        net.ClearField(field)
    if not shapes:
        # An old caffemodel names its inputs without shapes; it is read for its weights only.
        return f"input names without shapes were dropped: {', '.join(names)}"
    layers = list(net.layer)
    first = pb.LayerParameter(name="input", type="Input", top=names)
    for shape in shapes:
        first.input_param.shape.add().dim.extend(shape)
    del net.layer[:]
    net.layer.append(first)
    net.layer.extend(layers)
    moves: dict[Path, Path | None] = {(*at, "layer", i): (*at, "layer", i + 1) for i in range(len(layers))}
    for i in range(count):
        moves[(*at, "input", i)] = (*at, "layer", 0, "top", i)
        moves[(*at, "input_shape", i)] = (*at, "layer", 0, "input_param", "shape", i)
    sources.move(moves)
    sources.add((*at, "layer", 0), sources.line((*at, "layer", 0, "top", 0)))
    return f"input fields are now an Input layer: {', '.join(names)}"


def _batch_norm_params(net: pb.NetParameter) -> list[str]:
    """BatchNorm's three arrays are statistics, not weights: no solver may touch them."""
    learning = []
    for layer in net.layer:
        if layer.type != "BatchNorm" or len(layer.param) != 3:
            continue
        if any(spec.lr_mult for spec in layer.param):
            learning.append(layer.name)
        for spec in layer.param:
            spec.lr_mult = 0
            spec.decay_mult = 0
    return [f"lr_mult of BatchNorm layers is now 0: {', '.join(learning)}"] if learning else []


def _idle_transform_fields(net: pb.NetParameter) -> list[str]:
    """Caffe moves the fields out of `layers` blocks, and ignores them in `layer` blocks. So do we, aloud."""
    done = []
    for layer in net.layer:
        for name in DATA_PARAMS:
            if not layer.HasField(name):
                continue
            param = getattr(layer, name)
            idle = [field for field in MOVED_TO_TRANSFORM if param.HasField(field)]
            if name == "window_data_param" and "scale" in idle:
                idle.remove("scale")  # the one that Caffe's layer still reads
            if idle:
                fields = ", ".join(idle)
                done.append(
                    f'layer "{layer.name}": {name} {fields} has no effect, write it in transform_param'
                )
    return done
