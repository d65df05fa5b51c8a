// Lanes of two vectors taken apart and put together: even and odd ones, interleaved halves.
#pragma once

#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

template <int... I>
struct Lanes {};
template <int N, int... I>
struct MakeLanes : MakeLanes<N - 1, N - 1, I...> {};
template <int... I>
struct MakeLanes<0, I...> {
    using type = Lanes<I...>;
};

template <class T>
struct MaskElement {
    using type = T;
};
template <>
struct MaskElement<float> {
    using type = int32_t;
};
template <>
struct MaskElement<double> {
    using type = int64_t;
};

// Lane i of the result is lane scale * i + shift of a followed by b.
template <int Scale, int Shift, class V, int... I>
FASTCONV_INLINE V every(V a, V b, Lanes<I...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (Scale * I + Shift)...);
#else
    using M = typename MaskElement<scalar_of<V>>::type;
    const vec<M, lanes_of<V>> order = {static_cast<M>(Scale * I + Shift)...};
    return __builtin_shuffle(a, b, order);
#endif
}

// Alternating lanes of a and b, beginning with lane Begin of each.
template <int Begin, class V, int... I>
FASTCONV_INLINE V alternate(V a, V b, Lanes<I...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (Begin + I / 2 + (I % 2) * lanes_of<V>)...);
#else
    using M = typename MaskElement<scalar_of<V>>::type;
    const vec<M, lanes_of<V>> order = {static_cast<M>(Begin + I / 2 + (I % 2) * lanes_of<V>)...};
    return __builtin_shuffle(a, b, order);
#endif
}

template <class V>
FASTCONV_INLINE V even_lanes(V a, V b) {
    return every<2, 0>(a, b, typename MakeLanes<lanes_of<V>>::type());
}
template <class V>
FASTCONV_INLINE V odd_lanes(V a, V b) {
    return every<2, 1>(a, b, typename MakeLanes<lanes_of<V>>::type());
}
template <class V>
FASTCONV_INLINE V interleave_low(V a, V b) {
    return alternate<0>(a, b, typename MakeLanes<lanes_of<V>>::type());
}
template <class V>
FASTCONV_INLINE V interleave_high(V a, V b) {
    return alternate<lanes_of<V> / 2>(a, b, typename MakeLanes<lanes_of<V>>::type());
}

// Lane i is lane order[i] of a followed by b; order is known at run time only.
template <class V>
FASTCONV_INLINE V permuted(V a, V b, vec<typename MaskElement<scalar_of<V>>::type, lanes_of<V>> order) {
#if defined(__clang__)
    constexpr int L = lanes_of<V>;
    alignas(64) scalar_of<V> both[2 * L];
    store(both, a);
    store(both + L, b);
    V result{};
    for (int i = 0; i < L; i++) result[i] = both[order[i]];
    return result;
#else
    return __builtin_shuffle(a, b, order);
#endif
}

}  // namespace
FASTCONV_END_ISA
