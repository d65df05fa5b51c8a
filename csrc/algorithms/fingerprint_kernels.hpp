// What the fingerprint family offers to plan/weight_cache.cpp, per instruction set.
#pragma once

#include <cstdint>

#include "simd/dispatch.hpp"

namespace fastconv {

constexpr int64_t kFingerprintWords = 512;  // of one block, 32 bits each
constexpr int64_t kFingerprintShift = 16;   // words between the key of the first sum and that of the second

struct FingerprintKernels {
    // Two sums for each block of kFingerprintWords words; the key has kFingerprintShift words more than a block.
    void (*blocks)(const void* data, int64_t blocks, const uint32_t* key, uint64_t* sums);
};

FASTCONV_DECLARE_KERNELS(FingerprintKernels, fingerprint_kernels)

inline const FingerprintKernels& fingerprint_kernels() { return FASTCONV_DISPATCH(fingerprint_kernels); }

}  // namespace fastconv
