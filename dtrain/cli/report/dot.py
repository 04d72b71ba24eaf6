"""A net as text in Graphviz' language: a box for each layer, an arrow for each blob."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dtrain.proto import dtrain_pb2 as pb

DIRECTIONS: Final = ("LR", "RL", "TB", "BT")

# (words that the type holds, fill, border); the first that fits
_FAMILIES: Final = (
    (("Loss", "Accuracy"), "#F9D9D6", "#C0392B"),
    (("Data", "Input"), "#E6E9ED", "#5D6D7E"),
    (("Convolution", "Im2col"), "#D6E6F5", "#2471A3"),
    (("InnerProduct", "LSTM", "RNN", "Embed"), "#E5DBF2", "#6C3483"),
    (("Pooling", "SPP", "Upsample", "Interp"), "#FBE9C8", "#B9770E"),
    (("ReLU", "Sigmoid", "TanH", "ELU", "PReLU", "BNLL", "Swish", "Dropout"), "#DCEFDC", "#27824A"),
    (("Norm", "LRN", "MVN", "Scale", "Bias"), "#D5EFEC", "#117A65"),
)
_OTHERS: Final = ("#F4F4F4", "#777777")


def dot_of(net: pb.NetParameter, layers: Sequence[pb.LayerParameter], rankdir: str) -> str:
    """The graph of these layers of a net.

    A layer in place stands behind the one whose blob it changes. A blob that two layers make, each in its
    phase, has an arrow from both. Blobs that nobody reads are drawn as ellipses.
    """
    lines = [
        f"digraph {quoted(net.name or 'net')} {{",
        f"  rankdir={rankdir};",
        '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=11, margin="0.14,0.08"];',
        '  edge [color="#666666", fontname="Helvetica", fontsize=9, fontcolor="#555555", arrowsize=0.7];',
    ]
    makers: dict[str, list[int]] = {}
    unread: dict[tuple[int, str], None] = {}
    for index, layer in enumerate(layers):
        fill, border = colours(layer.type)
        lines.append(f'  l{index} [label={label_of(layer)}, fillcolor="{fill}", color="{border}"];')
        for name in layer.bottom:
            for maker in makers.get(name, ()):
                unread.pop((maker, name), None)
                text = "" if name == layers[maker].name else f" [label={quoted(name)}]"
                lines.append(f"  l{maker} -> l{index}{text};")
        for name in layer.top:
            makers[name] = [index] if name in layer.bottom else [*makers.get(name, ()), index]
            unread[index, name] = None
    for place, (maker, name) in enumerate(unread):
        lines.append(f'  b{place} [label={quoted(name)}, shape=ellipse, fillcolor="#FFFFFF"];')
        lines.append(f"  l{maker} -> b{place};")
    return "\n".join([*lines, "}", ""])


def colours(type_name: str) -> tuple[str, str]:
    """Fill and border of a layer type's family."""
    for words, fill, border in _FAMILIES:
        if any(word in type_name for word in words):
            return fill, border
    return _OTHERS


def label_of(layer: pb.LayerParameter) -> str:
    """Name, type, and the numbers that tell two layers of a type apart."""
    return quoted("\n".join([layer.name, layer.type, *details(layer)]))


def details(layer: pb.LayerParameter) -> list[str]:
    """Window and outputs, where the layer has them."""
    if layer.HasField("convolution_param"):
        conv = layer.convolution_param
        return [
            window(conv.kernel_size, conv.kernel_h, conv.kernel_w)
            + extra("stride", conv.stride, conv.stride_h, conv.stride_w, 1)
            + extra("pad", conv.pad, conv.pad_h, conv.pad_w, 0)
            + extra("dilation", conv.dilation, 0, 0, 1)
            + (f", group {conv.group}" if conv.group > 1 else ""),
            f"{conv.num_output} outputs",
        ]
    if layer.HasField("pooling_param"):
        pool = layer.pooling_param
        kind = pb.PoolingParameter.PoolMethod.Name(pool.pool)
        if pool.global_pooling:
            return [f"{kind}, global"]
        sizes = [pool.kernel_size] if pool.kernel_size else []
        return [
            f"{kind} {window(sizes, pool.kernel_h, pool.kernel_w)}"
            + extra("stride", [pool.stride], pool.stride_h, pool.stride_w, 1)
            + extra("pad", [pool.pad], pool.pad_h, pool.pad_w, 0)
        ]
    if layer.HasField("inner_product_param"):
        return [f"{layer.inner_product_param.num_output} outputs"]
    if layer.HasField("recurrent_param"):
        return [f"{layer.recurrent_param.num_output} outputs"]
    if layer.HasField("dropout_param"):
        return [f"ratio {layer.dropout_param.dropout_ratio:g}"]
    return []


def window(sizes: Sequence[int], height: int, width: int) -> str:
    """ "3 x 3" of kernel_size: 3, of two sizes, or of kernel_h and kernel_w."""
    if height or width:
        return f"{height} x {width}"
    if len(sizes) == 1:
        return f"{sizes[0]} x {sizes[0]}"
    return " x ".join(map(str, sizes)) or "no kernel"


def extra(word: str, values: Sequence[int], height: int, width: int, default: int) -> str:
    """ ", stride 2" unless it is the default everywhere."""
    given = [height, width] if height or width else list(values)
    if all(value == default for value in given):
        return ""
    return f", {word} {given[0] if len(set(given)) == 1 else ' x '.join(map(str, given))}"


def quoted(text: str) -> str:
    """A string of the language; a line break is one in the label."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
