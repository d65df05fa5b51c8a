// What the Winograd family offers to plan/, per instruction set and element type: the two transforms. The matrix products
// between them are the micro-kernel's.
#pragma once

#include <cstdint>

#include "algorithms/microkernel_kernels.hpp"
#include "simd/dispatch.hpp"

namespace fastconv {

// A convolution by Winograd F(m x m, 3 x 3): its arrays, and what the plan prepared. Tiles are numbered row by row,
// image after image; a tile is m x m outputs, computed from (m + 2) x (m + 2) inputs.
template <class T>
struct WinogradJob {
    const T* x;
    T* y;
    const T* add;   // residual of y's shape, or null
    const T* bias;  // or null
    Clamp clamp;
    bool channels_last;
    int64_t channels, out_channels;
    int64_t height, width, out_height, out_width;
    int64_t x_plane, y_plane;  // channels first: elements from one channel to the next
    int64_t tiles_y, tiles_x;
    const int32_t* rows;  // source row of each padded row, -1 where it is zero; tiles_y * m + 2 of them
    const int32_t* cols;  // likewise for columns
    const T* weight;      // [tap][channel][weight_row]: for tiles that hold numbers which are not finite
    int64_t weight_row;   // out_channels rounded up to whole vectors
};

// Where transformed tiles stand: [position][block of lanes channels][tile][lane].
template <class T>
struct WinogradTiles {
    T* values;
    int64_t position_stride;  // elements from one of the (m + 2)^2 positions to the next
    int64_t block_stride;     // elements from one block of channels to the next
};

template <class T>
struct WinogradKernels {
    // Transforms the weights of up to `lanes` output channels and all input channels, in double, rounded once:
    // out[position * position_stride + c * channel_stride + lane]; source is (k, c, tap) by its three steps.
    void (*weight)(const T* source, int64_t k_step, int64_t c_step, int64_t tap_step, int64_t channels,
                   int64_t count, T* out, int64_t channel_stride, int64_t position_stride);
    // Transforms tiles first .. first + count for channel blocks block_begin .. block_end.
    void (*input)(const WinogradJob<T>& job, int64_t first, int64_t count, int64_t block_begin,
                  int64_t block_end, const WinogradTiles<T>& v);
    // Outputs of tiles first .. first + count for `vectors` blocks of output channels from channel `channel` on;
    // products stand as [position][tile][vectors * lanes].
    void (*output)(const WinogradJob<T>& job, int64_t first, int64_t count, int64_t channel, int vectors,
                   const T* products, int64_t position_stride);
};

struct WinogradSet {
    WinogradKernels<float> f32[3];  // m = 2, 4, 6
    WinogradKernels<double> f64[3];
};

FASTCONV_DECLARE_KERNELS(WinogradSet, winograd_kernels)

template <class T>
const WinogradKernels<T>& winograd_kernels_of(int m);

template <>
inline const WinogradKernels<float>& winograd_kernels_of<float>(int m) {
    return FASTCONV_DISPATCH(winograd_kernels).f32[m / 2 - 1];
}

template <>
inline const WinogradKernels<double>& winograd_kernels_of<double>(int m) {
    return FASTCONV_DISPATCH(winograd_kernels).f64[m / 2 - 1];
}

}  // namespace fastconv
