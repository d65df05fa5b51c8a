// Depthwise kernels; see depthwise_kernels.hpp and the driver in depthwise.cpp.
//
// Channels first: pixels in lanes, read in place, masks at the sides and rows left out at top and bottom.
// Four output rows at once, so that each input vector that is loaded serves all tap rows: 18 loads for 36
// multiply-adds with a 3x3 kernel. [Zhang, AAAI 2020] With stride 2, tap columns share their loads in pairs
// (5x5 on 56 x 56 48 -> 37 us for 48 planes, 3x3 10 to 20% less). A padded copy of each plane first took 3 to
// 8 times as long on planes of 14 x 14 and 7 x 7. Larger kernels, image filters among them, do read a padded
// copy: six rows by four vectors at once, 10 loads for 24 multiply-adds. On 512 x 512 (one core of 226
// GFLOP/s) 7x7 takes 0.27 ms where one row at a time took 0.45, 15x15 0.83 and 1.68; four rows instead of six
// 0.29 and 0.93.
// Channels last: depthwise_last.hpp. Every output adds its taps in row-major order, whichever of the kernels
// computes it.
#pragma once

#include "algorithms/clamp.hpp"
#include "algorithms/depthwise_kernels.hpp"
#include "algorithms/depthwise_last.hpp"
#include "simd/shuffle.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

// Finished sums of R rows by N vectors; P is any of the two argument types.
template <class T, int R, int N, class V, class P>
FASTCONV_INLINE void store_plane(const P& p, V (&sum)[R][N], int64_t at, int64_t out_row, Mask<V> tail) {
    const V bias = broadcast<V>(p.bias);
#pragma GCC unroll 6
    for (int r = 0; r < R; r++, at += out_row) {
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) {
            const int64_t to = at + j * lanes_of<V>;
            V v = sum[r][j] + bias;
            if (p.add != nullptr) v = v + (j == N - 1 ? load<V>(p.add + to, tail) : load<V>(p.add + to));
            v = clamped(v, p.clamp);
            j == N - 1 ? store(p.out + to, v, tail) : store(p.out + to, v);
        }
    }
}

// Which lanes of the S vectors that make one vector of columns lie in the input.
template <class V, int S>
struct ColumnMask {
    Mask<V> part[S];
};

// The S vectors from p on; outside the mask stands a padding's zero.
template <class V, int S, bool Inside>
FASTCONV_INLINE void load_columns(V (&part)[S], const scalar_of<V>* p, const ColumnMask<V, S>& m) {
#pragma GCC unroll 2
    for (int s = 0; s < S; s++)
        part[s] = Inside ? load<V>(p + s * lanes_of<V>) : load<V>(p + s * lanes_of<V>, m.part[s]);
}

// Whether tap columns are cut out of neighbouring vectors: a load that lies in two cache lines takes as long
// as four shuffles.
template <int K, int S>
constexpr bool kShifted = kVectorBytes == 64 && S == 1 && K > 1;

// A vector that begins `lanes` (up to four) lanes into a and goes on in b.
template <class V>
FASTCONV_INLINE V shifted(V a, [[maybe_unused]] V b, int lanes) {
#if defined(__AVX512F__)  // with masks of ones, because GCC warns of the undefined vector in the others
    const auto low = (__m512i)a, high = (__m512i)b;
    if constexpr (sizeof(scalar_of<V>) == 4) {
        if (lanes == 1) return (V)_mm512_maskz_alignr_epi32(0xffff, high, low, 1);
        if (lanes == 2) return (V)_mm512_maskz_alignr_epi32(0xffff, high, low, 2);
        if (lanes == 3) return (V)_mm512_maskz_alignr_epi32(0xffff, high, low, 3);
        if (lanes == 4) return (V)_mm512_maskz_alignr_epi32(0xffff, high, low, 4);
    } else {
        if (lanes == 1) return (V)_mm512_maskz_alignr_epi64(0xff, high, low, 1);
        if (lanes == 2) return (V)_mm512_maskz_alignr_epi64(0xff, high, low, 2);
        if (lanes == 3) return (V)_mm512_maskz_alignr_epi64(0xff, high, low, 3);
        if (lanes == 4) return (V)_mm512_maskz_alignr_epi64(0xff, high, low, 4);
    }
#endif
    return a;
}

// The weights of a plane of H x K taps, in registers where they fit.
template <class V, int Taps>
struct PlaneWeights {
    static constexpr bool kept = kRegisters >= 32 && Taps <= 9;
    V own[kept ? Taps : 1];
    const V* all;  // of all planes

    FASTCONV_INLINE void turn_to(int64_t plane) {
        if constexpr (kept) {
#pragma GCC unroll 9
            for (int i = 0; i < Taps; i++) own[i] = all[plane * Taps + i];
        }
    }
    FASTCONV_INLINE V at(int64_t plane, int tap) const { return kept ? own[tap] : all[plane * Taps + tap]; }
};

// R rows by N vectors with a kernel of H x K taps. `Inside`: every tap of these columns lies in the input.
template <class T, int H, int K, int S, int R, int N, bool Inside>
FASTCONV_INLINE void in_place_block(const PlaneInPlace<T>& p, PlaneWeights<vec<T, kLanes<T>>, H * K>& w,
                                    const ColumnMask<vec<T, kLanes<T>>, S> (&masks)[K][N + 1], int64_t row,
                                    int64_t column) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    V sum[R][N] = {};
    const int64_t first = column * S - p.pad_left;
    const int64_t planes = p.tap_planes;
    for (int64_t plane = 0; plane < planes; plane++) {
        if (p.x[plane] == nullptr) continue;
        if (planes > 1) w.turn_to(plane);
#pragma GCC unroll 16
        for (int i = 0; i < (R - 1) * S + H; i++) {
            const int64_t y = row * S + i - p.pad_top;
            if (y < 0 || y >= p.in_rows) continue;
            const T* const x = p.x[plane] + y * p.in_width + first;
            V part[N][S], line[N + 1];
            if constexpr (kShifted<K, S>) {
#pragma GCC unroll 4
                for (int j = 0; j <= N; j++)
                    line[j] = Inside && j < N ? load<V>(x + j * L) : load<V>(x + j * L, masks[0][j].part[0]);
            }
#pragma GCC unroll 8
            for (int kw = 0; kw < K; kw++) {
                V in[N];
#pragma GCC unroll 4
                for (int j = 0; j < N; j++) {
                    if constexpr (kShifted<K, S>) {
                        in[j] = shifted(line[j], line[j + 1], kw);
                        continue;
                    }
                    // Two tap columns of stride 2 are the even and the odd values of the same two vectors.
                    if (kw % S == 0) load_columns<V, S, Inside>(part[j], x + kw + j * L * S, masks[kw][j]);
                    if constexpr (S == 1) {
                        in[j] = part[j][0];
                    } else {
                        in[j] = kw % 2 == 0 ? even_lanes(part[j][0], part[j][1])
                                            : odd_lanes(part[j][0], part[j][1]);
                    }
                }
#pragma GCC unroll 4
                for (int r = 0; r < R; r++) {
                    if (i - r * S < 0 || i - r * S >= H) continue;
                    const V weight = w.at(plane, (i - r * S) * K + kw);
#pragma GCC unroll 4
                    for (int j = 0; j < N; j++) sum[r][j] += weight * in[j];
                }
            }
        }
    }
    store_plane<T>(p, sum, row * p.width + column, p.width, mask<V>(p.width - column - (N - 1) * L));
}

template <class T, int H, int K, int S, int N, bool Inside>
FASTCONV_INLINE void in_place_strip(const PlaneInPlace<T>& p, PlaneWeights<vec<T, kLanes<T>>, H * K>& w,
                                    int64_t column) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    constexpr int R = kRegisters >= 32 ? 4 : 2;
    ColumnMask<V, S> masks[K][N + 1];
    if constexpr (kShifted<K, S>) {
        for (int j = 0; j <= N; j++) {
            const int64_t from = column - p.pad_left + j * L, left = p.in_width - from;
            masks[0][j].part[0] = mask<V>(-from, j == N && left > K - 1 ? K - 1 : left);
        }
    } else if constexpr (!Inside) {
        for (int kw = 0; kw < K; kw++)
            for (int j = 0; j < N; j++)
                for (int part = 0; part < S; part++) {
                    const int64_t from = column * S - p.pad_left + kw + (j * S + part) * L;
                    masks[kw][j].part[part] = mask<V>(-from, p.in_width - from);
                }
    }
    int64_t row = p.first_row;
    for (; row + R <= p.end_row; row += R) in_place_block<T, H, K, S, R, N, Inside>(p, w, masks, row, column);
    for (; row < p.end_row; row++) in_place_block<T, H, K, S, 1, N, Inside>(p, w, masks, row, column);
}

// Strips of columns from top to bottom; those that touch the sides read with masks.
template <class T, int H, int K, int S>
void in_place(const PlaneInPlace<T>& p) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    V all[kMostInPlace];
    for (int64_t i = 0; i < p.tap_planes * H * K; i++) all[i] = broadcast<V>(p.w[i]);
    PlaneWeights<V, H * K> w;
    w.all = all;
    w.turn_to(0);
    int64_t column = 0;
    while (column < p.width) {
        const int64_t first = column * S - p.pad_left;
        if (p.width - column > L) {
            const bool inside = first >= 0 && first + 2 * L * S + K <= p.in_width;
            inside ? in_place_strip<T, H, K, S, 2, true>(p, w, column)
                   : in_place_strip<T, H, K, S, 2, false>(p, w, column);
            column += 2 * L;
        } else {
            in_place_strip<T, H, K, S, 1, false>(p, w, column);
            column += L;
        }
    }
}

template <class T>
void plane_in_place(const PlaneInPlace<T>& p, int64_t rows, int64_t columns, int64_t stride) {
    if (rows == 1) return columns == 1 ? in_place<T, 1, 1, 1>(p) : in_place<T, 1, 2, 1>(p);
    if (rows == 2) return columns == 1 ? in_place<T, 2, 1, 1>(p) : in_place<T, 2, 2, 1>(p);
    if (rows == 3) return stride == 1 ? in_place<T, 3, 3, 1>(p) : in_place<T, 3, 3, 2>(p);
    return stride == 1 ? in_place<T, 5, 5, 1>(p) : in_place<T, 5, 5, 2>(p);
}

// R rows by N vectors with any kernel of R rows at least, from a padded copy. Neighbouring rows of outputs
// read input rows that are one apart (unless R is 1), so that each vector that is loaded serves R rows.
template <class T, int R, int N>
FASTCONV_INLINE void plane_any(const PlaneRows<T>& p, int64_t row, int64_t column) {
    using V = vec<T, kLanes<T>>;
    V sum[R][N] = {};
    const T* const corner = p.x + row * p.x_step + column;
    const T* x = corner;
    const int64_t tap_columns = p.tap_columns;
    // One input row for the output rows From .. To-1; `w` is the tap row of output row From.
    const auto add_row = [&](auto from, auto to, const T* w) __attribute__((always_inline)) {
        constexpr int From = decltype(from)::value, To = decltype(to)::value;
        for (int64_t kw = 0; kw < tap_columns; kw++) {
            V in[N];
#pragma GCC unroll 4
            for (int j = 0; j < N; j++) in[j] = load<V>(x + p.columns[kw] + j * kLanes<T>);
#pragma GCC unroll 6
            for (int r = From; r < To; r++) {
                const V weight = broadcast<V>(w[kw - (r - From) * tap_columns]);
#pragma GCC unroll 4
                for (int j = 0; j < N; j++) sum[r][j] += weight * in[j];
            }
        }
        x += p.tap_row;
    };
    const T* w = p.w;
    const auto first = [&](auto rows) __attribute__((always_inline)) {
        if constexpr (decltype(rows)::value < R) add_row(Int<0>(), rows, w), w += tap_columns;
    };
    const auto last = [&](auto row) __attribute__((always_inline)) {
        if constexpr (decltype(row)::value < R) add_row(row, Int<R>(), w - tap_columns);
    };
    for (int64_t plane = 0; plane < p.tap_planes; plane++) {
        x = corner + plane * p.tap_plane;
        first(Int<1>()), first(Int<2>()), first(Int<3>()), first(Int<4>()), first(Int<5>());
        for (int64_t kh = R - 1; kh < p.tap_rows; kh++, w += tap_columns) add_row(Int<0>(), Int<R>(), w);
        last(Int<1>()), last(Int<2>()), last(Int<3>()), last(Int<4>()), last(Int<5>());
    }
    store_plane<T>(p, sum, row * p.out_row + column, p.out_row,
                   mask<V>(p.width - column - (N - 1) * lanes_of<V>));
}

// Strips of columns from top to bottom, so that what rows share stays in L1.
template <class T, int N>
FASTCONV_INLINE void plane_strip(const PlaneRows<T>& p, int64_t column) {
    int64_t row = 0;
    constexpr int Most = kRegisters >= 32 ? 6 : 4;
    if (p.x_step == p.tap_row && p.tap_rows >= Most)
        for (; row + Most <= p.rows; row += Most) plane_any<T, Most, N>(p, row, column);
    if (p.x_step == p.tap_row && p.tap_rows >= 3)
        for (; row + 3 <= p.rows; row += 3) plane_any<T, 3, N>(p, row, column);
    for (; row < p.rows; row++) plane_any<T, 1, N>(p, row, column);
}

template <class T>
void plane(const PlaneRows<T>& p) {
    constexpr int L = kLanes<T>;
    constexpr int Most = kRegisters >= 32 ? 4 : 2;
    int64_t column = 0;
    for (; column + (Most - 1) * L < p.width; column += Most * L) plane_strip<T, Most>(p, column);
    const int64_t left = (p.width - column + L - 1) / L;
    if (left == 1) plane_strip<T, 1>(p, column);
    constexpr int Two = Most > 2 ? 2 : 1, Three = Most > 3 ? 3 : 1;  // others do not occur
    if (left == 2) plane_strip<T, Two>(p, column);
    if (left == 3) plane_strip<T, Three>(p, column);
}

template <class T>
constexpr Depthwise<T> make_depthwise() {
    return {plane<T>, plane_in_place<T>, kPaired<T>, channel_run<T>, channel_pixel<T>};
}

}  // namespace

const DepthwiseKernels depthwise_kernels = {make_depthwise<float>(), make_depthwise<double>()};

FASTCONV_END_ISA
