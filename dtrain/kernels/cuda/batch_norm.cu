// Batch normalisation of arrays in any form: rows of channels or planes, see image_channels.cuh. Per channel: `center`
// is the mean, `inverse` 1 / sqrt(variance + eps), `gain` inverse * scale and `shift` the bias. With `relu` what is
// negative becomes 0, and backward starts from the diff behind that.
#include "image_channels.cuh"

static __device__ Real opened(Real x, Real center, Real gain, Real shift) { return (x - center) * gain + shift; }

// Sums of d and d^2 for d = x - x[0], the channel's first value, so that a large mean costs no digits.
template <int N>
static __device__ void statistics_strip(
    Index rows, Index channels, Index across, const Value* x, Real* partial, Real* room) {
    const Strip<N> strip(rows, channels, across);
    Real pivot[N] = {}, sum[N] = {}, squares[N] = {};
    if (strip.inside)
        for (int k = 0; k < N; k++) pivot[k] = (Real)x[strip.c + k];
    for (Index at = strip.at; at < strip.end; at += strip.step) {
        const Pack<Value, N> in = load<N>(x + at);
        for (int k = 0; k < N; k++) {
            const Real d = (Real)in.at[k] - pivot[k];
            sum[k] += d;
            squares[k] += d * d;
        }
    }
    put_rows<N>(sum, strip, channels, across, partial, room);
    put_rows<N>(squares, strip, channels, across, partial + (Index)gridDim.y * channels, room);
}

extern "C" __global__ void statistics_rows(
    Index rows, Index channels, Index pack, Index across, const Value* x, Real* partial) {
    __shared__ Real room[THREADS * TOGETHER];
#define CALL(N) statistics_strip<N>(rows, channels, across, x, partial, room)
    IN_PACKS(pack, CALL)
#undef CALL
}

extern "C" __global__ void statistics_planes(
    Index images, Index channels, Index inner, const Value* x, Real* partial) {
    __shared__ Real room[32];
    const Real pivot = (Real)x[blockIdx.x * inner];
    Real sum = 0, squares = 0;
    for (Plane plane(images, channels, inner); plane.inside(); plane.next()) {
        const Real d = (Real)x[plane.at()] - pivot;
        sum += d;
        squares += d * d;
    }
    put_plane(sum, channels, partial, room);
    put_plane(squares, channels, partial + (Index)gridDim.y * channels, room);
}

static __device__ void put_channel(
    Index c, Real mean, Real variance, Real eps, const Real* scale, const Real* bias, Real* center, Real* inverse,
    Real* gain, Real* shift) {
    const Real factor = 1 / sqrt(variance + eps);
    center[c] = mean;
    inverse[c] = factor;
    gain[c] = scale ? factor * scale[c] : factor;
    shift[c] = bias ? bias[c] : (Real)0;
}

// From the sums of `statistics`, where value c of x times `stride` is the channel's first; the gathered mean, variance
// and factor fade by `fraction` before the batch's are added.
extern "C" __global__ void finish_statistics(
    Index channels, Index parts, const Real* partial, const Value* x, Index stride, Real count, Real* mean,
    Real* variance, Real* factor, Real fraction, Real unbiased, Real eps, const Real* scale, const Real* bias,
    Real* center, Real* inverse, Real* gain, Real* shift) {
    __shared__ Real room[THREADS];
    const Real sum = all_parts(channels, parts, partial, room);
    const Real squares = all_parts(channels, parts, partial + parts * channels, room);
    if (!finishes(channels)) return;
    const Index c = (Index)blockIdx.x * FINISHED + threadIdx.x;
    const Real off = sum / count, spread = squares / count - off * off;
    const Real average = (Real)x[c * stride] + off, square = spread < 0 ? (Real)0 : spread;
    mean[c] = mean[c] * fraction + average;
    variance[c] = variance[c] * fraction + unbiased * square;
    if (c == 0) factor[0] = factor[0] * fraction + 1;
    put_channel(c, average, square, eps, scale, bias, center, inverse, gain, shift);
}

// From the gathered statistics.
extern "C" __global__ void gathered_statistics(
    Index channels, const Real* mean, const Real* variance, const Real* factor, Real eps, const Real* scale,
    const Real* bias, Real* center, Real* inverse, Real* gain, Real* shift) {
    const Real weight = factor[0] == 0 ? (Real)0 : 1 / factor[0];
    FOR_EACH(c, channels) {
        put_channel(c, mean[c] * weight, variance[c] * weight, eps, scale, bias, center, inverse, gain, shift);
    }
}

template <int N>
static __device__ void normalize_strip(
    Index rows, Index channels, Index across, const Value* x, Value* y, Value* kept, const Real* center,
    const Real* gain, const Real* shift, Index relu) {
    const Strip<N> strip(rows, channels, across);
    if (!strip.inside) return;
    Real m[N], g[N], b[N];
    for (int k = 0; k < N; k++) {
        m[k] = center[strip.c + k];
        g[k] = gain[strip.c + k];
        b[k] = shift[strip.c + k];
    }
    for (Index at = strip.at; at < strip.end; at += strip.step) {
        const Pack<Value, N> in = load<N>(x + at);
        Pack<Value, N> out;
        for (int k = 0; k < N; k++) {
            const Real v = opened((Real)in.at[k], m[k], g[k], b[k]);
            out.at[k] = (Value)(relu && v < 0 ? (Real)0 : v);
        }
        if (kept) store(kept + at, in);
        store(y + at, out);
    }
}

// y may be x; then `kept` takes x.
extern "C" __global__ void normalize_rows(
    Index rows, Index channels, Index pack, Index across, const Value* x, Value* y, Value* kept, const Real* center,
    const Real* gain, const Real* shift, Index relu) {
#define CALL(N) normalize_strip<N>(rows, channels, across, x, y, kept, center, gain, shift, relu)
    IN_PACKS(pack, CALL)
#undef CALL
}

extern "C" __global__ void normalize_planes(
    Index images, Index channels, Index inner, const Value* x, Value* y, Value* kept, const Real* center,
    const Real* gain, const Real* shift, Index relu) {
    const Real m = center[blockIdx.x], g = gain[blockIdx.x], b = shift[blockIdx.x];
    for (Plane plane(images, channels, inner); plane.inside(); plane.next()) {
        const Value in = x[plane.at()];
        const Real v = opened((Real)in, m, g, b);
        if (kept) kept[plane.at()] = in;
        y[plane.at()] = (Value)(relu && v < 0 ? (Real)0 : v);
    }
}

// What is constant in a channel when dy is handed back: g is dy where the ReLU was open, x^ the normalised value.
struct Channel {
    Real center, inverse, gain, shift;
    __device__ Channel() {}
    __device__ Channel(Index c, const Real* centers, const Real* inverses, const Real* gains, const Real* shifts)
        : center(centers[c]), inverse(inverses[c]), gain(gains[c]), shift(shifts[c]) {}
    __device__ Real diff(Real dy, Real x, Index relu) const {
        return relu && !(opened(x, center, gain, shift) > 0) ? (Real)0 : dy;
    }
    __device__ Real normalized(Real x) const { return (x - center) * inverse; }
};

// Sums of g and of g x^.
template <int N>
static __device__ void dots_strip(
    Index rows, Index channels, Index across, const Value* dy, const Value* x, const Real* center, const Real* inverse,
    const Real* gain, const Real* shift, Index relu, Real* partial, Real* room) {
    const Strip<N> strip(rows, channels, across);
    Real sum[N] = {}, dot[N] = {};
    Channel channel[N];
    if (strip.inside)
        for (int k = 0; k < N; k++) channel[k] = Channel(strip.c + k, center, inverse, gain, shift);
    for (Index at = strip.at; at < strip.end; at += strip.step) {
        const Pack<Value, N> diff = load<N>(dy + at), in = load<N>(x + at);
        for (int k = 0; k < N; k++) {
            const Real v = (Real)in.at[k], g = channel[k].diff((Real)diff.at[k], v, relu);
            sum[k] += g;
            dot[k] += g * channel[k].normalized(v);
        }
    }
    put_rows<N>(sum, strip, channels, across, partial, room);
    put_rows<N>(dot, strip, channels, across, partial + (Index)gridDim.y * channels, room);
}

extern "C" __global__ void dots_rows(
    Index rows, Index channels, Index pack, Index across, const Value* dy, const Value* x, const Real* center,
    const Real* inverse, const Real* gain, const Real* shift, Index relu, Real* partial) {
    __shared__ Real room[THREADS * TOGETHER];
#define CALL(N) dots_strip<N>(rows, channels, across, dy, x, center, inverse, gain, shift, relu, partial, room)
    IN_PACKS(pack, CALL)
#undef CALL
}

extern "C" __global__ void dots_planes(
    Index images, Index channels, Index inner, const Value* dy, const Value* x, const Real* center,
    const Real* inverse, const Real* gain, const Real* shift, Index relu, Real* partial) {
    __shared__ Real room[32];
    const Channel channel(blockIdx.x, center, inverse, gain, shift);
    Real sum = 0, dot = 0;
    for (Plane plane(images, channels, inner); plane.inside(); plane.next()) {
        const Real v = (Real)x[plane.at()], g = channel.diff((Real)dy[plane.at()], v, relu);
        sum += g;
        dot += g * channel.normalized(v);
    }
    put_plane(sum, channels, partial, room);
    put_plane(dot, channels, partial + (Index)gridDim.y * channels, room);
}

// The gradients of scale and bias, which may be absent, are added to.
extern "C" __global__ void finish_dots(
    Index channels, Index parts, const Real* partial, Real* sum, Real* dot, Real* scale_diff, Real* bias_diff) {
    __shared__ Real room[THREADS];
    const Real sums = all_parts(channels, parts, partial, room);
    const Real dots = all_parts(channels, parts, partial + parts * channels, room);
    if (!finishes(channels)) return;
    const Index c = (Index)blockIdx.x * FINISHED + threadIdx.x;
    sum[c] = sums;
    dot[c] = dots;
    if (scale_diff) scale_diff[c] += dots;
    if (bias_diff) bias_diff[c] += sums;
}

// dx = gain (g - mean(g) - mean(g x^) x^), the means over `count` values a channel; without `sum` and `dot`, gain g.
template <int N>
static __device__ void hand_back_strip(
    Index rows, Index channels, Index across, const Value* dy, const Value* x, Value* dx, const Real* center,
    const Real* inverse, const Real* gain, const Real* shift, Index relu, const Real* sum, const Real* dot,
    Real count) {
    const Strip<N> strip(rows, channels, across);
    if (!strip.inside) return;
    Channel channel[N];
    Real average[N] = {}, along[N] = {};
    for (int k = 0; k < N; k++) {
        channel[k] = Channel(strip.c + k, center, inverse, gain, shift);
        if (sum) {
            average[k] = sum[strip.c + k] / count;
            along[k] = dot[strip.c + k] / count;
        }
    }
    for (Index at = strip.at; at < strip.end; at += strip.step) {
        const Pack<Value, N> diff = load<N>(dy + at), in = load<N>(x + at);
        Pack<Value, N> out;
        for (int k = 0; k < N; k++) {
            const Real v = (Real)in.at[k], g = channel[k].diff((Real)diff.at[k], v, relu);
            out.at[k] = (Value)(channel[k].gain * (g - average[k] - along[k] * channel[k].normalized(v)));
        }
        store(dx + at, out);
    }
}

// dx may be dy.
extern "C" __global__ void hand_back_rows(
    Index rows, Index channels, Index pack, Index across, const Value* dy, const Value* x, Value* dx,
    const Real* center, const Real* inverse, const Real* gain, const Real* shift, Index relu, const Real* sum,
    const Real* dot, Real count) {
#define CALL(N) \
    hand_back_strip<N>(rows, channels, across, dy, x, dx, center, inverse, gain, shift, relu, sum, dot, count)
    IN_PACKS(pack, CALL)
#undef CALL
}

extern "C" __global__ void hand_back_planes(
    Index images, Index channels, Index inner, const Value* dy, const Value* x, Value* dx, const Real* center,
    const Real* inverse, const Real* gain, const Real* shift, Index relu, const Real* sum, const Real* dot,
    Real count) {
    const Channel channel(blockIdx.x, center, inverse, gain, shift);
    const Real average = sum ? sum[blockIdx.x] / count : (Real)0, along = sum ? dot[blockIdx.x] / count : (Real)0;
    for (Plane plane(images, channels, inner); plane.inside(); plane.next()) {
        const Real v = (Real)x[plane.at()], g = channel.diff((Real)dy[plane.at()], v, relu);
        dx[plane.at()] = (Value)(channel.gain * (g - average - along * channel.normalized(v)));
    }
}
