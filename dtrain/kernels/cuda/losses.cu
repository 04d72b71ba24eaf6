// Losses of pairs of values.
#include "losses.cuh"

extern "C" __global__ void euclidean_forward(Index n, double* totals, const Real* a, const Real* b) {
    __shared__ double room[32];
    double loss = 0;
    FOR_EACH(i, n) {
        const Real d = a[i] - b[i];
        loss += (double)d * d / 2;
    }
    tell(loss, 0, NOWHERE, totals, room);
}

// dx = scale (a - b)
extern "C" __global__ void difference(
    Index n, const Real* a, const Real* b, Real* dx, const Real* loss_diff, const double* divisor) {
    const Real scale = slope_of_sum(loss_diff, divisor);
    FOR_EACH(i, n) dx[i] = (a[i] - b[i]) * scale;
}

// -t log p - (1 - t) log(1 - p), p = 1 / (1 + exp(-x))
extern "C" __global__ void cross_entropy_forward(
    Index n, double* totals, const Real* x, const Real* t, Index ignores, long long ignored) {
    __shared__ double room[32];
    double loss = 0, counted = 0;
    FOR_EACH(i, n) {
        if (ignores && integer(t[i]) == ignored) continue;
        const Real v = x[i];
        loss += (v > 0 || v != v ? v : (Real)0) - v * t[i] + log1p(exp(-fabs(v)));
        counted += 1;
    }
    tell(loss, counted, NOWHERE, totals, room);
}

extern "C" __global__ void cross_entropy_backward(
    Index n, const Real* x, const Real* t, Real* dx, Index ignores, long long ignored,
    const Real* loss_diff, const double* divisor) {
    const Real scale = slope_of_sum(loss_diff, divisor);
    FOR_EACH(i, n) {
        const Real small = exp(-fabs(x[i]));
        const Real p = (x[i] >= 0 ? (Real)1 : small) / (1 + small);
        dx[i] = ignores && integer(t[i]) == ignored ? (Real)0 : (p - t[i]) * scale;
    }
}

// max(0, 1 - d s), d = 1 for the label's class and -1 for the others; n counts scores.
extern "C" __global__ void hinge_forward(
    Index n, double* totals, const Real* scores, const Real* labels, Index classes, Index squared) {
    __shared__ double room[32];
    double loss = 0, first = NOWHERE;
    FOR_EACH(i, n) {
        const Index c = i % classes;
        const long long label = integer(labels[i / classes]);
        if (label < 0 || label >= classes) {
            first = Smaller::join(first, (double)(i / classes));
            continue;
        }
        const Real margin = 1 - (c == label ? scores[i] : -scores[i]);
        const Real v = margin > 0 || margin != margin ? margin : (Real)0;
        loss += squared ? v * v : v;
    }
    tell(loss, 0, first, totals, room);
}

extern "C" __global__ void hinge_backward(
    Index n, const Real* scores, const Real* labels, Real* dx, Index classes, Index squared,
    const Real* loss_diff, const double* divisor) {
    const Real scale = slope_of_sum(loss_diff, divisor);
    FOR_EACH(i, n) {
        const long long label = integer(labels[i / classes]);
        const Real d = label < 0 || label >= classes ? (Real)0 : i % classes == label ? (Real)1 : (Real)-1;
        const Real margin = 1 - d * scores[i];
        const Real slope = margin > 0 ? (squared ? 2 * margin : (Real)1) : (margin != margin ? margin : (Real)0);
        dx[i] = -scale * (slope * d);
    }
}

// -log p[label]; n counts labels.
extern "C" __global__ void logistic_forward(
    Index n, double* totals, const Real* prob, const Real* labels, Index classes, double least) {
    __shared__ double room[32];
    double loss = 0, first = NOWHERE;
    FOR_EACH(i, n) {
        const long long label = integer(labels[i]);
        if (label < 0 || label >= classes) {
            first = Smaller::join(first, (double)i);
            continue;
        }
        const double p = prob[i * classes + (Index)label];
        loss -= log(p < least ? least : p);
    }
    tell(loss, 0, first, totals, room);
}

// n counts probabilities.
extern "C" __global__ void logistic_backward(
    Index n, const Real* prob, const Real* labels, Real* dp, Index classes, Real least,
    const Real* loss_diff, const double* divisor) {
    const Real scale = slope_of_sum(loss_diff, divisor);
    FOR_EACH(i, n) {
        const bool own = i % classes == integer(labels[i / classes]);
        dp[i] = own ? -scale / (prob[i] < least ? least : prob[i]) : (Real)0;
    }
}

// A block for each pair: `squared` gets |a - b|^2.
extern "C" __global__ void squared_distances(Index rows, Index width, const Real* a, const Real* b, Real* squared) {
    __shared__ Real room[32];
    FOR_ROWS(row, rows) {
        Real sum = 0;
        FOR_ROW(i, width) {
            const Real d = a[row * width + i] - b[row * width + i];
            sum += d * d;
        }
        sum = over_block<Plus>(sum, room);
        if (threadIdx.x == 0) squared[row] = sum;
    }
}

extern "C" __global__ void contrastive_forward(
    Index n, double* totals, const Real* squared, const Real* similar, Real margin, Index legacy) {
    __shared__ double room[32];
    double loss = 0;
    FOR_EACH(i, n) {
        Real v = squared[i];
        if (integer(similar[i]) == 0) {
            const Real gap = margin - (legacy ? v : sqrt(v));
            v = gap > 0 || gap != gap ? (legacy ? gap : gap * gap) : (Real)0;
        }
        loss += (double)v / 2;
    }
    tell(loss, 0, NOWHERE, totals, room);
}

// da = scale (a - b) for similar pairs, the opposite direction within the margin; n counts values.
extern "C" __global__ void contrastive_backward(
    Index n, const Real* a, const Real* b, const Real* squared, const Real* similar, Real* da, Index channels,
    Real margin, Index legacy, Real epsilon, const Real* loss_diff, const double* divisor) {
    const Real scale = slope_of_sum(loss_diff, divisor);
    FOR_EACH(i, n) {
        const Index pair = i / channels;
        Real factor = 1;
        if (integer(similar[pair]) == 0) {
            const Real distance = sqrt(squared[pair]), gap = margin - distance;
            if (legacy)
                factor = margin > squared[pair] ? (Real)-1 : (Real)0;
            else
                factor = gap > 0 || gap != gap ? -gap / (distance + epsilon) : (Real)0;
        }
        da[i] = (a[i] - b[i]) * (factor * scale);
    }
}

// outside f(inside (a - b)), f(d) = (sigma d)^2 / 2 where |d| < 1 / sigma^2, else |d| - 1 / (2 sigma^2)
extern "C" __global__ void smooth_l1_forward(
    Index n, double* totals, const Real* a, const Real* b, const Real* inside, const Real* outside, Real sigma2) {
    __shared__ double room[32];
    double loss = 0;
    FOR_EACH(i, n) {
        Real d = a[i] - b[i];
        if (inside) d *= inside[i];
        const Real size = fabs(d);
        Real v = size < 1 / sigma2 ? sigma2 / 2 * d * d : size - (Real)0.5 / sigma2;
        if (outside) v *= outside[i];
        loss += v;
    }
    tell(loss, 0, NOWHERE, totals, room);
}

extern "C" __global__ void smooth_l1_backward(
    Index n, const Real* a, const Real* b, const Real* inside, const Real* outside, Real* da, Real sigma2,
    const Real* loss_diff, const double* divisor) {
    const Real scale = slope_of_sum(loss_diff, divisor);
    FOR_EACH(i, n) {
        Real d = a[i] - b[i];
        if (inside) d *= inside[i];
        Real slope = fabs(d) < 1 / sigma2 ? sigma2 * d : (Real)((d > 0) - (d < 0));
        if (d != d) slope = d;
        if (inside) slope *= inside[i];
        if (outside) slope *= outside[i];
        da[i] = slope * scale;
    }
}
