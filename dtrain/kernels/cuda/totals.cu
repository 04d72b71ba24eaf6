// The end of a loss or a score: one block adds the rows of totals up, always in the same order, and divides.
#include "losses.cuh"

// sums <- (amount, counted, divisor); quotient <- amount / divisor. The divisor is `constant`, or where that is 0
// the number counted, at least 1. `fault`, where labels are looked at, is (passes, place, value): of the first wrong
// one since it was cleared.
extern "C" __global__ void conclude(
    Index rows, const double* totals, double constant, Real* quotient, double* sums, const Real* labels,
    double* fault) {
    __shared__ double room[32];
    double amount = 0, counted = 0, first = NOWHERE;
    FOR_ROW(i, rows) {
        amount += totals[i * 3];
        counted += totals[i * 3 + 1];
        first = Smaller::join(first, totals[i * 3 + 2]);
    }
    amount = over_block<Plus>(amount, room);
    counted = over_block<Plus>(counted, room);
    first = over_block<Smaller>(first, room);
    if (threadIdx.x) return;
    const double divisor = constant > 0 ? constant : counted > 1 ? counted : 1.0;
    sums[0] = amount;
    sums[1] = counted;
    sums[2] = divisor;
    quotient[0] = (Real)(amount / divisor);
    if (fault && first < NOWHERE) {
        if (fault[0] == 0) {
            fault[1] = first;
            fault[2] = labels[(Index)first];
        }
        fault[0] += 1;
    }
}
