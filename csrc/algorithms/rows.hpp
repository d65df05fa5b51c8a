// Rows in and out; see rows_kernels.hpp.
#pragma once

#include "algorithms/activation_math.hpp"
#include "algorithms/rows_kernels.hpp"
#include "simd/shuffle.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

// Every second value. The compiler takes one value at a time: 1 a cycle, this way 5.
template <class T>
FASTCONV_INLINE void copy_even(const T* FASTCONV_RESTRICT from, T* FASTCONV_RESTRICT to, int64_t n) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    int64_t j = 0;
    for (; j + L < n; j += L)  // not the last vector: what follows the last value may not be readable
        store(to + j, even_lanes(load<V>(from + 2 * j), load<V>(from + 2 * j + L)));
    if (j >= n) return;
    const int64_t left = 2 * (n - j) - 1;
    const V v =
        even_lanes(load<V>(from + 2 * j, mask<V>(left)), load<V>(from + 2 * j + L, mask<V>(left - L)));
    store(to + j, v, mask<V>(n - j));
}

template <class T>
void pack_row(const T* row, int64_t n_in, PadMode mode, int64_t first, int64_t stride, T* dst, int64_t n) {
    const auto border = [&](int64_t from, int64_t to) {
        for (int64_t j = from; j < to; j++) {
            const int64_t source = axis_source(mode, n_in, first + j * stride);
            dst[j] = source < 0 ? T(0) : row[source];
        }
    };
    int64_t low = first < 0 ? (-first + stride - 1) / stride : 0;
    int64_t high = n_in > first ? (n_in - first + stride - 1) / stride : 0;  // the first j beyond the row
    low = low < n ? low : n;
    high = high < n ? high : n;
    high = high > low ? high : low;
    border(0, low);
    const T* from = row + first + low * stride;
    if (stride == 2) {
        copy_even(from, dst + low, high - low);
    } else if (stride == 1) {
        for (int64_t j = 0; j < high - low; j++) dst[low + j] = from[j];
    } else {
        for (int64_t j = 0; j < high - low; j++) dst[low + j] = from[j * stride];
    }
    border(high, n);
}

// The switch stands outside the loop: one loop per activation.
template <class T, Activation A>
void finish_rows(const T* tile, int64_t tile_row, int64_t rows, const Segment* segments, int64_t count,
                 const T* add, T* out, int64_t out_row) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t s = 0; s < count; s++) {
            const T* from = tile + r * tile_row + segments[s].from;
            T* to = out + r * out_row + segments[s].to;
            const T* plus = add == nullptr ? nullptr : add + r * out_row + segments[s].to;
            for (int64_t i = 0; i < segments[s].count; i += L) {
                const auto m = mask<V>(segments[s].count - i);
                V v = load<V>(from + i, m);
                if (plus != nullptr) v = v + load<V>(plus + i, m);
                store(to + i, activated(A, v), m);
            }
        }
    }
}

template <class T, class F>
FASTCONV_INLINE void with_activation(Activation activation, F f) {
    switch (activation) {
        case Activation::none:
            return f(finish_rows<T, Activation::none>);
        case Activation::relu:
            return f(finish_rows<T, Activation::relu>);
        case Activation::relu6:
            return f(finish_rows<T, Activation::relu6>);
        case Activation::leaky_relu:
            return f(finish_rows<T, Activation::leaky_relu>);
        case Activation::sigmoid:
            return f(finish_rows<T, Activation::sigmoid>);
        case Activation::tanh:
            return f(finish_rows<T, Activation::tanh>);
        case Activation::silu:
            return f(finish_rows<T, Activation::silu>);
        case Activation::gelu:
            return f(finish_rows<T, Activation::gelu>);
        case Activation::hard_swish:
            return f(finish_rows<T, Activation::hard_swish>);
    }
}

template <class T>
void finish(const T* tile, int64_t tile_row, int64_t rows, const Segment* segments, int64_t count,
            const T* add, T* out, int64_t out_row, Activation activation) {
    with_activation<T>(activation,
                       [&](auto run) { run(tile, tile_row, rows, segments, count, add, out, out_row); });
}

template <class T>
void activate(Activation activation, T* x, int64_t rows, int64_t row, int64_t n) {
    const Segment whole = {0, 0, n};
    with_activation<T>(activation, [&](auto run) { run(x, row, rows, &whole, 1, nullptr, x, row); });
}

template <class T>
constexpr Rows<T> make_rows() {
    return {pack_row<T>, finish<T>, activate<T>};
}

}  // namespace

const RowsKernels rows_kernels = {make_rows<float>(), make_rows<double>()};

FASTCONV_END_ISA
