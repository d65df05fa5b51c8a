// What the probe family offers to the rest of the library, per instruction set.
#pragma once

#include <cstdint>

#include "simd/dispatch.hpp"

namespace fastconv {

// The sums of one element of the cached product, and what its operands hold at most.
constexpr int64_t kProbeDepth = 256, kProbeLeft = kProbeDepth * 6, kProbeRight = 4 * kProbeDepth * 64;
constexpr int64_t kProbeSink = 16;

struct ProbeKernels {
    int vector_bytes;
    int registers;
    void (*axpy)(int64_t n, float a, const float* x, float* y);
    // Both repeat their work n times, leave something in `sink` and return the operations done.
    int64_t (*multiply_adds)(int64_t n, float* sink);
    int64_t (*cached_product)(int64_t n, const float* left, const float* right, float* sink);
};

FASTCONV_DECLARE_KERNELS(ProbeKernels, probe_kernels)

inline const ProbeKernels& probe_kernels() { return FASTCONV_DISPATCH(probe_kernels); }

}  // namespace fastconv
