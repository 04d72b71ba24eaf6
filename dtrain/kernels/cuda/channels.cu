// Arrays seen as (images, channels, inner): a value for each channel, and sums over all else.
#include "kernel.cuh"

// y += bias of the channel; then, with `relu`, what is negative becomes 0.
extern "C" __global__ void add_bias(
    Index n, Real* y, const Real* bias, Index channels, Index inner, Index relu) {
    FOR_EACH(i, n) {
        Real v = y[i];
        if (bias) v += bias[i / inner % channels];
        y[i] = relu && v < 0 ? (Real)0 : v;
    }
}

// N consecutive numbers of channels, or the same N times; `absent` where there are none.
template <int N, bool SAME>
static __device__ void of_channels(const Real* numbers, Index c, Real absent, Real* out) {
    constexpr int M = 16 / (int)sizeof(Real);
    if (!SAME && N % M == 0 && numbers && is_aligned(numbers)) {
#pragma unroll
        for (int k = 0; k < N; k += M) {
            const Pack<Real, M> here = load<M>(numbers + c + k);
#pragma unroll
            for (int j = 0; j < M; j++) out[k + j] = here.at[j];
        }
    } else {
#pragma unroll
        for (int k = 0; k < N; k++) out[k] = numbers ? numbers[SAME ? c : c + k] : absent;
    }
}

template <int N, bool SAME, class F, class... X>
static __device__ void channel_packs(
    Index n, Value* y, const Real* p, const Real* q, Index channels, Index inner, F f, const X*... x) {
    FOR_EACH(i, n / N) {
        Real ps[N], qs[N];
        const Index c = i * N / inner % channels;
        of_channels<N, SAME>(p, c, 1, ps);
        of_channels<N, SAME>(q, c, 0, qs);
        const auto apply = [&](const auto&... here) {
            Pack<Value, N> out;
#pragma unroll
            for (int k = 0; k < N; k++) out.at[k] = (Value)f(ps[k], qs[k], (Real)here.at[k]...);
            store(y + i * N, out);
        };
        apply(load<N>(x + i * N)...);
    }
}

// y = f(p, q, x...) of numbers p and q of the element's channel: 1 and 0 where they are absent. y may be any x.
template <class F, class... X>
static __device__ void over_channels(
    Index n, Value* y, const Real* p, const Real* q, Index channels, Index inner, F f, const X*... x) {
    const bool aligned = n % TOGETHER == 0 && is_aligned(y) && (is_aligned(x) && ...);
    if (aligned && inner == 1 && channels % TOGETHER == 0)
        channel_packs<TOGETHER, false>(n, y, p, q, channels, inner, f, x...);
    else if (aligned && inner % TOGETHER == 0)
        channel_packs<TOGETHER, true>(n, y, p, q, channels, inner, f, x...);
    else
        channel_packs<1, true>(n, y, p, q, channels, inner, f, x...);
}

// y = scale x + bias of the channel; either may be absent.
extern "C" __global__ void scale_forward(
    Index n, const Value* x, Value* y, const Real* scale, const Real* bias, Index channels, Index inner) {
    over_channels(n, y, scale, bias, channels, inner, [](Real s, Real b, Real x) { return x * s + b; }, x);
}

extern "C" __global__ void prelu_forward(
    Index n, const Value* x, Value* y, const Real* slope, Index channels, Index inner) {
    const auto f = [](Real s, Real, Real x) { return x > 0 ? x : x * s; };
    over_channels(n, y, slope, (const Real*)0, channels, inner, f, x);
}

extern "C" __global__ void prelu_backward(
    Index n, const Value* dy, const Value* x, Value* dx, const Real* slope, Index channels, Index inner) {
    const auto f = [](Real s, Real, Real dy, Real x) { return x > 0 ? dy : dy * s; };
    over_channels(n, dx, slope, (const Real*)0, channels, inner, f, dy, x);
}

// Sums over a channel: block (c, part) sums its `chunk` of the images * inner values into partial[part][c].
template <class F, class... X>
static __device__ void sum_planes(
    Index channels, Index images, Index inner, Index chunk, Real* partial, F f, const X*... x) {
    __shared__ Real room[32];
    const Index c = blockIdx.x, total = images * inner;
    const Index first = blockIdx.y * chunk, last = min(first + chunk, total);
    Real sum = 0;
    for (Index j = first + threadIdx.x; j < last; j += blockDim.x) {
        const Index image = j / inner, i = (image * channels + c) * inner + (j - image * inner);
        sum += f((Real)x[i]...);
    }
    sum = over_block<Plus>(sum, room);
    if (threadIdx.x == 0) partial[blockIdx.y * channels + c] = sum;
}

// The same where the channels are the last axis: a thread takes N of them from every blockDim.y-th row; a block has
// 256 threads, a power of two of them in y.
#define MOST_TOGETHER 8
template <int N, class F, class... X>
static __device__ void sum_rows_of(Index channels, Index rows, Index chunk, Real* partial, F f, const X*... x) {
    __shared__ Real room[256 * MOST_TOGETHER];
    const Index c = ((Index)blockIdx.x * blockDim.x + threadIdx.x) * N;
    const Index first = blockIdx.y * chunk, last = min(first + chunk, rows);
    Real sum[N];
#pragma unroll
    for (int k = 0; k < N; k++) sum[k] = 0;
    if (c < channels) {
#pragma unroll 4
        for (Index r = first + threadIdx.y; r < last; r += blockDim.y) {
            const auto add = [&](const auto&... here) {
#pragma unroll
                for (int k = 0; k < N; k++) sum[k] += f((Real)here.at[k]...);
            };
            add(load<N>(x + r * channels + c)...);
        }
    }
    const unsigned width = blockDim.x * N;
    Real* own = room + threadIdx.y * width + threadIdx.x * N;
#pragma unroll
    for (int k = 0; k < N; k++) own[k] = sum[k];
    for (unsigned half = blockDim.y / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half)
#pragma unroll
            for (int k = 0; k < N; k++) own[k] += own[half * width + k];
    }
    if (threadIdx.y == 0 && c < channels)
#pragma unroll
        for (int k = 0; k < N; k++) partial[blockIdx.y * channels + c + k] = own[k];
}

// `packs` is what the launcher has laid the block out for: TOGETHER channels a thread, or one.
template <class F, class... X>
static __device__ void sum_rows_packed(
    Index channels, Index rows, Index packs, Index chunk, Real* partial, F f, const X*... x) {
    if (packs > 1)
        sum_rows_of<TOGETHER>(channels, rows, chunk, partial, f, x...);
    else
        sum_rows_of<1>(channels, rows, chunk, partial, f, x...);
}

struct Itself {
    __device__ Real operator()(Real x) const { return x; }
};
struct Times {
    __device__ Real operator()(Real x, Real y) const { return x * y; }
};
struct TimesNegative {
    __device__ Real operator()(Real dy, Real x) const { return dy * (x < 0 ? x : (Real)0); }
};

#define CHUNKS Index channels, Index images, Index inner, Index chunk, Real* partial
#define CHUNKS_LAST Index channels, Index rows, Index packs, Index chunk, Real* partial

extern "C" __global__ void channel_sum(CHUNKS, const Value* x) {
    sum_planes(channels, images, inner, chunk, partial, Itself{}, x);
}

extern "C" __global__ void channel_sum_last(CHUNKS_LAST, const Value* x) {
    sum_rows_packed(channels, rows, packs, chunk, partial, Itself{}, x);
}

extern "C" __global__ void channel_dot(CHUNKS, const Value* x, const Value* y) {
    sum_planes(channels, images, inner, chunk, partial, Times{}, x, y);
}

extern "C" __global__ void channel_dot_last(CHUNKS_LAST, const Value* x, const Value* y) {
    sum_rows_packed(channels, rows, packs, chunk, partial, Times{}, x, y);
}

// Of dy times what of x is negative.
extern "C" __global__ void channel_dot_negative(CHUNKS, const Value* dy, const Value* x) {
    sum_planes(channels, images, inner, chunk, partial, TimesNegative{}, dy, x);
}

extern "C" __global__ void channel_dot_negative_last(CHUNKS_LAST, const Value* dy, const Value* x) {
    sum_rows_packed(channels, rows, packs, chunk, partial, TimesNegative{}, dy, x);
}

// total = factor * the sum of the parts, added to what is there if `add`; one warp a channel.
extern "C" __global__ void channel_finish(
    Index channels, const Real* partial, Index parts, Real* total, Real factor, Index add) {
    FOR_ROWS(c, channels) {
        Real sum = 0;
        FOR_ROW(part, parts) sum += partial[part * channels + c];
        sum = factor * over_block<Plus>(sum, (Real*)0);
        if (threadIdx.x == 0) total[c] = add ? total[c] + sum : sum;
    }
}

// Norms over the channels of each position of each image.
extern "C" __global__ void norm_positions(
    Index n, const Real* x, Real* norm, Index channels, Index inner, Real eps) {
    FOR_EACH(i, n) {
        const Real* from = x + i / inner * channels * inner + i % inner;
        Real sum = 0;
        for (Index c = 0; c < channels; c++) sum += from[c * inner] * from[c * inner];
        norm[i] = sqrt(sum + eps);
    }
}

// Norms of whole images: rows of `width` values.
extern "C" __global__ void norm_rows(Index rows, Index width, const Real* x, Real* norm, Real eps) {
    __shared__ Real room[32];
    FOR_ROWS(row, rows) {
        const Real* from = x + row * width;
        Real sum = 0;
        FOR_ROW(i, width) sum += from[i] * from[i];
        sum = over_block<Plus>(sum, room);
        if (threadIdx.x == 0) norm[row] = sqrt(sum + eps);
    }
}

// y = x / norm, times scale where it is given. `positions` norms an image: inner or 1.
extern "C" __global__ void normalize_forward(
    Index n, const Real* x, Real* y, const Real* norm, const Real* scale, Index channels, Index inner, Index positions,
    Index shared) {
    FOR_EACH(i, n) {
        const Index image = i / inner / channels;
        Real v = x[i] / norm[image * positions + (positions == 1 ? 0 : i % inner)];
        if (scale) v *= scale[shared ? 0 : i / inner % channels];
        y[i] = v;
    }
}

// The sum of unit * scale * dy over the channels of each position.
extern "C" __global__ void normalize_dot_positions(
    Index n, const Real* unit, const Real* dy, const Real* scale, Real* dot, Index channels, Index inner,
    Index shared) {
    FOR_EACH(i, n) {
        const Index from = i / inner * channels * inner + i % inner;
        Real sum = 0;
        for (Index c = 0; c < channels; c++)
            sum += unit[from + c * inner] * (dy[from + c * inner] * scale[shared ? 0 : c]);
        dot[i] = sum;
    }
}

extern "C" __global__ void normalize_dot_rows(
    Index rows, Index width, const Real* unit, const Real* dy, const Real* scale, Real* dot, Index inner,
    Index shared) {
    __shared__ Real room[32];
    FOR_ROWS(row, rows) {
        Real sum = 0;
        FOR_ROW(i, width) sum += unit[row * width + i] * (dy[row * width + i] * scale[shared ? 0 : i / inner]);
        sum = over_block<Plus>(sum, room);
        if (threadIdx.x == 0) dot[row] = sum;
    }
}

extern "C" __global__ void normalize_backward(
    Index n, const Real* dy, const Real* unit, Real* dx, const Real* norm, const Real* dot, const Real* scale,
    Index channels, Index inner, Index positions, Index shared) {
    FOR_EACH(i, n) {
        const Index at = i / inner / channels * positions + (positions == 1 ? 0 : i % inner);
        const Real g = dy[i] * scale[shared ? 0 : i / inner % channels];
        dx[i] = (g - unit[i] * dot[at]) / norm[at];
    }
}
