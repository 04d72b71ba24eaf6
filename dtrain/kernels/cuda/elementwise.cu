// Functions of one value: y = f(x), dx = dy f'(x). y may be x, and dx may be dy.
#include "kernel.cuh"

static __device__ Real sign(Real x) { return x != x ? x : (Real)((x > 0) - (x < 0)); }
static __device__ Real logistic(Real x) { return (Real)0.5 * tanh((Real)0.5 * x) + (Real)0.5; }  // cannot overflow
static __device__ Real positive(Real x) { return x > 0 || x != x ? x : (Real)0; }
static __device__ Real negative(Real x) { return x < 0 || x != x ? x : (Real)0; }

extern "C" __global__ void fill_index(Index n, int* y, int value) {
    FOR_EACH(i, n) y[i] = value;
}

extern "C" __global__ void relu_forward(Index n, const Value* x, Value* y, Real slope) {
    map(n, y, [=](Real x) { return x > 0 || x != x ? x : slope * x; }, x);
}

extern "C" __global__ void relu_backward(Index n, const Value* dy, const Value* x, Value* dx, Real slope) {
    map(n, dx, [=](Real dy, Real x) { return dy * (x > 0 ? (Real)1 : slope); }, dy, x);
}

extern "C" __global__ void relu6_forward(Index n, const Value* x, Value* y) {
    map(n, y, [](Real x) { return x > 6 ? (Real)6 : positive(x); }, x);
}

extern "C" __global__ void relu6_backward(Index n, const Value* dy, const Value* y, Value* dx) {
    map(n, dx, [](Real dy, Real y) { return dy * (Real)(y > 0 && y < 6); }, dy, y);
}

extern "C" __global__ void elu_forward(Index n, const Value* x, Value* y, Real alpha, Real scale) {
    map(n, y, [=](Real x) { return scale * (positive(x) + alpha * expm1(negative(x))); }, x);
}

extern "C" __global__ void elu_backward(
    Index n, const Value* dy, const Value* x, const Value* y, Value* dx, Real alpha, Real scale) {
    map(n, dx, [=](Real dy, Real x, Real y) { return dy * (x > 0 ? scale : y + alpha * scale); }, dy, x, y);
}

extern "C" __global__ void sigmoid_forward(Index n, const Value* x, Value* y) {
    map(n, y, [](Real x) { return logistic(x); }, x);
}

extern "C" __global__ void sigmoid_backward(Index n, const Value* dy, const Value* y, Value* dx) {
    map(n, dx, [](Real dy, Real y) { return dy * (y * (1 - y)); }, dy, y);
}

extern "C" __global__ void tanh_forward(Index n, const Value* x, Value* y) {
    map(n, y, [](Real x) { return tanh(x); }, x);
}

extern "C" __global__ void tanh_backward(Index n, const Value* dy, const Value* y, Value* dx) {
    map(n, dx, [](Real dy, Real y) { return dy * (1 - y * y); }, dy, y);
}

extern "C" __global__ void swish_forward(Index n, const Value* x, Value* y, Real beta) {
    map(n, y, [=](Real x) { return x * logistic(beta * x); }, x);
}

extern "C" __global__ void swish_backward(
    Index n, const Value* dy, const Value* x, const Value* y, Value* dx, Real beta) {
    const auto slope = [=](Real dy, Real x, Real y) {
        const Real scaled = beta * y;
        return dy * (scaled + logistic(beta * x) * (1 - scaled));
    };
    map(n, dx, slope, dy, x, y);
}

extern "C" __global__ void bnll_forward(Index n, const Value* x, Value* y) {
    map(n, y, [](Real x) { return log1p(exp(-fabs(x))) + positive(x); }, x);
}

extern "C" __global__ void bnll_backward(Index n, const Value* dy, const Value* x, Value* dx) {
    map(n, dx, [](Real dy, Real x) { return dy * logistic(x); }, dy, x);
}

extern "C" __global__ void abs_forward(Index n, const Value* x, Value* y) {
    map(n, y, [](Real x) { return fabs(x); }, x);
}

extern "C" __global__ void abs_backward(Index n, const Value* dy, const Value* x, Value* dx) {
    map(n, dx, [](Real dy, Real x) { return dy * sign(x); }, dy, x);
}

extern "C" __global__ void exp_forward(Index n, const Value* x, Value* y, Real inner, Real outer) {
    map(n, y, [=](Real x) { return outer * exp(inner * x); }, x);
}

extern "C" __global__ void exp_backward(Index n, const Value* dy, const Value* y, Value* dx, Real inner) {
    map(n, dx, [=](Real dy, Real y) { return dy * y * inner; }, dy, y);
}

extern "C" __global__ void log_forward(Index n, const Value* x, Value* y, Real outer, Real scale, Real shift) {
    map(n, y, [=](Real x) { return outer * log(scale * x + shift); }, x);
}

extern "C" __global__ void log_backward(
    Index n, const Value* dy, const Value* x, Value* dx, Real factor, Real scale, Real shift) {
    map(n, dx, [=](Real dy, Real x) { return dy * (factor / (scale * x + shift)); }, dy, x);
}

extern "C" __global__ void power_forward(Index n, const Value* x, Value* y, Real power, Real scale, Real shift) {
    const auto raised = [=](Real x) {
        const Real base = scale * x + shift;
        return power == 1 ? base : pow(base, power);
    };
    map(n, y, raised, x);
}

extern "C" __global__ void power_backward(
    Index n, const Value* dy, const Value* x, Value* dx, Real factor, Real exponent, Real scale, Real shift) {
    const auto slope = [=](Real dy, Real x) {
        const Real raised = exponent == 0 ? factor : factor * pow(scale * x + shift, exponent);
        return factor == 0 ? (Real)0 : dy * raised;
    };
    map(n, dx, slope, dy, x);
}

extern "C" __global__ void clip_forward(Index n, const Value* x, Value* y, Real low, Real high) {
    const auto clipped = [=](Real x) {
        const Real raised = x < low ? low : x;
        return raised > high ? high : raised;
    };
    map(n, y, clipped, x);
}

extern "C" __global__ void clip_backward(
    Index n, const Value* dy, const Value* x, Value* dx, Real low, Real high) {
    map(n, dx, [=](Real dy, Real x) { return dy * (Real)(x >= low && x <= high); }, dy, x);
}

extern "C" __global__ void threshold_forward(Index n, const Value* x, Value* y, Real threshold) {
    map(n, y, [=](Real x) { return (Real)(x > threshold); }, x);
}
