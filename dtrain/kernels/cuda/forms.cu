// From one form of an array to another: Value, in Caffe's order or with the channels last, and Real in Caffe's order.
#include "kernel.cuh"

#define TILE 32
#define TILE_ROWS 8

extern "C" __global__ void widen(Index n, const Value* x, Real* y) {
    FOR_EACH(i, n) y[i] = (Real)x[i];
}

extern "C" __global__ void narrow(Index n, const Real* x, Value* y) {
    FOR_EACH(i, n) y[i] = (Value)x[i];
}

// y = scale x: gradients on their way to other ranks, and back.
extern "C" __global__ void widen_scaled(Index n, const Value* x, Real* y, Real scale) {
    FOR_EACH(i, n) y[i] = scale * (Real)x[i];
}

extern "C" __global__ void narrow_scaled(Index n, const Real* x, Value* y, Real scale) {
    FOR_EACH(i, n) y[i] = (Value)(scale * x[i]);
}

// Each block turns tiles of one image: x (rows, columns) -> y (columns, rows), through shared memory so that both
// sides are read and written along their rows. Blocks are TILE x TILE_ROWS threads.
template <class From, class To>
static __device__ void turn(Index images, Index rows, Index columns, const From* x, To* y) {
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

extern "C" __global__ void channels_to_last(Index images, Index channels, Index inner, const Real* x, Value* y) {
    turn(images, channels, inner, x, y);
}

extern "C" __global__ void channels_from_last(Index images, Index channels, Index inner, const Value* x, Real* y) {
    turn(images, inner, channels, x, y);
}
