// The loops of the gradients; what each computes stands in gradient_loops_kernels.hpp.
//
// The lane tile holds up to nine taps in registers (3 x 3: ten loads for nine FMAs), so that a depthwise
// gradient reads each input vector once for each tap and each vector of dy once for nine taps.
#pragma once

#include "algorithms/gradient_loops_kernels.hpp"
#include "simd/shuffle.hpp"
#include "simd/transpose.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

template <class T, int N>
void lane_taps(const LaneTile<T>& t, int64_t first) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    V sum[N] = {};
    const T* dy = t.dy;
    const int64_t step = t.step * L, dy_step = t.dy_step * L;
    for (int64_t r = 0; r < t.row_count; r++) {
        const T* x[N];
#pragma GCC unroll 9
        for (int n = 0; n < N; n++) x[n] = t.x + (t.rows[r] + t.taps[first + n]) * L;
        for (int64_t i = 0, at = 0; i < t.width; i++, at += step) {
            const V g = load<V>(dy);
            dy += dy_step;
#pragma GCC unroll 9
            for (int n = 0; n < N; n++) sum[n] += g * load<V>(x[n] + at);
        }
    }
#pragma GCC unroll 9
    for (int n = 0; n < N; n++) {
        T* const to = t.sum + (first + n) * t.sum_row;
        store(to, load<V>(to) + sum[n]);
    }
}

template <class T>
void lane_tile(const LaneTile<T>& t) {
    int64_t tap = 0;
    for (; tap + 9 <= t.tap_count; tap += 9) lane_taps<T, 9>(t, tap);
    for (; tap + 5 <= t.tap_count; tap += 5) lane_taps<T, 5>(t, tap);
    for (; tap + 3 <= t.tap_count; tap += 3) lane_taps<T, 3>(t, tap);
    for (; tap < t.tap_count; tap++) lane_taps<T, 1>(t, tap);
}

// Eight outputs and nine sums in registers: an input vector is loaded once for up to six products (3 x 3: 50 loads and stores
// for 72 FMAs, where a tap at a time takes 80). Four outputs where there are sixteen registers.
constexpr int kDepthwiseRows = kRegisters >= 32 ? 2 : 1;

template <class T, int S>
void depthwise_tile(const DepthwiseTile<T>& t) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>, P = kDepthwiseRows, Q = kDepthwiseColumns, R = (P - 1) * S + 3,
                  W = (Q - 1) * S + 3;
    T* to = t.sum;
    for (int64_t c = 0; c < t.channels; c += L, to += 9 * L) {
        const auto m = mask<V>(t.channels - c);
        V g[P][Q], sum[3][3];
#pragma GCC unroll 4
        for (int i = 0; i < P; i++)
#pragma GCC unroll 4
            for (int j = 0; j < Q; j++) {
                g[i][j] = load<V>(t.dy[i * Q + j] + c, m);
                prefetch_l1(t.dy[i * Q + j] + c + t.dy_ahead);
            }
        if (t.bias != nullptr) {
            V all = load<V>(t.bias + c);
#pragma GCC unroll 4
            for (int i = 0; i < P; i++) all += (g[i][0] + g[i][1]) + (g[i][2] + g[i][3]);
            store(t.bias + c, all);
        }
#pragma GCC unroll 9
        for (int n = 0; n < 9; n++) sum[n / 3][n % 3] = load<V>(to + n * L);
#pragma GCC unroll 8
        for (int i = 0; i < R; i++)
#pragma GCC unroll 16
            for (int j = 0; j < W; j++) {
                const T* const from = t.x[i * W + j] + c;
                const V v = load<V>(from, m);
                if (i >= R - P * S) prefetch_l1(from + t.x_ahead);
#pragma GCC unroll 3
                for (int h = 0; h < 3; h++)
#pragma GCC unroll 3
                    for (int w = 0; w < 3; w++) {
                        const int y = i - h, x = j - w;
                        if (y >= 0 && y % S == 0 && y / S < P && x >= 0 && x % S == 0 && x / S < Q)
                            sum[h][w] += v * g[y / S][x / S];
                    }
            }
#pragma GCC unroll 9
        for (int n = 0; n < 9; n++) store(to + n * L, sum[n / 3][n % 3]);
    }
}

template <class T>
void copy_rows(const T* from, int64_t from_row, int64_t rows, int64_t columns, T* to, int64_t to_row,
               int64_t full) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    if (columns == 2 * L && full == 2 * L) {  // a full panel of dy
        for (int64_t r = 0; r < rows; r++, from += from_row, to += to_row) {
            const V a = load<V>(from), b = load<V>(from + L);
            store(to, a);
            store(to + L, b);
        }
        return;
    }
    if (full <= L) {
        const auto valid = mask<V>(columns), all = mask<V>(full);
        for (int64_t r = 0; r < rows; r++, from += from_row, to += to_row)
            store(to, load<V>(from, valid), all);
        return;
    }
    for (int64_t r = 0; r < rows; r++, from += from_row, to += to_row) {
        for (int64_t c = 0; c < full; c += L) {
            const V v = load<V>(from + (c < columns ? c : 0), mask<V>(columns - c));
            store(to + c, v, mask<V>(full - c));
        }
    }
}

template <class T>
void gather_row(const T* from, int64_t step, int64_t count, T* to) {
    for (int64_t i = 0; i < count; i++) to[i] = from[i * step];
}

template <class T>
void spread_lanes(const T* from, int64_t from_row, int64_t rows, int64_t, const int32_t* index, T* to) {
    constexpr int L = kLanes<T>;
    for (int64_t r = 0; r < rows; r++, from += from_row, to += L)
        for (int l = 0; l < L; l++) to[l] = from[index[l]];
}

template <class T>
void interleave_pairs(const T* even, const T* odd, T blank, int64_t count, T* to) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    const V none = broadcast<V>(blank);
    int64_t i = 0;
    for (; i + 2 * L <= count; i += 2 * L) {
        const V a = even == nullptr ? none : load<V>(even + i / 2),
                b = odd == nullptr ? none : load<V>(odd + i / 2);
        store(to + i, interleave_low(a, b));
        store(to + i + L, interleave_high(a, b));
    }
    if (i == count) return;
    const int64_t left = count - i;
    const V a = even == nullptr ? none : load<V>(even + i / 2, mask<V>((left + 1) / 2)),
            b = odd == nullptr ? none : load<V>(odd + i / 2, mask<V>(left / 2));
    store(to + i, interleave_low(a, b), mask<V>(left));
    if (left > L) store(to + i + L, interleave_high(a, b), mask<V>(left - L));
}

// 4 or 8 ways by pairs of pairs: from[0], from[step], ...; `room` is for what waits. 16 taps with stride 8, 64 > 32 channels of
// 1000 values: 0.88 to 0.75 ms.
template <class T>
void interleave_ways(const T* const* from, int64_t ways, int64_t step, T blank, int64_t count, T* to,
                     T* room) {
    if (ways == 2) return interleave_pairs(from[0], from[step], blank, count, to);
    const int64_t half = (count + 1) / 2;
    interleave_ways(from, ways / 2, 2 * step, blank, half, room, room + 2 * half);
    interleave_ways(from + step, ways / 2, 2 * step, blank, count / 2, room + half, room + 2 * half);
    interleave_pairs<T>(room, room + half, blank, count, to);
}

template <class T>
void interleave(const Interleave<T>& rows) {
    T* FASTCONV_RESTRICT to = rows.to;
    for (int64_t r = 0; r < rows.rows; r++, to += rows.to_row) {
        const auto source = [&](int64_t w) {
            return rows.from[w] == nullptr ? nullptr : rows.from[w] + r * rows.from_row[w];
        };
        if (rows.ways == 2) {
            interleave_pairs(source(0), source(1), rows.blank, rows.count, to);
            continue;
        }
        if (rows.ways == 4 || rows.ways == 8) {
            constexpr int64_t kChunk = 1024;
            T room[2 * kChunk];
            for (int64_t at = 0; at < rows.count; at += kChunk) {
                const T* from[8];
                for (int64_t w = 0; w < rows.ways; w++)
                    from[w] = source(w) == nullptr ? nullptr : source(w) + at / rows.ways;
                interleave_ways(from, rows.ways, 1, rows.blank,
                                rows.count - at < kChunk ? rows.count - at : kChunk, to + at, room);
            }
            continue;
        }
        for (int64_t w = 0; w < rows.ways; w++) {
            const T* const from = source(w);
            for (int64_t at = w, i = 0; at < rows.count; at += rows.ways, i++)
                to[at] = from == nullptr ? rows.blank : from[i];
        }
    }
}

template <class T>
void add_rows(const T* from, int64_t rows, int64_t columns, T* to) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    for (int64_t c = 0; c < columns; c += L) {
        V even{}, odd{};
        int64_t r = 0;
        for (; r + 2 <= rows; r += 2) {
            even += load<V>(from + r * columns + c);
            odd += load<V>(from + (r + 1) * columns + c);
        }
        if (r < rows) even += load<V>(from + r * columns + c);
        store(to + c, load<V>(to + c) + (even + odd));
    }
}

template <class T>
void add_copies(const T* from, int64_t apart, int64_t copies, int64_t count, T* to) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    for (int64_t i = 0; i < count; i += L) {
        const auto m = mask<V>(count - i);
        if (copies == 1) {
            store(to + i, load<V>(from + i, m), m);
            continue;
        }
        V v[kMaxCopies];
        for (int64_t c = 0; c < copies; c++) v[c] = load<V>(from + c * apart + i, m);
        for (int64_t s = 1; s < copies; s *= 2)
            for (int64_t c = 0; c + s < copies; c += 2 * s) v[c] += v[c + s];
        store(to + i, v[0], m);
    }
}

template <class T>
constexpr GradientLoops<T> make_gradient_loops() {
    return {kLanes<T>,           lane_tile<T>, kDepthwiseRows, {depthwise_tile<T, 1>, depthwise_tile<T, 2>},
            transpose_matrix<T>, copy_rows<T>, gather_row<T>,  spread_lanes<T>,
            interleave<T>,       add_rows<T>,  add_copies<T>};
}

}  // namespace

const GradientKernels gradient_kernels = {make_gradient_loops<float>(), make_gradient_loops<double>()};

FASTCONV_END_ISA
