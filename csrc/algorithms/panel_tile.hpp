// Panels of pixels against rows of weights; see panel_tile_kernels.hpp.
//
// 14 x 2 vectors with 32 registers (28 sums, 2 inputs, 1 weight), 6 x 2 with 16, 9 x 2 on NEON, as the channel tile of
// microkernel.hpp: here its scalars are weights.
#pragma once

#include "algorithms/clamp.hpp"
#include "algorithms/panel_tile_kernels.hpp"
#include "simd/shuffle.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

constexpr int kPanelRows = kVectorBytes == 64 ? 14 : kRegisters >= 32 ? 9 : 6;

// Steps by which packed weights are asked for ahead: 2 to 4% where they come from L2.
constexpr int kWeightsAhead = 8;

// Every register of the tile, unrolled.
#define FASTCONV_EACH \
    _Pragma("GCC unroll 14") for (int r = 0; r < R; r++) _Pragma("GCC unroll 2") for (int j = 0; j < N; j++)

// The sums of one pixel, rows in lanes. Sums that wait stand side by side where the first row has no more pixels.
template <class T, int R, class V, int Q>
FASTCONV_INLINE void finish_beside(const PanelTile<T>& t, V (&sum)[Q]) {
    constexpr int L = kLanes<T>;
#pragma GCC unroll 2
    for (int q = 0; q < Q; q++) {
        if (t.partial != nullptr) sum[q] = load<V>(t.partial + (q + 1) * L) + sum[q];
        if (t.bias != nullptr) sum[q] = sum[q] + load<V>(t.bias + q * L, mask<V>(R - q * L));
        if (t.waits) store(t.out + (q + 1) * L, sum[q]);
    }
    if (t.waits) return;
    T rows[Q * L];
#pragma GCC unroll 2
    for (int q = 0; q < Q; q++) store(rows + q * L, t.add == nullptr ? clamped(sum[q], t.clamp) : sum[q]);
    if (t.add == nullptr) {
#pragma GCC unroll 14
        for (int r = 0; r < R; r++) t.out[r * t.out_row + L] = rows[r];
        return;
    }
    const V zero{};
    for (int r = 0; r < R; r++) {
        const V one = clamped(zero + (rows[r] + t.add[r * t.out_row + L]), t.clamp);
        store(t.out + r * t.out_row + L, one, mask<V>(1));
    }
}

// A pixel beside the one vector of a tile is summed with the rows in lanes: their weights are neighbours where they are
// packed.
template <class T, int R, int N, bool Copies, bool Beside = false>
void panel_tile(const PanelTile<T>& t) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>, B = (R + 2) / 3;
    constexpr int Q = (R + L - 1) / L;  // vectors of a weight of every row
    static_assert(!Beside || (N == 1 && !Copies));
    V sum[R][N] = {};
    V beside[Q] = {};
    const T* x = t.x;
    T* copy = t.copy;
    const int64_t x_step = Copies ? t.x_step : (N + Beside) * L, w_row = t.w_row, w_step = t.w_step;
    // Three rows share a pointer, so that the tile needs few address registers.
    const T* w[B];
#pragma GCC unroll 5
    for (int b = 0; b < B; b++) w[b] = t.w + 3 * b * w_row;
    const auto step = [&]() __attribute__((always_inline)) {
        prefetch_l1(w[0] + kWeightsAhead * w_step);
        V in[N];
#pragma GCC unroll 2
        for (int j = 0; j < N; j++) in[j] = load<V>(x + j * L);
        if constexpr (Beside) {
            const V pixel = broadcast<V>(x[L]);
#pragma GCC unroll 2
            for (int q = 0; q < Q; q++) beside[q] += load<V>(w[0] + q * L) * pixel;
        }
        x += x_step;
        if (Copies) {
#pragma GCC unroll 2
            for (int j = 0; j < N; j++) store(copy + j * L, in[j]);
            copy += N * L;
        }
#pragma GCC unroll 14
        for (int r = 0; r < R; r++) {
            const V weight = broadcast<V>(w[r / 3][r % 3 * w_row]);
#pragma GCC unroll 2
            for (int j = 0; j < N; j++) sum[r][j] += weight * in[j];
        }
#pragma GCC unroll 5
        for (int b = 0; b < B; b++) w[b] += w_step;
    };
    int64_t steps = t.steps;
    for (const Lines<T>* lines = t.ahead; lines < t.ahead + 2; lines++) {
        const T* line = lines->first;
        int64_t n = lines->count < steps / 2 ? lines->count : steps / 2;
        steps -= 2 * n;
        for (; n > 0; n--, line += lines->step) {
#pragma GCC unroll 2
            for (int j = 1; j <= N; j++) prefetch_l2(line + j * L - 1);
            step();
            step();
        }
    }
    for (; steps > 0; steps--) step();

    if constexpr (Beside) finish_beside<T, R>(t, beside);
    const auto tail = mask<V>(t.pixels - (N - 1) * L);
    if (t.partial != nullptr) {
        FASTCONV_EACH sum[r][j] = load<V>(t.partial + r * t.partial_row + j * L) + sum[r][j];
    }
    if (t.bias != nullptr) {
        FASTCONV_EACH sum[r][j] = sum[r][j] + broadcast<V>(t.bias[r]);
    }
    if (t.add != nullptr) {
        FASTCONV_EACH {
            const T* const add = t.add + r * t.out_row + j * L;
            sum[r][j] = sum[r][j] + (j == N - 1 ? load<V>(add, tail) : load<V>(add));
        }
    }
    if (t.clamp != Clamp::none) {
        // One loop for both clamps, as `clamped` would do it: the code of the ends of all tiles is most of this object.
        const V zero{}, most = broadcast<V>(t.clamp == Clamp::relu6 ? T(6) : static_cast<T>(__builtin_inf()));
        FASTCONV_EACH sum[r][j] = sum[r][j] < zero ? zero : sum[r][j];
        FASTCONV_EACH sum[r][j] = sum[r][j] > most ? most : sum[r][j];
    }
    FASTCONV_EACH {
        T* const out = t.out + r * t.out_row + j * L;
        j == N - 1 ? store(out, sum[r][j], tail) : store(out, sum[r][j]);
    }
}

#undef FASTCONV_EACH

// Channels innermost: the masks of a run are those of all channels.
template <class T>
void take_even(const T* from, int64_t from_row, int64_t channels, int64_t n, T* to, int64_t to_row) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    for (int64_t j = 0; j < n; j += L) {
        const int64_t left = 2 * (n - j) - 1;  // what follows the last value may not be readable
        const auto low = mask<V>(left), high = mask<V>(left - L), kept = mask<V>(n - j);
        const T* source = from + 2 * j;
        T* target = to + j;
        for (int64_t c = 0; c < channels; c++, source += from_row, target += to_row)
            store(target, even_lanes(load<V>(source, low), load<V>(source + L, high)), kept);
    }
}

#define FASTCONV_BESIDE(R) panel_tile<T, (R < kPanelRows ? R : kPanelRows), 1, false, true>
#define FASTCONV_PANEL_ROW(C, R)                                      \
    {nullptr, panel_tile<T, (R < kPanelRows ? R : kPanelRows), 1, C>, \
     panel_tile<T, (R < kPanelRows ? R : kPanelRows), 2, C>}
#define FASTCONV_PANEL_ROWS(C)  \
    {{},                        \
     FASTCONV_PANEL_ROW(C, 1),  \
     FASTCONV_PANEL_ROW(C, 2),  \
     FASTCONV_PANEL_ROW(C, 3),  \
     FASTCONV_PANEL_ROW(C, 4),  \
     FASTCONV_PANEL_ROW(C, 5),  \
     FASTCONV_PANEL_ROW(C, 6),  \
     FASTCONV_PANEL_ROW(C, 7),  \
     FASTCONV_PANEL_ROW(C, 8),  \
     FASTCONV_PANEL_ROW(C, 9),  \
     FASTCONV_PANEL_ROW(C, 10), \
     FASTCONV_PANEL_ROW(C, 11), \
     FASTCONV_PANEL_ROW(C, 12), \
     FASTCONV_PANEL_ROW(C, 13), \
     FASTCONV_PANEL_ROW(C, 14)}

template <class T>
constexpr PanelTiles<T> make_panel_tiles() {
    PanelTiles<T> tiles = {
        kPanelRows, {FASTCONV_PANEL_ROWS(false), FASTCONV_PANEL_ROWS(true)}, {}, take_even<T>};
    // 7 x 7 pixels are three vectors and one pixel. Narrower vectors waste less.
    if constexpr (kVectorBytes == 64 && sizeof(T) == 4)
        tiles = {kPanelRows,
                 {FASTCONV_PANEL_ROWS(false), FASTCONV_PANEL_ROWS(true)},
                 {nullptr, FASTCONV_BESIDE(1), FASTCONV_BESIDE(2), FASTCONV_BESIDE(3), FASTCONV_BESIDE(4),
                  FASTCONV_BESIDE(5), FASTCONV_BESIDE(6), FASTCONV_BESIDE(7), FASTCONV_BESIDE(8),
                  FASTCONV_BESIDE(9), FASTCONV_BESIDE(10), FASTCONV_BESIDE(11), FASTCONV_BESIDE(12),
                  FASTCONV_BESIDE(13), FASTCONV_BESIDE(14)},
                 take_even<T>};
    return tiles;
}

#undef FASTCONV_BESIDE
#undef FASTCONV_PANEL_ROWS
#undef FASTCONV_PANEL_ROW

}  // namespace

const PanelTileKernels panel_tile_kernels = {make_panel_tiles<float>(), make_panel_tiles<double>()};

FASTCONV_END_ISA
