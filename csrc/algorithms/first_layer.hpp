// Kernels of first layers; the driver is first_layer.cpp.
//
// A tile of up to 6 output channels x 4 vectors of neighbouring pixels keeps its sums in registers over all taps
// of all input channels: 10 loads for 24 multiply-adds a term. Its vectors are laid so that stores fall onto
// whole cache lines of the output (the first and the last vector of a row are masked).
#pragma once

#include "algorithms/first_layer_kernels.hpp"
#include "simd/transpose.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

constexpr int kFirstVectors = kRegisters >= 32 ? 4 : 2;

// Vectors column .. column + N*L - 1 of one row; columns outside 0 .. width-1 are computed and not stored.
template <class T, int R, int N>
FASTCONV_INLINE void first_tile(const FirstLayer<T>& f, const T* x, int64_t at, int64_t column) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    V sum[R][N];
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) {
        const V bias = broadcast<V>(f.bias[r]);
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) sum[r][j] = bias;
    }
    x += column;
    const T* w = f.w;
    const int64_t* const offsets = f.offsets;
    const int64_t terms = f.terms;
    for (int64_t i = 0; i < terms; i++, w += R) {
        const T* const p = x + offsets[i];
        V in[N];
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) in[j] = load<V>(p + j * L);
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) {
            const V weight = broadcast<V>(w[r]);
#pragma GCC unroll 4
            for (int j = 0; j < N; j++) sum[r][j] += weight * in[j];
        }
    }
    const int64_t plane = f.plane, width = f.width;
    const Clamp clamp = f.clamp;
    T* const out = f.out + at + column;
    const auto head = mask<V>(-column, width - column);
    const auto tail = mask<V>(width - column - (N - 1) * L);
    if (f.add != nullptr) {
        const T* const add = f.add + at + column;
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
            for (int j = 0; j < N; j++) {
                const T* const p = add + r * plane + j * L;
                sum[r][j] = sum[r][j] + (j == 0       ? load<V>(p, head)
                                         : j == N - 1 ? load<V>(p, tail)
                                                      : load<V>(p));
            }
        }
    }
    if (clamp != Clamp::none) {
        const V zero{}, six = broadcast<V>(6);
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
            for (int j = 0; j < N; j++) {
                V v = sum[r][j] < zero ? zero : sum[r][j];
                if (clamp == Clamp::relu6) v = v > six ? six : v;
                sum[r][j] = v;
            }
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) {
            T* const p = out + r * plane + j * L;
            if (j == 0) {
                store(p, sum[r][j], head);
            } else if (j == N - 1) {
                store(p, sum[r][j], tail);
            } else {
                store(p, sum[r][j]);
            }
        }
    }
}

template <class T, int R>
void first_rows(const FirstLayer<T>& f) {
    constexpr int L = kLanes<T>, N = kFirstVectors;
    const T* x = f.x;
    for (int64_t row = 0, at = 0; row < f.rows; row++, x += f.x_step, at += f.width) {
        int64_t column = -f.before, vectors = (f.width + f.before + L - 1) / L;
        while (vectors > 0) {
            // 5 vectors are 3 and 2, not 4 and 1: a narrow tile waits for its own sums.
            const int64_t n =
                vectors >= 2 * N || vectors <= N ? (vectors < N ? vectors : N) : (vectors + 1) / 2;
            switch (n) {
                case 1:
                    first_tile<T, R, 1>(f, x, at, column);
                    break;
                case 2:
                    first_tile<T, R, 2>(f, x, at, column);
                    break;
                case 3:
                    first_tile < T, R, N<3 ? N : 3>(f, x, at, column);
                    break;
                default:
                    first_tile<T, R, N>(f, x, at, column);
            }
            column += n * L;
            vectors -= n;
        }
    }
}

template <class T, int C>
void split_pixels(const T* FASTCONV_RESTRICT from, int64_t n, T* FASTCONV_RESTRICT to, int64_t plane) {
    for (int64_t j = 0; j < n; j++)
        for (int c = 0; c < C; c++) to[c * plane + j] = from[j * C + c];
}

// W pixels of W channels at a time are turned over in registers. Lanes beyond the channels spill over into the next pixel,
// which is written next; the last pixels are written one by one.
template <class T, int W>
FASTCONV_INLINE void turn_pixels(const T* planes, int64_t plane, int64_t n, int64_t channels, const T* add,
                                 T* out) {
    using V = vec<T, W>;
    const int64_t whole = n * channels >= W ? (n * channels - W) / channels + 1 : 0;
    int64_t p = 0;
    for (; p + W <= whole; p += W) {
        V v[W];
#pragma GCC unroll 16
        for (int k = 0; k < W; k++) v[k] = k < channels ? load<V>(planes + k * plane + p) : V{};
        transpose(v);
        for (int i = 0; i < W; i++) {
            const int64_t at = (p + i) * channels;
            store(out + at, add == nullptr ? v[i] : v[i] + load<V>(add + at));
        }
    }
    for (; p < n; p++)
        for (int64_t k = 0; k < channels; k++) {
            const int64_t at = p * channels + k;
            out[at] = add == nullptr ? planes[k * plane + p] : planes[k * plane + p] + add[at];
        }
}

constexpr int kTurnedBytes = kVectorBytes > 16 ? kVectorBytes / 2 : 16;

template <class T>
void turn(const T* planes, int64_t plane, int64_t n, int64_t channels, const T* add, T* out) {
    constexpr int Most = kTurnedBytes / static_cast<int>(sizeof(T)),
                  Half = kTurnedBytes > 16 ? Most / 2 : Most;
    if (channels <= Half) return turn_pixels<T, Half>(planes, plane, n, channels, add, out);
    turn_pixels<T, Most>(planes, plane, n, channels, add, out);
}

template <class T>
constexpr FirstLayers<T> make_first_layers() {
    return {{nullptr, first_rows<T, 1>, first_rows<T, 2>, first_rows<T, 3>, first_rows<T, 4>,
             first_rows<T, 5>, first_rows<T, 6>},
            kLanes<T> / 2,
            {nullptr, split_pixels<T, 1>, split_pixels<T, 2>, split_pixels<T, 3>, split_pixels<T, 4>},
            turn<T>};
}

}  // namespace

const FirstLayerKernels first_layer_kernels = {make_first_layers<float>(), make_first_layers<double>()};

FASTCONV_END_ISA
