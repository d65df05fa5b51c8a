// Depthwise kernels; see depthwise_kernels.hpp and the driver in depthwise.cpp.
//
// Channels first: pixels in lanes, read in place, masks at the sides and rows left out at top and bottom. Four
// output rows at once, so that each input vector that is loaded serves all tap rows: 18 loads for 36
// multiply-adds with a 3x3 kernel. [Zhang, AAAI 2020] With stride 2, tap columns share their loads in pairs (5x5 on 56 x 56
// 48 -> 37 us for 48 planes, 3x3 10 to 20% less). A padded copy of each plane first took 3 to 8 times as
// long on planes of 14 x 14 and 7 x 7. Larger kernels, image filters among them, do read a padded copy: six rows by
// four vectors at once, 10 loads for 24 multiply-adds. On 512 x 512 (one core of 226 GFLOP/s) 7x7 takes
// 0.27 ms where one row at a time took 0.45, 15x15 0.83 and 1.68; four rows instead of six 0.29 and 0.93.
// Channels last: channels in lanes, seven or eight neighbouring pixels of two rows at once (of one with stride 2 and on
// sixteen registers), so that a loaded input vector serves all tap columns and two tap rows: 40 loads and 18 weights for
// 144 multiply-adds. Loads are what counts where x begins within a cache line, as NumPy's arrays do: a vector then is
// two accesses. Every output adds its taps in row-major order, whichever of the kernels computes it.
#pragma once

#include "algorithms/clamp.hpp"
#include "algorithms/depthwise_kernels.hpp"
#include "simd/shuffle.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

template <int N>
struct Int {
    static constexpr int value = N;
};

// ---- channels first
// -----------------------------------------------------------------------------------------------

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

// R rows by N vectors with a kernel of H x K taps. `Inside`: every tap of these columns lies in the input.
template <class T, int H, int K, int S, int R, int N, bool Inside>
FASTCONV_INLINE void in_place_block(const PlaneInPlace<T>& p, const vec<T, kLanes<T>>* w,
                                    const ColumnMask<vec<T, kLanes<T>>, S> (&masks)[K][N], int64_t row,
                                    int64_t column) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    V sum[R][N] = {};
    const int64_t first = column * S - p.pad_left;
#pragma GCC unroll 16
    for (int i = 0; i < (R - 1) * S + H; i++) {
        const int64_t y = row * S + i - p.pad_top;
        if (y < 0 || y >= p.in_rows) continue;
        const T* const x = p.x + y * p.in_width + first;
        V part[N][S];
#pragma GCC unroll 8
        for (int kw = 0; kw < K; kw++) {
            V in[N];
#pragma GCC unroll 4
            for (int j = 0; j < N; j++) {
                // Two tap columns of stride 2 are the even and the odd values of the same two vectors.
                if (kw % S == 0) load_columns<V, S, Inside>(part[j], x + kw + j * L * S, masks[kw][j]);
                if constexpr (S == 1) {
                    in[j] = part[j][0];
                } else {
                    in[j] =
                        kw % 2 == 0 ? even_lanes(part[j][0], part[j][1]) : odd_lanes(part[j][0], part[j][1]);
                }
            }
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                if (i - r * S < 0 || i - r * S >= H) continue;
#pragma GCC unroll 4
                for (int j = 0; j < N; j++) sum[r][j] += w[(i - r * S) * K + kw] * in[j];
            }
        }
    }
    store_plane<T>(p, sum, row * p.width + column, p.width, mask<V>(p.width - column - (N - 1) * L));
}

template <class T, int H, int K, int S, int N, bool Inside>
FASTCONV_INLINE void in_place_strip(const PlaneInPlace<T>& p, const vec<T, kLanes<T>>* w, int64_t column) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    constexpr int R = kRegisters >= 32 ? 4 : 2;
    ColumnMask<V, S> masks[K][N];
    if constexpr (!Inside) {
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
    V w[H * K];
#pragma GCC unroll 32
    for (int i = 0; i < H * K; i++) w[i] = broadcast<V>(p.w[i]);
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

// R rows by N vectors with any kernel of R rows at least, from a padded copy. Neighbouring rows of outputs read
// input rows that are one apart (unless R is 1), so that each vector that is loaded serves R rows.
template <class T, int R, int N>
FASTCONV_INLINE void plane_any(const PlaneRows<T>& p, int64_t row, int64_t column) {
    using V = vec<T, kLanes<T>>;
    V sum[R][N] = {};
    const T* x = p.x + row * p.x_step + column;
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
    first(Int<1>()), first(Int<2>()), first(Int<3>()), first(Int<4>()), first(Int<5>());
    for (int64_t kh = R - 1; kh < p.tap_rows; kh++, w += tap_columns) add_row(Int<0>(), Int<R>(), w);
    last(Int<1>()), last(Int<2>()), last(Int<3>()), last(Int<4>()), last(Int<5>());
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

// ---- channels last
// ------------------------------------------------------------------------------------------------

// Output rows at once, stride 1. (Not of doubles: a large part of the library's size.)
template <class T>
constexpr int kRunRows = kRegisters >= 32 && sizeof(T) == 4 ? 2 : 1;

// P neighbouring pixels of R output rows (stride 1 where R is 2: tap row i of the second is tap row i + 1 of the first).
template <class T, int K, int S, int R, int P>
FASTCONV_INLINE void run_block(const ChannelRun<T>& c, int64_t first, int64_t channel) {
    static_assert(R == 1 || S == 1);
    using V = vec<T, kLanes<T>>;
    const auto m = mask<V>(c.channels - channel);
    const int64_t pixel = c.pixel, low = c.pad_left - first * S, high = low + c.in_columns;
    V sum[R][P] = {};
    const T* w = c.w + channel;
    const auto add_row = [&](auto from, auto to, const T* row) __attribute__((always_inline)) {
        constexpr int From = decltype(from)::value, To = decltype(to)::value;
        if (row == nullptr) return;
        const T* x = row - low * pixel + channel;
        V weight[R][K];
#pragma GCC unroll 2
        for (int r = From; r < To; r++)
#pragma GCC unroll 8
            for (int kw = 0; kw < K; kw++) weight[r][kw] = load<V>(w + (kw - (r - From) * K) * c.w_tap, m);
#pragma GCC unroll 32
        for (int i = 0; i < (P - 1) * S + K; i++, x += pixel) {
            if (i < low || i >= high) continue;
            const V in = load<V>(x, m);
#pragma GCC unroll 2
            for (int r = From; r < To; r++)
#pragma GCC unroll 8
                for (int p = 0; p < P; p++)
                    if (i - p * S >= 0 && i - p * S < K) sum[r][p] += weight[r][i - p * S] * in;
        }
    };
    const T* const* row = c.tap_rows;
    const int64_t w_row = K * c.w_tap;
    add_row(Int<0>(), Int<1>(), *row++);
    for (int64_t kh = 1; kh < c.rows; kh++) {
        w += w_row;
        add_row(Int<0>(), Int<R>(), *row++);
    }
    if constexpr (R == 2) add_row(Int<1>(), Int<2>(), *row);
    const V bias = c.bias != nullptr ? load<V>(c.bias + channel, m) : V{};
#pragma GCC unroll 2
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            const int64_t at = r * c.out_row + (first + p) * c.out_pixel + channel;
            V v = sum[r][p] + bias;
            if (c.add != nullptr) v = v + load<V>(c.add + at, m);
            store(c.out + at, clamped(v, c.clamp), m);
        }
}

// Up to four vectors of channels at a time, so that both the input's lines and the tile's are neighbours.
template <class T, int K, int S, int R, int P>
FASTCONV_INLINE void run_tiles(const ChannelRun<T>& c) {
    const int64_t vectors = (c.channels + kLanes<T> - 1) / kLanes<T>, groups = (vectors + 3) / 4;
    const int64_t wide = (vectors + groups - 1) / groups * kLanes<T>;
    for (int64_t group = 0; group < c.channels; group += wide)
        for (int64_t p = 0; p < c.pixels; p += P) {
            const int64_t first =
                p + P <= c.pixels ? p : c.pixels - P;  // the last tile may compute some pixels again
            for (int64_t channel = group; channel < c.channels && channel < group + wide;
                 channel += kLanes<T>)
                run_block<T, K, S, R, P>(c, first, channel);
        }
}

// Tiles of as many pixels as the row has at least. Seven, where there are registers for two rows, if eight need as many
// tiles or some are left: rows of 7, 14, 28, 56 and 112.
template <class T, int K, int S, int R>
void run_row(const ChannelRun<T>& c) {
    constexpr int most = kRegisters >= 32 || kVectorBytes == 32 ? 8 : 4;
    if constexpr (kRunRows<T> == 2 && (R == 2 || S == 2))
        if (c.pixels % 7 == 0 || (c.pixels >= 7 && (c.pixels + 6) / 7 == (c.pixels + 7) / 8))
            return run_tiles<T, K, S, R, 7>(c);
    if (R == 2 || c.pixels >= most) return run_tiles<T, K, S, R, most>(c);
    if constexpr (R == 1) c.pixels >= 4 ? run_tiles<T, K, S, 1, 4>(c) : run_tiles<T, K, S, 1, 1>(c);
}

template <class T, int K, int S>
void run_all(const ChannelRun<T>& c) {
    if constexpr (S == 1 && K >= 3 && kRunRows<T> == 2)
        if (c.out_rows == 2 && c.pixels >= 7) return run_row<T, K, S, 2>(c);
    ChannelRun<T> row = c;
    for (int64_t r = 0; r < c.out_rows; r++) {
        run_row<T, K, S, 1>(row);
        row.tap_rows++;
        row.out += c.out_row;
        if (row.add != nullptr) row.add += c.out_row;
    }
}

template <class T>
void channel_run(const ChannelRun<T>& c, int64_t stride) {
    if (c.tap_columns == 1) return run_all<T, 1, 1>(c);
    if (c.tap_columns == 2) return run_all<T, 2, 1>(c);
    if (c.tap_columns == 3) return stride == 1 ? run_all<T, 3, 1>(c) : run_all<T, 3, 2>(c);
    return stride == 1 ? run_all<T, 5, 1>(c) : run_all<T, 5, 2>(c);
}

template <class T, int N>
FASTCONV_INLINE void pixel_block(const ChannelRun<T>& c, int64_t channel) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    const auto tail = mask<V>(c.channels - channel - (N - 1) * L);
    const auto get = [&](const T* p, int j) {
        return j == N - 1 ? load<V>(p + j * L, tail) : load<V>(p + j * L);
    };
    V sum[N] = {};
    const T* w = c.w + channel;
    for (int64_t kh = 0; kh < c.rows; kh++, w += c.tap_columns * c.w_tap) {
        if (c.tap_rows[kh] == nullptr) continue;
        for (int64_t kw = 0; kw < c.tap_columns; kw++) {
            if (c.columns[kw] < 0) continue;
            const T* x = c.tap_rows[kh] + c.columns[kw] + channel;
#pragma GCC unroll 4
            for (int j = 0; j < N; j++) sum[j] += get(w + kw * c.w_tap, j) * get(x, j);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) {
        V v = sum[j] + (c.bias != nullptr ? get(c.bias + channel, j) : V{});
        if (c.add != nullptr) v = v + get(c.add + channel, j);
        v = clamped(v, c.clamp);
        j == N - 1 ? store(c.out + channel + j * L, v, tail) : store(c.out + channel + j * L, v);
    }
}

template <class T>
void channel_pixel(const ChannelRun<T>& c) {
    constexpr int L = kLanes<T>;
    int64_t channel = 0;
    for (; channel + 3 * L < c.channels; channel += 4 * L) pixel_block<T, 4>(c, channel);
    for (; channel < c.channels; channel += L) pixel_block<T, 1>(c, channel);
}

template <class T>
constexpr Depthwise<T> make_depthwise() {
    return {plane<T>, plane_in_place<T>, kRunRows<T>, channel_run<T>, channel_pixel<T>};
}

}  // namespace

const DepthwiseKernels depthwise_kernels = {make_depthwise<float>(), make_depthwise<double>()};

FASTCONV_END_ISA
