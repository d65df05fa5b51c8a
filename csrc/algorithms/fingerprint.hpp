// The sums of UMAC's universal hash NH [Black et al., CRYPTO 1999], with which weight_cache.cpp recognises weights.
//
// A block's sum is that of (m[2i] + k[2i]) * (m[2i+1] + k[2i+1]), the additions modulo 2^32, the products and their sum
// modulo 2^64. For random keys two blocks that differ anywhere have the same sum with a probability of 2^-32 at most,
// and both sums, under one key shifted against itself, with 2^-64. One multiplication for 64 bits of data: 33 GB/s from L2
// on a core of 3.2 GHz.
// Where there are carry-less multiplications of whole AVX-512 vectors, the sum is CLNH's [Lemire & Kaser, J. Cryptographic
// Engineering 2016]: (m[2i] ^ k[2i]) * (m[2i+1] ^ k[2i+1]) over words of 64 bits, added without carries, which two blocks
// share with a probability of 2^-64: 80 GB/s from L2, and from the third level all that one core gets (29).
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

// Blocks read side by side: the hardware fetches ahead for each, where one by one wait for the third level (4 MB that
// left L2 at 20 GB/s instead of 28).
constexpr int kSideBySide = 4;

#if defined(__AVX512F__)
template <int N>
__attribute__((target("vpclmulqdq"))) void carryless_blocks(const uint32_t* m, int64_t apart,
                                                            const uint32_t* key, uint64_t* sums) {
    __m512i sum[N] = {};
    for (int64_t i = 0; i < kFingerprintWords; i += 16) {
        const __m512i k = _mm512_loadu_si512(key + i);
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
            const __m512i mixed =
                _mm512_xor_si512(_mm512_loadu_si512(m + n * apart * kFingerprintWords + i), k);
            sum[n] = _mm512_xor_si512(sum[n], _mm512_clmulepi64_epi128(mixed, mixed, 0x10));
        }
    }
    for (int n = 0; n < N; n++) {
        alignas(64) uint64_t parts[8];
        _mm512_store_si512(parts, sum[n]);
        sums[2 * n * apart] = parts[0] ^ parts[2] ^ parts[4] ^ parts[6];
        sums[2 * n * apart + 1] = parts[1] ^ parts[3] ^ parts[5] ^ parts[7];
    }
}
#endif

template <int N>
void integer_blocks(const uint32_t* m, int64_t apart, const uint32_t* key, uint64_t* sums) {
    constexpr int64_t W = kVectorBytes / 4;
    Pairs first[N] = {}, second[N] = {};
    for (int64_t i = 0; i < kFingerprintWords; i += W) {
        const Words k = load<Words>(key + i), shifted = load<Words>(key + i + kFingerprintShift);
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
            const Words words = load<Words>(m + n * apart * kFingerprintWords + i);
            const Pairs a = (Pairs)(words + k), b = (Pairs)(words + shifted);
            first[n] += multiply_low(a, a >> 32);
            second[n] += multiply_low(b, b >> 32);
        }
    }
    for (int n = 0; n < N; n++) {
        uint64_t* const to = sums + 2 * n * apart;
        to[0] = to[1] = 0;
        for (int i = 0; i < kVectorBytes / 8; i++) {
            to[0] += first[n][i];
            to[1] += second[n][i];
        }
    }
}

using Blocks = void (*)(const uint32_t* m, int64_t apart, const uint32_t* key, uint64_t* sums);

void blocks(const void* data, int64_t count, const uint32_t* key, uint64_t* sums) {
    Blocks some = integer_blocks<kSideBySide>, one = integer_blocks<1>;
#if defined(__AVX512F__)
    static const bool carryless = __builtin_cpu_supports("vpclmulqdq");
    if (carryless) {
        some = carryless_blocks<kSideBySide>;
        one = carryless_blocks<1>;
    }
#endif
    const uint32_t* const m = static_cast<const uint32_t*>(data);
    const int64_t apart = count / kSideBySide;
    for (int64_t i = 0; i < apart; i++) some(m + i * kFingerprintWords, apart, key, sums + 2 * i);
    for (int64_t i = apart * kSideBySide; i < count; i++)
        one(m + i * kFingerprintWords, 0, key, sums + 2 * i);
}

}  // namespace

const FingerprintKernels fingerprint_kernels = {blocks};

FASTCONV_END_ISA
