// Pooling of planes (H, W): n counts outputs forward and inputs backward, over all images and channels. Backward
// gathers: an input asks the windows that it lies in, so that no two threads add to one place.
#include "kernel.cuh"

// `index` is the place in the plane of the first of the largest; a window that lies beyond the image, as a stride
// above the kernel's size allows, has none: -1, and the least number, as in Caffe.
extern "C" __global__ void max_pool_forward(
    Index n, const Real* x, Real* y, int* index, Index h, Index w, Index out_h, Index out_w, Index kernel_h,
    Index kernel_w, Index stride_h, Index stride_w, Index pad_h, Index pad_w) {
    FOR_EACH(i, n) {
        const Real* plane = x + i / out_w / out_h * h * w;
        Index top = i / out_w % out_h * stride_h - pad_h, left = i % out_w * stride_w - pad_w;
        const Index bottom = min(top + kernel_h, h), right = min(left + kernel_w, w);
        top = max(top, (Index)0);
        left = max(left, (Index)0);
        Index at = -1;
        Real most = -Limits<Real>::largest();
        for (Index a = top; a < bottom; a++)
            for (Index b = left; b < right; b++) {
                const Real v = plane[a * w + b];
                if (at < 0 || v > most || (v != v && most == most)) {
                    most = v;
                    at = a * w + b;
                }
            }
        y[i] = most;
        index[i] = (int)at;
    }
}

// The windows that may hold a position of the padded image along one axis: first..last.
static __device__ Index first_window(Index place, Index kernel, Index stride) {
    return place < kernel ? 0 : (place - kernel) / stride + 1;
}

static __device__ Index last_window(Index place, Index stride, Index out) { return min(place / stride, out - 1); }

// For maximum and stochastic pooling: dy goes to the chosen element.
extern "C" __global__ void pool_backward(
    Index n, const Real* dy, const int* index, Real* dx, Index h, Index w, Index out_h, Index out_w, Index kernel_h,
    Index kernel_w, Index stride_h, Index stride_w, Index pad_h, Index pad_w) {
    FOR_EACH(i, n) {
        const Index plane = i / w / h * out_h * out_w, row = i / w % h, column = i % w, own = row * w + column;
        const Index last_a = last_window(row + pad_h, stride_h, out_h);
        const Index last_b = last_window(column + pad_w, stride_w, out_w);
        Real sum = 0;
        for (Index a = first_window(row + pad_h, kernel_h, stride_h); a <= last_a; a++)
            for (Index b = first_window(column + pad_w, kernel_w, stride_w); b <= last_b; b++) {
                const Index at = plane + a * out_w + b;
                if (index[at] == own) sum += dy[at];
            }
        dx[i] = sum;
    }
}

// Elements of a window inside the padded image.
static __device__ Real window_area(
    Index a, Index b, Index h, Index w, Index kernel_h, Index kernel_w, Index stride_h, Index stride_w, Index pad_h,
    Index pad_w) {
    const Index top = a * stride_h - pad_h, left = b * stride_w - pad_w;
    return (Real)((min(top + kernel_h, h + pad_h) - top) * (min(left + kernel_w, w + pad_w) - left));
}

extern "C" __global__ void mean_pool_forward(
    Index n, const Real* x, Real* y, Index h, Index w, Index out_h, Index out_w, Index kernel_h, Index kernel_w,
    Index stride_h, Index stride_w, Index pad_h, Index pad_w) {
    FOR_EACH(i, n) {
        const Real* plane = x + i / out_w / out_h * h * w;
        const Index a = i / out_w % out_h, b = i % out_w;
        const Index top = a * stride_h - pad_h, left = b * stride_w - pad_w;
        const Index bottom = min(top + kernel_h, h), right = min(left + kernel_w, w);
        Real sum = 0;
        for (Index r = max(top, (Index)0); r < bottom; r++)
            for (Index c = max(left, (Index)0); c < right; c++) sum += plane[r * w + c];
        y[i] = sum / window_area(a, b, h, w, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w);
    }
}

extern "C" __global__ void mean_pool_backward(
    Index n, const Real* dy, Real* dx, Index h, Index w, Index out_h, Index out_w, Index kernel_h, Index kernel_w,
    Index stride_h, Index stride_w, Index pad_h, Index pad_w) {
    FOR_EACH(i, n) {
        const Real* plane = dy + i / w / h * out_h * out_w;
        const Index row = i / w % h, column = i % w;
        const Index last_a = last_window(row + pad_h, stride_h, out_h);
        const Index last_b = last_window(column + pad_w, stride_w, out_w);
        Real sum = 0;
        for (Index a = first_window(row + pad_h, kernel_h, stride_h); a <= last_a; a++)
            for (Index b = first_window(column + pad_w, kernel_w, stride_w); b <= last_b; b++)
                sum += plane[a * out_w + b] /
                       window_area(a, b, h, w, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w);
        dx[i] = sum;
    }
}

// An element with probability proportional to its value; `drawn` is uniform in [0, 1). What lies outside counts as 0.
// Without `drawn` the mean of the values weighted with themselves.
extern "C" __global__ void stochastic_pool_forward(
    Index n, const Real* x, Real* y, int* index, const double* drawn, Index h, Index w, Index out_h, Index out_w,
    Index kernel_h, Index kernel_w, Index stride_h, Index stride_w, Index pad_h, Index pad_w) {
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
        if (!drawn) {
            y[i] = squares / (total > 0 ? total : (Real)1);
            continue;
        }
        const double threshold = drawn[i] * total;
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
        index[i] = (int)(max(row, (Index)0) * w + max(column, (Index)0));
    }
}

// The argmax as numbers of the net's type.
extern "C" __global__ void index_to_real(Index n, const int* index, Real* y) {
    FOR_EACH(i, n) y[i] = (Real)index[i];
}

// s = k + alpha * (sum of squares over the window of channels)
extern "C" __global__ void lrn_scale_across(
    Index n, const Real* x, Real* scale, Index channels, Index inner, Index half, Real alpha, Real k) {
    FOR_EACH(i, n) {
        const Index c = i / inner % channels;
        const Index before = min(half, c), after = min(half, channels - 1 - c);
        Real sum = 0;
        for (Index d = -before; d <= after; d++) sum += x[i + d * inner] * x[i + d * inner];
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

extern "C" __global__ void lrn_forward(Index n, const Real* x, const Real* scale, Real* y, Real beta) {
    FOR_EACH(i, n) y[i] = x[i] * pow(scale[i], -beta);
}

// dy x s^(-beta - 1), whose sums over windows backward needs
extern "C" __global__ void lrn_ratio(
    Index n, const Real* dy, const Real* x, const Real* scale, Real* ratio, Real beta) {
    FOR_EACH(i, n) ratio[i] = dy[i] * pow(scale[i], -beta) * x[i] / scale[i];
}

extern "C" __global__ void lrn_backward_across(
    Index n, const Real* dy, const Real* x, const Real* scale, const Real* ratio, Real* dx, Index channels,
    Index inner, Index half, Real factor, Real beta) {
    FOR_EACH(i, n) {
        const Index c = i / inner % channels;
        const Index before = min(half, c), after = min(half, channels - 1 - c);
        Real sum = 0;
        for (Index d = -before; d <= after; d++) sum += ratio[i + d * inner];
        dx[i] = dy[i] * pow(scale[i], -beta) - factor * x[i] * sum;
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
        dx[i] = dy[i] * pow(scale[i], -beta) - factor * x[i] * sum;
    }
}
