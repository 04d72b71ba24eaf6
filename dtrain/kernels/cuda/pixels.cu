// Images of 8 bits as they were decoded, made into a batch: mirror, mean and scale, in one pass.
//
// A row holds an image: int mirrored, top, left, one that is not used, and the pixels. What is computed is computed in
// float, whatever Real is, as the host would.
#include "kernel.cuh"

#define HEAD_BYTES 16

struct Strides {
    Index channel, row, column;
};

// The place of an element of the output, whose next one is that of the next in memory.
template <bool LAST> struct Place {
    const unsigned char* rows;
    Index row_bytes, images, channels, height, width;
    Strides pixel, mean;
    const float* means;
    float scale;
    Index image, c, y, x, top, left;
    bool mirrored;
    const unsigned char* pixels;

    __device__ void go(Index element) {
        const Index inside = element % (channels * height * width);
        image = element / (channels * height * width);
        c = LAST ? inside % channels : inside / (height * width);
        y = LAST ? inside / (channels * width) : inside / width % height;
        x = LAST ? inside / channels % width : inside % width;
        open();
    }
    __device__ void open() {
        const unsigned char* row = rows + image * row_bytes;
        const int* head = reinterpret_cast<const int*>(row);
        mirrored = head[0] != 0;
        top = head[1];
        left = head[2];
        pixels = row + HEAD_BYTES;
    }
    __device__ float value() const {
        const Index from = mirrored ? width - 1 - x : x;
        const float pixel_value = pixels[c * pixel.channel + y * pixel.row + from * pixel.column];
        return (pixel_value - means[c * mean.channel + (top + y) * mean.row + (left + from) * mean.column]) * scale;
    }
    __device__ void next() {
        if (LAST) {
            if (++c < channels) return;
            c = 0;
        }
        if (++x < width) return;
        x = 0;
        if (++y < height) return;
        y = 0;
        if (!LAST) {
            if (++c < channels) return;
            c = 0;
        }
        if (++image < images) open();
    }
};

template <bool LAST>
static __device__ void pixels(
    Index count, Index channels, Index height, Index width, const unsigned char* rows, Index row_bytes,
    Index is_interleaved, const float* means, Index mean_height, Index mean_width, float scale, Value* y) {
    Place<LAST> place;
    place.rows = rows;
    place.row_bytes = row_bytes;
    place.images = count / (channels * height * width);
    place.channels = channels;
    place.height = height;
    place.width = width;
    place.pixel = is_interleaved ? Strides{1, width * channels, channels} : Strides{height * width, width, 1};
    place.mean = mean_height ? Strides{mean_height * mean_width, mean_width, 1} : Strides{1, 0, 0};
    place.means = means;
    place.scale = scale;
    const Index packs = is_aligned(y) ? count / TOGETHER : 0;
    FOR_EACH(i, packs) {
        Pack<Value, TOGETHER> out;
        place.go(i * TOGETHER);
#pragma unroll
        for (int k = 0; k < TOGETHER; k++) {
            out.at[k] = (Value)(Real)place.value();
            place.next();
        }
        store(y + i * TOGETHER, out);
    }
    FOR_EACH(i, count - packs * TOGETHER) {
        place.go(packs * TOGETHER + i);
        y[packs * TOGETHER + i] = (Value)(Real)place.value();
    }
}

// means: of each channel, or, with an extent, an image of that height and width.
extern "C" __global__ void pixels_to_planes(
    Index count, Index channels, Index height, Index width, const unsigned char* rows, Index row_bytes,
    Index is_interleaved, const float* means, Index mean_height, Index mean_width, float scale, Value* y) {
    pixels<false>(
        count, channels, height, width, rows, row_bytes, is_interleaved, means, mean_height, mean_width, scale, y);
}

extern "C" __global__ void pixels_to_last(
    Index count, Index channels, Index height, Index width, const unsigned char* rows, Index row_bytes,
    Index is_interleaved, const float* means, Index mean_height, Index mean_width, float scale, Value* y) {
    pixels<true>(
        count, channels, height, width, rows, row_bytes, is_interleaved, means, mean_height, mean_width, scale, y);
}
