// What cuDNN leaves to kernels: a bias and a ReLU where no graph has them, and gradients of parameters.
#include "kernel.cuh"

// y += bias of the channel, which may be absent; then, with `relu`, what is negative becomes 0.
extern "C" __global__ void finish_image(
    Index n, Value* y, const Real* bias, Index channels, Index inner, Index relu) {
    FOR_EACH(i, n) {
        const Real v = (Real)y[i] + (bias ? bias[i / inner % channels] : (Real)0);
        y[i] = (Value)(relu && v < 0 ? (Real)0 : v);
    }
}

// total = x, or, with `add`, what is there and x.
extern "C" __global__ void add_widened(Index n, const Value* x, Real* total, Index add) {
    FOR_EACH(i, n) total[i] = add ? total[i] + (Real)x[i] : (Real)x[i];
}
