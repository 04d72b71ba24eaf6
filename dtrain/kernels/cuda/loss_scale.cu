// The factor of all gradients on their way back, which lies in the device's memory.
#include "kernel.cuh"

extern "C" __global__ void apply_loss_scale(Index n, Value* x, const double* state) {
    const Real scale = (Real)state[0];
    FOR_EACH(i, n) x[i] = (Value)((Real)x[i] * scale);
}
