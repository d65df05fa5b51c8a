// Casts between float16, as NumPy stores it, and float32.
#pragma once

#include <cstdint>

#include "simd/dispatch.hpp"

namespace fastconv {

struct HalfKernels {
    void (*widen)(int64_t n, const uint16_t* from, float* to);
    void (*narrow)(int64_t n, const float* from, uint16_t* to);
};

FASTCONV_DECLARE_KERNELS(HalfKernels, half_kernels)

inline const HalfKernels& half_kernels() { return FASTCONV_DISPATCH(half_kernels); }

}  // namespace fastconv
