// Dropout: y = scale x where a drawn number says so, else 0; see kernels/cpu/dropout.py for which number is whose. The
// key changes from pass to pass, so it is read from the device's memory. y may be x.
#include "kernel.cuh"
#include "splitmix.cuh"

static __device__ Value kept(unsigned bits, unsigned limit, Value x, Real scale) {
    return (Value)(bits >= limit ? (Real)x * scale : (Real)0);
}

// n counts the words of all rows: two values a word.
extern "C" __global__ void dropout(
    Index n, const Value* x, Value* y, Index width, const unsigned long long* key, unsigned limit, Real scale,
    Index rank, Index size) {
    const Index words = (width + 1) / 2;  // of a row
    const unsigned long long start = key[0];
    FOR_EACH(i, n) {
        const Index row = i / words, word = i % words;
        const unsigned long long z = drawn(start, ((unsigned long long)row * size + rank) * words + word + 1);
        const Index at = row * width + 2 * word;
        y[at] = kept((unsigned)z, limit, x[at], scale);
        if (2 * word + 1 < width) y[at + 1] = kept((unsigned)(z >> 32), limit, x[at + 1], scale);
    }
}

// Of images with their channels last: a value draws as its place in Caffe's order says.
extern "C" __global__ void dropout_channels_last(
    Index n, const Value* x, Value* y, Index channels, Index inner, const unsigned long long* key, unsigned limit,
    Real scale, Index rank, Index size) {
    const Index width = channels * inner, words = (width + 1) / 2;
    const unsigned long long start = key[0];
    FOR_EACH(i, n) {
        const Index row = i / width, place = i % channels * inner + i % width / channels;
        const unsigned long long z = drawn(start, ((unsigned long long)row * size + rank) * words + place / 2 + 1);
        y[i] = kept((unsigned)(place % 2 ? z >> 32 : z), limit, x[i], scale);
    }
}
