// Values that move: blocks, strides, rows by index, interpolation.
#include "kernel.cuh"

// Up to four arrays of rows side by side, and the whole whose rows are `stride` long and hold theirs from `start` on.
// n counts the values of the four; a size of 0 is no array, a null pointer one that is left out.
#define PARTS(T) T *x0, T *x1, T *x2, T *x3, Index size0, Index size1, Index size2, Index size3
#define PARTS_GIVEN x0, x1, x2, x3, size0, size1, size2, size3

template <class F, class T>
static __device__ void each_block(Index n, Index together, F copy, PARTS(T)) {
    const Index width = size0 + size1 + size2 + size3;
    FOR_EACH(i, n / together) {
        const Index row = i * together / width, at = i * together - row * width;
        Index from = at;
        T* x = x0;
        Index size = size0;
        if (from >= size) {
            from -= size;
            x = x1;
            size = size1;
            if (from >= size) {
                from -= size;
                x = x2;
                size = size2;
                if (from >= size) {
                    from -= size;
                    x = x3;
                    size = size3;
                }
            }
        }
        if (x) copy(x + row * size + from, row, at);
    }
}

// Whether all blocks begin and end where a thread may take TOGETHER values.
template <class T>
static __device__ bool are_packs(const Value* whole, Index start, Index stride, PARTS(T)) {
    return (start | stride | size0 | size1 | size2 | size3) % TOGETHER == 0 && is_aligned(whole) && is_aligned(x0) &&
           is_aligned(x1) && is_aligned(x2) && is_aligned(x3);
}

extern "C" __global__ void join_blocks(Index n, Value* whole, Index start, Index stride, PARTS(const Value)) {
    const auto packs = [=](const Value* x, Index row, Index at) {
        store(whole + row * stride + start + at, load<TOGETHER>(x));
    };
    const auto ones = [=](const Value* x, Index row, Index at) { whole[row * stride + start + at] = *x; };
    if (are_packs(whole, start, stride, PARTS_GIVEN))
        each_block(n, TOGETHER, packs, PARTS_GIVEN);
    else
        each_block(n, 1, ones, PARTS_GIVEN);
}

extern "C" __global__ void part_blocks(Index n, const Value* whole, Index start, Index stride, PARTS(Value)) {
    const auto packs = [=](Value* x, Index row, Index at) {
        store(x, load<TOGETHER>(whole + row * stride + start + at));
    };
    const auto ones = [=](Value* x, Index row, Index at) { *x = whole[row * stride + start + at]; };
    if (are_packs(whole, start, stride, PARTS_GIVEN))
        each_block(n, TOGETHER, packs, PARTS_GIVEN);
    else
        each_block(n, 1, ones, PARTS_GIVEN);
}

// `table`: extents, strides in x, strides in y, `axes` numbers each.
extern "C" __global__ void copy_strided(
    Index n, const Value* x, Value* y, const long long* table, Index axes, Index x_start, Index y_start) {
    FOR_EACH(i, n) {
        Index rest = i, from = x_start, to = y_start;
        for (int axis = (int)axes - 1; axis >= 0; axis--) {
            const Index extent = (Index)table[axis], at = rest % extent;
            rest /= extent;
            from += at * (Index)table[axes + axis];
            to += at * (Index)table[2 * axes + axis];
        }
        y[to] = x[from];
    }
}

// y (outer, inner) = x (outer, times, inner) summed over the middle; n counts y.
extern "C" __global__ void sum_middle(Index n, const Real* x, Real* y, Index times, Index inner) {
    FOR_EACH(i, n) {
        const Real* from = x + i / inner * times * inner + i % inner;
        Real sum = 0;
        for (Index t = 0; t < times; t++) sum += from[t * inner];
        y[i] = sum;
    }
}

// y += x, whose `period` values repeat.
extern "C" __global__ void add_repeated(Index n, const Real* x, Real* y, Index period) {
    FOR_EACH(i, n) y[i] += x[i % period];
}

// Each pixel of dx is the sum of its block of tall x wide pixels; w is the extent of dx.
extern "C" __global__ void repeat_backward(Index n, const Real* dy, Real* dx, Index w, Index tall, Index wide) {
    FOR_EACH(i, n) {
        const Real* from = dy + i / w * tall * w * wide + i % w * wide;
        Real sum = 0;
        for (Index a = 0; a < tall; a++)
            for (Index b = 0; b < wide; b++) sum += from[a * w * wide + b];
        dx[i] = sum;
    }
}

// Row r of y is row rows[r] of x, plus the bias if there is one.
extern "C" __global__ void gather_rows(
    Index n, const Real* x, Real* y, const int* rows, const Real* bias, Index width) {
    FOR_EACH(i, n) {
        const Index r = i / width, at = i - r * width;
        const Real v = x[rows[r] * width + at];
        y[i] = bias ? v + bias[at] : v;
    }
}

// Row rows[r] of y is row r of x; no row occurs twice.
extern "C" __global__ void scatter_rows(Index n, const Real* x, Real* y, const int* rows, Index width) {
    FOR_EACH(i, n) {
        const Index r = i / width;
        y[rows[r] * width + i - r * width] = x[i];
    }
}

// Row rows[r] of y gets, or is added, the sum of the rows order[starts[r]..starts[r + 1]) of x; rows are distinct.
extern "C" __global__ void sum_rows(
    Index n, const Real* x, Real* y, const int* rows, const int* starts, const int* order, Index width, Index add) {
    FOR_EACH(i, n) {
        const Index r = i / width, at = i - r * width;
        Real sum = 0;
        for (int j = starts[r]; j < starts[r + 1]; j++) sum += x[order[j] * width + at];
        Real* to = y + rows[r] * width + at;
        *to = add ? *to + sum : sum;
    }
}

// y (planes, out_h, out_w) = sum of x (planes, h, w) over the listed rows and columns, weighted: those of output row
// a are number row_starts[a] to row_starts[a + 1].
extern "C" __global__ void combine_lines(
    Index n, const Real* x, Real* y, Index h, Index w, Index out_h, Index out_w, const int* row_starts,
    const int* rows, const Real* row_weights, const int* column_starts, const int* columns,
    const Real* column_weights) {
    FOR_EACH(i, n) {
        const Index a = i / out_w % out_h, b = i % out_w;
        const Real* plane = x + i / out_w / out_h * h * w;
        Real sum = 0;
        for (int r = row_starts[a]; r < row_starts[a + 1]; r++) {
            Real line = 0;
            for (int c = column_starts[b]; c < column_starts[b + 1]; c++)
                line += column_weights[c] * plane[(Index)rows[r] * w + columns[c]];
            sum += row_weights[r] * line;
        }
        y[i] = sum;
    }
}

// Masks that point outside of the plane: the number of them, for each block.
extern "C" __global__ void count_outside(Index n, double* totals, const Real* mask, Index places) {
    __shared__ double room[32];
    double wrong = 0;
    FOR_EACH(i, n) {
        const long long at = integer(mask[i]);
        wrong += at < 0 || at >= places;
    }
    wrong = over_block<Plus>(wrong, room);
    if (threadIdx.x == 0) totals[blockIdx.x] = wrong;
}

// The last value that points at each place wins; `winner` begins as -1. n counts values, `own` those of a plane.
extern "C" __global__ void unpool_choose(Index n, const Real* mask, int* winner, Index own, Index places) {
    FOR_EACH(i, n) {
        const Index plane = i / own;
        atomicMax(winner + plane * places + (Index)integer(mask[i]), (int)(i - plane * own));
    }
}

extern "C" __global__ void unpool_forward(Index n, const Real* x, const int* winner, Real* y, Index own, Index places) {
    FOR_EACH(i, n) y[i] = winner[i] < 0 ? (Real)0 : x[i / places * own + winner[i]];
}

extern "C" __global__ void unpool_backward(
    Index n, const Real* dy, const Real* mask, Real* dx, Index own, Index places) {
    FOR_EACH(i, n) dx[i] = dy[i / own * places + (Index)integer(mask[i])];
}

// The top_k largest of each row (channels apart by inner), largest first, of equal ones that of the larger index.
// `indices` or `values` may be absent; both are written `step` apart, rows `row` apart.
extern "C" __global__ void arg_max(
    Index n, const Real* x, Real* indices, Real* values, Index channels, Index inner, Index top_k, Index row,
    Index step) {
    FOR_EACH(i, n) {
        const Real* from = x + i / inner * channels * inner + i % inner;
        const Index to = i / inner * row + i % inner;
        Index last = -1;
        for (Index k = 0; k < top_k; k++) {
            Index best = -1;
            for (Index c = 0; c < channels; c++) {
                const Real v = from[c * inner];
                if (last >= 0) {  // only what comes behind the last one
                    const Real bound = from[last * inner];
                    if (v > bound || (v == bound && c >= last)) continue;
                }
                if (best < 0 || v >= from[best * inner]) best = c;
            }
            last = best;
            if (indices) indices[to + k * step] = (Real)best;
            if (values) values[to + k * step] = best < 0 ? (Real)0 : from[best * inner];
        }
    }
}

// The bins of each region: rows [row_first, row_last) of bin a, columns likewise. The maximum in each bin of the
// region's image; an empty bin gives 0 and index -1.
extern "C" __global__ void roi_pool_forward(
    Index n, const Real* x, Real* y, int* index, const int* images, const int* row_first, const int* row_last,
    const int* column_first, const int* column_last, Index channels, Index h, Index w, Index bins_h, Index bins_w) {
    FOR_EACH(i, n) {
        const Index b = i % bins_w, a = i / bins_w % bins_h, c = i / bins_w / bins_h % channels;
        const Index region = i / bins_w / bins_h / channels;
        const Real* plane = x + (images[region] * channels + c) * h * w;
        const int right = column_last[region * bins_w + b], bottom = row_last[region * bins_h + a];
        Real most = 0;
        int at = -1;
        for (int r = row_first[region * bins_h + a]; r < bottom; r++)
            for (int k = column_first[region * bins_w + b]; k < right; k++) {
                const Real v = plane[r * w + k];
                if (at < 0 || v > most || (v != v && most == most)) {
                    most = v;
                    at = (int)(r * w + k);
                }
            }
        y[i] = most;
        index[i] = at;
    }
}

// An element asks the bins of all regions of its image that it lies in.
extern "C" __global__ void roi_pool_backward(
    Index n, const Real* dy, const int* index, Real* dx, const int* images, const int* row_first,
    const int* row_last, const int* column_first, const int* column_last, Index regions, Index channels, Index h,
    Index w, Index bins_h, Index bins_w) {
    FOR_EACH(i, n) {
        const Index column = i % w, row = i / w % h, c = i / w / h % channels, image = i / w / h / channels;
        Real sum = 0;
        for (Index region = 0; region < regions; region++) {
            if (images[region] != image) continue;
            for (Index a = 0; a < bins_h; a++) {
                if (row < row_first[region * bins_h + a] || row >= row_last[region * bins_h + a]) continue;
                for (Index b = 0; b < bins_w; b++) {
                    const Index at = ((region * channels + c) * bins_h + a) * bins_w + b;
                    if (index[at] == row * w + column) sum += dy[at];
                }
            }
        }
        dx[i] = sum;
    }
}

// The mean in bin (a, b), of channel (c * bins + a) * bins + b of x; c counts the tops' channels.
extern "C" __global__ void psroi_pool_forward(
    Index n, const Real* x, Real* y, const int* images, const int* row_first, const int* row_last,
    const int* column_first, const int* column_last, Index channels, Index h, Index w, Index bins) {
    FOR_EACH(i, n) {
        const Index b = i % bins, a = i / bins % bins, c = i / bins / bins % channels;
        const Index region = i / bins / bins / channels;
        const Real* plane = x + (((images[region] * channels + c) * bins + a) * bins + b) * h * w;
        const int top = row_first[region * bins + a], bottom = row_last[region * bins + a];
        const int left = column_first[region * bins + b], right = column_last[region * bins + b];
        Real sum = 0;
        for (int r = top; r < bottom; r++)
            for (int k = left; k < right; k++) sum += plane[r * w + k];
        y[i] = top < bottom && left < right ? sum / ((bottom - top) * (right - left)) : (Real)0;
    }
}

extern "C" __global__ void psroi_pool_backward(
    Index n, const Real* dy, Real* dx, const int* images, const int* row_first, const int* row_last,
    const int* column_first, const int* column_last, Index regions, Index channels, Index h, Index w, Index bins) {
    FOR_EACH(i, n) {
        const Index column = i % w, row = i / w % h, b = i / w / h % bins, a = i / w / h / bins % bins;
        const Index c = i / w / h / bins / bins % channels, image = i / w / h / bins / bins / channels;
        Real sum = 0;
        for (Index region = 0; region < regions; region++) {
            const int top = row_first[region * bins + a], bottom = row_last[region * bins + a];
            const int left = column_first[region * bins + b], right = column_last[region * bins + b];
            if (images[region] != image || row < top || row >= bottom || column < left || column >= right) continue;
            sum += dy[((region * channels + c) * bins + a) * bins + b] / ((bottom - top) * (right - left));
        }
        dx[i] = sum;
    }
}
