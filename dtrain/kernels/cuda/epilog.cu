// What follows a matrix product where the library that computed it does not do so itself.
#include "kernel.cuh"

// y (rows, columns) += bias (columns,), which may be absent; then, with `relu`, what is negative becomes 0.
extern "C" __global__ void bias_relu(Index n, Value* y, const Value* bias, Index columns, Index relu) {
    FOR_EACH(i, n) {
        Real v = (Real)y[i];
        if (bias) v += (Real)bias[i % columns];
        y[i] = (Value)(relu && v < 0 ? (Real)0 : v);
    }
}
