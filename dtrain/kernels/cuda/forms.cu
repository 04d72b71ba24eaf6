// From one form of an array to another: Value, in Caffe's order or with the channels last, and Real in Caffe's order.
// Real in Caffe's order lies between all others, but for the two orders of one type of Value.
#include "kernel.cuh"

#define TILE 32
#define TILE_ROWS 8

// y = scale x, from one type to another.
template <class From, class To>
static __device__ void change(Index n, const From* x, To* y, Real scale) {
    const Index packs = is_aligned(x) && is_aligned(y) ? n / TOGETHER : 0;
    FOR_EACH(i, packs) {
        const Pack<From, TOGETHER> from = load<TOGETHER>(x + i * TOGETHER);
        Pack<To, TOGETHER> to;
#pragma unroll
        for (int k = 0; k < TOGETHER; k++) to.at[k] = (To)(scale * (Real)from.at[k]);
        store(y + i * TOGETHER, to);
    }
    FOR_EACH(i, n - packs * TOGETHER) {
        const Index at = packs * TOGETHER + i;
        y[at] = (To)(scale * (Real)x[at]);
    }
}

extern "C" __global__ void widen(Index n, const Value* x, Real* y) { change(n, x, y, 1); }

extern "C" __global__ void narrow(Index n, const Real* x, Value* y) { change(n, x, y, 1); }

// Gradients on their way to other ranks, and back.
extern "C" __global__ void widen_scaled(Index n, const Value* x, Real* y, Real scale) { change(n, x, y, scale); }

extern "C" __global__ void narrow_scaled(Index n, const Real* x, Value* y, Real scale) { change(n, x, y, scale); }

// Each block turns tiles of one image: x (rows, columns) -> y (columns, rows), through shared memory so that both
// sides are read and written along their rows. Blocks are TILE x TILE_ROWS threads.
template <class From, class To>
static __device__ void turn_tiles(Index images, Index rows, Index columns, const From* x, To* y) {
    __shared__ Real tile[TILE][TILE + 1];
    const Index across = (columns + TILE - 1) / TILE, down = (rows + TILE - 1) / TILE;
    FOR_ROWS(t, images * across * down) {
        const Index image = t / (across * down), row = t / across % down * TILE, column = t % across * TILE;
        const From* from = x + image * rows * columns;
        To* to = y + image * rows * columns;
        for (Index i = threadIdx.y; i < TILE; i += TILE_ROWS)
            if (row + i < rows && column + threadIdx.x < columns)
                tile[i][threadIdx.x] = (Real)from[(row + i) * columns + column + threadIdx.x];
        __syncthreads();
        for (Index i = threadIdx.y; i < TILE; i += TILE_ROWS)
            if (column + i < columns && row + threadIdx.x < rows)
                to[(column + i) * rows + row + threadIdx.x] = (To)tile[threadIdx.x][i];
        __syncthreads();
    }
}

// The same where one side is so short that a tile would be empty: a thread takes a whole short side.
#define SHORT 8
template <bool ROWS_ARE_SHORT, class From, class To>
static __device__ void turn_lines(Index images, Index rows, Index columns, const From* x, To* y) {
    const Index length = ROWS_ARE_SHORT ? rows : columns, lines = ROWS_ARE_SHORT ? columns : rows;
    const Index first = ((Index)blockIdx.x * TILE_ROWS + threadIdx.y) * TILE + threadIdx.x;
    for (Index i = first; i < images * lines; i += (Index)gridDim.x * TILE * TILE_ROWS) {
        const Index image = i / lines * lines * length, line = i % lines;
        for (Index j = 0; j < length; j++) {
            const Index along = line * length + j, across = j * lines + line;
            y[image + (ROWS_ARE_SHORT ? along : across)] = (To)(Real)x[image + (ROWS_ARE_SHORT ? across : along)];
        }
    }
}

template <class From, class To>
static __device__ void turn(Index images, Index rows, Index columns, const From* x, To* y) {
    if (rows <= SHORT)
        turn_lines<true>(images, rows, columns, x, y);
    else if (columns <= SHORT)
        turn_lines<false>(images, rows, columns, x, y);
    else
        turn_tiles(images, rows, columns, x, y);
}

extern "C" __global__ void channels_to_last(Index images, Index channels, Index inner, const Real* x, Value* y) {
    turn(images, channels, inner, x, y);
}

extern "C" __global__ void channels_from_last(Index images, Index channels, Index inner, const Value* x, Real* y) {
    turn(images, inner, channels, x, y);
}

extern "C" __global__ void values_to_last(Index images, Index channels, Index inner, const Value* x, Value* y) {
    turn(images, channels, inner, x, y);
}

extern "C" __global__ void values_from_last(Index images, Index channels, Index inner, const Value* x, Value* y) {
    turn(images, inner, channels, x, y);
}
