"""`dtrain convert_imageset`: `dtrain convert imageset` by the name of Caffe's tool."""

from __future__ import annotations

from dtrain.cli.app import app
from dtrain.cli.convert_command import imageset

app.command(name="convert_imageset", short_help="The same as convert imageset.")(imageset)
