"""Nets in files, as scripts have them."""

from __future__ import annotations

from pathlib import Path

SIMPLE = """
name: "testnet" force_backward: true
layer { type: "DummyData" name: "data" top: "data" top: "label"
  dummy_data_param { shape { dim: 5 dim: 2 dim: 3 dim: 4 } shape { dim: 5 }
    data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" } } }
layer { type: "Convolution" name: "conv" bottom: "data" top: "conv"
  param { decay_mult: 1 } param { decay_mult: 0 }
  convolution_param { num_output: 11 kernel_size: 2 pad: 3
    weight_filler { type: "gaussian" std: 1 } bias_filler { type: "constant" value: 2 } } }
layer { type: "InnerProduct" name: "ip" bottom: "conv" top: "ip_blob"
  inner_product_param { num_output: 13
    weight_filler { type: "gaussian" std: 2.5 } bias_filler { type: "constant" value: -3 } } }
layer { type: "SoftmaxWithLoss" name: "loss" bottom: "ip_blob" bottom: "label" top: "loss" }
"""

# Large enough for oneDNN to choose layouts of its own.
IMAGES = """
name: "images" force_backward: true
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 12 dim: 12 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 16 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  convolution_param { num_output: 32 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "fc" type: "InnerProduct" bottom: "conv2" top: "fc"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""

# `data` and `label` are filled by the script; one more net of it tests.
TRAINED = """
name: "trained"
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 8 dim: 6 } shape { dim: 8 } } }
layer { name: "hidden" type: "InnerProduct" bottom: "data" top: "hidden"
  inner_product_param { num_output: 16 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "hidden" top: "hidden" }
layer { name: "score" type: "InnerProduct" bottom: "hidden" top: "score"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "score" bottom: "label" top: "accuracy"
  include { phase: TEST } }
"""


def write_net(folder: Path, text: str, name: str = "net.prototxt") -> str:
    """The file's name."""
    path = folder / name
    path.write_text(text)
    return str(path)


def write_solver(folder: Path, net: str, rest: str = "") -> str:
    """A solver of the net in that file; fields in `rest` take the place of those here."""
    fields = {
        "net": f'"{net}"',
        "test_iter": "2",
        "test_interval": "1000",
        "test_initialization": "false",
        "base_lr": "0.1",
        "momentum": "0.9",
        "lr_policy": '"fixed"',
        "max_iter": "20",
        "snapshot_after_train": "false",
        "snapshot_prefix": f'"{folder / "model"}"',
        "random_seed": "1",
    }
    for line in rest.split(";"):
        if line.strip():
            key, _, value = line.partition(":")
            fields[key.strip()] = value.strip()
    path = folder / "solver.prototxt"
    path.write_text("\n".join(f"{key}: {value}" for key, value in fields.items()))
    return str(path)
