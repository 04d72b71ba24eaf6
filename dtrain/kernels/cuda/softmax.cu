// Softmax over one axis, and losses of a softmax. Scores are (outer, channels, inner), a position is one
// (outer, inner).
#include "losses.cuh"

// inner is 1: a block for each row. y may be x.
extern "C" __global__ void softmax_rows(Index rows, Index width, const Real* x, Real* y) {
    __shared__ Real room[32];
    FOR_ROWS(row, rows) {
        const Real* from = x + row * width;
        Real* to = y + row * width;
        Real most = -Limits<Real>::infinity(), sum = 0;
        FOR_ROW(i, width) most = Larger::join(most, from[i]);
        most = over_block<Larger>(most, room);
        FOR_ROW(i, width) {
            const Real e = exp(from[i] - most);
            to[i] = e;
            sum += e;
        }
        sum = over_block<Plus>(sum, room);
        FOR_ROW(i, width) to[i] /= sum;
    }
}

// A thread for each position: neighbours read neighbours.
extern "C" __global__ void softmax_positions(Index n, const Real* x, Real* y, Index channels, Index inner) {
    FOR_EACH(i, n) {
        const Index start = i / inner * channels * inner + i % inner;
        Real most = x[start], sum = 0;
        for (Index c = 1; c < channels; c++) most = Larger::join(most, x[start + c * inner]);
        for (Index c = 0; c < channels; c++) {
            const Real e = exp(x[start + c * inner] - most);
            y[start + c * inner] = e;
            sum += e;
        }
        for (Index c = 0; c < channels; c++) y[start + c * inner] /= sum;
    }
}

// dx = (dy - sum(dy y)) y; dx may be dy.
extern "C" __global__ void softmax_backward_rows(
    Index rows, Index width, const Real* dy, const Real* y, Real* dx) {
    __shared__ Real room[32];
    FOR_ROWS(row, rows) {
        const Index start = row * width;
        Real dot = 0;
        FOR_ROW(i, width) dot += dy[start + i] * y[start + i];
        dot = over_block<Plus>(dot, room);
        FOR_ROW(i, width) dx[start + i] = (dy[start + i] - dot) * y[start + i];
    }
}

extern "C" __global__ void softmax_backward_positions(
    Index n, const Real* dy, const Real* y, Real* dx, Index channels, Index inner) {
    FOR_EACH(i, n) {
        const Index start = i / inner * channels * inner + i % inner;
        Real dot = 0;
        for (Index c = 0; c < channels; c++) dot += dy[start + c * inner] * y[start + c * inner];
        for (Index c = 0; c < channels; c++) {
            const Index at = start + c * inner;
            dx[at] = (dy[at] - dot) * y[at];
        }
    }
}

// A position's label: -1 where it does not count, -2 where it is no class.
static __device__ long long class_of(Real label, Index channels, Index ignores, long long ignored) {
    const long long index = integer(label);
    if (ignores && index == ignored) return -1;
    return index >= 0 && index < channels ? index : -2;
}

static __device__ double surprise(Real p, double least) { return -log(p < least ? least : (double)p); }

extern "C" __global__ void softmax_loss_forward(
    Index n, double* totals, const Real* prob, const Real* labels, const Real* weights, Index channels, Index inner,
    Index ignores, long long ignored, double smoothing) {
    __shared__ double room[32];
    double loss = 0, counted = 0, first = NOWHERE;
    FOR_EACH(i, n) {
        const long long label = class_of(labels[i], channels, ignores, ignored);
        if (label == -2) first = Smaller::join(first, (double)i);
        if (label < 0) continue;
        const Real* p = prob + i / inner * channels * inner + i % inner;
        const double least = Limits<Real>::tiny();
        double own = surprise(p[(Index)label * inner], least);
        if (smoothing != 0) {
            double spread = 0;
            for (Index c = 0; c < channels; c++) spread += surprise(p[c * inner], least);
            own = (1 - smoothing) * own + smoothing * (spread / channels);
        }
        loss += weights ? own * weights[(Index)label] : own;
        counted += 1;
    }
    tell(loss, counted, first, totals, room);
}

// dx = scale (p - target); n counts elements.
extern "C" __global__ void softmax_loss_backward(
    Index n, const Real* prob, const Real* labels, const Real* weights, Real* dx, Index channels, Index inner,
    Index ignores, long long ignored, Real smoothing, const Real* loss_diff, const double* divisor) {
    const Real scale = slope_of_sum(loss_diff, divisor);
    FOR_EACH(i, n) {
        const Index c = i / inner % channels;
        const long long label = class_of(labels[i / inner / channels * inner + i % inner], channels, ignores, ignored);
        Real v = 0;
        if (label >= 0) {
            v = prob[i] - smoothing / channels - (c == label ? 1 - smoothing : (Real)0);
            v *= weights ? scale * weights[(Index)label] : scale;
        }
        dx[i] = v;
    }
}

// -sum_l matrix[label][l] log p[l]
extern "C" __global__ void infogain_loss_forward(
    Index n, double* totals, const Real* prob, const Real* labels, const Real* matrix, Index channels, Index inner,
    Index ignores, long long ignored, double least) {
    __shared__ double room[32];
    double loss = 0, counted = 0, first = NOWHERE;
    FOR_EACH(i, n) {
        const long long label = class_of(labels[i], channels, ignores, ignored);
        if (label == -2) first = Smaller::join(first, (double)i);
        if (label < 0) continue;
        const Real* p = prob + i / inner * channels * inner + i % inner;
        for (Index c = 0; c < channels; c++)
            loss += matrix[(Index)label * channels + c] * surprise(p[c * inner], least);
        counted += 1;
    }
    tell(loss, counted, first, totals, room);
}

// dx = scale (p sum_l matrix[label][l] - matrix[label]); n counts positions.
extern "C" __global__ void infogain_loss_backward(
    Index n, const Real* prob, const Real* labels, const Real* matrix, Real* dx, Index channels, Index inner,
    Index ignores, long long ignored, const Real* loss_diff, const double* divisor) {
    const Real scale = slope_of_sum(loss_diff, divisor);
    FOR_EACH(i, n) {
        const Index start = i / inner * channels * inner + i % inner;
        const long long label = class_of(labels[i], channels, ignores, ignored);
        Real total = 0;
        if (label >= 0)
            for (Index c = 0; c < channels; c++) total += matrix[(Index)label * channels + c];
        for (Index c = 0; c < channels; c++) {
            const Index at = start + c * inner;
            dx[at] = label < 0 ? (Real)0 : (prob[at] * total - matrix[(Index)label * channels + c]) * scale;
        }
    }
}

// -alpha (1 - p)^gamma log p
extern "C" __global__ void focal_loss_forward(
    Index n, double* totals, const Real* prob, const Real* labels, Index channels, Index inner, Index ignores,
    long long ignored, double alpha, double gamma) {
    __shared__ double room[32];
    double loss = 0, counted = 0, first = NOWHERE;
    FOR_EACH(i, n) {
        const long long label = class_of(labels[i], channels, ignores, ignored);
        if (label == -2) first = Smaller::join(first, (double)i);
        if (label < 0) continue;
        const Real p = prob[(i / inner * channels + (Index)label) * inner + i % inner];
        loss += alpha * pow(1 - (double)p, gamma) * surprise(p, Limits<Real>::tiny());
        counted += 1;
    }
    tell(loss, counted, first, totals, room);
}

extern "C" __global__ void focal_loss_backward(
    Index n, const Real* prob, const Real* labels, Real* dx, Index channels, Index inner, Index ignores,
    long long ignored, double alpha, double gamma, const Real* loss_diff, const double* divisor) {
    const Real scale = slope_of_sum(loss_diff, divisor);
    FOR_EACH(i, n) {
        const Index start = i / inner * channels * inner + i % inner;
        const long long label = class_of(labels[i], channels, ignores, ignored);
        Real slope = 0;
        if (label >= 0) {
            const double p = prob[start + (Index)label * inner], rest = 1 - p;
            const double power = alpha * pow(rest, gamma);
            const double less = rest > 1e-10 ? rest : 1e-10;
            slope = (Real)((power + gamma * power / less * surprise((Real)p, Limits<Real>::tiny()) * p) * scale);
        }
        for (Index c = 0; c < channels; c++) {
            const Index at = start + c * inner;
            dx[at] = label < 0 ? (Real)0 : (prob[at] - (Real)(c == label)) * slope;
        }
    }
}

// Right where fewer than top_k other classes score as high or higher. (right, counted, first wrong place); of_class and
// right_of_class count per class, if given: whole numbers, whose sum does not depend on an order.
extern "C" __global__ void accuracy_forward(
    Index n, double* totals, const Real* scores, const Real* labels, int* of_class, int* right_of_class,
    Index channels, Index inner, Index ignores, long long ignored, Index top_k) {
    __shared__ double room[32];
    double right = 0, counted = 0, first = NOWHERE;
    FOR_EACH(i, n) {
        const long long label = class_of(labels[i], channels, ignores, ignored);
        if (label == -2) first = Smaller::join(first, (double)i);
        if (label < 0) continue;
        const Real* x = scores + i / inner * channels * inner + i % inner;
        const Real own = x[(Index)label * inner];
        Index others = -1;
        for (Index c = 0; c < channels; c++) others += !(x[c * inner] < own);
        const bool is_right = others < top_k;
        right += is_right;
        counted += 1;
        if (of_class) {
            atomicAdd(of_class + label, 1);
            if (is_right) atomicAdd(right_of_class + label, 1);
        }
    }
    tell(right, counted, first, totals, room);
}

extern "C" __global__ void shares(Index n, const int* of_class, const int* right_of_class, Real* share) {
    FOR_EACH(c, n) share[c] = (Real)right_of_class[c] / (Real)(of_class[c] > 1 ? of_class[c] : 1);
}
