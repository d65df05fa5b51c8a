// Rows in and out; see rows_kernels.hpp.
#pragma once

#include "algorithms/activation_math.hpp"
#include "algorithms/rows_kernels.hpp"
#include "simd/shuffle.hpp"
#include "simd/transpose.hpp"
#include "simd/vec.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

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

// Past the caches, where the instruction set has it; p is a multiple of the vector's size.
template <class V>
FASTCONV_INLINE void stream(scalar_of<V>* p, V v) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#elif defined(__SSE2__)
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), (__m128i)v);
#else
    store(p, v);
#endif
}

// Lines of `to` that are written whole go past the caches.
template <class T>
void stream_row(const T* from, T* to, int64_t n) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    const int64_t misfit = static_cast<int64_t>(reinterpret_cast<uintptr_t>(to) % sizeof(V) / sizeof(T));
    int64_t j = misfit == 0 || L - misfit > n ? 0 : L - misfit;
    if (j > 0) store(to, load<V>(from, mask<V>(j)), mask<V>(j));
    for (; j + 4 * L <= n; j += 4 * L) {
        const V a = load<V>(from + j), b = load<V>(from + j + L), c = load<V>(from + j + 2 * L),
                d = load<V>(from + j + 3 * L);
        stream(to + j, a), stream(to + j + L, b), stream(to + j + 2 * L, c), stream(to + j + 3 * L, d);
    }
    for (; j < n; j += L) store(to + j, load<V>(from + j, mask<V>(n - j)), mask<V>(n - j));
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

template <class T>
void copy_rows(const T* from, int64_t from_row, int64_t rows, int64_t first, int64_t n_in, T* to, int64_t n) {
    using V = vec<T, kLanes<T>>;
    for (int64_t j = 0; j < n; j += lanes_of<V>) {
        const auto inside = mask<V>(-first - j, n_in - first - j), kept = mask<V>(n - j);
        const T* const source = from + first + j;
        for (int64_t r = 0; r < rows; r++)
            store(to + r * n + j, load<V>(source + r * from_row, inside), kept);
    }
}

// Channel by channel, so that the source is read in order.
template <class T>
void split_tiles(const T* from, int64_t from_row, int64_t channels, const int64_t* at, int64_t n, T* to,
                 int64_t tile, int64_t pitch) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    const int64_t full = n / tile, left = n % tile;
    const auto most = mask<V>(tile), rest = mask<V>(left);
    for (int64_t c = 0; c < channels; c++, from += from_row, to += tile) {
        if (at == nullptr && tile <= L) {
            for (int64_t t = 0; t < full; t++) store(to + t * pitch, load<V>(from + t * tile, most), most);
            if (left > 0) store(to + full * pitch, load<V>(from + full * tile, rest), rest);
            continue;
        }
        for (int64_t t = 0; t * tile < n; t++) {
            T* const line = to + t * pitch;
            const int64_t first = t * tile, count = t < full ? tile : left;
            if (at != nullptr) {
                for (int64_t i = 0; i < count; i++) line[i] = from[at[first + i]];
                continue;
            }
            for (int64_t i = 0; i < count; i += L) {
                const auto m = mask<V>(count - i);
                store(line + i, load<V>(from + first + i, m), m);
            }
        }
    }
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

// A square of pixels by channels at a time is turned over in registers.
template <class T, Activation A>
void turn_planes(const T* tile, int64_t tile_row, int64_t pixels, int64_t channels, const T* add, T* out,
                 int64_t plane) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    for (int64_t k = 0; k < channels; k += L) {
        const int64_t deep = channels - k < L ? channels - k : L;
        for (int64_t p = 0; p < pixels; p += L) {
            const int64_t wide = pixels - p < L ? pixels - p : L;
            const T* const from = tile + p * tile_row + k;
            T* const to = out + k * plane + p;
            V v[L];
            if (wide == L && deep == L && add == nullptr) {
#pragma GCC unroll 16
                for (int i = 0; i < L; i++) v[i] = load<V>(from + i * tile_row);
                transpose(v);
#pragma GCC unroll 16
                for (int i = 0; i < L; i++) store(to + i * plane, activated(A, v[i]));
                continue;
            }
            const auto across = mask<V>(deep), along = mask<V>(wide);
            for (int64_t i = 0; i < L; i++) v[i] = i < wide ? load<V>(from + i * tile_row, across) : V{};
            transpose(v);
            for (int64_t i = 0; i < deep; i++) {
                const V sum = add == nullptr ? v[i] : v[i] + load<V>(add + (to - out) + i * plane, along);
                store(to + i * plane, activated(A, sum), along);
            }
        }
    }
}

template <class T>
void pack_panel(const T* weight, int64_t row, int64_t count, int64_t channels, int64_t taps, T* to,
                int64_t to_row) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    const int64_t steps = channels * taps, tap_row = channels * to_row;
    int64_t tap = 0;
    T* at = to;  // where step i goes: c * to_row + tap * tap_row
    for (int64_t i = 0; i < steps; i += L) {
        const int64_t wide = steps - i < L ? steps - i : L;
        const auto along = mask<V>(wide);
        V v[L];
        if (wide == L && count >= L) {
#pragma GCC unroll 16
            for (int k = 0; k < L; k++) v[k] = load<V>(weight + k * row + i);
        } else {
            for (int64_t k = 0; k < L; k++) v[k] = k < count ? load<V>(weight + k * row + i, along) : V{};
        }
        transpose(v);
        for (int64_t k = 0; k < wide; k++) {
            store(at, v[k]);
            at += tap_row;
            if (++tap == taps) {
                tap = 0;
                at += to_row - taps * tap_row;
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

// Clamps are applied to the vectors in hand, other activations to the rows just written.
template <class T>
void planes(const T* tile, int64_t tile_row, int64_t pixels, int64_t channels, const T* add, T* out,
            int64_t plane, Activation activation) {
    const auto turn = activation == Activation::relu    ? turn_planes<T, Activation::relu>
                      : activation == Activation::relu6 ? turn_planes<T, Activation::relu6>
                                                        : turn_planes<T, Activation::none>;
    turn(tile, tile_row, pixels, channels, add, out, plane);
    const bool clamps = activation == Activation::relu || activation == Activation::relu6;
    if (!clamps && activation != Activation::none) activate<T>(activation, out, channels, plane, pixels);
}

template <class T>
constexpr Rows<T> make_rows() {
    return {pack_row<T>, copy_rows<T>,  split_tiles<T>, finish<T>,
            planes<T>,   pack_panel<T>, stream_row<T>,  activate<T>};
}

}  // namespace

const RowsKernels rows_kernels = {make_rows<float>(), make_rows<double>()};

FASTCONV_END_ISA
