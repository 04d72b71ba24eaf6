// Arrays seen as rows of consecutive values: one block a row.
#include "kernel.cuh"

template <class Value>
static __device__ void reduce_rows(Index rows, Index width, Real* y, Real coeff, Real* room, Value value) {
    FOR_ROWS(row, rows) {
        Real sum = 0;
        FOR_ROW(i, width) sum += value(row * width + i);
        sum = over_block<Plus>(sum, room);
        if (threadIdx.x == 0) y[row] = coeff * sum;
    }
}

extern "C" __global__ void reduce_sum(Index rows, Index width, const Real* x, Real* y, Real coeff) {
    __shared__ Real room[32];
    reduce_rows(rows, width, y, coeff, room, [=](Index i) { return x[i]; });
}

extern "C" __global__ void reduce_asum(Index rows, Index width, const Real* x, Real* y, Real coeff) {
    __shared__ Real room[32];
    reduce_rows(rows, width, y, coeff, room, [=](Index i) { return fabs(x[i]); });
}

extern "C" __global__ void reduce_sumsq(Index rows, Index width, const Real* x, Real* y, Real coeff) {
    __shared__ Real room[32];
    reduce_rows(rows, width, y, coeff, room, [=](Index i) { return x[i] * x[i]; });
}

extern "C" __global__ void reduce_sum_backward(Index n, const Real* dy, Real* dx, Index width, Real coeff) {
    FOR_EACH(i, n) dx[i] = coeff * dy[i / width];
}

extern "C" __global__ void reduce_asum_backward(
    Index n, const Real* dy, const Real* x, Real* dx, Index width, Real coeff) {
    FOR_EACH(i, n) {
        const Real v = x[i];
        dx[i] = (v != v ? v : (Real)((v > 0) - (v < 0))) * (coeff * dy[i / width]);
    }
}

extern "C" __global__ void reduce_sumsq_backward(
    Index n, const Real* dy, const Real* x, Real* dx, Index width, Real coeff) {
    FOR_EACH(i, n) dx[i] = x[i] * (2 * coeff * dy[i / width]);
}

// y = x - mean, over std + eps if `scales`; y may be x. `normalized`, if given, gets a copy of y.
extern "C" __global__ void mvn_forward(
    Index rows, Index width, const Real* x, Real* y, Real* normalized, Real* center, Real* deviation, Real eps,
    Index scales) {
    __shared__ Real room[32];
    FOR_ROWS(row, rows) {
        const Real* from = x + row * width;
        Real sum = 0;
        FOR_ROW(i, width) sum += from[i];
        const Real mean = over_block<Plus>(sum, room) / width;
        Real divisor = 1;
        if (scales) {
            Real squares = 0;
            FOR_ROW(i, width) squares += (from[i] - mean) * (from[i] - mean);
            divisor = sqrt(over_block<Plus>(squares, room) / width) + eps;
        }
        FOR_ROW(i, width) {
            const Real v = (from[i] - mean) / divisor;
            y[row * width + i] = v;
            if (normalized) normalized[row * width + i] = v;
        }
        if (threadIdx.x == 0) {
            center[row] = mean;
            deviation[row] = divisor;
        }
    }
}

// dx = (dy - mean(dy) - mean(dy y) y) / deviation; y is x where center is absent. dx may be dy.
extern "C" __global__ void mvn_backward(
    Index rows, Index width, const Real* dy, const Real* x, Real* dx, const Real* center, const Real* deviation,
    Index scales) {
    __shared__ Real room[32];
    FOR_ROWS(row, rows) {
        const Index start = row * width;
        Real sum = 0, dot = 0;
        FOR_ROW(i, width) {
            sum += dy[start + i];
            if (scales) dot += dy[start + i] * (center ? (x[start + i] - center[row]) / deviation[row] : x[start + i]);
        }
        const Real mean = over_block<Plus>(sum, room) / width, along = over_block<Plus>(dot, room) / width;
        FOR_ROW(i, width) {
            Real g = dy[start + i] - mean;
            if (scales) {
                const Real y = center ? (x[start + i] - center[row]) / deviation[row] : x[start + i];
                g = (g - along * y) / deviation[row];
            }
            dx[start + i] = g;
        }
    }
}
