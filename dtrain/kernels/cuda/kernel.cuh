// What all kernels share: their types, the loop over elements, and reductions whose order is fixed.
//
// REAL is the type that is computed in. VALUE is that of values as an array's form holds them, which may have 16 bits:
// it is read as (Real)x[i] and written as (Value)y. Element numbers are int, or with WIDE_INDEX long long, for large
// arrays.
// Device code compiles with NVRTC, which has no system headers.
#pragma once

#ifndef REAL
#define REAL float
#endif
#ifndef VALUE
#define VALUE REAL
#endif
#define FULL_WARP 0xffffffffu

union Bits32 {
    float number;
    unsigned bits;
};

// bfloat16: the upper half of a float, rounded to nearest, ties to even.
struct Bfloat16 {
    unsigned short bits;
    Bfloat16() = default;
    __device__ explicit Bfloat16(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#else
        Bits32 b;
        b.number = x;
        bits = (unsigned short)(x != x ? 0x7fc0 : (b.bits + 0x7fff + (b.bits >> 16 & 1)) >> 16);
#endif
    }
    __device__ operator float() const {
        Bits32 b;
        b.bits = (unsigned)bits << 16;
        return b.number;
    }
};

// IEEE half precision, rounded to nearest, ties to even.
struct Half {
    unsigned short bits;
    Half() = default;
    __device__ explicit Half(float x) {
#ifdef __CUDA_ARCH__
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#else
        Bits32 b;
        b.number = x;
        const unsigned sign = b.bits >> 16 & 0x8000;
        b.bits &= 0x7fffffff;
        if (b.bits >= 0x47800000) {  // 65536 or more, or no number
            b.bits = b.bits > 0x7f800000 ? 0x7e00 : 0x7c00;
        } else if (b.bits < 0x38800000) {  // below the normal numbers: their unit is that of 0.5 as a float
            b.number += 0.5f;
            b.bits -= 0x3f000000;
        } else {
            b.bits = (b.bits - 0x38000000 + 0xfff + (b.bits >> 13 & 1)) >> 13;
        }
        bits = (unsigned short)(sign | b.bits);
#endif
    }
    __device__ operator float() const {
        float x;
#ifdef __CUDA_ARCH__
        asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
#else
        Bits32 b, one;
        b.bits = (bits & 0x7fffu) << 13;
        const unsigned exponent = b.bits & 0x0f800000;
        b.bits += 0x38000000;
        if (exponent == 0x0f800000) b.bits += 0x38000000;
        if (exponent == 0) {
            b.bits += 0x00800000;
            one.bits = 0x38800000;
            b.number -= one.number;
        }
        b.bits |= (bits & 0x8000u) << 16;
        x = b.number;
#endif
        return x;
    }
};

typedef REAL Real;
typedef VALUE Value;
#ifdef WIDE_INDEX
typedef long long Index;
#else
typedef int Index;
#endif

template <class T> struct Limits;
template <> struct Limits<float> {
    static __device__ float tiny() { return 1.17549435e-38f; }  // the smallest normal number
    static __device__ float largest() { return 3.402823466e38f; }
    static __device__ float infinity() { return 1e38f * 10.0f; }
};
template <> struct Limits<double> {
    static __device__ double tiny() { return 2.2250738585072014e-308; }
    static __device__ double largest() { return 1.7976931348623157e308; }
    static __device__ double infinity() { return 1e308 * 10.0; }
};

template <> struct Limits<Half> {
    static __device__ float largest() { return 65504.0f; }
};
template <> struct Limits<Bfloat16> {
    static __device__ float largest() { return 3.3895314e38f; }
};

// A thread's elements of 0..n-1: neighbours in a warp take neighbours in memory.
#define FOR_EACH(i, n)                                                     \
    for (Index i = (Index)blockIdx.x * blockDim.x + threadIdx.x; i < (n); \
         i += (Index)gridDim.x * blockDim.x)

// A thread's elements of a row that the whole block works on.
#define FOR_ROW(i, n) for (Index i = threadIdx.x; i < (n); i += blockDim.x)

// A block's rows; every thread of the block takes part in each.
#define FOR_ROWS(row, n) for (Index row = blockIdx.x; row < (n); row += gridDim.x)

// N neighbours in memory, read and written at once, 16 bytes in one instruction.
#define TOGETHER (16 / (int)sizeof(Value))
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
    T at[N];
};

template <int N, class T>
static __device__ Pack<T, N> load(const T* from) {
    return *reinterpret_cast<const Pack<T, N>*>(from);
}

template <int N, class T>
static __device__ void store(T* to, const Pack<T, N>& pack) {
    *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

template <class T>
static __device__ bool is_aligned(const T* place) {
    return reinterpret_cast<unsigned long long>(place) % 16 == 0;
}

template <int N, class F, class... X>
static __device__ void map_pack(Value* y, F f, const X&... x) {
    Pack<Value, N> out;
#pragma unroll
    for (int k = 0; k < N; k++) out.at[k] = (Value)f((Real)x.at[k]...);
    store(y, out);
}

// y[i] = f(x[i], ...) for 0..n-1, computed in Real: TOGETHER elements at once where all arrays allow it. y may be
// any x. One thread for each TOGETHER elements is enough.
template <class F, class... X>
static __device__ void map(Index n, Value* y, F f, const X*... x) {
    const bool aligned = is_aligned(y) && (is_aligned(x) && ...);
    const Index packs = aligned ? n / TOGETHER : 0;
    FOR_EACH(i, packs) map_pack<TOGETHER>(y + i * TOGETHER, f, load<TOGETHER>(x + i * TOGETHER)...);
    FOR_EACH(i, n - packs * TOGETHER) {
        const Index at = packs * TOGETHER + i;
        y[at] = (Value)f((Real)x[at]...);
    }
}

struct Plus {
    template <class T> static __device__ T join(T a, T b) { return a + b; }
};
struct Larger {  // of two numbers that are none, still none
    template <class T> static __device__ T join(T a, T b) { return a >= b || a != a ? a : b; }
};

// The join of all threads' values, the same for every thread; `room` is 32 values of shared memory. Blocks are
// whole warps. Safe to call again at once with the same room.
template <class Join, class T>
static __device__ T over_block(T value, T* room) {
    for (int distance = 16; distance; distance >>= 1)
        value = Join::join(value, __shfl_xor_sync(FULL_WARP, value, distance));
    const int warps = blockDim.x / 32;
    if (warps == 1) return value;
    __syncthreads();  // the last call's readers are done
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = value;
    __syncthreads();
    value = room[0];
    for (int i = 1; i < warps; i++) value = Join::join(value, room[i]);
    return value;
}

// A label: cut to an integer, the least integer if it is no number.
static __device__ long long integer(Real x) {
    return x == x ? (long long)x : -9223372036854775807ll - 1;
}
