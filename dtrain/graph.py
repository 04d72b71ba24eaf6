"""A net's description made explicit: one phase's layers, and a Split where a blob has several consumers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dtrain.errors import ConfigError
from dtrain.proto import dtrain_pb2 as pb

Place = tuple[int, int]  # layer index, top index


def keeps(state: pb.NetState, rule: pb.NetStateRule) -> bool:
    """Whether a state meets every condition of a rule: phase, level range, stages named and excluded."""
    stages = set(state.stage)
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and all(stage in stages for stage in rule.stage)
        and not any(stage in stages for stage in rule.not_stage)
    )


def included(layer: pb.LayerParameter, state: pb.NetState) -> bool:
    """Included unless an `exclude` rule is met; with `include` rules, only if one of them is met.

    A layer with both is a fault, which `with_splits` tells with its place.
    """
    if layer.include and layer.exclude:
        return True
    if layer.include:
        return any(keeps(state, rule) for rule in layer.include)
    return not any(keeps(state, rule) for rule in layer.exclude)


def of_state(net: pb.NetParameter, state: pb.NetState) -> tuple[list[pb.LayerParameter], list[int]]:
    """The layers that a state includes, with the index of each in the file."""
    kept = [(layer, i) for i, layer in enumerate(net.layer) if included(layer, state)]
    return [layer for layer, _ in kept], [i for _, i in kept]


def with_splits(
    layers: Sequence[pb.LayerParameter], origins: Sequence[int], where: Iterable[str]
) -> tuple[list[pb.LayerParameter], list[int]]:
    """Copies of the layers with Split layers inserted; a Split's origin is its producer's.

    A blob whose loss_weight is not zero counts itself as a consumer, and its weight moves to the Split.
    Names are Caffe's: "<blob>_<layer>_<top index>_split_<consumer>".
    """
    places = list(where)
    last_top: dict[str, Place] = {}
    source: dict[Place, Place] = {}  # (layer, bottom index) -> the top it reads
    consumers: dict[Place, int] = {}
    loss_weight: dict[Place, float] = {}
    for i, layer in enumerate(layers):
        if layer.include and layer.exclude:
            raise ConfigError(
                f'{places[i]}: layer "{layer.name}" ({layer.type}): at most one of include and exclude must '
                "be given, got both"
            )
        for j, name in enumerate(layer.bottom):
            if name not in last_top:
                raise ConfigError(
                    f'{places[i]}: layer "{layer.name}" ({layer.type}): bottom[{j}] must be a blob that an '
                    f'earlier layer makes, got "{name}"'
                )
            source[i, j] = last_top[name]
            consumers[last_top[name]] = consumers.get(last_top[name], 0) + 1
        for j, name in enumerate(layer.top):
            last_top[name] = (i, j)
        for j, weight in enumerate(layer.loss_weight[: len(layer.top)]):
            if weight:
                loss_weight[i, j] = weight
                consumers[i, j] = consumers.get((i, j), 0) + 1
    out: list[pb.LayerParameter] = []
    out_origins: list[int] = []
    given: dict[Place, int] = {}  # consumers of a top served so far
    for i, original in enumerate(layers):
        layer = pb.LayerParameter()
        layer.CopyFrom(original)
        for j in range(len(layer.bottom)):
            top = source[i, j]
            if consumers[top] > 1:
                k = given.get(top, 0)
                given[top] = k + 1
                layer.bottom[j] = split_blob(layers[top[0]].name, original.bottom[j], top[1], k)
        for j in range(len(layer.top)):
            if consumers.get((i, j), 0) > 1 and (i, j) in loss_weight:
                layer.loss_weight[j] = 0
        out.append(layer)
        out_origins.append(origins[i])
        for j, name in enumerate(layer.top):
            count = consumers.get((i, j), 0)
            if count > 1:
                split = pb.LayerParameter(name=split_layer(layer.name, name, j), type="Split", bottom=[name])
                split.top.extend(split_blob(layer.name, name, j, k) for k in range(count))
                if (i, j) in loss_weight:
                    split.loss_weight.extend([loss_weight[i, j]] + [0.0] * (count - 1))
                    given[i, j] = 1
                out.append(split)
                out_origins.append(origins[i])
    return out, out_origins


def split_layer(layer: str, blob: str, top_index: int) -> str:
    """The name of an inserted Split layer."""
    return f"{blob}_{layer}_{top_index}_split"


def split_blob(layer: str, blob: str, top_index: int, consumer: int) -> str:
    """The name of one of its tops."""
    return f"{split_layer(layer, blob, top_index)}_{consumer}"
