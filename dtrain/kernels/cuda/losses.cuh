// What losses and scores share. A forward kernel writes for each block a row of totals (amount, counted, first wrong
// place); totals.cu adds them up in order.
#pragma once
#include "kernel.cuh"

#define NOWHERE 9007199254740992.0  // 2^53, beyond every place

struct Smaller {
    template <class T> static __device__ T join(T a, T b) { return b < a ? b : a; }
};

// What a block's threads have counted, into its row.
static __device__ void tell(double amount, double counted, double first, double* totals, double* room) {
    amount = over_block<Plus>(amount, room);
    counted = over_block<Plus>(counted, room);
    first = over_block<Smaller>(first, room);
    if (threadIdx.x == 0) {
        totals[blockIdx.x * 3ll] = amount;
        totals[blockIdx.x * 3ll + 1] = counted;
        totals[blockIdx.x * 3ll + 2] = first;
    }
}

// The slope along a sum whose quotient is the loss: the loss's own over the divisor.
static __device__ Real slope_of_sum(const Real* loss_diff, const double* divisor) {
    return (Real)(loss_diff[0] / divisor[0]);
}
