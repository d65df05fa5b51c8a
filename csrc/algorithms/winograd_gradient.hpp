// The weight gradient of a 3 x 3 convolution with stride 1 by Winograd's F(3 x 3, 4 x 4). [Lavin & Gray, arXiv:1509.09308]
//
// dW[u, v] = sum over pixels of X[i + u, j + v] * dY[i, j]: for a tile of 4 x 4 pixels of dY that is a filter of 4 x 4 taps with
// 3 x 3 outputs, which needs 6 x 6 inputs, the very tiles of the forward F(4 x 4, 3 x 3). So X is transformed by that algorithm's
// B^T d B, dY by G g G^T with G of 6 x 4; at each of the 36 positions the tiles are summed as outer products of channels, and one
// A^T (.) A at the very end gives dW: four times fewer multiplications than direct.
//
// Points 0, +-2/3, +-3/2, inf as in toom_cook.hpp: G[j] = (1, p, p^2, p^3) / N_j, A[i][j] = p_j^i. Products of tiles are
// summed in chunks (chains of at most some 50 terms), the chunks one after the other, private copies by a fixed tree. Results that
// are not finite (an inf or NaN smears over its tile, values near 1e37 overflow) are left to the direct way by the caller.
#pragma once

#include "algorithms/toom_cook.hpp"
#include "algorithms/winograd_gradient_kernels.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

constexpr double kPointA = ToomCookPoints<6>::at[1], kPointB = ToomCookPoints<6>::at[3];

// G of one line; N_j is 1 for the point 0 since the other points are reciprocal.
template <class V>
FASTCONV_INLINE void expand_line(const V (&d)[4], V (&r)[6]) {
    using T = scalar_of<V>;
    constexpr double aa = kPointA * kPointA, bb = kPointB * kPointB;
    constexpr double na = 1 / (2 * aa * (aa - bb)), nb = 1 / (2 * bb * (bb - aa));
    const V even_a = T(na) * d[0] + T(na * aa) * d[2],
            odd_a = T(na * kPointA) * d[1] + T(na * aa * kPointA) * d[3];
    const V even_b = T(nb) * d[0] + T(nb * bb) * d[2],
            odd_b = T(nb * kPointB) * d[1] + T(nb * bb * kPointB) * d[3];
    r[0] = d[0];
    r[1] = even_a + odd_a;
    r[2] = even_a - odd_a;
    r[3] = even_b + odd_b;
    r[4] = even_b - odd_b;
    r[5] = d[3];
}

template <class V>
FASTCONV_INLINE void contract_line(const V (&d)[6], V (&r)[3]) {
    using T = scalar_of<V>;
    const V sum_a = d[1] + d[2], sum_b = d[3] + d[4];
    r[0] = d[0] + sum_a + sum_b;
    r[1] = T(kPointA) * (d[1] - d[2]) + T(kPointB) * (d[3] - d[4]);
    r[2] = T(kPointA * kPointA) * sum_a + T(kPointB * kPointB) * sum_b + d[5];
}

template <class T>
void expand_tiles(const T* dy, int64_t row, int64_t pixel, int64_t tiles, T* out, int64_t position_stride,
                  T* bias) {
    using V = vec<T, kLanes<T>>;
    V total{};
    for (int64_t tile = 0; tile < tiles; tile++, dy += 4 * pixel, out += kLanes<T>) {
        V half[6][4], sum{};
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            V d[4], r[6];
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) d[i] = load<V>(dy + i * row + j * pixel);
            sum += (d[0] + d[1]) + (d[2] + d[3]);
            expand_line<V>(d, r);
#pragma GCC unroll 6
            for (int i = 0; i < 6; i++) half[i][j] = r[i];
        }
        total += sum;
#pragma GCC unroll 6
        for (int i = 0; i < 6; i++) {
            V r[6];
            expand_line<V>(half[i], r);
#pragma GCC unroll 6
            for (int j = 0; j < 6; j++) store(out + (i * 6 + j) * position_stride, r[j]);
        }
    }
    if (bias != nullptr) store(bias, load<V>(bias) + total);
}

template <class T>
bool contract_sums(const T* sums, int64_t position_stride, int64_t sum_row, int64_t rows, int64_t vectors,
                   T* out, int64_t tap_step, int64_t out_row) {
    using V = vec<T, kLanes<T>>;
    V all{};
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t v = 0; v < vectors; v++) {
            const T* const from = sums + r * sum_row + v * kLanes<T>;
            T* const to = out + r * out_row + v * kLanes<T>;
            V half[3][6];
#pragma GCC unroll 6
            for (int j = 0; j < 6; j++) {
                V d[6], w[3];
#pragma GCC unroll 6
                for (int i = 0; i < 6; i++) d[i] = load<V>(from + (i * 6 + j) * position_stride);
                contract_line<V>(d, w);
#pragma GCC unroll 3
                for (int i = 0; i < 3; i++) half[i][j] = w[i];
            }
#pragma GCC unroll 3
            for (int i = 0; i < 3; i++) {
                V w[3];
                contract_line<V>(half[i], w);
#pragma GCC unroll 3
                for (int j = 0; j < 3; j++) {
                    all += w[j] - w[j];
                    store(to + (i * 3 + j) * tap_step, w[j]);
                }
            }
        }
    }
    T lanes[kLanes<T>];
    store(lanes, all);
    T sum = 0;
    for (T lane : lanes) sum += lane;
    return sum == T(0);  // x - x is NaN unless x is finite
}

template <class T, int R, int N>
void outer_tile(const OuterTile<T>& t) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    V sum[R][N] = {};
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) prefetch_l1(t.out + r * t.out_row);
    const T *x = t.x, *w = t.w;
    const int64_t block = t.w_block, x_step = t.x_step, w_step = t.w_step;
    for (int64_t i = 0; i < t.steps; i++, x += x_step, w += w_step) {
        V in[N];
#pragma GCC unroll 2
        for (int j = 0; j < N; j++) in[j] = load<V>(w + j * block);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            const V factor = broadcast<V>(x[r]);
#pragma GCC unroll 2
            for (int j = 0; j < N; j++) sum[r][j] += factor * in[j];
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int j = 0; j < N; j++) {
            T* const to = t.out + r * t.out_row + j * L;
            store(to, t.accumulate ? load<V>(to) + sum[r][j] : sum[r][j]);
        }
}

// Sixteen sums in AVX-512 (ten loads for sixteen FMAs), eight elsewhere: the rows must divide the lanes.
template <class T>
constexpr WinogradGradientKernels<T> make_winograd_gradient() {
    constexpr int L = kLanes<T>, sums = kRegisters >= 32 ? 16 : 8;
    constexpr int narrow = L < sums ? L : sums, wide = L < sums / 2 ? L : sums / 2;
    return {L,
            {0, narrow, wide},
            {nullptr, outer_tile<T, narrow, 1>, outer_tile<T, wide, 2>},
            expand_tiles<T>,
            contract_sums<T>};
}

}  // namespace

const WinogradGradientSet winograd_gradient_kernels = {make_winograd_gradient<float>(),
                                                       make_winograd_gradient<double>()};

FASTCONV_END_ISA
