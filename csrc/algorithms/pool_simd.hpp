// What pooling needs of a vector beyond simd/vec.hpp: a maximum in which NaN wins, and the places where a
// maximum stands.
#pragma once

#include "simd/shuffle.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

template <class T>
constexpr bool kFloating = T(0.5) != T(0);

// -inf, or the least value of an integer type.
template <class T>
constexpr T least() {
    if constexpr (kFloating<T>) {
        return -static_cast<T>(__builtin_inff());
    } else {
        return T(-1) > T(0) ? T(0) : static_cast<T>(uint64_t{1} << (8 * sizeof(T) - 1));
    }
}

// The accumulated value `a` stays where it is at least x or NaN, so the first of equal values and a NaN stay.
struct MaxOp {
    template <class T>
    static constexpr T init() {
        return least<T>();
    }
    template <class V>
    static FASTCONV_INLINE V apply(V a, V x) {
        if constexpr (!kFloating<scalar_of<V>>) {
            return x > a ? x : a;
        } else {
#if defined(__AVX512F__)
            // max returns its second operand where one is NaN: only a NaN in x needs care
            if constexpr (sizeof(scalar_of<V>) == 4) {
                return (V)_mm512_mask_max_ps((__m512)x, _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_ORD_Q),
                                             (__m512)x, (__m512)a);
            } else {
                return (V)_mm512_mask_max_pd((__m512d)x,
                                             _mm512_cmp_pd_mask((__m512d)x, (__m512d)x, _CMP_ORD_Q),
                                             (__m512d)x, (__m512d)a);
            }
#elif defined(__AVX2__)
            if constexpr (sizeof(scalar_of<V>) == 4) {
                return (V)_mm256_blendv_ps(_mm256_max_ps((__m256)x, (__m256)a), (__m256)x,
                                           _mm256_cmp_ps((__m256)x, (__m256)x, _CMP_UNORD_Q));
            } else {
                return (V)_mm256_blendv_pd(_mm256_max_pd((__m256d)x, (__m256d)a), (__m256d)x,
                                           _mm256_cmp_pd((__m256d)x, (__m256d)x, _CMP_UNORD_Q));
            }
#else
            return ((x > a) | (x != x)) ? x : a;
#endif
        }
    }
    template <class T>
    static FASTCONV_INLINE T apply_one(T a, T x) {
        return x > a || x != x ? x : a;
    }
};

struct AddOp {
    template <class T>
    static constexpr T init() {
        return T(0);
    }
    template <class V>
    static FASTCONV_INLINE V apply(V a, V x) {
        return a + x;
    }
    template <class T>
    static FASTCONV_INLINE T apply_one(T a, T x) {
        return a + x;
    }
};

// ---- which lanes hold the maximum of their window (floating types)

#if defined(__AVX512F__)

template <class V>
struct Hits {
    uint32_t bits;
};

// Lanes where x is m, or NaN: a window whose maximum is not NaN holds no NaN.
template <class V>
FASTCONV_INLINE Hits<V> hits(V x, V m) {
    if constexpr (sizeof(scalar_of<V>) == 4) {
        return {static_cast<uint32_t>(_mm512_cmp_ps_mask((__m512)x, (__m512)m, _CMP_EQ_OQ) |
                                      _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q))};
    } else {
        return {static_cast<uint32_t>(_mm512_cmp_pd_mask((__m512d)x, (__m512d)m, _CMP_EQ_OQ) |
                                      _mm512_cmp_pd_mask((__m512d)x, (__m512d)x, _CMP_UNORD_Q))};
    }
}
template <class V>
FASTCONV_INLINE Hits<V> no_hits() {
    return {0};
}
template <class V>
FASTCONV_INLINE Hits<V> without(Hits<V> h, Hits<V> done) {
    return {h.bits & ~done.bits};
}
template <class V>
FASTCONV_INLINE Hits<V> either(Hits<V> a, Hits<V> b) {
    return {a.bits | b.bits};
}
// y where hit, else zero.
template <class V>
FASTCONV_INLINE V only(Hits<V> h, V y) {
    if constexpr (sizeof(scalar_of<V>) == 4) {
        return (V)_mm512_maskz_mov_ps(static_cast<__mmask16>(h.bits), (__m512)y);
    } else {
        return (V)_mm512_maskz_mov_pd(static_cast<__mmask8>(h.bits), (__m512d)y);
    }
}
// a + y where hit, else a.
template <class V>
FASTCONV_INLINE V add_where(Hits<V> h, V a, V y) {
    if constexpr (sizeof(scalar_of<V>) == 4) {
        return (V)_mm512_mask_add_ps((__m512)a, static_cast<__mmask16>(h.bits), (__m512)a, (__m512)y);
    } else {
        return (V)_mm512_mask_add_pd((__m512d)a, static_cast<__mmask8>(h.bits), (__m512d)a, (__m512d)y);
    }
}

template <class V>
FASTCONV_INLINE bool any_equal(V a, V b) {
    if constexpr (sizeof(scalar_of<V>) == 4) {
        return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ) != 0;
    } else {
        return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_EQ_OQ) != 0;
    }
}

#else

template <class V>
struct Hits {
    decltype(V{} == V{}) bits;
};
template <class V>
FASTCONV_INLINE Hits<V> hits(V x, V m) {
    return {(x == m) | (x != x)};
}
template <class V>
FASTCONV_INLINE Hits<V> no_hits() {
    return {decltype(V{} == V{}){}};
}
template <class V>
FASTCONV_INLINE Hits<V> without(Hits<V> h, Hits<V> done) {
    return {h.bits & ~done.bits};
}
template <class V>
FASTCONV_INLINE Hits<V> either(Hits<V> a, Hits<V> b) {
    return {a.bits | b.bits};
}
template <class V>
FASTCONV_INLINE V only(Hits<V> h, V y) {
    return (V)((decltype(h.bits))y & h.bits);
}
template <class V>
FASTCONV_INLINE V add_where(Hits<V> h, V a, V y) {
    return h.bits ? a + y : a;
}
template <class V>
FASTCONV_INLINE bool any_equal(V a, V b) {
    scalar_of<V> left[lanes_of<V>], right[lanes_of<V>];
    store(left, a);
    store(right, b);
    bool any = false;
    for (int i = 0; i < lanes_of<V>; i++) any |= left[i] == right[i];
    return any;
}

#endif

template <class T>
FASTCONV_INLINE void fill(T* p, int64_t n, T value) {
    using V = vec<T, kLanes<T>>;
    const V v = broadcast<V>(value);
    int64_t i = 0;
    for (; i + lanes_of<V> <= n; i += lanes_of<V>) store(p + i, v);
    if (i < n) store(p + i, v, mask<V>(n - i));
}

}  // namespace
FASTCONV_END_ISA
