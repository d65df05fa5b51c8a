// The sums of UMAC's universal hash NH [Black et al., CRYPTO 1999], with which weight_cache.cpp recognises weights.
//
// A block's sum is that of (m[2i] + k[2i]) * (m[2i+1] + k[2i+1]), the additions modulo 2^32, the products and their sum
// modulo 2^64. For random keys two blocks that differ anywhere have the same sum with a probability of 2^-32 at most,
// and both sums, under one key shifted against itself, with 2^-64. One multiplication for 64 bits of data: 33 GB/s from L2
// on a core of 3.2 GHz.
// Where there are carry-less multiplications of whole AVX-512 vectors, the sum is CLNH's [Lemire & Kaser, J. Cryptographic
// Engineering 2016]: (m[2i] ^ k[2i]) * (m[2i+1] ^ k[2i+1]) over words of 64 bits, added without carries, which two blocks
// share with a probability of 2^-64: 80 GB/s from L2, and from the third level all that one core gets (28).
#pragma once

#include "algorithms/fingerprint_kernels.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

using Words = vec<uint32_t, kVectorBytes / 4>;
using Pairs = vec<uint64_t, kVectorBytes / 8>;

// The lower halves of each pair multiplied; the upper halves are not looked at.
FASTCONV_INLINE Pairs multiply_low(Pairs a, Pairs b) {
#if defined(__AVX512F__)
    return (Pairs)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (Pairs)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
    return (a & 0xffffffff) * (b & 0xffffffff);
#endif
}

#if defined(__AVX512F__)
__attribute__((target("vpclmulqdq"))) void carryless_blocks(const void* data, int64_t count,
                                                            const uint32_t* key, uint64_t* sums) {
    constexpr int kAtOnce = 4;
    const uint32_t* m = static_cast<const uint32_t*>(data);
    for (int64_t block = 0; block < count; block++, m += kFingerprintWords, sums += 2) {
        __m512i sum[kAtOnce] = {};
        for (int64_t i = 0; i < kFingerprintWords; i += kAtOnce * 16) {
#pragma GCC unroll 4
            for (int j = 0; j < kAtOnce; j++) {
                prefetch_l1(m + i + j * 16 + 2 * kFingerprintWords);
                const __m512i mixed = _mm512_xor_si512(_mm512_loadu_si512(m + i + j * 16),
                                                       _mm512_loadu_si512(key + i + j * 16));
                sum[j] = _mm512_xor_si512(sum[j], _mm512_clmulepi64_epi128(mixed, mixed, 0x10));
            }
        }
        const __m512i all =
            _mm512_xor_si512(_mm512_xor_si512(sum[0], sum[1]), _mm512_xor_si512(sum[2], sum[3]));
        alignas(64) uint64_t parts[8];
        _mm512_store_si512(parts, all);
        sums[0] = parts[0] ^ parts[2] ^ parts[4] ^ parts[6];
        sums[1] = parts[1] ^ parts[3] ^ parts[5] ^ parts[7];
    }
}
#endif

void blocks(const void* data, int64_t count, const uint32_t* key, uint64_t* sums) {
#if defined(__AVX512F__)
    static const bool carryless = __builtin_cpu_supports("vpclmulqdq");
    if (carryless) return carryless_blocks(data, count, key, sums);
#endif
    constexpr int64_t W = kVectorBytes / 4;
    const uint32_t* m = static_cast<const uint32_t*>(data);
    for (int64_t block = 0; block < count; block++, m += kFingerprintWords, sums += 2) {
        Pairs first{}, second{};
        for (int64_t i = 0; i < kFingerprintWords; i += W) {
            prefetch_l1(m + i + 2 * kFingerprintWords);
            const Words words = load<Words>(m + i);
            const Pairs a = (Pairs)(words + load<Words>(key + i));
            const Pairs b = (Pairs)(words + load<Words>(key + i + kFingerprintShift));
            first += multiply_low(a, a >> 32);
            second += multiply_low(b, b >> 32);
        }
        sums[0] = sums[1] = 0;
        for (int i = 0; i < kVectorBytes / 8; i++) {
            sums[0] += first[i];
            sums[1] += second[i];
        }
    }
}

}  // namespace

const FingerprintKernels fingerprint_kernels = {blocks};

FASTCONV_END_ISA
