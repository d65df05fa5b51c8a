// Convolutions of many groups with few channels each; see grouped_kernels.hpp.
//
// Channels first: pixels in lanes, planes read in place with masks at the sides. Four rows of four output channels are summed
// at once, and three tap rows share the input rows they have in common: 6 loads and 12 weights serve 48 multiply-adds, and no
// plane is copied. (Copies of 28 x 28 planes took half of the time before; one tap row at a time ran at 127 GFLOP/s from L1
// where this does 155.) Channels last: lanes are the outputs of several groups (4 groups of 4 in a vector of 16), the
// block-diagonal form of the weights. A row of inputs is expanded in L1 by permutes, once for all taps and output rows: every
// lane then finds its own group's channel there, and each multiply-add takes one aligned load. Blocks of 14,
// 10, 8 or 7 pixels leave few computed twice: 35 columns at stride 2 took 265 us in eights, 198 so. [FBGEMM's direct grouped
// convolution permutes in registers instead, once for every tap: two of three slots of the port that multiplies too.]
// Where two or four groups share a vector, 3 columns of taps, the row is permuted only once for each pixel: the groups take turns
// in its lanes, and one load repeats a channel's two or four values, so that nothing is expanded. 8 channels a group, one
// image: 256 at 28x28 366 > 189 us, 208 at 14x14 60 > 38; stride 2, 120 at 56x56 252 > 126.
#pragma once

#include "algorithms/clamp.hpp"
#include "algorithms/grouped_kernels.hpp"
#include "simd/shuffle.hpp"
#include "simd/vec.hpp"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

FASTCONV_BEGIN_ISA
namespace {

// Rows that are summed at once with K output channels: enough sums to keep both multipliers busy.
template <int K>
constexpr int kRowsAtOnce = kRegisters >= 32 ? (K == 1   ? 8
                                                : K == 2 ? 6
                                                         : 4)
                                             : (K == 1 ? 4 : 2);

template <class V, int S>
struct TapMask {
    Mask<V> part[S];
};

// Every S-th value from p on. Masks are not computed where all taps of the columns lie inside.
template <class V, int S, bool Inside>
FASTCONV_INLINE V load_taps(const scalar_of<V>* p, const TapMask<V, S>& m) {
    if constexpr (S == 1) {
        return Inside ? load<V>(p) : load<V>(p, m.part[0]);
    } else {
        if constexpr (Inside) return even_lanes(load<V>(p), load<V>(p + lanes_of<V>));
        return even_lanes(load<V>(p, m.part[0]), load<V>(p + lanes_of<V>, m.part[1]));
    }
}

// Whether taps of a block lie in the padding: none, only to the left and right, or above and below too.
enum class Reach { inside, past_columns, past_rows };

// G neighbouring tap rows of one tap column: an input row is loaded once for all of them. Every sum takes its taps from the
// first row to the last in either order of the loops; which one is chosen is a matter of registers.
template <class T, int S, int R, int K, int G, Reach Taps, class V>
FASTCONV_INLINE void planes_taps(V (&sum)[K][R], const T* from, int64_t y, int64_t apart, int64_t pitch,
                                 int64_t rows, const T* const (&w)[K], int64_t w_row,
                                 const TapMask<V, S>& m) {
    constexpr int N = G == 1 ? R : (R - 1) * S + G;  // input rows, `apart` from one another
    const auto input = [&](int n) {
        const T* const at = from + n * apart * pitch;
        if constexpr (Taps == Reach::inside) return load_taps<V, S, true>(at, m);
        if constexpr (Taps == Reach::past_columns) return load_taps<V, S, false>(at, m);
        const bool there = static_cast<uint64_t>(y + n * apart) < static_cast<uint64_t>(rows);
        return load_taps<V, S, false>(at, there ? m : TapMask<V, S>{});
    };
    if constexpr (G == 1 || K * G > 12) {
        V in[N];
#pragma GCC unroll 32
        for (int n = 0; n < N; n++) in[n] = input(n);
#pragma GCC unroll 8
        for (int i = 0; i < G; i++) {
#pragma GCC unroll 4
            for (int k = 0; k < K; k++) {
                const V weight = broadcast<V>(w[k][i * w_row]);
#pragma GCC unroll 8
                for (int r = 0; r < R; r++) sum[k][r] += weight * in[G == 1 ? r : r * S + i];
            }
        }
    } else {
        V weight[K][G];
#pragma GCC unroll 4
        for (int k = 0; k < K; k++)
#pragma GCC unroll 8
            for (int i = 0; i < G; i++) weight[k][i] = broadcast<V>(w[k][i * w_row]);
#pragma GCC unroll 32
        for (int n = 0; n < N; n++) {
            const V in = input(n);
#pragma GCC unroll 8
            for (int i = G - 1; i >= 0; i--) {
                if (n < i || (n - i) % S != 0 || (n - i) / S >= R) continue;
#pragma GCC unroll 4
                for (int k = 0; k < K; k++) sum[k][(n - i) / S] += weight[k][i] * in;
            }
        }
    }
}

// R rows of K output channels, one vector of columns. Sums run over planes, then groups of
// G tap rows, then tap columns; G follows from the problem alone.
template <class T, int S, int R, int K, int G, Reach Taps>
void planes_block(const GroupedPlanes<T>& p, const TapMask<vec<T, kLanes<T>>, S>* masks, int64_t row,
                  int64_t column) {
    using V = vec<T, kLanes<T>>;
    V sum[K][R] = {};
    const int64_t y0 = p.first_row + row * p.row_step, pitch = p.in_width, columns = p.tap_columns;
    const int64_t apart = G == 1 ? p.row_step : 1, rows = p.in_rows, step = p.column_dilation;
    const T* const x = p.x + y0 * pitch + p.first_column + column * S;
    for (int64_t c = 0; c < p.planes; c++) {
        const T* from = x + p.sources[c];
        const T* w[K];
#pragma GCC unroll 4
        for (int k = 0; k < K; k++) w[k] = p.w + p.w_planes[c] + k * p.w_output;
        for (int64_t i = 0; i < p.tap_rows; i += G) {
            for (int64_t j = 0; j < columns; j++) {
                planes_taps<T, S, R, K, G, Taps>(sum, from + j * step, y0 + i * p.row_dilation, apart, pitch,
                                                 rows, w, columns, masks[j]);
#pragma GCC unroll 4
                for (int k = 0; k < K; k++) w[k]++;
            }
#pragma GCC unroll 4
            for (int k = 0; k < K; k++) w[k] += (G - 1) * columns;
            from += G * p.row_dilation * pitch;
        }
    }
    const auto tail = mask<V>(p.out_width - column);
#pragma GCC unroll 4
    for (int k = 0; k < K; k++) {
        const V bias = broadcast<V>(p.bias != nullptr ? p.bias[k] : T(0));
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const int64_t at = k * p.out_plane + (row + r) * p.out_width + column;
            V v = sum[k][r] + bias;
            if (p.add != nullptr) v = v + load<V>(p.add + at, tail);
            store(p.out + at, clamped(v, p.clamp), tail);
        }
    }
}

// One vector of columns, all rows; the last rows are computed twice rather than one by one.
template <class T, int S, int K, int G>
void planes_strip(const GroupedPlanes<T>& p, const TapMask<vec<T, kLanes<T>>, S>* masks, int64_t column,
                  bool inside) {
    constexpr int R = kRowsAtOnce<K>;
    const int64_t reach = (R - 1) * p.row_step + (p.tap_rows - 1) * p.row_dilation;
    int64_t row = p.begin;
    if (p.end - p.begin >= R) {
        while (row < p.end) {
            row = row + R <= p.end ? row : p.end - R;
            const int64_t first = p.first_row + row * p.row_step;
            if (first < 0 || first + reach >= p.in_rows)
                planes_block<T, S, R, K, G, Reach::past_rows>(p, masks, row, column);
            else if (!inside)
                planes_block<T, S, R, K, G, Reach::past_columns>(p, masks, row, column);
            else
                planes_block<T, S, R, K, G, Reach::inside>(p, masks, row, column);
            row += R;
        }
        return;
    }
    for (; row < p.end; row++) planes_block<T, S, 1, K, G, Reach::past_rows>(p, masks, row, column);
}

constexpr int64_t kMostTapColumns = 32;

template <class T, int S, int K>
void planes_of(const GroupedPlanes<T>& p) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    for (int64_t column = 0; column < p.out_width; column += L) {
        const int64_t first = p.first_column + column * S;
        TapMask<V, S> masks[kMostTapColumns];
        for (int64_t j = 0; j < p.tap_columns; j++)
            for (int part = 0; part < S; part++) {
                const int64_t from = first + j * p.column_dilation + part * L;
                masks[j].part[part] = mask<V>(-from, p.in_width - from);
            }
        const bool inside =
            first >= 0 && first + L * S + (p.tap_columns - 1) * p.column_dilation <= p.in_width;
        const bool shared = p.row_dilation == 1 && p.row_step == S;
        if (shared && p.tap_rows % 3 == 0)
            planes_strip<T, S, K, 3>(p, masks, column, inside);
        else if (shared && p.tap_rows % 5 == 0)
            planes_strip<T, S, K, 5>(p, masks, column, inside);
        else
            planes_strip<T, S, K, 1>(p, masks, column, inside);
    }
}

template <class T, int S>
void planes_strided(const GroupedPlanes<T>& p) {
    switch (p.outputs) {
        case 1:
            return planes_of<T, S, 1>(p);
        case 2:
            return planes_of<T, S, 2>(p);
        case 3:
            return planes_of<T, S, 3>(p);
        default:
            return planes_of<T, S, 4>(p);
    }
}

template <class T>
void planes(const GroupedPlanes<T>& p, int64_t stride) {
    stride == 1 ? planes_strided<T, 1>(p) : planes_strided<T, 2>(p);
}

// Groups whose rows can be in turns: as many floats are repeated by one load.
template <class T>
constexpr int kTurns = sizeof(T) == 8    ? 0
                       : kLanes<T> == 16 ? 4
                       : kLanes<T> == 8  ? 2
                                         : 0;

// Two or four floats again and again.
template <int Turns, class V>
FASTCONV_INLINE V repeated(const float* p) {
#if defined(__AVX512F__)
    if constexpr (Turns == 4) return (V)_mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(p));
#endif
    using Pairs = vec<int64_t, lanes_of<V> / 2>;
    int64_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return (V)(pair - Pairs{});
}

template <class T, int P, int Turns, class V>
FASTCONV_INLINE void store_row(const GroupedRow<T>& g, V (&sum)[P], int64_t first) {
    const auto tail = mask<V>(g.lanes);
    const V bias = g.bias != nullptr ? load<V>(g.bias, tail) : V{};
    vec<typename MaskElement<T>::type, kLanes<T>> order{};
    if constexpr (Turns > 0) order = load<decltype(order)>(g.order);
#pragma GCC unroll 16
    for (int p = 0; p < P; p++) {
        const int64_t at = (first + p) * g.out_pixel;
        V v = sum[p];
        if constexpr (Turns > 0) v = permuted(v, v, order);
        v = v + bias;
        if (g.add != nullptr) v = v + load<V>(g.add + at, tail);
        store(g.out + at, clamped(v, g.clamp), tail);
    }
}

// P pixels with C tap columns at stride S; C == 0: any. Sums run over tap rows, then channels, then tap columns.
template <class T, int P, int C, int S, int Turns>
FASTCONV_INLINE void row_block(const GroupedRow<T>& g, int64_t first) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    V sum[P] = {};
    const int64_t tap = g.depth * L, columns = C == 0 ? g.tap_columns : C, pixel = Turns > 0 ? L : tap;
    for (int64_t i = 0; i < g.tap_rows; i++) {
        const T* row = g.rows[i] + first * g.stride * pixel;
        const T* w = g.w + i * columns * tap;
        for (int64_t c = 0; c < g.depth; c++, row += Turns > 0 ? Turns : L, w += L) {
            if constexpr (C > 0) {
                V weight[C];
#pragma GCC unroll 8
                for (int j = 0; j < C; j++) weight[j] = load<V>(w + j * tap);
                const T* from = row;
#pragma GCC unroll 32
                for (int n = 0; n < (P - 1) * S + C; n++, from += pixel) {
                    V in;
                    if constexpr (Turns > 0)
                        in = repeated<Turns, V>(from);
                    else
                        in = load<V>(from);
#pragma GCC unroll 16
                    for (int p = 0; p < P; p++)
                        if (n - p * S >= 0 && n - p * S < C) sum[p] += weight[n - p * S] * in;
                }
            } else {
                for (int64_t j = 0; j < columns; j++) {
                    const V weight = load<V>(w + j * tap);
                    const T* const from = row + j * g.dilation * pixel;
#pragma GCC unroll 16
                    for (int p = 0; p < P; p++) sum[p] += weight * load<V>(from + p * g.stride * pixel);
                }
            }
        }
    }
    store_row<T, P, Turns>(g, sum, first);
}

// P pixels at a time; the last are computed twice rather than one by one.
template <class T, int P, int C, int S, int Turns = 0>
void row_by(const GroupedRow<T>& g) {
    for (int64_t p = 0; p < g.pixels; p += P)
        row_block<T, P, C, S, Turns>(g, p + P <= g.pixels ? p : g.pixels - P);
}

template <class T, int C, int S>
void row_of(const GroupedRow<T>& g) {
    const int64_t n = g.pixels;
    if constexpr (kRegisters >= 32 && C == 3) {
        const int64_t best = row_cost(n);
        if (best == row_cost(n, 14)) return row_by<T, 14, C, S>(g);
        if (best == row_cost(n, 10)) return row_by<T, 10, C, S>(g);
        if (best != row_cost(n, 8) && best == row_cost(n, 7)) return row_by<T, 7, C, S>(g);
    }
    if (n >= 8) return row_by<T, 8, C, S>(g);
    if (n >= 4) return row_by<T, 4, C, S>(g);
    row_by<T, 1, C, S>(g);
}

// Rows in turns.
template <class T, int S, int Turns>
void row_in_turns(const GroupedRow<T>& g) {
    const int64_t n = g.pixels;
    if constexpr (kRegisters >= 32) {
        if (n >= 14 && row_cost(n, 14) <= row_cost(n, 8)) return row_by<T, 14, 3, S, Turns>(g);
    }
    if (n >= 8) return row_by<T, 8, 3, S, Turns>(g);
    if (n >= 4) return row_by<T, 4, 3, S, Turns>(g);
    row_by<T, 1, 3, S, Turns>(g);
}

template <class T>
void row(const GroupedRow<T>& g) {
    if constexpr (kTurns<T> >= 2) {
        if (g.turns == 2) return g.stride == 1 ? row_in_turns<T, 1, 2>(g) : row_in_turns<T, 2, 2>(g);
    }
    if constexpr (kTurns<T> == 4) {
        if (g.turns == 4) return g.stride == 1 ? row_in_turns<T, 1, 4>(g) : row_in_turns<T, 2, 4>(g);
    }
    const bool close = g.dilation == 1 && g.stride <= 2;
    if (close && g.tap_columns == 3) return g.stride == 1 ? row_of<T, 3, 1>(g) : row_of<T, 3, 2>(g);
    if (close && g.tap_columns == 5) return g.stride == 1 ? row_of<T, 5, 1>(g) : row_of<T, 5, 2>(g);
    row_of<T, 0, 1>(g);
}

// `depth` is D where that is not zero: the orders stay in registers.
template <class T, int D>
void expand_by(const T* x, int64_t step, int64_t pixels, int64_t valid, const int32_t* index, int64_t depth,
               T* to, int64_t ahead) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    using I = vec<typename MaskElement<T>::type, L>;
    const auto order = [&](int64_t j) {
        return __builtin_convertvector(load<vec<int32_t, L>>(index + j * L), I);
    };
    const auto low = mask<V>(valid), high = mask<V>(valid - L);
    I kept[D > 0 ? D : 1];
#pragma GCC unroll 8
    for (int j = 0; j < D; j++) kept[j] = order(j);
    for (int64_t i = 0; i < pixels; i++, x += step, to += depth * L) {
        prefetch_l1(x + ahead);
        const V a = load<V>(x, low);
        const V b = valid > L ? load<V>(x + L, high) : V{};
        if constexpr (D > 0) {
#pragma GCC unroll 8
            for (int j = 0; j < D; j++) store(to + j * L, permuted(a, b, kept[j]));
        } else {
            for (int64_t j = 0; j < depth; j++) store(to + j * L, permuted(a, b, order(j)));
        }
    }
}

template <class T>
void expand(const T* x, int64_t step, int64_t pixels, int64_t valid, const int32_t* index, int64_t depth,
            T* to, int64_t ahead) {
    constexpr int L = kLanes<T>;
    if (valid > 2 * L) {
        for (int64_t i = 0; i < pixels; i++, x += step)
            for (int64_t j = 0; j < depth * L; j++) *to++ = x[index[j]];
        return;
    }
    if (kRegisters >= 32 && depth == 8) return expand_by<T, 8>(x, step, pixels, valid, index, 8, to, ahead);
    if (kRegisters >= 32 && depth == 4) return expand_by<T, 4>(x, step, pixels, valid, index, 4, to, ahead);
    expand_by<T, 0>(x, step, pixels, valid, index, depth, to, ahead);
}

template <class T>
constexpr Grouped<T> make_grouped() {
    return {kTurns<T>, planes<T>, row<T>, expand<T>};
}

}  // namespace

const GroupedKernels grouped_kernels = {make_grouped<float>(), make_grouped<double>()};

FASTCONV_END_ISA
