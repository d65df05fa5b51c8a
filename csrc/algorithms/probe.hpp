// The smallest kernel family: what a family looks like, what `fastconv info` and the tests of simd/ look at,
// and two loops that tell what this machine can do: the roof of the benchmarks, and their probe.
#pragma once

#include "algorithms/probe_kernels.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

// y[i] = a * x[i] + y[i], with a masked tail.
void axpy(int64_t n, float a, const float* x, float* y) {
    using V = vec<float, kLanes<float>>;
    const V scale = broadcast<V>(a);
    int64_t i = 0;
    for (; i + lanes_of<V> <= n; i += lanes_of<V>) store(y + i, scale * load<V>(x + i) + load<V>(y + i));
    const auto tail = mask<V>(n - i);
    if (i < n) store(y + i, scale * load<V>(x + i, tail) + load<V>(y + i, tail), tail);
}

// Multiply-adds on registers alone. 24 (or 12) independent sums are more than latency times units of any core
// we know, and leave registers for the two constants.
int64_t multiply_adds(int64_t n, float* sink) {
    using V = vec<float, kLanes<float>>;
    constexpr int kSums = kRegisters == 32 ? 24 : 12;
    V sums[kSums];
    for (int i = 0; i < kSums; i++) sums[i] = broadcast<V>(static_cast<float>(i));
    const V scale = broadcast<V>(0.999f), shift = broadcast<V>(1e-3f);
    for (int64_t k = 0; k < n; k++) {
#pragma GCC unroll 24
        for (int i = 0; i < kSums; i++) sums[i] = sums[i] * scale + shift;
    }
    V all = sums[0];
    for (int i = 1; i < kSums; i++) all = all + sums[i];
    store(sink, all);
    return 2 * n * kSums * lanes_of<V>;
}

// A matrix product of one register tile, its left side from the first cache and its right side, in turns of
// four, from the second: what slows down when a neighbour shares the core.
int64_t cached_product(int64_t n, const float* left, const float* right, float* sink) {
    using V = vec<float, kLanes<float>>;
    constexpr int kRows = kRegisters == 32 ? 6 : 5, kColumns = kRegisters == 32 ? 4 : 2;
    constexpr int64_t kWidth = kColumns * lanes_of<V>;
    V all = V{};
    for (int64_t r = 0; r < n; r++) {
        const float* const b = right + (r & 3) * kProbeDepth * kWidth;
        V tile[kRows][kColumns];
        for (int i = 0; i < kRows; i++)
            for (int j = 0; j < kColumns; j++) tile[i][j] = V{};
        for (int64_t k = 0; k < kProbeDepth; k++) {
            V row[kColumns];
#pragma GCC unroll 4
            for (int j = 0; j < kColumns; j++) row[j] = load<V>(b + k * kWidth + j * lanes_of<V>);
#pragma GCC unroll 6
            for (int i = 0; i < kRows; i++) {
                const V x = broadcast<V>(left[k * kRows + i]);
#pragma GCC unroll 4
                for (int j = 0; j < kColumns; j++) tile[i][j] = x * row[j] + tile[i][j];
            }
        }
        for (int i = 0; i < kRows; i++)
            for (int j = 0; j < kColumns; j++) all = all + tile[i][j];
    }
    store(sink, all);
    return 2 * n * kRows * kWidth * kProbeDepth;
}

}  // namespace

const ProbeKernels probe_kernels = {kVectorBytes, kRegisters, axpy, multiply_adds, cached_product};

FASTCONV_END_ISA
