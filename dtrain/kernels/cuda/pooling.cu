// Pooling by windows (H, W), and normalisation over neighbours. n counts outputs forward and inputs backward, over all
// images and channels. Backward gathers: an input asks the windows that it lies in, so that no two threads add to one
// place.
//
// `channels` says in what order images lie: 0 is Caffe's; otherwise the channels come last, and a thread takes
// neighbouring ones together where it can.
#include "kernel.cuh"
#include "splitmix.cuh"

#define WINDOW_PARAMETERS                                                                                         \
    Index h, Index w, Index out_h, Index out_w, Index kernel_h, Index kernel_w, Index stride_h, Index stride_w, \
        Index pad_h, Index pad_w, Index channels
#define WINDOW h, w, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, channels

// Where item i of planes of rows x columns lies: `image` counts planes in Caffe's order, else images.
struct Place {
    Index image, row, column, channel, step;
    __device__ Index in(Index area) const { return image * area * step + channel; }
};

template <int N>
static __device__ Place place_of(Index i, Index rows, Index columns, Index channels) {
    const Index packs = channels ? channels / N : 1, pixel = i / packs;
    return {pixel / columns / rows, pixel / columns % rows, pixel % columns, i % packs * N, channels ? channels : 1};
}

// The windows that may hold a position of the padded image along one axis: first..last.
static __device__ Index first_window(Index place, Index kernel, Index stride) {
    return place < kernel ? 0 : (place - kernel) / stride + 1;
}

static __device__ Index last_window(Index place, Index stride, Index out) { return min(place / stride, out - 1); }

// `index` is the place in its window of the first of the largest; a window that lies beyond the image, as a stride
// above the kernel's size allows, has none: the largest Slot, and the least number, as in Caffe. K is the kernel's
// extent both ways if it is known.
template <int N, int K, class Slot>
static __device__ void max_pool(Index n, const Value* x, Value* y, Slot* index, WINDOW_PARAMETERS) {
    const Index down = K ? K : kernel_h, across = K ? K : kernel_w;
    FOR_EACH(i, n / N) {
        const Place place = place_of<N>(i, out_h, out_w, channels);
        const Value* from = x + place.in(h * w);
        const Index top = place.row * stride_h - pad_h, left = place.column * stride_w - pad_w;
        const bool empty = top >= h || left >= w;
        Real most[N];
        int at[N];
#pragma unroll
        for (int k = 0; k < N; k++) {
            most[k] = -Limits<Real>::infinity();
            at[k] = (int)(max(-top, (Index)0) * across + max(-left, (Index)0));
        }
#pragma unroll (K ? K : 1)
        for (Index r = 0; r < down; r++) {
#pragma unroll (K ? K : 1)
            for (Index c = 0; c < across; c++) {
                const bool inside = top + r >= 0 && top + r < h && left + c >= 0 && left + c < w;
                if (!K && !inside) continue;
                // With the extent known all loads may be under way at once: those outside read the nearest inside.
                const Index row = min(max(top + r, (Index)0), h - 1), column = min(max(left + c, (Index)0), w - 1);
                const Pack<Value, N> here = load<N>(from + (row * w + column) * place.step);
#pragma unroll
                for (int k = 0; k < N; k++) {
                    const Real v = here.at[k];
                    if (inside && !(v <= most[k]) && most[k] == most[k]) {  // the first that is no number stays
                        most[k] = v;
                        at[k] = (int)(r * across + c);
                    }
                }
            }
        }
        Pack<Value, N> out;
        Pack<Slot, N> chosen;
#pragma unroll
        for (int k = 0; k < N; k++) {
            out.at[k] = (Value)(empty ? -(Real)Limits<Value>::largest() : most[k]);
            chosen.at[k] = (Slot)(empty ? -1 : at[k]);
        }
        store(y + i * N, out);
        store(index + i * N, chosen);
    }
}

// Whether a thread may take TOGETHER neighbouring channels.
template <class... X>
static __device__ bool is_together(Index channels, const X*... x) {
    return channels && channels % TOGETHER == 0 && (is_aligned(x) && ...);
}

extern "C" __global__ void max_pool_forward(
    Index n, const Value* x, Value* y, unsigned char* index, WINDOW_PARAMETERS) {
    if (!is_together(channels, x, y, index))
        max_pool<1, 0>(n, x, y, index, WINDOW);
    else if (kernel_h == 3 && kernel_w == 3)
        max_pool<TOGETHER, 3>(n, x, y, index, WINDOW);
    else
        max_pool<TOGETHER, 0>(n, x, y, index, WINDOW);
}

// For windows of more elements than a byte counts.
extern "C" __global__ void max_pool_forward_wide(Index n, const Value* x, Value* y, int* index, WINDOW_PARAMETERS) {
    max_pool<1, 0>(n, x, y, index, WINDOW);
}

// For maximum and stochastic pooling: dy goes to the chosen element.
template <int N, class Slot>
static __device__ void chosen_backward(Index n, const Value* dy, const Slot* index, Value* dx, WINDOW_PARAMETERS) {
    FOR_EACH(i, n / N) {
        const Place place = place_of<N>(i, h, w, channels);
        const Index row = place.row + pad_h, column = place.column + pad_w, start = place.in(out_h * out_w);
        const Index last_a = last_window(row, stride_h, out_h), last_b = last_window(column, stride_w, out_w);
        Real sum[N];
#pragma unroll
        for (int k = 0; k < N; k++) sum[k] = 0;
        for (Index a = first_window(row, kernel_h, stride_h); a <= last_a; a++)
            for (Index b = first_window(column, kernel_w, stride_w); b <= last_b; b++) {
                const Index at = start + (a * out_w + b) * place.step;
                const Slot own = (Slot)((row - a * stride_h) * kernel_w + column - b * stride_w);
                const Pack<Slot, N> chosen = load<N>(index + at);
                const Pack<Value, N> slope = load<N>(dy + at);
#pragma unroll
                for (int k = 0; k < N; k++) sum[k] += chosen.at[k] == own ? (Real)slope.at[k] : (Real)0;
            }
        Pack<Value, N> out;
#pragma unroll
        for (int k = 0; k < N; k++) out.at[k] = (Value)sum[k];
        store(dx + i * N, out);
    }
}

extern "C" __global__ void pool_backward(
    Index n, const Value* dy, const unsigned char* index, Value* dx, WINDOW_PARAMETERS) {
    if (is_together(channels, dy, dx, index))
        chosen_backward<TOGETHER>(n, dy, index, dx, WINDOW);
    else
        chosen_backward<1>(n, dy, index, dx, WINDOW);
}

extern "C" __global__ void pool_backward_wide(
    Index n, const Value* dy, const int* index, Value* dx, WINDOW_PARAMETERS) {
    chosen_backward<1>(n, dy, index, dx, WINDOW);
}

// The places in the plane, as numbers of the net's type in Caffe's order; -1 for none.
template <class Slot>
static __device__ void places_in_plane(Index n, const Slot* index, Real* y, WINDOW_PARAMETERS) {
    FOR_EACH(i, n) {
        const Index plane = i / out_w / out_h, row = i / out_w % out_h, column = i % out_w;
        const Index pixel = (plane / max(channels, (Index)1) * out_h + row) * out_w + column;
        const Slot at = index[channels ? pixel * channels + plane % channels : i];
        const Index r = row * stride_h - pad_h + at / kernel_w, c = column * stride_w - pad_w + at % kernel_w;
        y[i] = at == (Slot)-1 ? (Real)-1 : (Real)(r * w + c);
    }
}

extern "C" __global__ void argmax_of_windows(Index n, const unsigned char* index, Real* y, WINDOW_PARAMETERS) {
    places_in_plane(n, index, y, WINDOW);
}

extern "C" __global__ void argmax_of_windows_wide(Index n, const int* index, Real* y, WINDOW_PARAMETERS) {
    places_in_plane(n, index, y, WINDOW);
}

// Elements of a window inside the padded image.
static __device__ Real window_area(Index a, Index b, WINDOW_PARAMETERS) {
    const Index top = a * stride_h - pad_h, left = b * stride_w - pad_w;
    return (Real)((min(top + kernel_h, h + pad_h) - top) * (min(left + kernel_w, w + pad_w) - left));
}

template <int N>
static __device__ void mean_pool(Index n, const Value* x, Value* y, WINDOW_PARAMETERS) {
    FOR_EACH(i, n / N) {
        const Place place = place_of<N>(i, out_h, out_w, channels);
        const Value* from = x + place.in(h * w);
        const Index top = place.row * stride_h - pad_h, left = place.column * stride_w - pad_w;
        const Index bottom = min(top + kernel_h, h), right = min(left + kernel_w, w);
        const Real area = window_area(place.row, place.column, WINDOW);
        Real sum[N];
#pragma unroll
        for (int k = 0; k < N; k++) sum[k] = 0;
        for (Index r = max(top, (Index)0); r < bottom; r++)
#pragma unroll 4
            for (Index c = max(left, (Index)0); c < right; c++) {
                const Pack<Value, N> here = load<N>(from + (r * w + c) * place.step);
#pragma unroll
                for (int k = 0; k < N; k++) sum[k] += (Real)here.at[k];
            }
        Pack<Value, N> out;
#pragma unroll
        for (int k = 0; k < N; k++) out.at[k] = (Value)(sum[k] / area);
        store(y + i * N, out);
    }
}

extern "C" __global__ void mean_pool_forward(Index n, const Value* x, Value* y, WINDOW_PARAMETERS) {
    if (is_together(channels, x, y))
        mean_pool<TOGETHER>(n, x, y, WINDOW);
    else
        mean_pool<1>(n, x, y, WINDOW);
}

template <int N>
static __device__ void mean_backward(Index n, const Value* dy, Value* dx, WINDOW_PARAMETERS) {
    FOR_EACH(i, n / N) {
        const Place place = place_of<N>(i, h, w, channels);
        const Index row = place.row + pad_h, column = place.column + pad_w, start = place.in(out_h * out_w);
        const Index last_a = last_window(row, stride_h, out_h), last_b = last_window(column, stride_w, out_w);
        Real sum[N];
#pragma unroll
        for (int k = 0; k < N; k++) sum[k] = 0;
        for (Index a = first_window(row, kernel_h, stride_h); a <= last_a; a++)
            for (Index b = first_window(column, kernel_w, stride_w); b <= last_b; b++) {
                const Real area = window_area(a, b, WINDOW);
                const Pack<Value, N> slope = load<N>(dy + start + (a * out_w + b) * place.step);
#pragma unroll
                for (int k = 0; k < N; k++) sum[k] += (Real)slope.at[k] / area;
            }
        Pack<Value, N> out;
#pragma unroll
        for (int k = 0; k < N; k++) out.at[k] = (Value)sum[k];
        store(dx + i * N, out);
    }
}

extern "C" __global__ void mean_pool_backward(Index n, const Value* dy, Value* dx, WINDOW_PARAMETERS) {
    if (is_together(channels, dy, dx))
        mean_backward<TOGETHER>(n, dy, dx, WINDOW);
    else
        mean_backward<1>(n, dy, dx, WINDOW);
}

// An element with probability proportional to its value, by the number that `key` gives an output's place in the job's
// batch, where an image has `of_image` outputs. What lies outside counts as 0. Without a key the mean of the values
// weighted with themselves.
extern "C" __global__ void stochastic_pool_forward(
    Index n, const Real* x, Real* y, int* index, const unsigned long long* key, Index of_image, Index rank,
    Index size, WINDOW_PARAMETERS) {
    FOR_EACH(i, n) {
        const Real* plane = x + i / out_w / out_h * h * w;
        const Index top = i / out_w % out_h * stride_h - pad_h, left = i % out_w * stride_w - pad_w;
        const Index bottom = min(top + kernel_h, h), right = min(left + kernel_w, w);
        Real total = 0, squares = 0;
        for (Index r = max(top, (Index)0); r < bottom; r++)
            for (Index c = max(left, (Index)0); c < right; c++) {
                const Real v = plane[r * w + c];
                total += v;
                squares += v * v;
            }
        if (!key) {
            y[i] = squares / (total > 0 ? total : (Real)1);
            continue;
        }
        const unsigned long long image = (unsigned long long)(i / of_image) * size + rank;
        const unsigned long long bits = drawn(key[0], image * of_image + i % of_image + 1);
        const double threshold = (bits >> 11) * (1.0 / 9007199254740992.0) * total;
        Real sum = 0, chosen = 0;
        Index row = top, column = left;  // where rounding leaves none, the first
        bool found = false;
        for (Index t = 0; t < kernel_h * kernel_w; t++) {
            const Index r = top + t / kernel_w, c = left + t % kernel_w;
            const Real v = r >= 0 && r < h && c >= 0 && c < w ? plane[r * w + c] : (Real)0;
            sum += v;
            if (t == 0) chosen = v;
            if (!found && sum >= threshold) {
                found = true;
                chosen = v;
                row = r;
                column = c;
            }
        }
        y[i] = chosen;
        index[i] = (int)((max(row, (Index)0) - top) * kernel_w + max(column, (Index)0) - left);
    }
}

// s^-beta: three square roots where beta is the usual one.
static __device__ Real to_minus(Real s, Real beta) {
    if (beta != (Real)0.75) return pow(s, -beta);
    const Real root = rsqrt(s);
    return root * sqrt(root);
}

// s = k + alpha * (sum of squares over the window of channels, which lie `inner` apart)
extern "C" __global__ void lrn_scale_across(
    Index n, const Value* x, Real* scale, Index channels, Index inner, Index half, Real alpha, Real k) {
    FOR_EACH(i, n) {
        const Index c = i / inner % channels;
        const Index before = min(half, c), after = min(half, channels - 1 - c);
        Real sum = 0;
        for (Index d = -before; d <= after; d++) {
            const Real v = x[i + d * inner];
            sum += v * v;
        }
        scale[i] = sum * alpha + k;
    }
}

// s = k + alpha * (sum of squares over the window of positions)
extern "C" __global__ void lrn_scale_within(
    Index n, const Real* x, Real* scale, Index h, Index w, Index half, Real alpha, Real k) {
    FOR_EACH(i, n) {
        const Index row = i / w % h, column = i % w;
        Real sum = 0;
        for (Index a = -min(half, row); a <= min(half, h - 1 - row); a++)
            for (Index b = -min(half, column); b <= min(half, w - 1 - column); b++) {
                const Real v = x[i + a * w + b];
                sum += v * v;
            }
        scale[i] = sum * alpha + k;
    }
}

extern "C" __global__ void lrn_forward(Index n, const Value* x, const Real* scale, Value* y, Real beta) {
    FOR_EACH(i, n) y[i] = (Value)((Real)x[i] * to_minus(scale[i], beta));
}

// dy x s^(-beta - 1), whose sums over windows backward needs
extern "C" __global__ void lrn_ratio(
    Index n, const Value* dy, const Value* x, const Real* scale, Real* ratio, Real beta) {
    FOR_EACH(i, n) ratio[i] = (Real)dy[i] * to_minus(scale[i], beta) * (Real)x[i] / scale[i];
}

extern "C" __global__ void lrn_backward_across(
    Index n, const Value* dy, const Value* x, const Real* scale, const Real* ratio, Value* dx, Index channels,
    Index inner, Index half, Real factor, Real beta) {
    FOR_EACH(i, n) {
        const Index c = i / inner % channels;
        const Index before = min(half, c), after = min(half, channels - 1 - c);
        Real sum = 0;
        for (Index d = -before; d <= after; d++) sum += ratio[i + d * inner];
        dx[i] = (Value)((Real)dy[i] * to_minus(scale[i], beta) - factor * (Real)x[i] * sum);
    }
}

// Channels last, TOGETHER of them and up to HALO on both sides in registers: nothing is kept between the passes, since
// computing s again takes less time than reading it.
#define HALO 4
#define SPAN (TOGETHER + 2 * HALO)

// The values of channels c - HALO..c + TOGETHER + HALO - 1 of a pixel; `x` is at channel c. 0 where there is none.
static __device__ void gather(const Value* x, Index c, Index channels, Real* values) {
    constexpr int N = TOGETHER < HALO ? TOGETHER : HALO;
#pragma unroll
    for (int j = 0; j < SPAN; j += N) {
        const Index channel = c + j - HALO;
        Pack<Value, N> here;
        const bool inside = channel >= 0 && channel < channels;
        if (inside) here = load<N>(x + j - HALO);
#pragma unroll
        for (int k = 0; k < N; k++) values[j + k] = inside ? (Real)here.at[k] : (Real)0;
    }
}

// s of the place j in a span.
template <int HALF>
static __device__ Real scale_of(const Real* values, int j, Real alpha, Real k) {
    Real sum = 0;
#pragma unroll
    for (int d = -HALF; d <= HALF; d++) sum += values[j + d] * values[j + d];
    return sum * alpha + k;
}

template <int HALF>
static __device__ void normalize_span(
    Index i, const Value* x, Value* y, Index channels, Real alpha, Real k, Real beta) {
    Real values[SPAN];
    gather(x + i, i % channels, channels, values);
    Pack<Value, TOGETHER> out;
#pragma unroll
    for (int j = 0; j < TOGETHER; j++)
        out.at[j] = (Value)(values[HALO + j] * to_minus(scale_of<HALF>(values, HALO + j, alpha, k), beta));
    store(y + i, out);
}

// For channels in multiples of TOGETHER and windows of 3 or 5 of them.
extern "C" __global__ void lrn_forward_last(
    Index n, const Value* x, Value* y, Index channels, Index half, Real alpha, Real k, Real beta) {
    FOR_EACH(i, n / TOGETHER) {
        if (half == 1)
            normalize_span<1>(i * TOGETHER, x, y, channels, alpha, k, beta);
        else
            normalize_span<2>(i * TOGETHER, x, y, channels, alpha, k, beta);
    }
}

template <int HALF>
static __device__ void span_backward(
    Index i, const Value* dy, const Value* x, Value* dx, Index channels, Real alpha, Real k, Real factor, Real beta) {
    const Index c = i % channels;
    Real values[SPAN], slopes[SPAN], ratios[SPAN];
    gather(x + i, c, channels, values);
    gather(dy + i, c, channels, slopes);
#pragma unroll
    for (int j = HALO - HALF; j < HALO + TOGETHER + HALF; j++) {
        const Index channel = c + j - HALO;
        const Real scale = scale_of<HALF>(values, j, alpha, k);
        slopes[j] *= to_minus(scale, beta);
        ratios[j] = channel >= 0 && channel < channels ? slopes[j] * values[j] / scale : (Real)0;
    }
    Pack<Value, TOGETHER> out;
#pragma unroll
    for (int j = HALO; j < HALO + TOGETHER; j++) {
        Real sum = 0;
#pragma unroll
        for (int d = -HALF; d <= HALF; d++) sum += ratios[j + d];
        out.at[j - HALO] = (Value)(slopes[j] - factor * values[j] * sum);
    }
    store(dx + i, out);
}

extern "C" __global__ void lrn_backward_last(
    Index n, const Value* dy, const Value* x, Value* dx, Index channels, Index half, Real alpha, Real k, Real factor,
    Real beta) {
    FOR_EACH(i, n / TOGETHER) {
        if (half == 1)
            span_backward<1>(i * TOGETHER, dy, x, dx, channels, alpha, k, factor, beta);
        else
            span_backward<2>(i * TOGETHER, dy, x, dx, channels, alpha, k, factor, beta);
    }
}

extern "C" __global__ void lrn_backward_within(
    Index n, const Real* dy, const Real* x, const Real* scale, const Real* ratio, Real* dx, Index h, Index w,
    Index half, Real factor, Real beta) {
    FOR_EACH(i, n) {
        const Index row = i / w % h, column = i % w;
        Real sum = 0;
        for (Index a = -min(half, row); a <= min(half, h - 1 - row); a++)
            for (Index b = -min(half, column); b <= min(half, w - 1 - column); b++) sum += ratio[i + a * w + b];
        dx[i] = dy[i] * to_minus(scale[i], beta) - factor * x[i] * sum;
    }
}
