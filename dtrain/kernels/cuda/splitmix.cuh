// The random words of kernels/cpu/splitmix.py.
#pragma once

// Output `number` (from 1) of SplitMix64 started at `key`.
static __device__ unsigned long long drawn(unsigned long long key, unsigned long long number) {
    unsigned long long z = key + number * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
}
