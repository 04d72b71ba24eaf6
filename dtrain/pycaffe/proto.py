"""`caffe.proto.caffe_pb2`: the messages, all of Caffe's among them."""

from __future__ import annotations

from dtrain.proto import dtrain_pb2 as caffe_pb2

__all__ = ["caffe_pb2"]
