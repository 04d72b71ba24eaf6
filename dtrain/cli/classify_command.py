"""`dtrain classify NET WEIGHTS MEAN LABELS IMAGE...`: the most probable labels of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer

from dtrain.cli import options as o
from dtrain.cli.app import app
from dtrain.cli.device import choose_backend
from dtrain.cli.inputs import read_model
from dtrain.cli.job import refuse_ranks
from dtrain.cli.report.prediction import channel_means, input_of, predict, read_labels
from dtrain.cli.test_command import load_all
from dtrain.comm.single import SingleCommunicator
from dtrain.errors import ConfigError
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb

TOP: Final = 5

NetFile = Annotated[str, typer.Argument(metavar="NET", help="A deploy prototxt: one Input, one output.")]
WeightsFile = Annotated[
    str, typer.Argument(metavar="WEIGHTS", help="One or more .caffemodel files, comma-separated.")
]
Mean = Annotated[
    str, typer.Argument(metavar="MEAN", help="A mean .binaryproto, or values such as 104,117,123, or 0.")
]
Labels = Annotated[Path, typer.Argument(metavar="LABELS", help="A text file, one label a line.")]
Images = Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Files that OpenCV decodes.")]
Top = Annotated[int, typer.Option("--top", metavar="N", help="How many labels to tell.")]


@app.command(short_help="Tell the most probable labels of images.")
def classify(
    net: NetFile,
    weights: WeightsFile,
    mean: Mean,
    labels: Labels,
    images: Images,
    top: Top = TOP,
    gpu: o.Gpu = None,
    cpu: o.Cpu = False,
    threads: o.Threads = None,
    engine: o.Engine = "DEFAULT",
    precision: o.Precision = "",
) -> None:
    """Tell the most probable labels of each image, as Caffe's cpp_classification does."""
    refuse_ranks("classify")
    if top < 1:
        raise ConfigError(f"--top must be at least 1, got {top}")
    spec = read_model(net, pb.TEST, 0, ())
    alone = SingleCommunicator()
    backend = choose_backend(
        None, alone, gpu=gpu, cpu=cpu, threads=threads, engine=engine, precision=precision
    )
    built = Net(spec.param, Scope(backend, pb.TEST, rng=np.random.default_rng(0)), source=spec.source)
    data = input_of(built, net)
    load_all(built, o.split(weights))
    means = channel_means(mean, data.shape[1])
    words = read_labels(labels)
    for image in images:
        scores = predict(built, data, means, image)
        if len(words) != len(scores):
            raise ConfigError(
                f'{labels}: labels must number as the values of "{built.outputs[0]}" ({len(scores)}), '
                f"got {len(words)}"
            )
        typer.echo(f"---------- Prediction for {image} ----------")
        for place in np.argsort(-scores, kind="stable")[:top]:
            typer.echo(f'{scores[place]:.4f} - "{words[place]}"')
