// Depthwise kernels of small planes; the driver and the numbers are in depthwise_small.cpp.
//
// A vector holds as many whole output rows as it has room for (two of a 7 x 7 plane). For each tap row the
// input rows under it are loaded once, and each tap column is a permutation of their lanes that puts zeros
// where the padding is: no mask is computed for a load, nothing is read twice, and the same permutations
// serve all planes.
#pragma once

#include "algorithms/clamp.hpp"
#include "algorithms/depthwise_small_kernels.hpp"
#include "simd/shuffle.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

#if defined(__AVX512F__)

constexpr int64_t kMostSources = 128;  // vectors times tap rows

template <class T>
struct Order {
    __m512i lanes;
    __mmask16 kept;
};

template <class T>
FASTCONV_INLINE Order<T> make_order(const int32_t* order) {
    constexpr int L = kLanes<T>;
    typename MaskElement<T>::type lanes[L];
    __mmask16 kept = 0;
    for (int i = 0; i < L; i++) {
        lanes[i] = order[i];
        kept |= static_cast<__mmask16>((order[i] >= 0) << i);
    }
    return {_mm512_loadu_si512(lanes), kept};
}

template <class V, bool Two>
FASTCONV_INLINE V permuted(V rows, V more, const Order<scalar_of<V>>& order) {
    if constexpr (sizeof(scalar_of<V>) == 4) {
        if constexpr (Two)
            return (V)_mm512_maskz_permutex2var_ps(order.kept, (__m512)rows, order.lanes, (__m512)more);
        return (V)_mm512_maskz_permutexvar_ps(order.kept, order.lanes, (__m512)rows);
    } else {
        const auto kept = static_cast<__mmask8>(order.kept);
        if constexpr (Two)
            return (V)_mm512_maskz_permutex2var_pd(kept, (__m512d)rows, order.lanes, (__m512d)more);
        return (V)_mm512_maskz_permutexvar_pd(kept, order.lanes, (__m512d)rows);
    }
}

template <class V>
struct Source {
    int64_t rows, more;
    Mask<V> in_rows, in_more;
};

// What is the same for all vectors of a plane.
template <class T, int K>
struct SmallPlane {
    using V = vec<T, kLanes<T>>;
    const T* x;
    V w[K * K], bias;
    Order<T> order[K];
};

// G vectors of outputs; the sources of neighbours are S apart (S = K: they share none).
template <class T, int K, int S, int G, bool Two, bool Straight>
FASTCONV_INLINE void small_block(const SmallPlanes<T>& p, const SmallPlane<T, K>& plane,
                                 const Source<vec<T, kLanes<T>>>* source, int64_t at,
                                 Mask<vec<T, kLanes<T>>> last) {
    using V = vec<T, kLanes<T>>;
    V sum[G] = {};
#pragma GCC unroll 16
    for (int q = 0; q < (G - 1) * S + K; q++) {
        const V rows = load<V>(plane.x + source[q].rows, source[q].in_rows);
        const V more = Two ? load<V>(plane.x + source[q].more, source[q].in_more) : rows;
#pragma GCC unroll 5
        for (int kw = 0; kw < K; kw++) {
            const V in = Straight && kw == K / 2 ? rows : permuted<V, Two>(rows, more, plane.order[kw]);
#pragma GCC unroll 4
            for (int g = 0; g < G; g++)
                if (q - g * S >= 0 && q - g * S < K) sum[g] += plane.w[(q - g * S) * K + kw] * in;
        }
    }
    const int64_t step = p.shape->step;
    const auto whole = mask<V>(step);
#pragma GCC unroll 4
    for (int g = 0; g < G; g++, at += step) {
        const auto kept = g == G - 1 ? last : whole;
        V v = sum[g] + plane.bias;
        if (p.add != nullptr) v = v + load<V>(p.add + at, kept);
        store(p.out + at, clamped(v, p.clamp), kept);
    }
}

template <class T, int K, int S, bool Two, bool Straight>
void small_planes(const SmallPlanes<T>& p) {
    using V = vec<T, kLanes<T>>;
    const SmallShape& shape = *p.shape;
    SmallPlane<T, K> plane;
#pragma GCC unroll 5
    for (int kw = 0; kw < K; kw++) plane.order[kw] = make_order<T>(shape.order[kw]);
    Source<V> sources[kMostSources];
    for (int64_t i = 0; i < (shape.vectors - 1) * S + K; i++) {
        const TapSource& s = shape.sources[i];
        sources[i] = {s.rows.at, s.more.at, mask<V>(s.rows.low, s.rows.high),
                      mask<V>(s.more.low, s.more.high)};
    }
    const int64_t vectors = shape.vectors;
    const auto whole = mask<V>(shape.step), end = mask<V>(shape.last);
    int64_t channel = p.first % p.channels, turn = p.first % p.multiplier;
    plane.x = p.x + p.first / p.multiplier * p.x_plane;
    for (int64_t i = p.first; i < p.first + p.planes; i++) {
#pragma GCC unroll 25
        for (int t = 0; t < K * K; t++) plane.w[t] = broadcast<V>(p.w[channel * K * K + t]);
        plane.bias = p.bias != nullptr ? broadcast<V>(p.bias[channel]) : V{};
        const int64_t out = i * p.out_plane;
        int64_t j = 0;
        constexpr int G = S < K ? 4 : 1;
        for (; j + G <= vectors; j += G)
            small_block<T, K, S, G, Two, Straight>(p, plane, sources + j * S, out + j * shape.step,
                                                   j + G == vectors ? end : whole);
        if constexpr (G > 1) {
            for (; j < vectors; j++)
                small_block<T, K, S, 1, Two, Straight>(p, plane, sources + j * S, out + j * shape.step,
                                                       j + 1 == vectors ? end : whole);
        }
        if (++channel == p.channels) channel = 0;
        if (++turn == p.multiplier) {
            turn = 0;
            plane.x += p.x_plane;
        }
    }
}

template <class T, int K, int S>
void small_square(const SmallPlanes<T>& p) {
    if (p.shape->two) return small_planes<T, K, S, true, false>(p);
    return p.shape->straight ? small_planes<T, K, S, false, true>(p) : small_planes<T, K, S, false, false>(p);
}

template <class T, int K>
void small_kernel(const SmallPlanes<T>& p) {
    if (p.shape->apart == 1) return small_square<T, K, 1>(p);
    if (p.shape->apart == 2) return small_square<T, K, 2>(p);
    return small_square<T, K, K>(p);
}

template <class T>
void small_run(const SmallPlanes<T>& p) {
    p.shape->kernel == 3 ? small_kernel<T, 3>(p) : small_kernel<T, 5>(p);
}

template <class T>
constexpr DepthwiseSmall<T> make_small() {
    return {kLanes<T>, small_run<T>};
}

#else

template <class T>
constexpr DepthwiseSmall<T> make_small() {
    return {kLanes<T>, nullptr};
}

#endif

}  // namespace

const DepthwiseSmallKernels depthwise_small_kernels = {make_small<float>(), make_small<double>()};

FASTCONV_END_ISA
