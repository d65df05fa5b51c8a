// What the Winograd family offers to plan/, per instruction set and element type: the two transforms. The matrix products
// between them are the micro-kernel's.
#pragma once

#include <cstdint>

#include "algorithms/microkernel_kernels.hpp"
#include "simd/dispatch.hpp"

namespace fastconv {

// How both axes are cut. Of stride s, an axis is s phases of the input, each with every s-th tap, whose sums of stride 1 run
// on tiles of the same size; their products add up before the way back. A tile of outputs reads a patch of inputs.
struct WinogradScheme {
    int kernel, stride, tile;

    constexpr int taps() const { return (kernel + stride - 1) / stride; }  // of the longest phase
    constexpr int outputs() const { return tile - taps() + 1; }
    constexpr int step() const { return stride * outputs(); }  // from a patch to the next
    // A phase of one tap less leaves out the last of its transformed inputs, whose weights are zero.
    constexpr int short_phases() const { return taps() * stride - kernel; }
    constexpr int patch() const { return stride * tile - short_phases(); }
    // Phases that have an input i of a tile, along one axis.
    constexpr int phases(int i) const { return i < tile - 1 ? stride : stride - short_phases(); }
    constexpr int positions() const { return tile * tile; }
    // The transformed inputs of a patch are its planes: the phases of one position follow one another.
    constexpr int planes() const { return patch() * patch(); }
    constexpr int plane(int i, int j) const { return stride * (i * patch() + phases(i) * j); }
};

// 3 x 3 with stride 2 on tiles of 4 was slower than on tiles of 3 but for 32 channels at 208 x 208 (10% faster), 4 x 4 on
// tiles of 3 20% slower than on tiles of 4, 5 x 5 on tiles of 4 30% slower to 6% faster than on tiles of 6.
inline constexpr WinogradScheme kWinogradSchemes[] = {{3, 2, 3}, {4, 2, 4}, {5, 2, 6}, {7, 2, 6}};
constexpr int kWinogradSchemeCount = sizeof(kWinogradSchemes) / sizeof(WinogradScheme);

// A convolution by Winograd: its arrays, and what the plan prepared. Tiles are numbered row by row, image after image.
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
    const int32_t* rows;  // source row of each padded row that a patch reads, -1 where it is zero
    const int32_t* cols;  // likewise for columns
    const T* weight;      // [tap][channel][weight_row]: for tiles that hold numbers which are not finite
    int64_t weight_row;   // out_channels rounded up to whole vectors
};

// Where transformed tiles stand: [plane][block of lanes channels][tile][lane].
template <class T>
struct WinogradTiles {
    T* values;
    int64_t plane_stride;  // elements from one plane to the next
    int64_t block_stride;  // elements from one block of channels to the next
};

template <class T>
struct WinogradKernels {
    // Transforms the weights of up to `lanes` output channels and all input channels, in double, rounded once:
    // out[plane * plane_stride + c * channel_stride + lane]; source is (k, c, tap) by its three steps.
    void (*weight)(const T* source, int64_t k_step, int64_t c_step, int64_t tap_step, int64_t channels,
                   int64_t count, T* out, int64_t channel_stride, int64_t plane_stride);
    // Transforms tiles first .. first + count for channel blocks block_begin .. block_end.
    void (*input)(const WinogradJob<T>& job, int64_t first, int64_t count, int64_t block_begin,
                  int64_t block_end, const WinogradTiles<T>& v);
    // Outputs of tiles first .. first + count for `vectors` blocks of output channels from channel `channel` on;
    // products stand as [position][tile][vectors * lanes].
    void (*output)(const WinogradJob<T>& job, int64_t first, int64_t count, int64_t channel, int vectors,
                   const T* products, int64_t position_stride);
};

struct WinogradSet {
    WinogradKernels<float> f32[kWinogradSchemeCount];
    WinogradKernels<double> f64[kWinogradSchemeCount];
};

FASTCONV_DECLARE_KERNELS(WinogradSet, winograd_kernels)

inline int winograd_index(const WinogradScheme& scheme) {
    int i = 0;
    while (kWinogradSchemes[i].kernel != scheme.kernel || kWinogradSchemes[i].stride != scheme.stride ||
           kWinogradSchemes[i].tile != scheme.tile)
        i++;
    return i;
}

template <class T>
const WinogradKernels<T>& winograd_kernels_of(const WinogradScheme& scheme);

template <>
inline const WinogradKernels<float>& winograd_kernels_of<float>(const WinogradScheme& scheme) {
    return FASTCONV_DISPATCH(winograd_kernels).f32[winograd_index(scheme)];
}

template <>
inline const WinogradKernels<double>& winograd_kernels_of<double>(const WinogradScheme& scheme) {
    return FASTCONV_DISPATCH(winograd_kernels).f64[winograd_index(scheme)];
}

}  // namespace fastconv
