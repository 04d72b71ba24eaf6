"""Names and values of oneDNN's C interface. Source: dnnl_types.h and dnnl_common_types.h, version 3."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

MAX_DIMS = 12
MAX_PLAIN_DIMS = 6  # with a tag of their own
Dims: TypeAlias = tuple[int, ...]

F32 = 3
ANY = 1
PLAIN_TAG = {1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7}
CHANNELS_LAST_TAG = {4: 22}

FORWARD_TRAINING, FORWARD_INFERENCE, BACKWARD, BACKWARD_DATA = 64, 96, 128, 160
CONVOLUTION_DIRECT, DECONVOLUTION_DIRECT = 1, 4
ELTWISE_RELU, ELTWISE_RELU_FROM_DST = 32, 256
POOLING_MAX, POOLING_AVG_INCLUDE_PADDING, POOLING_AVG_EXCLUDE_PADDING = 511, 767, 1023
LRN_ACROSS_CHANNELS, LRN_WITHIN_CHANNEL = 2815, 3071
BINARY_ADD, BINARY_MUL = 131056, 131057
UNIMPLEMENTED = 3


class Arg(IntEnum):
    """Which argument of a primitive a memory is."""

    SRC = 1
    SRC_1 = 2
    DST = 17
    WEIGHTS = 33
    BIAS = 41
    MEAN = 49
    VARIANCE = 50
    SCALE = 51
    SHIFT = 52
    WORKSPACE = 64
    SCRATCHPAD = 80
    DIFF_SRC = 129
    DIFF_DST = 145
    DIFF_WEIGHTS = 161
    DIFF_BIAS = 169
    DIFF_SCALE = 255
    DIFF_SHIFT = 256
    MULTIPLE_SRC = 1024


class Query(IntEnum):
    """What a primitive descriptor is asked for."""

    IMPLEMENTATION = 8
    SRC = 129
    DIFF_SRC = 130
    WEIGHTS = 131
    DIFF_WEIGHTS = 132
    DST = 133
    DIFF_DST = 134
    WORKSPACE = 135
    SCRATCHPAD = 136
