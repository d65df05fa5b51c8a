// Depthwise convolution, channels first, of planes whose rows are shorter than a vector; see
// depthwise_small.hpp.
#pragma once

#include <cstdint>

#include "algorithms/microkernel_kernels.hpp"
#include "simd/dispatch.hpp"

namespace fastconv {

constexpr int kSmallLanes = 16;  // of the widest vector

// Lanes low .. high-1 of a vector, read from `at`; the others are zero and not touched.
struct LaneRun {
    int64_t at, low, high;
};

// What one vector of outputs reads for one tap row: `rows`, and where that is not enough `more`.
struct TapSource {
    LaneRun rows, more;
};

// How a plane's outputs lie in vectors; the same for all planes.
struct SmallShape {
    int64_t kernel;            // 3 or 5, square
    int64_t vectors;           // of one plane
    int64_t step, last;        // outputs of each vector, and of the last one
    int64_t apart;             // from the first source of one vector to that of the next: 1, 2 or `kernel`
    const TapSource* sources;  // of vector j and tap row h: j * apart + h
    bool two;                  // whether `more` is read
    bool straight;             // the middle tap column reads `rows` as it is
    int32_t
        order[5][kSmallLanes];  // of each tap column the lane of rows and more that a lane takes, -1 for zero
};

// Planes first .. first + planes - 1 of outputs.
template <class T>
struct SmallPlanes {
    const SmallShape* shape;
    const T* x;  // of all planes
    int64_t x_plane, multiplier;
    const T* w;  // [channel][tap]
    int64_t channels, first, planes;
    T* out;  // of all planes
    int64_t out_plane;
    const T* bias;           // of all channels, or null
    const T* add = nullptr;  // laid out as out
    Clamp clamp = Clamp::none;
};

template <class T>
struct DepthwiseSmall {
    int lanes;
    void (*run)(const SmallPlanes<T>&);  // null where the instruction set has no permutation to build it on
};

struct DepthwiseSmallKernels {
    DepthwiseSmall<float> f32;
    DepthwiseSmall<double> f64;
};

FASTCONV_DECLARE_KERNELS(DepthwiseSmallKernels, depthwise_small_kernels)

template <class T>
const DepthwiseSmall<T>& depthwise_small();

template <>
inline const DepthwiseSmall<float>& depthwise_small<float>() {
    return FASTCONV_DISPATCH(depthwise_small_kernels).f32;
}

template <>
inline const DepthwiseSmall<double>& depthwise_small<double>() {
    return FASTCONV_DISPATCH(depthwise_small_kernels).f64;
}

}  // namespace fastconv
