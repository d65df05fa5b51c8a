// What pooling needs of a vector beyond simd/: parts of vectors, a maximum in which NaN wins, and the places
// where a maximum stands.
#pragma once

#include "simd/shuffle.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

// The first lanes of a vector, as mask() of vec.hpp, but plain where that is all of them, and out of line for
// the small integers of instruction sets that have no masks for them (they would be a loop at every place of
// use).
template <class V>
struct First {
    int64_t left;
    Mask<V> bits;
};
template <class V>
FASTCONV_INLINE First<V> upto(int64_t left) {
    return {left, mask<V>(left)};
}

template <class V>
__attribute__((noinline)) V load_some(const scalar_of<V>* p, int64_t left) {
    return load<V>(p, mask<V>(left));
}
template <class V>
__attribute__((noinline)) void store_some(scalar_of<V>* p, V v, int64_t left) {
    store(p, v, mask<V>(left));
}
template <class V>
constexpr bool kMasked = sizeof(V) == 64 || (sizeof(V) == 32 && sizeof(scalar_of<V>) >= 4);

template <class V>
FASTCONV_INLINE V load(const scalar_of<V>* p, First<V> part) {
    if constexpr (sizeof(V) < 64) {
        if (part.left >= lanes_of<V>) return load<V>(p);
    }
    if constexpr (kMasked<V>) {
        return load<V>(p, part.bits);
    } else {
        return load_some<V>(p, part.left);
    }
}
template <class V>
FASTCONV_INLINE void store(scalar_of<V>* p, V v, First<V> part) {
    if constexpr (sizeof(V) < 64) {
        if (part.left >= lanes_of<V>) return store(p, v);
    }
    if constexpr (kMasked<V>) {
        store(p, v, part.bits);
    } else {
        store_some<V>(p, v, part.left);
    }
}

// A whole vector, where First is a part of one.
struct Whole {};
template <class V>
FASTCONV_INLINE V load(const scalar_of<V>* p, Whole) {
    return load<V>(p);
}
template <class V>
FASTCONV_INLINE void store(scalar_of<V>* p, V v, Whole) {
    store(p, v);
}

// Calls f(at, part) for the vectors of 0 .. width-1.
template <class V, class F>
FASTCONV_INLINE void each_vector(int64_t width, F f) {
    int64_t at = 0;
    for (; at + lanes_of<V> <= width; at += lanes_of<V>) f(at, Whole());
    if (at < width) f(at, upto<V>(width - at));
}

// Lanes l with 0 <= q + l < n: what of a vector at position q lies inside a row of n. Floating types.
template <class V>
struct Range {
    int32_t low, high;
    uint32_t bits;
};
template <class V>
FASTCONV_INLINE Range<V> range_of(int64_t q, int64_t n) {
    constexpr int L = lanes_of<V>;
    const int32_t low = q >= 0 ? 0 : q <= -L ? L : static_cast<int32_t>(-q);
    const int32_t high = n - q >= L ? L : n - q <= low ? low : static_cast<int32_t>(n - q);
    return {low, high, ((1u << high) - 1) & ~((1u << low) - 1)};
}
// Instruction sets without masks take them lane by lane, out of line.
template <class V>
__attribute__((noinline)) V load_range(const scalar_of<V>* p, int32_t low, int32_t high, V fill) {
    for (int32_t l = low; l < high; l++) fill[l] = p[l];
    return fill;
}
// The lanes of a range, `fill` in the others; nothing else is read.
template <class V>
FASTCONV_INLINE V load(const scalar_of<V>* p, Range<V> range, V fill) {
#if defined(__AVX512F__)
    if constexpr (sizeof(scalar_of<V>) == 4) {
        return (V)_mm512_mask_loadu_ps((__m512)fill, static_cast<__mmask16>(range.bits), p);
    } else {
        return (V)_mm512_mask_loadu_pd((__m512d)fill, static_cast<__mmask8>(range.bits), p);
    }
#else
    if (range.high - range.low == lanes_of<V>) return load<V>(p);
    return load_range<V>(p, range.low, range.high, fill);
#endif
}
// The lanes of a range are written, nothing else.
template <class V>
FASTCONV_INLINE void store(scalar_of<V>* p, V v, Range<V> range) {
#if defined(__AVX512F__)
    if constexpr (sizeof(scalar_of<V>) == 4) {
        _mm512_mask_storeu_ps(p, static_cast<__mmask16>(range.bits), (__m512)v);
    } else {
        _mm512_mask_storeu_pd(p, static_cast<__mmask8>(range.bits), (__m512d)v);
    }
#else
    if (range.high - range.low == lanes_of<V>) return store(p, v);
    for (int32_t l = range.low; l < range.high; l++) p[l] = v[l];
#endif
}

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

// The greater of two, neither of which is NaN.
template <class V>
FASTCONV_INLINE V greater_of(V a, V b) {
#if defined(__AVX512F__)
    if constexpr (sizeof(scalar_of<V>) == 4) return (V)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
    return (V)_mm512_maskz_max_pd(0xff, (__m512d)a, (__m512d)b);
#elif defined(__AVX2__)
    if constexpr (sizeof(scalar_of<V>) == 4) return (V)_mm256_max_ps((__m256)a, (__m256)b);
    return (V)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
    return a > b ? a : b;
#endif
}

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
// a + y where hit, else a.
template <class V>
FASTCONV_INLINE V add_where(Hits<V> h, V a, V y) {
    if constexpr (sizeof(scalar_of<V>) == 4) {
        return (V)_mm512_mask_add_ps((__m512)a, static_cast<__mmask16>(h.bits), (__m512)a, (__m512)y);
    } else {
        return (V)_mm512_mask_add_pd((__m512d)a, static_cast<__mmask8>(h.bits), (__m512d)a, (__m512d)y);
    }
}

// Lanes where x is greater than m, or the first NaN.
template <class V>
FASTCONV_INLINE Hits<V> greater(V x, V m) {
    if constexpr (sizeof(scalar_of<V>) == 4) {
        return {_mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask((__m512)m, (__m512)m, _CMP_ORD_Q), (__m512)x,
                                        (__m512)m, _CMP_NLE_UQ)};
    } else {
        return {_mm512_mask_cmp_pd_mask(_mm512_cmp_pd_mask((__m512d)m, (__m512d)m, _CMP_ORD_Q), (__m512d)x,
                                        (__m512d)m, _CMP_NLE_UQ)};
    }
}
template <class V>
FASTCONV_INLINE Hits<V> equal(V a, V b) {
    if constexpr (sizeof(scalar_of<V>) == 4) {
        return {_mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ)};
    } else {
        return {_mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_EQ_OQ)};
    }
}
// a where hit, else b.
template <class V>
FASTCONV_INLINE V select(Hits<V> h, V a, V b) {
    if constexpr (sizeof(scalar_of<V>) == 4) {
        return (V)_mm512_mask_mov_ps((__m512)b, static_cast<__mmask16>(h.bits), (__m512)a);
    } else {
        return (V)_mm512_mask_mov_pd((__m512d)b, static_cast<__mmask8>(h.bits), (__m512d)a);
    }
}

template <class V>
FASTCONV_INLINE Hits<V> without(Hits<V> h, Hits<V> done) {
    return {h.bits & ~done.bits};
}
template <class V>
FASTCONV_INLINE Hits<V> either(Hits<V> a, Hits<V> b) {
    return {a.bits | b.bits};
}
// One bit for each lane.
template <class V>
FASTCONV_INLINE uint64_t bits_of(Hits<V> h) {
    return h.bits;
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
FASTCONV_INLINE V add_where(Hits<V> h, V a, V y) {
    return h.bits ? a + y : a;
}
template <class V>
FASTCONV_INLINE Hits<V> greater(V x, V m) {
    return {(x > m) | ((x != x) & (m == m))};
}
template <class V>
FASTCONV_INLINE Hits<V> equal(V a, V b) {
    return {a == b};
}
template <class V>
FASTCONV_INLINE V select(Hits<V> h, V a, V b) {
    return h.bits ? a : b;
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
FASTCONV_INLINE uint64_t bits_of(Hits<V> h) {
    uint64_t bits = 0;
    for (int l = 0; l < lanes_of<V>; l++) bits |= static_cast<uint64_t>(h.bits[l] != 0) << l;
    return bits;
}

#endif

// ---- all lanes

template <int Width, class V, int... I>
FASTCONV_INLINE V rotate(V a, Lanes<I...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, a, ((I + Width) % lanes_of<V>)...);
#else
    using M = typename MaskElement<scalar_of<V>>::type;
    const vec<M, lanes_of<V>> order = {static_cast<M>((I + Width) % lanes_of<V>)...};
    return __builtin_shuffle(a, order);
#endif
}

// All lanes combined, by halves.
template <class Op, class V, int Width = lanes_of<V> / 2>
FASTCONV_INLINE scalar_of<V> combine_lanes(V a) {
    if constexpr (Width == 0) {
        return a[0];
    } else {
        a = Op::apply(a, rotate<Width>(a, typename MakeLanes<lanes_of<V>>::type()));
        return combine_lanes<Op, V, Width / 2>(a);
    }
}

template <class T>
FASTCONV_INLINE void fill(T* p, int64_t n, T value) {
    using V = vec<T, kLanes<T>>;
    const V v = broadcast<V>(value);
    int64_t i = 0;
    for (; i + lanes_of<V> <= n; i += lanes_of<V>) store(p + i, v);
    if (i < n) store(p + i, v, upto<V>(n - i));
}

}  // namespace
FASTCONV_END_ISA
