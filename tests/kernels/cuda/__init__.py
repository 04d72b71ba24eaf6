"""The CUDA kernels and operators, proven without a GPU."""
