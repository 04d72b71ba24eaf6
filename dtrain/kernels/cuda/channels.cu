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

// y = scale x + bias of the channel; y may be x; either may be absent.
extern "C" __global__ void scale_forward(
    Index n, const Real* x, Real* y, const Real* scale, const Real* bias, Index channels, Index inner) {
    FOR_EACH(i, n) {
        const Index c = i / inner % channels;
        Real v = x[i];
        if (scale) v *= scale[c];
        if (bias) v += bias[c];
        y[i] = v;
    }
}

// `shared`: one slope for all channels.
extern "C" __global__ void prelu_forward(
    Index n, const Real* x, Real* y, const Real* slope, Index channels, Index inner, Index shared) {
    FOR_EACH(i, n) {
        const Real v = x[i];
        y[i] = v > 0 ? v : v * slope[shared ? 0 : i / inner % channels];
    }
}

extern "C" __global__ void prelu_backward(
    Index n, const Real* dy, const Real* x, Real* dx, const Real* slope, Index channels, Index inner, Index shared) {
    FOR_EACH(i, n) dx[i] = x[i] > 0 ? dy[i] : dy[i] * slope[shared ? 0 : i / inner % channels];
}

// Sums over a channel: block (c, part) sums its `chunk` of the images * inner values into partial[part][c].
template <class Value>
static __device__ void channel_partial(
    Index channels, Index images, Index inner, Index chunk, Real* partial, Real* room, Value value) {
    const Index c = blockIdx.x, total = images * inner;
    const Index first = blockIdx.y * chunk, last = first + chunk < total ? first + chunk : total;
    Real sum = 0;
    for (Index j = first + threadIdx.x; j < last; j += blockDim.x) {
        const Index image = j / inner;
        sum += value((image * channels + c) * inner + (j - image * inner));
    }
    sum = over_block<Plus>(sum, room);
    if (threadIdx.x == 0) partial[blockIdx.y * channels + c] = sum;
}

extern "C" __global__ void channel_sum(
    Index channels, Index images, Index inner, Index chunk, Real* partial, const Real* x) {
    __shared__ Real room[32];
    channel_partial(channels, images, inner, chunk, partial, room, [=](Index i) { return x[i]; });
}

extern "C" __global__ void channel_dot(
    Index channels, Index images, Index inner, Index chunk, Real* partial, const Real* x, const Real* y) {
    __shared__ Real room[32];
    channel_partial(channels, images, inner, chunk, partial, room, [=](Index i) { return x[i] * y[i]; });
}

// Of dy times what of x is negative.
extern "C" __global__ void channel_dot_negative(
    Index channels, Index images, Index inner, Index chunk, Real* partial, const Real* dy, const Real* x) {
    __shared__ Real room[32];
    channel_partial(
        channels, images, inner, chunk, partial, room, [=](Index i) { return dy[i] * (x[i] < 0 ? x[i] : (Real)0); });
}

extern "C" __global__ void channel_squares(
    Index channels, Index images, Index inner, Index chunk, Real* partial, const Real* x, const Real* center) {
    __shared__ Real room[32];
    const Real mean = center[blockIdx.x];
    channel_partial(channels, images, inner, chunk, partial, room, [=](Index i) {
        const Real d = x[i] - mean;
        return d * d;
    });
}

// Of dy times (x - center) inverse.
extern "C" __global__ void channel_dot_normalized(
    Index channels, Index images, Index inner, Index chunk, Real* partial, const Real* dy, const Real* x,
    const Real* center, const Real* inverse) {
    __shared__ Real room[32];
    const Real mean = center[blockIdx.x], factor = inverse[blockIdx.x];
    channel_partial(
        channels, images, inner, chunk, partial, room, [=](Index i) { return dy[i] * ((x[i] - mean) * factor); });
}

// total = factor * the sum of the parts, added to what is there if `add`.
extern "C" __global__ void channel_finish(
    Index channels, const Real* partial, Index parts, Real* total, Real factor, Index add) {
    FOR_EACH(c, channels) {
        Real sum = 0;
        for (Index part = 0; part < parts; part++) sum += partial[part * channels + c];
        sum *= factor;
        total[c] = add ? total[c] + sum : sum;
    }
}

// What the batch's statistics make of the gathered ones; `inverse` is 1 / sqrt(variance + eps).
extern "C" __global__ void batch_norm_gather(
    Index channels, const Real* center, const Real* spread, Real* mean, Real* variance, Real* factor, Real* inverse,
    Real fraction, Real unbiased, Real eps) {
    FOR_EACH(c, channels) {
        mean[c] = mean[c] * fraction + center[c];
        variance[c] = variance[c] * fraction + unbiased * spread[c];
        inverse[c] = 1 / sqrt(spread[c] + eps);
        if (c == 0) factor[0] = factor[0] * fraction + 1;
    }
}

extern "C" __global__ void batch_norm_gathered(
    Index channels, const Real* mean, const Real* variance, const Real* factor, Real* center, Real* inverse, Real eps) {
    const Real weight = factor[0] == 0 ? (Real)0 : 1 / factor[0];
    FOR_EACH(c, channels) {
        center[c] = mean[c] * weight;
        inverse[c] = 1 / sqrt(variance[c] * weight + eps);
    }
}

// y may be x; `normalized`, scale and bias may be absent.
extern "C" __global__ void batch_norm_forward(
    Index n, const Real* x, Real* y, Real* normalized, const Real* center, const Real* inverse, const Real* scale,
    const Real* bias, Index channels, Index inner) {
    FOR_EACH(i, n) {
        const Index c = i / inner % channels;
        Real v = (x[i] - center[c]) * inverse[c];
        if (normalized) normalized[i] = v;
        if (scale) v *= scale[c];
        if (bias) v += bias[c];
        y[i] = v;
    }
}

// dx = (g - mean(g) - mean(g x^) x^) inverse for g = scale dy, the means over m values a channel; `sum` is that of
// dy and `dot` that of dy x^; without them dx = g inverse. x^ is x where center is absent. dx may be dy.
extern "C" __global__ void batch_norm_backward(
    Index n, const Real* dy, const Real* x, Real* dx, const Real* center, const Real* inverse, const Real* scale,
    const Real* sum, const Real* dot, Real m, Index channels, Index inner) {
    FOR_EACH(i, n) {
        const Index c = i / inner % channels;
        Real g = dy[i];
        if (sum) {
            const Real normalized = center ? (x[i] - center[c]) * inverse[c] : x[i];
            g -= sum[c] / m + dot[c] / m * normalized;
        }
        if (scale) g *= scale[c];
        dx[i] = g * inverse[c];
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
