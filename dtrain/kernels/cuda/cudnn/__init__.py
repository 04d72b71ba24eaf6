"""Operators that cuDNN computes, for engines CUDNN and DEFAULT: the same classes as in kernels/cuda."""
