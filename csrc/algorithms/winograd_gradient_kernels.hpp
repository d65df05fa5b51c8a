// What the weight gradient by Winograd F(3 x 3, 4 x 4) runs per instruction set and element type; the idea stands in
// winograd_gradient.hpp.
#pragma once

#include <cstdint>

#include "simd/dispatch.hpp"

namespace fastconv {

// out[r][j * lanes + l] (+)= sum over steps i of x[i * x_step + r] * w[j * w_block + i * w_step + l]
template <class T>
struct OuterTile {
    const T* x;
    int64_t x_step;
    const T* w;
    int64_t w_step;
    int64_t w_block;  // elements from one vector of columns to the next
    int64_t steps;
    T* out;
    int64_t out_row;
    bool accumulate;  // add to what stands in out
};

template <class T>
struct WinogradGradientKernels {
    int lanes;
    // Rows of an outer tile, one and two vectors wide; they divide the lanes.
    int rows[3];
    void (*outer[3])(const OuterTile<T>& tile);
    // Transforms `tiles` neighbouring 4 x 4 tiles of dY, a vector of channels each, to out[position * position_stride +
    // tile * lanes]; adds their sums to the vector at `bias` unless that is null.
    void (*output)(const T* dy, int64_t row, int64_t pixel, int64_t tiles, T* out, int64_t position_stride,
                   T* bias);
    // The nine taps of `rows` input channels and `vectors` vectors of output channels, from sums that stand as
    // [position][row][vector], to out[tap * tap_step + row * out_row + vector * lanes]. Returns whether all are finite.
    bool (*weight)(const T* sums, int64_t position_stride, int64_t sum_row, int64_t rows, int64_t vectors,
                   T* out, int64_t tap_step, int64_t out_row);
};

struct WinogradGradientSet {
    WinogradGradientKernels<float> f32;
    WinogradGradientKernels<double> f64;
};

FASTCONV_DECLARE_KERNELS(WinogradGradientSet, winograd_gradient_kernels)

template <class T>
const WinogradGradientKernels<T>& winograd_gradient();

template <>
inline const WinogradGradientKernels<float>& winograd_gradient<float>() {
    return FASTCONV_DISPATCH(winograd_gradient_kernels).f32;
}

template <>
inline const WinogradGradientKernels<double>& winograd_gradient<double>() {
    return FASTCONV_DISPATCH(winograd_gradient_kernels).f64;
}

}  // namespace fastconv
