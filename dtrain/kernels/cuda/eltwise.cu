// Functions of several arrays of one shape.
#include "kernel.cuh"

// y = a x + b y, without looking at y where b is 0. x may be y.
extern "C" __global__ void add_scaled(Index n, const Real* x, Real* y, Real a, Real b) {
    FOR_EACH(i, n) {
        Real v = a * x[i];
        y[i] = b == 0 ? v : v + b * y[i];
    }
}

// z = a x + b y: the common case in one pass. z may be x or y.
extern "C" __global__ void add_two(Index n, const Real* x, const Real* y, Real* z, Real a, Real b) {
    FOR_EACH(i, n) z[i] = a * x[i] + b * y[i];
}

// z = x y; z may be x or y.
extern "C" __global__ void multiply(Index n, const Real* x, const Real* y, Real* z) {
    FOR_EACH(i, n) z[i] = x[i] * y[i];
}

// dx = dy y / x, not a number where x is 0.
extern "C" __global__ void product_backward(Index n, const Real* dy, const Real* y, const Real* x, Real* dx) {
    FOR_EACH(i, n) dx[i] = y[i] / x[i] * dy[i];
}

// The maximum of the first two; `index` says which, the second if they are equal.
extern "C" __global__ void maximum_first(Index n, const Real* x0, const Real* x1, Real* y, int* index) {
    FOR_EACH(i, n) {
        Real a = x0[i], b = x1[i];
        index[i] = a <= b;
        y[i] = a >= b || a != a ? a : b;
    }
}

// A further bottom, which counts where it is greater.
extern "C" __global__ void maximum_next(Index n, const Real* x, Real* y, int* index, Index number) {
    FOR_EACH(i, n) {
        if (x[i] > y[i]) {
            y[i] = x[i];
            index[i] = (int)number;
        }
    }
}

extern "C" __global__ void maximum_backward(Index n, const Real* dy, const int* index, Real* dx, Index number) {
    FOR_EACH(i, n) dx[i] = dy[i] * (Real)(index[i] == number);
}
