// The vector type of the kernels, over the compiler's vector extensions.
//
// Include it only from kernel headers (csrc/algorithms/*.hpp), which are compiled once per instruction set.
// Everything stands in a namespace of that instruction set and nothing comes from the standard library's
// templates: a function compiled with AVX-512 flags must never be the copy that the linker keeps for all.
//
//     using V = vec<float, kLanes<float>>;      // a full register
//     V a = load<V>(p), b = broadcast<V>(2.0f); // unaligned loads
//     store(q, a * b + a);                      // whole-vector expressions: contraction makes the FMA
//     const auto tail = mask<V>(n);             // the first n lanes
//     store(q, load<V>(p, tail), tail);         // lanes beyond are zero and are not touched in memory
//
// Write whole-vector expressions only. As soon as single lanes are subscripted, GCC keeps a tile in memory.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define FASTCONV_ISA_NS avx512
#elif defined(__AVX2__)
#define FASTCONV_ISA_NS avx2
#else
#define FASTCONV_ISA_NS baseline
#endif

#define FASTCONV_INLINE inline __attribute__((always_inline))
#define FASTCONV_RESTRICT __restrict__

// Opens and closes the namespace of the instruction set that this file is being compiled for. The inner
// anonymous namespace keeps every template instance local to its file.
#define FASTCONV_BEGIN_ISA \
    namespace fastconv {   \
    namespace FASTCONV_ISA_NS {
#define FASTCONV_END_ISA \
    }                    \
    }

FASTCONV_BEGIN_ISA
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 32;
#else
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 16;
#endif

template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class T, int N>
struct VecOf {
    typedef T type __attribute__((vector_size(sizeof(T) * N)));
    typedef T unaligned __attribute__((vector_size(sizeof(T) * N), aligned(alignof(T)), may_alias));
};

// N lanes of T. An alias of the compiler's own type: arithmetic, comparisons and `mask ? a : b` are built in.
template <class T, int N>
using vec = typename VecOf<T, N>::type;

template <class R>
struct Plain {
    using type = R;
};
template <class R>
struct Plain<R&> {
    using type = R;
};
template <class R>
struct Plain<R&&> {
    using type = R;
};

template <class V>
using scalar_of = typename Plain<decltype(V{}[0])>::type;

template <class V>
constexpr int lanes_of = static_cast<int>(sizeof(V) / sizeof(scalar_of<V>));

template <class V>
FASTCONV_INLINE V load(const scalar_of<V>* p) {
    return *reinterpret_cast<const typename VecOf<scalar_of<V>, lanes_of<V>>::unaligned*>(p);
}

template <class V>
FASTCONV_INLINE void store(scalar_of<V>* p, V v) {
    *reinterpret_cast<typename VecOf<scalar_of<V>, lanes_of<V>>::unaligned*>(p) = v;
}

template <class V>
FASTCONV_INLINE V broadcast(scalar_of<V> x) {
    return x - V{};  // minus, not plus: keeps -0.0, and folds to one broadcast
}

// ---- masks: the first n lanes
// -----------------------------------------------------------------------------------

#if defined(__AVX512F__)

template <class V>
struct Mask {
    uint64_t bits;
};

// The first n lanes; any n.
template <class V>
FASTCONV_INLINE Mask<V> mask(int64_t n) {
    if (n >= lanes_of<V>) return {~uint64_t{0}};
    return {n <= 0 ? 0 : (uint64_t{1} << n) - 1};
}

// Lanes low .. high-1; any numbers.
template <class V>
FASTCONV_INLINE Mask<V> mask(int64_t low, int64_t high) {
    return {mask<V>(high).bits & ~mask<V>(low).bits};
}

template <class V>
FASTCONV_INLINE V load(const scalar_of<V>* p, Mask<V> m) {
    constexpr int size = sizeof(scalar_of<V>);
    if constexpr (sizeof(V) == 64) {
        if constexpr (size == 1) return (V)_mm512_maskz_loadu_epi8(m.bits, p);
        if constexpr (size == 2) return (V)_mm512_maskz_loadu_epi16(static_cast<__mmask32>(m.bits), p);
        if constexpr (size == 4) return (V)_mm512_maskz_loadu_epi32(static_cast<__mmask16>(m.bits), p);
        if constexpr (size == 8) return (V)_mm512_maskz_loadu_epi64(static_cast<__mmask8>(m.bits), p);
    } else {
        V v{};
        for (int i = 0; i < lanes_of<V>; i++)
            if (m.bits >> i & 1) v[i] = p[i];
        return v;
    }
}

template <class V>
FASTCONV_INLINE void store(scalar_of<V>* p, V v, Mask<V> m) {
    constexpr int size = sizeof(scalar_of<V>);
    if constexpr (sizeof(V) == 64) {
        if constexpr (size == 1) _mm512_mask_storeu_epi8(p, m.bits, (__m512i)v);
        if constexpr (size == 2) _mm512_mask_storeu_epi16(p, static_cast<__mmask32>(m.bits), (__m512i)v);
        if constexpr (size == 4) _mm512_mask_storeu_epi32(p, static_cast<__mmask16>(m.bits), (__m512i)v);
        if constexpr (size == 8) _mm512_mask_storeu_epi64(p, static_cast<__mmask8>(m.bits), (__m512i)v);
    } else {
        for (int i = 0; i < lanes_of<V>; i++)
            if (m.bits >> i & 1) p[i] = v[i];
    }
}

#elif defined(__AVX2__)

template <class V>
struct Mask {
    __m256i bits;  // for elements of 4 and 8 bytes
    int64_t low, high;
};

template <class V>
FASTCONV_INLINE Mask<V> mask(int64_t n) {
    if constexpr (sizeof(scalar_of<V>) == 8) {
        return {_mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3)), 0, n};
    } else {
        const int clipped = n > lanes_of<V> ? lanes_of<V> : n < 0 ? 0 : static_cast<int>(n);
        return {_mm256_cmpgt_epi32(_mm256_set1_epi32(clipped), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)), 0,
                n};
    }
}

template <class V>
FASTCONV_INLINE Mask<V> mask(int64_t low, int64_t high) {
    return {_mm256_andnot_si256(mask<V>(low).bits, mask<V>(high).bits), low, high};
}

template <class V>
FASTCONV_INLINE V load(const scalar_of<V>* p, Mask<V> m) {
    constexpr int size = sizeof(scalar_of<V>);
    if constexpr (sizeof(V) == 32 && size == 4) {
        return (V)_mm256_maskload_epi32(reinterpret_cast<const int*>(p), m.bits);
    } else if constexpr (sizeof(V) == 32 && size == 8) {
        return (V)_mm256_maskload_epi64(reinterpret_cast<const long long*>(p), m.bits);
    } else {
        V v{};
        for (int i = 0; i < lanes_of<V>; i++)
            if (i >= m.low && i < m.high) v[i] = p[i];
        return v;
    }
}

template <class V>
FASTCONV_INLINE void store(scalar_of<V>* p, V v, Mask<V> m) {
    constexpr int size = sizeof(scalar_of<V>);
    if constexpr (sizeof(V) == 32 && size == 4) {
        _mm256_maskstore_epi32(reinterpret_cast<int*>(p), m.bits, (__m256i)v);
    } else if constexpr (sizeof(V) == 32 && size == 8) {
        _mm256_maskstore_epi64(reinterpret_cast<long long*>(p), m.bits, (__m256i)v);
    } else {
        for (int i = 0; i < lanes_of<V>; i++)
            if (i >= m.low && i < m.high) p[i] = v[i];
    }
}

#else
template <class V>
struct Mask {
    int64_t low, high;
};

template <class V>
FASTCONV_INLINE Mask<V> mask(int64_t n) {
    return {0, n};
}

template <class V>
FASTCONV_INLINE Mask<V> mask(int64_t low, int64_t high) {
    return {low, high};
}

template <class V>  // lane by lane out of line: inlined it was half of the kernels' code
FASTCONV_INLINE V load(const scalar_of<V>* p, Mask<V> m) {
    if (m.low <= 0 && m.high >= lanes_of<V>) return load<V>(p);
    return [](const scalar_of<V>* p, Mask<V> m) __attribute__((noinline, cold)) {
        V v{};
        for (int64_t i = m.low > 0 ? m.low : 0; i < m.high && i < lanes_of<V>; i++) v[i] = p[i];
        return v;
    }(p, m);
}

template <class V>
FASTCONV_INLINE void store(scalar_of<V>* p, V v, Mask<V> m) {
    if (m.low <= 0 && m.high >= lanes_of<V>) return store(p, v);
    [](scalar_of<V>* p, V v, Mask<V> m) __attribute__((noinline, cold)) {
        for (int64_t i = m.low > 0 ? m.low : 0; i < m.high && i < lanes_of<V>; i++) p[i] = v[i];
    }(p, v, m);
}
#endif

// Hints: into L1, and into L2.
FASTCONV_INLINE void prefetch_l1(const void* p) { __builtin_prefetch(p, 0, 3); }
FASTCONV_INLINE void prefetch_l2(const void* p) { __builtin_prefetch(p, 0, 2); }

}  // namespace
FASTCONV_END_ISA
