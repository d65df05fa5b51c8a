// Few pixels against weights in place; see few_pixels_kernels.hpp.
#pragma once

#include "algorithms/few_pixels_kernels.hpp"
#include "simd/transpose.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

// Steps whose weights are held in registers while the pixels pass: each sum is loaded and stored once for all of them.
constexpr int kFewSteps = 8;
constexpr int kFewVectors = kRegisters >= 32 ? 2 : 1;
// Elements by which rows of weights are asked for ahead.
constexpr int64_t kFewAhead = 128;

// Steps `at` to `at + R` of N vectors of channels.
template <int R, int N, class V, class T>
FASTCONV_INLINE void few_steps(const FewPixels<T>& t, int64_t at, int64_t k, Mask<V> tail) {
    constexpr int L = lanes_of<V>;
    V w[R][N];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
        const T* const row = t.w + (at + i) * t.w_row + k;
#pragma GCC unroll 2
        for (int j = 0; j < N; j++) w[i][j] = j == N - 1 ? load<V>(row + j * L, tail) : load<V>(row + j * L);
    }
    const T* x = t.x + at;
    T* sum = t.sum + k;
    for (int64_t p = 0; p < t.pixels; p++, x += t.x_row, sum += t.sum_row) {
        V s[N];
#pragma GCC unroll 2
        for (int j = 0; j < N; j++) s[j] = at == 0 ? V{} : load<V>(sum + j * L);
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            const V in = broadcast<V>(x[i]);
#pragma GCC unroll 2
            for (int j = 0; j < N; j++) s[j] += in * w[i][j];
        }
#pragma GCC unroll 2
        for (int j = 0; j < N; j++) store(sum + j * L, s[j]);
    }
}

template <int R, class T>
FASTCONV_INLINE void few_rows(const FewPixels<T>& t, int64_t at) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    int64_t k = 0;
    const auto whole = mask<V>(L);
    for (; k + kFewVectors * L <= t.channels; k += kFewVectors * L)
        few_steps<R, kFewVectors, V>(t, at, k, whole);
    for (; k < t.channels; k += L) few_steps<R, 1, V>(t, at, k, mask<V>(t.channels - k));
}

template <class T>
void inputs_outer(const FewPixels<T>& t) {
    int64_t at = 0;
    for (; at + kFewSteps <= t.steps; at += kFewSteps) few_rows<kFewSteps>(t, at);
    for (; at < t.steps; at++) few_rows<1>(t, at);
}

// Squares of weights are turned over in registers.
template <class T>
void outputs_outer(const FewPixels<T>& t) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    for (int64_t k = 0; k < t.channels; k += L) {
        const int64_t deep = t.channels - k < L ? t.channels - k : L;
        for (int64_t at = 0; at < t.steps; at += L) {
            const int64_t wide = t.steps - at < L ? t.steps - at : L;
            const T* const from = t.w + k * t.w_row + at;
            const T* x = t.x + at;
            T* sum = t.sum + k;
            V w[L];
            if (wide == L && deep == L) {
#pragma GCC unroll 16
                for (int i = 0; i < L; i++) {
                    w[i] = load<V>(from + i * t.w_row);
                    prefetch_l1(from + i * t.w_row + kFewAhead);
                }
                transpose(w);
                for (int64_t p = 0; p < t.pixels; p++, x += t.x_row, sum += t.sum_row) {
                    V s = at == 0 ? V{} : load<V>(sum);
#pragma GCC unroll 16
                    for (int i = 0; i < L; i++) s += broadcast<V>(x[i]) * w[i];
                    store(sum, s);
                }
                continue;
            }
            const auto along = mask<V>(wide);
            for (int64_t i = 0; i < L; i++) w[i] = i < deep ? load<V>(from + i * t.w_row, along) : V{};
            transpose(w);
            for (int64_t p = 0; p < t.pixels; p++, x += t.x_row, sum += t.sum_row) {
                V s = at == 0 ? V{} : load<V>(sum);
                for (int64_t i = 0; i < wide; i++) s += broadcast<V>(x[i]) * w[i];
                store(sum, s);
            }
        }
    }
}

template <class T>
constexpr FewPixelsOf<T> make_few_pixels() {
    return {kLanes<T>, inputs_outer<T>, outputs_outer<T>};
}

}  // namespace

const FewPixelsKernels few_pixels_kernels = {make_few_pixels<float>(), make_few_pixels<double>()};

FASTCONV_END_ISA
