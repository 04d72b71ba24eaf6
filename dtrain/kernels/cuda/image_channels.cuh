// Arrays seen as rows of channels (channels last, or one position an image) or as planes, and sums over each channel.
//
// Rows: blockIdx.x is a strip of `across` threads side by side, each for N channels, as many rows below each other as
// the block has threads for; blockIdx.y is the part of the rows. Planes: blockIdx.x is the channel, blockIdx.y the
// part of its values. The sums of a part lie in partial[number of the sum][part][channel].
#pragma once
#include "kernel.cuh"

#define THREADS 256
#define FINISHED 8  // channels whose parts one block adds up

// `pack` channels a thread: TOGETHER where rows are aligned, else 1.
#define IN_PACKS(pack, call)        \
    if ((pack) == TOGETHER) {       \
        call(TOGETHER);             \
    } else {                        \
        call(1);                    \
    }

// A thread's channels c, c + 1, ... of its rows; `at` runs over the places of the first of them.
template <int N>
struct Strip {
    Index c, at, step, end;
    bool inside;
    __device__ Strip(Index rows, Index channels, Index across) {
        c = ((Index)blockIdx.x * across + threadIdx.x % across) * N;
        inside = c < channels;
        const Index below = THREADS / across;
        at = ((Index)blockIdx.y * below + threadIdx.x / across) * channels + c;
        step = (Index)gridDim.y * below * channels;
        end = inside ? rows * channels : 0;
    }
};

// A thread's values of a channel: `at()` is the place, `next()` goes on.
struct Plane {
    Index c, image, offset, left;
    const Index channels, inner, step_images, step_offset, step;
    __device__ Plane(Index images, Index channels, Index inner)
        : channels(channels), inner(inner), step_images((Index)gridDim.y * THREADS / inner),
          step_offset((Index)gridDim.y * THREADS % inner), step((Index)gridDim.y * THREADS) {
        const Index first = (Index)blockIdx.y * THREADS + threadIdx.x;
        c = blockIdx.x;
        image = first / inner;
        offset = first % inner;
        left = images * inner - first;
    }
    __device__ bool inside() const { return left > 0; }
    __device__ Index at() const { return (image * channels + c) * inner + offset; }
    __device__ void next() {
        left -= step;
        image += step_images;
        offset += step_offset;
        if (offset >= inner) {
            offset -= inner;
            image++;
        }
    }
};

// The sums of the threads below each other; `room` is THREADS * N values of shared memory.
template <int N>
static __device__ void put_rows(const Real* sum, const Strip<N>& strip, Index channels, Index across, Real* partial, Real* room) {
    for (int k = 0; k < N; k++) room[k * THREADS + threadIdx.x] = sum[k];
    for (Index distance = THREADS / 2; distance >= across; distance /= 2) {
        __syncthreads();
        if (threadIdx.x < distance)
            for (int k = 0; k < N; k++)
                room[k * THREADS + threadIdx.x] += room[k * THREADS + threadIdx.x + distance];
    }
    if (threadIdx.x < across && strip.inside)
        for (int k = 0; k < N; k++) partial[blockIdx.y * channels + strip.c + k] = room[k * THREADS + threadIdx.x];
    __syncthreads();  // before the room is used again
}

static __device__ void put_plane(Real sum, Index channels, Real* partial, Real* room) {
    sum = over_block<Plus>(sum, room);
    if (threadIdx.x == 0) partial[blockIdx.y * channels + blockIdx.x] = sum;
}

// All parts of channel c = blockIdx.x * FINISHED + threadIdx.x % FINISHED, for the first FINISHED threads; `room` is
// THREADS values of shared memory.
static __device__ Real all_parts(Index channels, Index parts, const Real* partial, Real* room) {
    const Index c = (Index)blockIdx.x * FINISHED + threadIdx.x % FINISHED;
    Real sum = 0;
    if (c < channels)
        for (Index part = threadIdx.x / FINISHED; part < parts; part += THREADS / FINISHED)
            sum += partial[part * channels + c];
    room[threadIdx.x] = sum;
    for (int distance = THREADS / 2; distance >= FINISHED; distance /= 2) {
        __syncthreads();
        if (threadIdx.x < distance) room[threadIdx.x] += room[threadIdx.x + distance];
    }
    sum = room[threadIdx.x];
    __syncthreads();  // before the room is used again
    return sum;
}

static __device__ bool finishes(Index channels) {
    return threadIdx.x < FINISHED && (Index)blockIdx.x * FINISHED + threadIdx.x < channels;
}
