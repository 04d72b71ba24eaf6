// Images to columns and back, for convolution as a matrix product.
//
// Of each image (channels, *image) the columns are (channels * prod(kernel), prod(out)), rows ordered channel,
// then kernel position.
#include "kernel.cuh"

// One thread for each (image, channel, output): it copies what the output's window sees.
extern "C" __global__ void im2col_2d(
    Index n, const Real* x, Real* columns, Index h, Index w, Index out_h, Index out_w, Index kernel_h, Index kernel_w,
    Index stride_h, Index stride_w, Index pad_h, Index pad_w, Index dilation_h, Index dilation_w) {
    const Index out = out_h * out_w;
    FOR_EACH(i, n) {
        const Index plane = i / out, o = i % out;  // plane: image * channels + channel
        const Index top = o / out_w * stride_h - pad_h, left = o % out_w * stride_w - pad_w;
        const Real* from = x + plane * h * w;
        Real* to = columns + plane * kernel_h * kernel_w * out + o;
        for (Index a = 0; a < kernel_h; a++) {
            const Index row = top + a * dilation_h;
            for (Index b = 0; b < kernel_w; b++) {
                const Index column = left + b * dilation_w;
                const bool inside = row >= 0 && row < h && column >= 0 && column < w;
                *to = inside ? from[row * w + column] : (Real)0;
                to += out;
            }
        }
    }
}

// One thread for each element of the images: it sums the columns that im2col copied it to.
extern "C" __global__ void col2im_2d(
    Index n, const Real* columns, Real* x, Index h, Index w, Index out_h, Index out_w, Index kernel_h, Index kernel_w,
    Index stride_h, Index stride_w, Index pad_h, Index pad_w, Index dilation_h, Index dilation_w) {
    const Index out = out_h * out_w;
    FOR_EACH(i, n) {
        const Index plane = i / (h * w), row = i / w % h + pad_h, column = i % w + pad_w;
        const Real* from = columns + plane * kernel_h * kernel_w * out;
        Real sum = 0;
        for (Index a = 0; a < kernel_h; a++) {
            const Index down = row - a * dilation_h;
            if (down < 0 || down % stride_h || down / stride_h >= out_h) continue;
            for (Index b = 0; b < kernel_w; b++) {
                const Index across = column - b * dilation_w;
                if (across < 0 || across % stride_w || across / stride_w >= out_w) continue;
                sum += from[(a * kernel_w + b) * out + down / stride_h * out_w + across / stride_w];
            }
        }
        x[i] = sum;
    }
}

// For any number of axes: `window` holds image, out, kernel, stride, pad and dilation, `axes` numbers each.
// One thread for each element of the columns.
extern "C" __global__ void im2col(
    Index n, const Real* x, Real* columns, const int* window, Index axes, Index taps, Index out, Index extent) {
    const int *image = window, *outs = image + axes, *kernel = outs + axes, *stride = kernel + axes;
    const int *pad = stride + axes, *dilation = pad + axes;
    FOR_EACH(i, n) {
        Index o = i % out, tap = i / out % taps, at = 0, step = 1;
        const Index plane = i / out / taps;
        bool inside = true;
        for (int axis = (int)axes - 1; axis >= 0; axis--) {
            const Index place = o % outs[axis] * stride[axis] - pad[axis] + tap % kernel[axis] * dilation[axis];
            inside = inside && place >= 0 && place < image[axis];
            at += place * step;
            step *= image[axis];
            o /= outs[axis];
            tap /= kernel[axis];
        }
        columns[i] = inside ? x[plane * extent + at] : (Real)0;
    }
}

// One thread for each element of the images.
extern "C" __global__ void col2im(
    Index n, const Real* columns, Real* x, const int* window, Index axes, Index taps, Index out, Index extent) {
    const int *image = window, *outs = image + axes, *kernel = outs + axes, *stride = kernel + axes;
    const int *pad = stride + axes, *dilation = pad + axes;
    FOR_EACH(i, n) {
        const Index plane = i / extent;
        Real sum = 0;
        for (Index t = 0; t < taps; t++) {
            Index place = i % extent, tap = t, at = 0, step = 1;
            bool seen = true;
            for (int axis = (int)axes - 1; axis >= 0; axis--) {
                const Index from = place % image[axis] + pad[axis] - tap % kernel[axis] * dilation[axis];
                seen = seen && from >= 0 && from % stride[axis] == 0 && from / stride[axis] < outs[axis];
                at += from / stride[axis] * step;
                step *= outs[axis];
                place /= image[axis];
                tap /= kernel[axis];
            }
            if (seen) sum += columns[(plane * taps + t) * out + at];
        }
        x[i] = sum;
    }
}
