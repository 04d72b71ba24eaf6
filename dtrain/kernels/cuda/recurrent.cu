// Recurrent units: c = cont s(f) c_prev + s(i) tanh(g), h = s(o) tanh(c); gates lie in the order i, f, o, g.
#include "kernel.cuh"

static __device__ Real logistic(Real x) { return (Real)0.5 * tanh((Real)0.5 * x) + (Real)0.5; }

// y = cont x for rows of `width`; y may be x.
extern "C" __global__ void scale_streams(Index n, const Real* x, const Real* cont, Real* y, Index width) {
    FOR_EACH(i, n) y[i] = cont[i / width] * x[i];
}

// n counts units of all streams, `width` those of one; `activated` may be `gates`.
extern "C" __global__ void lstm_forward(
    Index n, const Real* c_prev, const Real* gates, const Real* cont, Real* activated, Real* c, Real* h, Index width) {
    FOR_EACH(k, n) {
        const Index stream = k / width, at = stream * 4 * width + (k - stream * width);
        const Real i = logistic(gates[at]), f = logistic(gates[at + width]);
        const Real o = logistic(gates[at + 2 * width]), g = tanh(gates[at + 3 * width]);
        activated[at] = i;
        activated[at + width] = f;
        activated[at + 2 * width] = o;
        activated[at + 3 * width] = g;
        const Real state = cont[stream] * f * c_prev[k] + i * g;
        c[k] = state;
        h[k] = o * tanh(state);
    }
}

// dh is dy + h_diff, either of which may be absent, and so may be c_diff, gates_diff and c_prev_diff, which may be
// c_diff.
extern "C" __global__ void lstm_backward(
    Index n, const Real* c_prev, const Real* activated, const Real* cont, const Real* c, const Real* c_diff,
    const Real* dy, const Real* h_diff, Real* gates_diff, Real* c_prev_diff, Index width) {
    FOR_EACH(k, n) {
        const Index stream = k / width, at = stream * 4 * width + (k - stream * width);
        const Real i = activated[at], f = activated[at + width], o = activated[at + 2 * width];
        const Real g = activated[at + 3 * width], t = tanh(c[k]);
        const Real dh = (dy ? dy[k] : (Real)0) + (h_diff ? h_diff[k] : (Real)0);
        const Real dc = (c_diff ? c_diff[k] : (Real)0) + dh * o * (1 - t * t);
        if (gates_diff) {
            gates_diff[at] = dc * g * i * (1 - i);
            gates_diff[at + width] = dc * c_prev[k] * cont[stream] * f * (1 - f);
            gates_diff[at + 2 * width] = dh * t * o * (1 - o);
            gates_diff[at + 3 * width] = dc * i * (1 - g * g);
        }
        if (c_prev_diff) c_prev_diff[k] = dc * cont[stream] * f;
    }
}

extern "C" __global__ void tanh_in_place(Index n, Real* x) {
    FOR_EACH(i, n) x[i] = tanh(x[i]);
}

// dx = (dy + more) (1 - y^2); `more` may be absent, dx may be dy.
extern "C" __global__ void tanh_slope(Index n, const Real* dy, const Real* more, const Real* y, Real* dx) {
    FOR_EACH(i, n) dx[i] = (more ? dy[i] + more[i] : dy[i]) * (1 - y[i] * y[i]);
}
