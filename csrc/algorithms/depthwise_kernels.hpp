// Depthwise kernels: one input channel per output channel, so that nothing is summed over channels and memory
// is the limit.
#pragma once

#include <cstdint>

#include "algorithms/microkernel_kernels.hpp"
#include "simd/dispatch.hpp"

namespace fastconv {

// Channels first: `rows` output rows of one channel from a padded copy of its plane.
template <class T>
struct PlaneRows {
    const T* x;              // the first output's first tap
    int64_t x_step;          // from one output row's input to the next one's (stride times x_row)
    int64_t tap_row;         // from one tap row to the next
    int64_t tap_plane;       // and from one tap plane
    const int64_t* columns;  // offset of each tap column
    int64_t tap_planes, tap_rows, tap_columns;
    const T* w;
    T* out;
    int64_t out_row, rows, width;
    const T* add = nullptr;  // laid out as out
    T bias = 0;
    Clamp clamp = Clamp::none;
};

constexpr int kWideTaps = 7;

constexpr int64_t kMostInPlace = 128;  // taps of `in_place`

// Channels first: output rows of one channel straight from its planes, zero padding, dilation 1.
template <class T>
struct PlaneInPlace {
    const T* const* x;  // of each tap plane the input's, null where it lies in the padding
    int64_t tap_planes;
    int64_t in_rows, in_width, pad_top, pad_left;
    const T* w;
    T* out;  // of output row 0
    int64_t width, first_row, end_row;
    const T* add = nullptr;  // laid out as out
    T bias = 0;
    Clamp clamp = Clamp::none;
};

// Channels last: neighbouring output pixels of one row or two, a run of channels.
template <class T>
struct ChannelRun {
    const T* const* tap_rows;  // of each tap row the input row, null where it lies in zero padding
    int64_t rows;              // tap rows; with two output rows there is one input row more
    int64_t planes = 1;        // tap planes of so many rows
    int64_t tap_plane = 0;     // from one plane's tap_rows to the next one's
    const int64_t* columns;    // of each tap column the offset of its pixel, -1 where it lies in zero padding
    int64_t tap_columns;
    int64_t pixel;  // elements from one pixel to the next
    const T* w;     // [tap plane][tap row][tap column][w_tap]
    int64_t w_tap;
    T* out;
    int64_t out_pixel, pixels, channels;
    int64_t pad_left,
        in_columns;  // of `run`: zero padding before the first pixel's taps, columns of the input
    int64_t stride = 1, dilation = 1;   // of `run`, along the row
    int64_t out_rows = 1, out_row = 0;  // and output rows, from one to the next
    int64_t ahead = 0;  // input rows to the next call's, which is asked for beforehand; 0: not
    const T* bias = nullptr;
    const T* add = nullptr;  // laid out as out
    Clamp clamp = Clamp::none;
};

template <class T>
struct Depthwise {
    // Any kernel.
    void (*plane)(const PlaneRows<T>&);
    // Square kernels of 3 and 5, stride 1 and 2; one and two rows and columns of taps, stride 1.
    void (*in_place)(const PlaneInPlace<T>&, int64_t rows, int64_t columns, int64_t stride);
    // Any tap columns. Two rows at once for square kernels of 3, 5 .. `paired`, stride and dilation 1, and
    // for any of more than kWideTaps tap columns where `paired` is as many.
    int paired;
    void (*run)(const ChannelRun<T>&);
    // One pixel with any taps.
    void (*pixel)(const ChannelRun<T>&);
};

struct DepthwiseKernels {
    Depthwise<float> f32;
    Depthwise<double> f64;
};

FASTCONV_DECLARE_KERNELS(DepthwiseKernels, depthwise_kernels)

template <class T>
const Depthwise<T>& depthwise_of();

template <>
inline const Depthwise<float>& depthwise_of<float>() {
    return FASTCONV_DISPATCH(depthwise_kernels).f32;
}

template <>
inline const Depthwise<double>& depthwise_of<double>() {
    return FASTCONV_DISPATCH(depthwise_kernels).f64;
}

}  // namespace fastconv
