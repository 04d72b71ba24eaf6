"""The GPU: CUDA C++ kernels (.cu) and the operators that launch them, the same ones as in kernels/cpu."""
