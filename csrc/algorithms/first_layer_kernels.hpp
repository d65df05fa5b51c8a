// First layers: few input channels, so that all taps of all of them are one short sum; the output is the traffic. See
// first_layer.hpp.
#pragma once

#include <cstdint>

#include "algorithms/microkernel_kernels.hpp"
#include "simd/dispatch.hpp"

namespace fastconv {

constexpr int kFirstRows = 6;      // output channels of one call, at most
constexpr int kFirstChannels = 4;  // input channels

// Some output rows of a few output channels, pixels in lanes.
template <class T>
struct FirstLayer {
    const T* x;      // under the first tap of the first output; kFirstMargin values before it are readable
    int64_t x_step;  // from one output row to the next
    const int64_t* offsets;  // of each term of the sum
    int64_t terms;
    const T* w;              // [term][channel]
    const T* bias;           // one per channel; the sums start from it
    T* out;                  // of the first channel
    int64_t plane;           // from one output channel to the next
    int64_t rows, width;     // out's rows are neighbours
    const T* add = nullptr;  // laid out as out
    Clamp clamp = Clamp::none;
    int64_t before = 0;  // columns before each row at which its first vector begins
};

// Values beyond a row, on either side, that a kernel may read: what it computes of them is not stored.
constexpr int64_t kFirstMargin = 64;

template <class T>
struct FirstLayers {
    void (*run[kFirstRows + 1])(const FirstLayer<T>&);  // [output channels]
    int turned;  // output channels that `turn` takes at most: half a vector
    // Channels last. n pixels to planes: to[c * plane + j] = from[j * channels + c]; [channels].
    void (*split[kFirstChannels + 1])(const T* from, int64_t n, T* to, int64_t plane);
    // Planes to n pixels: out[j * channels + k] = planes[k * plane + j] (+ add, laid out as out). Each plane is readable
    // for a vector beyond n.
    void (*turn)(const T* planes, int64_t plane, int64_t n, int64_t channels, const T* add, T* out);
};

struct FirstLayerKernels {
    FirstLayers<float> f32;
    FirstLayers<double> f64;
};

FASTCONV_DECLARE_KERNELS(FirstLayerKernels, first_layer_kernels)

template <class T>
const FirstLayers<T>& first_layers();

template <>
inline const FirstLayers<float>& first_layers<float>() {
    return FASTCONV_DISPATCH(first_layer_kernels).f32;
}

template <>
inline const FirstLayers<double>& first_layers<double>() {
    return FASTCONV_DISPATCH(first_layer_kernels).f64;
}

}  // namespace fastconv
