// What the probe family offers to the rest of the library, per instruction set.
#pragma once

#include <cstdint>

#include "simd/dispatch.hpp"

namespace fastconv {

struct ProbeKernels {
    int vector_bytes;
    int registers;
    void (*axpy)(int64_t n, float a, const float* x, float* y);
};

FASTCONV_DECLARE_KERNELS(ProbeKernels, probe_kernels)

inline const ProbeKernels& probe_kernels() { return FASTCONV_DISPATCH(probe_kernels); }

}  // namespace fastconv
