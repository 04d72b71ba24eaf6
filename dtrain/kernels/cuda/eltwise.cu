// Functions of several arrays of one shape.
#include "kernel.cuh"

// y = a x + b y, without looking at y where b is 0. x may be y.
extern "C" __global__ void add_scaled(Index n, const Real* x, Real* y, Real a, Real b) {
    FOR_EACH(i, n) {
        Real v = a * x[i];
        y[i] = b == 0 ? v : v + b * y[i];
    }
}

// y = c0 x0 + c1 x1 + ... of `count` arrays; then, with `relu`, what is negative becomes 0. y may be any x.
extern "C" __global__ void weighted_sum_of(
    Index n, int count, const Value* x0, const Value* x1, const Value* x2, const Value* x3, Value* y, Real c0,
    Real c1, Real c2, Real c3, int relu) {
    const auto end = [=](Real sum) { return relu && sum < 0 ? (Real)0 : sum; };
    if (count == 1)
        map(n, y, [=](Real a) { return end(c0 * a); }, x0);
    else if (count == 2)
        map(n, y, [=](Real a, Real b) { return end(c0 * a + c1 * b); }, x0, x1);
    else if (count == 3)
        map(n, y, [=](Real a, Real b, Real c) { return end(c0 * a + c1 * b + c2 * c); }, x0, x1, x2);
    else
        map(n, y, [=](Real a, Real b, Real c, Real d) { return end(c0 * a + c1 * b + c2 * c + c3 * d); }, x0, x1, x2,
            x3);
}

template <class... D>
static __device__ void rectified(
    Index n, const Value* y, Value* dx0, Value* dx1, Real c0, Real c1, const D*... dy) {
    const bool aligned = is_aligned(y) && is_aligned(dx0) && is_aligned(dx1) && (is_aligned(dy) && ...);
    const Index packs = aligned ? n / TOGETHER : 0;
    FOR_EACH(i, packs) {
        const Index at = i * TOGETHER;
        const auto first = [=](Real y, auto... dy) { return y > 0 ? c0 * (dy + ...) : (Real)0; };
        const auto second = [=](Real y, auto... dy) { return y > 0 ? c1 * (dy + ...) : (Real)0; };
        const auto both = [&](const auto&... here) {
            map_pack<TOGETHER>(dx0 + at, first, here...);
            if (dx1) map_pack<TOGETHER>(dx1 + at, second, here...);
        };
        both(load<TOGETHER>(y + at), load<TOGETHER>(dy + at)...);
    }
    FOR_EACH(i, n - packs * TOGETHER) {
        const Index at = packs * TOGETHER + i;
        const Real sum = (Real)y[at] > 0 ? ((Real)dy[at] + ...) : (Real)0;
        dx0[at] = (Value)(c0 * sum);
        if (dx1) dx1[at] = (Value)(c1 * sum);
    }
}

// dx0 = c0 (d0 + d1 + ...) of `count` arrays where y > 0, else 0; dx1 likewise, if it is there. Each may be any of
// them.
extern "C" __global__ void rectified_sum_backward(
    Index n, int count, const Value* d0, const Value* d1, const Value* d2, const Value* d3, const Value* y, Value* dx0,
    Value* dx1, Real c0, Real c1) {
    if (count == 1)
        rectified(n, y, dx0, dx1, c0, c1, d0);
    else if (count == 2)
        rectified(n, y, dx0, dx1, c0, c1, d0, d1);
    else if (count == 3)
        rectified(n, y, dx0, dx1, c0, c1, d0, d1, d2);
    else
        rectified(n, y, dx0, dx1, c0, c1, d0, d1, d2, d3);
}

// z = x y; z may be x or y.
extern "C" __global__ void multiply(Index n, const Value* x, const Value* y, Value* z) {
    map(n, z, [](Real x, Real y) { return x * y; }, x, y);
}

// dx = dy y / x, not a number where x is 0.
extern "C" __global__ void product_backward(Index n, const Value* dy, const Value* y, const Value* x, Value* dx) {
    map(n, dx, [](Real dy, Real y, Real x) { return y / x * dy; }, dy, y, x);
}

// The maximum of the first two; `index` says which, the second if they are equal.
extern "C" __global__ void maximum_first(Index n, const Value* x0, const Value* x1, Value* y, int* index) {
    FOR_EACH(i, n) {
        const Real a = x0[i], b = x1[i];
        index[i] = a <= b;
        y[i] = (Value)(a >= b || a != a ? a : b);
    }
}

// A further bottom, which counts where it is greater.
extern "C" __global__ void maximum_next(Index n, const Value* x, Value* y, int* index, Index number) {
    FOR_EACH(i, n) {
        if ((Real)x[i] > (Real)y[i]) {
            y[i] = x[i];
            index[i] = (int)number;
        }
    }
}

extern "C" __global__ void maximum_backward(Index n, const Value* dy, const int* index, Value* dx, Index number) {
    FOR_EACH(i, n) dx[i] = index[i] == number ? dy[i] : (Value)(Real)0;
}
