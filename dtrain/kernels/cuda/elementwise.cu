// Functions of one value: y = f(x), dx = dy f'(x). y may be x, and dx may be dy.
#include "kernel.cuh"

static __device__ Real sign(Real x) { return x != x ? x : (Real)((x > 0) - (x < 0)); }
static __device__ Real logistic(Real x) { return (Real)0.5 * tanh((Real)0.5 * x) + (Real)0.5; }  // cannot overflow
static __device__ Real positive(Real x) { return x > 0 || x != x ? x : (Real)0; }
static __device__ Real negative(Real x) { return x < 0 || x != x ? x : (Real)0; }

extern "C" __global__ void fill_index(Index n, int* y, int value) {
    FOR_EACH(i, n) y[i] = value;
}

extern "C" __global__ void scale_by(Index n, const Real* x, Real* y, Real factor) {
    FOR_EACH(i, n) y[i] = factor * x[i];
}

extern "C" __global__ void relu_forward(Index n, const Real* x, Real* y, Real slope) {
    FOR_EACH(i, n) {
        Real v = x[i];
        y[i] = v > 0 || v != v ? v : slope * v;
    }
}

extern "C" __global__ void relu_backward(Index n, const Real* dy, const Real* x, Real* dx, Real slope) {
    FOR_EACH(i, n) dx[i] = dy[i] * (x[i] > 0 ? (Real)1 : slope);
}

extern "C" __global__ void relu6_forward(Index n, const Real* x, Real* y) {
    FOR_EACH(i, n) {
        Real v = positive(x[i]);
        y[i] = v > 6 ? (Real)6 : v;
    }
}

extern "C" __global__ void relu6_backward(Index n, const Real* dy, const Real* y, Real* dx) {
    FOR_EACH(i, n) dx[i] = dy[i] * (Real)(y[i] > 0 && y[i] < 6);
}

extern "C" __global__ void elu_forward(Index n, const Real* x, Real* y, Real alpha, Real scale) {
    FOR_EACH(i, n) {
        Real v = x[i];
        y[i] = scale * (positive(v) + alpha * expm1(negative(v)));
    }
}

extern "C" __global__ void elu_backward(
    Index n, const Real* dy, const Real* x, const Real* y, Real* dx, Real alpha, Real scale) {
    FOR_EACH(i, n) dx[i] = dy[i] * (x[i] > 0 ? scale : y[i] + alpha * scale);
}

extern "C" __global__ void sigmoid_forward(Index n, const Real* x, Real* y) {
    FOR_EACH(i, n) y[i] = logistic(x[i]);
}

extern "C" __global__ void sigmoid_backward(Index n, const Real* dy, const Real* y, Real* dx) {
    FOR_EACH(i, n) dx[i] = dy[i] * (y[i] * (1 - y[i]));
}

extern "C" __global__ void tanh_forward(Index n, const Real* x, Real* y) {
    FOR_EACH(i, n) y[i] = tanh(x[i]);
}

extern "C" __global__ void tanh_backward(Index n, const Real* dy, const Real* y, Real* dx) {
    FOR_EACH(i, n) dx[i] = dy[i] * (1 - y[i] * y[i]);
}

extern "C" __global__ void swish_forward(Index n, const Real* x, Real* y, Real beta) {
    FOR_EACH(i, n) y[i] = x[i] * logistic(beta * x[i]);
}

extern "C" __global__ void swish_backward(
    Index n, const Real* dy, const Real* x, const Real* y, Real* dx, Real beta) {
    FOR_EACH(i, n) {
        Real scaled = beta * y[i];
        dx[i] = dy[i] * (scaled + logistic(beta * x[i]) * (1 - scaled));
    }
}

extern "C" __global__ void bnll_forward(Index n, const Real* x, Real* y) {
    FOR_EACH(i, n) y[i] = log1p(exp(-fabs(x[i]))) + positive(x[i]);
}

extern "C" __global__ void bnll_backward(Index n, const Real* dy, const Real* x, Real* dx) {
    FOR_EACH(i, n) dx[i] = dy[i] * logistic(x[i]);
}

extern "C" __global__ void abs_forward(Index n, const Real* x, Real* y) {
    FOR_EACH(i, n) y[i] = fabs(x[i]);
}

extern "C" __global__ void abs_backward(Index n, const Real* dy, const Real* x, Real* dx) {
    FOR_EACH(i, n) dx[i] = dy[i] * sign(x[i]);
}

extern "C" __global__ void exp_forward(Index n, const Real* x, Real* y, Real inner, Real outer) {
    FOR_EACH(i, n) y[i] = outer * exp(inner * x[i]);
}

extern "C" __global__ void exp_backward(Index n, const Real* dy, const Real* y, Real* dx, Real inner) {
    FOR_EACH(i, n) dx[i] = dy[i] * y[i] * inner;
}

extern "C" __global__ void log_forward(Index n, const Real* x, Real* y, Real outer, Real scale, Real shift) {
    FOR_EACH(i, n) y[i] = outer * log(scale * x[i] + shift);
}

extern "C" __global__ void log_backward(
    Index n, const Real* dy, const Real* x, Real* dx, Real factor, Real scale, Real shift) {
    FOR_EACH(i, n) dx[i] = dy[i] * (factor / (scale * x[i] + shift));
}

extern "C" __global__ void power_forward(Index n, const Real* x, Real* y, Real power, Real scale, Real shift) {
    FOR_EACH(i, n) {
        Real base = scale * x[i] + shift;
        y[i] = power == 1 ? base : pow(base, power);
    }
}

extern "C" __global__ void power_backward(
    Index n, const Real* dy, const Real* x, Real* dx, Real factor, Real exponent, Real scale, Real shift) {
    FOR_EACH(i, n) {
        Real slope = factor;
        if (exponent != 0) slope *= pow(scale * x[i] + shift, exponent);
        dx[i] = factor == 0 ? (Real)0 : dy[i] * slope;
    }
}

extern "C" __global__ void clip_forward(Index n, const Real* x, Real* y, Real low, Real high) {
    FOR_EACH(i, n) {
        Real v = x[i];
        v = v < low ? low : v;
        y[i] = v > high ? high : v;
    }
}

extern "C" __global__ void clip_backward(Index n, const Real* dy, const Real* x, Real* dx, Real low, Real high) {
    FOR_EACH(i, n) dx[i] = dy[i] * (Real)(x[i] >= low && x[i] <= high);
}

extern "C" __global__ void threshold_forward(Index n, const Real* x, Real* y, Real threshold) {
    FOR_EACH(i, n) y[i] = (Real)(x[i] > threshold);
}
