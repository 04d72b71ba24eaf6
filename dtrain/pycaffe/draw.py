"""Pictures of nets: a graph in Graphviz's language, and images of it where Graphviz is installed.

Source of names, labels and colours: python/caffe/draw.py of BVLC Caffe 1.0.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dtrain.errors import BackendError, ConfigError
from dtrain.proto import dtrain_pb2 as pb

RANKDIRS: Final = ("LR", "TB", "BT", "RL")
TEXT_FORMATS: Final = ("dot", "gv", "raw")
LEARNING_LAYERS: Final = ("Convolution", "Deconvolution", "InnerProduct")
COLOURS: Final = {
    "Convolution": "#FF5050",
    "Deconvolution": "#FF5050",
    "Pooling": "#FF9900",
    "InnerProduct": "#CC33FF",
}
OTHER_COLOUR, IN_PLACE_COLOUR, BLOB_COLOUR = "#6495ED", "#90EE90", "#E0E0E0"


def choose_color_by_layertype(layertype: str) -> str:
    """The colour of a layer's box."""
    return COLOURS.get(layertype, OTHER_COLOUR)


def get_pooling_types_dict() -> dict[int, str]:
    """Numbers of the pooling methods -> names."""
    return {number: name for name, number in pb.PoolingParameter.PoolMethod.items()}


def get_layer_lr_mult(layer: pb.LayerParameter) -> tuple[float, float]:
    """The multipliers of weights and bias."""
    if layer.type not in LEARNING_LAYERS:
        raise ConfigError(
            f'layer "{layer.name}": type must be one of {", ".join(LEARNING_LAYERS)}, got {layer.type}'
        )
    given = [param.lr_mult for param in layer.param]
    weights, bias = [*given, 1.0, 1.0][:2]
    return weights, bias


def _first(values: Sequence[int], default: int) -> int:
    return values[0] if values else default


def get_layer_label(layer: pb.LayerParameter, rankdir: str, display_lrm: bool = False) -> str:
    """Name, type and main settings, separated by what suits the direction of the graph."""
    separator = " " if rankdir in ("TB", "BT") else "\n"
    kind = layer.type
    if kind == "Pooling":
        kind += f" {get_pooling_types_dict()[layer.pooling_param.pool]}"
    parts = [layer.name, f"({kind})"]
    if layer.type == "Pooling":
        pooling = layer.pooling_param
        window = (pooling.kernel_size, pooling.stride, pooling.pad)
        parts += _window_label(*window)
    elif layer.type in ("Convolution", "Deconvolution"):
        convolution = layer.convolution_param
        parts += _window_label(
            _first(convolution.kernel_size, 1), _first(convolution.stride, 1), _first(convolution.pad, 0)
        )
    if display_lrm and layer.type in LEARNING_LAYERS:
        weights, bias = get_layer_lr_mult(layer)
        if weights or bias:
            parts.append(f"lr mult: {weights:.1f}, {bias:.1f}")
    return separator.join(parts)


def _window_label(kernel: int, stride: int, pad: int) -> list[str]:
    return [f"kernel size: {kernel}", f"stride: {stride}", f"pad: {pad}"]


def get_edge_label(layer: pb.LayerParameter) -> str:
    """What a layer makes: batch size or number of outputs; empty for the others."""
    if layer.type == "Data":
        return f"Batch {layer.data_param.batch_size}"
    if layer.type in ("Convolution", "Deconvolution"):
        return str(layer.convolution_param.num_output)
    if layer.type == "InnerProduct":
        return str(layer.inner_product_param.num_output)
    return ""


def _is_in(layer: pb.LayerParameter, phase: int | None) -> bool:
    if phase is None:
        return True
    if layer.include and layer.exclude:
        raise ConfigError(f'layer "{layer.name}": include and exclude must not be given together, got both')
    if layer.include:
        return any(not rule.HasField("phase") or rule.phase == phase for rule in layer.include)
    return not any(rule.HasField("phase") and rule.phase == phase for rule in layer.exclude)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _record(label: str) -> str:
    """A label for a node of shape "record", in which some characters have a meaning."""
    for character in "{}|<>":
        label = label.replace(character, f"\\{character}")
    return '"' + label.replace('"', '\\"').replace("\n", "\\n") + '"'


def net_to_dot(
    caffe_net: pb.NetParameter,
    rankdir: str = "LR",
    label_edges: bool = True,
    phase: int | None = None,
    display_lrm: bool = False,
) -> str:
    """The graph in Graphviz's language: a box a layer, an octagon a blob.

    phase: layers of this phase alone; display_lrm: with the learning rate multipliers.
    """
    if rankdir not in RANKDIRS:
        raise ConfigError(f"draw: rankdir must be one of {', '.join(RANKDIRS)}, got {rankdir}")
    nodes: dict[str, str] = {}
    edges: list[str] = []
    for layer in caffe_net.layer:
        if not _is_in(layer, phase):
            continue
        node = _quoted(f"{layer.name}_{layer.type}")
        in_place = len(layer.bottom) == 1 and list(layer.bottom) == list(layer.top)
        colour = IN_PLACE_COLOUR if in_place else choose_color_by_layertype(layer.type)
        label = _record(get_layer_label(layer, rankdir, display_lrm))
        nodes[node] = f'label={label}, shape=record, style=filled, fillcolor="{colour}"'
        for name in (*layer.bottom, *layer.top):
            nodes[_quoted(f"{name}_blob")] = (
                f'label={_quoted(name)}, shape=octagon, style=filled, fillcolor="{BLOB_COLOUR}"'
            )
        edges += [f"{_quoted(f'{name}_blob')} -> {node};" for name in layer.bottom]
        made = f" [label={_quoted(get_edge_label(layer))}]" if label_edges else ""
        edges += [f"{node} -> {_quoted(f'{name}_blob')}{made};" for name in layer.top]
    lines = [f"  rankdir={rankdir};", *(f"  {node} [{style}];" for node, style in nodes.items())]
    lines += [f"  {edge}" for edge in edges]
    return "\n".join([f"digraph {_quoted(caffe_net.name or 'Net')} {{", *lines, "}"]) + "\n"


def get_pydot_graph(
    caffe_net: pb.NetParameter,
    rankdir: str,
    label_edges: bool = True,
    phase: int | None = None,
    display_lrm: bool = False,
) -> Any:
    """The graph as an object of the package pydot."""
    try:
        pydot = importlib.import_module("pydot")
    except ImportError:
        raise BackendError(
            "get_pydot_graph: pydot must be installed, got no such package; pip install pydot, or use "
            "net_to_dot for the graph as text"
        ) from None
    return pydot.graph_from_dot_data(net_to_dot(caffe_net, rankdir, label_edges, phase, display_lrm))[0]


def draw_net(
    caffe_net: pb.NetParameter,
    rankdir: str,
    ext: str = "png",
    phase: int | None = None,
    display_lrm: bool = False,
) -> bytes:
    """The picture as a file of that format would hold it; dot, gv and raw are text and need no Graphviz."""
    text = net_to_dot(caffe_net, rankdir, phase=phase, display_lrm=display_lrm).encode()
    if ext in TEXT_FORMATS:
        return text
    program = shutil.which("dot")
    if program is None:
        raise BackendError(
            f"draw: Graphviz must be installed for a picture of type {ext}, got no program dot; install "
            f"graphviz, or draw to a file that ends in .dot"
        )
    done = subprocess.run([program, f"-T{ext}"], input=text, capture_output=True, check=False)
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip()
        raise BackendError(f"draw: Graphviz must know the type {ext}, got: {told}")
    return done.stdout


def draw_net_to_file(
    caffe_net: pb.NetParameter,
    filename: str | os.PathLike[str],
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """Write the picture; the file's name ends in its type."""
    path = Path(filename)
    path.write_bytes(draw_net(caffe_net, rankdir, path.suffix.lstrip("."), phase, display_lrm))
