// One step of an update rule over the flat buffers in one pass. A block takes a chunk, which lies within one
// parameter: begins, ends and owners tell where and whose. What changes from step to step lies in the device's memory, so
// that a captured launch can be replayed: `numbers` are lr and the rule's constants, `counts` the ranks and passes that
// gradients are sums over, `control` a further factor of the gradients and whether the step is to be taken. The formulas
// are those of dtrain.solvers.rules.
#include "kernel.cuh"

struct Chunk {
    Index begin, end;
    Real lr, decay, scale;
    bool l1;
    __device__ Chunk(
        const long long* begins, const long long* ends, const int* owners, const Real* lr_mults, const Real* decays,
        const Real* numbers, const double* counts, const double* control, Index use_l1) {
        const int owner = owners[blockIdx.x];
        begin = (Index)begins[blockIdx.x];
        end = control[1] != 0 ? (Index)ends[blockIdx.x] : begin;
        lr = numbers[0] * lr_mults[owner];
        decay = decays[owner];
        scale = (Real)(control[0] / (counts[1] * counts[0]));
        l1 = use_l1 != 0;
    }
    __device__ Real gradient(Real g, Real w) const {
        return scale * g + decay * (l1 ? (Real)((w > 0) - (w < 0)) : w);
    }
};

#define CHUNK_TABLES                                                                                           \
    const long long *begins, const long long *ends, const int *owners, const Real *lr_mults, const Real *decays, \
        const Real *numbers, const double *counts, const double *control, Index l1
#define FOR_CHUNK(i)                                                      \
    const Chunk chunk(begins, ends, owners, lr_mults, decays, numbers, counts, control, l1); \
    const Real* p = numbers + 1;                                          \
    for (Index i = chunk.begin + threadIdx.x; i < chunk.end; i += blockDim.x)

extern "C" __global__ void sgd(Real* w, const Real* g, Real* h, CHUNK_TABLES) {
    FOR_CHUNK(i) {
        const Real step = p[0] * h[i] + chunk.lr * chunk.gradient(g[i], w[i]);
        h[i] = step;
        w[i] -= step;
    }
}

extern "C" __global__ void nesterov(Real* w, const Real* g, Real* h, CHUNK_TABLES) {
    FOR_CHUNK(i) {
        const Real before = h[i];
        const Real after = p[0] * before + chunk.lr * chunk.gradient(g[i], w[i]);
        h[i] = after;
        w[i] -= (1 + p[0]) * after - p[0] * before;
    }
}

extern "C" __global__ void adagrad(Real* w, const Real* g, Real* s, CHUNK_TABLES) {
    FOR_CHUNK(i) {
        const Real d = chunk.gradient(g[i], w[i]);
        s[i] += d * d;
        w[i] -= chunk.lr * (d / (sqrt(s[i]) + p[0]));
    }
}

extern "C" __global__ void rmsprop(Real* w, const Real* g, Real* s, CHUNK_TABLES) {
    FOR_CHUNK(i) {
        const Real d = chunk.gradient(g[i], w[i]);
        s[i] = p[0] * s[i] + p[1] * (d * d);
        w[i] -= chunk.lr * (d / (sqrt(s[i]) + p[2]));
    }
}

extern "C" __global__ void adadelta(Real* w, const Real* g, Real* s, Real* t, CHUNK_TABLES) {
    FOR_CHUNK(i) {
        const Real d = chunk.gradient(g[i], w[i]);
        s[i] = p[0] * s[i] + p[1] * (d * d);
        const Real u = d * sqrt((t[i] + p[2]) / (s[i] + p[2]));
        t[i] = p[0] * t[i] + p[1] * (u * u);
        w[i] -= chunk.lr * u;
    }
}

extern "C" __global__ void adam(Real* w, const Real* g, Real* m, Real* v, CHUNK_TABLES) {
    FOR_CHUNK(i) {
        const Real d = chunk.gradient(g[i], w[i]);
        m[i] = p[0] * m[i] + p[1] * d;
        v[i] = p[2] * v[i] + p[3] * (d * d);
        w[i] -= chunk.lr * p[5] * (m[i] / (sqrt(v[i]) + p[4]));
    }
}

// One sum for each chunk.
extern "C" __global__ void sum_of_squares(
    const Real* g, const long long* begins, const long long* ends, double* sums) {
    __shared__ double room[32];
    double sum = 0;
    for (Index i = (Index)begins[blockIdx.x] + threadIdx.x; i < (Index)ends[blockIdx.x]; i += blockDim.x)
        sum += (double)g[i] * g[i];
    sum = over_block<Plus>(sum, room);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// One block: control <- (factor, whether to step, norm). `state`, if there is a loss scale, is a ScaleState
// (loss_scaling.py), which moves on as LossScaling.after says. clip < 0 is none.
extern "C" __global__ void look_at_gradients(
    Index chunks, const double* sums, const double* counts, double clip, double* control, double* state,
    Index adapts, double growth, double backoff, double patience, double least, double most) {
    __shared__ double room[32];
    double total = 0;
    FOR_ROW(i, chunks) total += sums[i];
    total = over_block<Plus>(total, room);
    if (threadIdx.x) return;
    const double scale = state ? state[0] : 1.0;
    const double norm = sqrt(total) / counts[0] / scale;
    const bool is_finite = total - total == 0;
    control[0] = (clip >= 0 && norm > clip ? clip / norm : 1.0) / scale;  // a norm that is no number is left alone
    control[1] = !state || is_finite;
    control[2] = norm;
    if (!state) return;
    if (is_finite) {
        state[1] += 1;
        state[3] = 0;
        if (adapts && state[1] >= patience) {
            state[0] = scale > most ? scale : scale * growth < most ? scale * growth : most;
            state[1] = 0;
        }
    } else {
        if (adapts) state[0] = scale < least ? scale : scale * backoff > least ? scale * backoff : least;
        state[1] = 0;
        state[2] += 1;
        state[3] += 1;
    }
}
