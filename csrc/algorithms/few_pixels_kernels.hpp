// Sums of few pixels against weights where the user has them: every weight is read once, in the order of memory.
//
// The sums are those of the channel tile (microkernel_kernels.hpp), step by step from zero in one accumulator each, so that
// they have its bits; but the accumulators wait in memory, and the weights pass over them.
#pragma once

#include <cstdint>

#include "simd/dispatch.hpp"

namespace fastconv {

constexpr int64_t kMostFewPixels = 16;

// sum[p][k] = sum_i x[p * x_row + i] * w[i, k]
template <class T>
struct FewPixels {
    const T* x;
    int64_t x_row, pixels;
    int64_t steps;
    const T* w;
    int64_t w_row;
    int64_t channels;
    T* sum;           // written in whole vectors
    int64_t sum_row;  // a multiple of a vector's lanes
};

template <class T>
struct FewPixelsOf {
    int lanes;
    void (*inputs_outer)(const FewPixels<T>&);   // w[i, k] is w[i * w_row + k]
    void (*outputs_outer)(const FewPixels<T>&);  // w[i, k] is w[k * w_row + i]
};

struct FewPixelsKernels {
    FewPixelsOf<float> f32;
    FewPixelsOf<double> f64;
};

FASTCONV_DECLARE_KERNELS(FewPixelsKernels, few_pixels_kernels)

template <class T>
const FewPixelsOf<T>& few_pixels();

template <>
inline const FewPixelsOf<float>& few_pixels<float>() {
    return FASTCONV_DISPATCH(few_pixels_kernels).f32;
}

template <>
inline const FewPixelsOf<double>& few_pixels<double>() {
    return FASTCONV_DISPATCH(few_pixels_kernels).f64;
}

}  // namespace fastconv
