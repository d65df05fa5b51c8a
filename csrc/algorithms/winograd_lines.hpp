// The loops behind winograd_lines_kernels.hpp. Lanes are channels throughout: planes of channels-first images are transposed in
// registers while a strip of their rows is copied, zero-padded, into L1. Both axes' transforms then run over that strip, one
// after the other, so that tiles which overlap share the first one: 6 x 6 tiles of 4 x 4 outputs transform 4 columns, not 6.
#pragma once

#include "algorithms/clamp.hpp"
#include "algorithms/plane_strip.hpp"
#include "algorithms/toom_cook_lines.hpp"
#include "algorithms/winograd_lines_kernels.hpp"
#include "simd/transpose.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

// Pixels of an output row between what is written and what is asked for, and rows of inputs below: arrays that are not in L2 make
// a call wait for memory otherwise. 16 > 16 channels at 32 x 32, 64 images, took 2.29 ms and takes 1.84; 64 > 64 at 56 x 56,
// 8 images, 5.5 and 4.7; arrays that are in L2, no more than before.
constexpr int64_t kOutputAhead = 6;

// Channels last. What lies beyond the image reads the first pixel, and then zero.
template <class T, int Tile, bool Full>
void input_down_last(const WinogradPlane<T>& p, int64_t channel, T* strip, int64_t strip_row) {
    using V = vec<T, kLanes<T>>;
    const auto valid = mask<V>(p.channels - channel);
    const int64_t pixel = p.row / p.width;
    const T* from[Tile];
    bool inside = true;
    int32_t last = 0;
    for (int i = 0; i < Tile; i++) {
        from[i] = p.x + channel + (p.rows[i] < 0 ? 0 : p.rows[i]) * p.row;
        inside = inside && p.rows[i] >= 0;
        last = last < p.rows[i] ? p.rows[i] : last;
    }
    const T* const below = p.x + channel + last * p.row;  // the next row of tiles begins behind it
    for (int64_t c = 0; c < p.columns; c++, strip += kLanes<T>) {
        V d[Tile], r[Tile];
        if (p.cols[c] < 0) {
#pragma GCC unroll 8
            for (int i = 0; i < Tile; i++) store(strip + i * strip_row, V{});
            continue;
        }
        const int64_t at = p.cols[c] * pixel;
#pragma GCC unroll 8
        for (int i = 1; i <= Tile - 2; i++) prefetch_l1(below + at + i * p.row);
#pragma GCC unroll 8
        for (int i = 0; i < Tile; i++) d[i] = Full ? load<V>(from[i] + at) : load<V>(from[i] + at, valid);
        if (!inside) {
#pragma GCC unroll 8
            for (int i = 0; i < Tile; i++) d[i] = p.rows[i] < 0 ? V{} : d[i];
        }
        line_input<Tile, V>(d, r);
#pragma GCC unroll 8
        for (int i = 0; i < Tile; i++) store(strip + i * strip_row, r[i]);
    }
}

template <class T, int Tile>
void input_down(const WinogradPlane<T>& p, int64_t channel, T* strip, int64_t strip_row) {
    using V = vec<T, kLanes<T>>;
    constexpr int64_t L = kLanes<T>;
    const int64_t left = p.channels - channel;
    if (p.channels_last)
        return left >= L ? input_down_last<T, Tile, true>(p, channel, strip, strip_row)
                         : input_down_last<T, Tile, false>(p, channel, strip, strip_row);
    for (int i = 0; i < Tile; i++) {
        T* const line = strip + i * strip_row;
        if (p.rows[i] < 0) {
            for (int64_t c = 0; c < p.columns; c++) store(line + c * L, V{});
        } else {
            gather_planes(p.x + channel * p.channel_step + p.rows[i] * p.row, left < L ? left : L,
                          p.channel_step, p.cols, p.columns, line);
        }
    }
    for (int64_t c = 0; Tile > 1 && c < p.columns; c++, strip += L) {
        V d[Tile], r[Tile];
#pragma GCC unroll 8
        for (int i = 0; i < Tile; i++) d[i] = load<V>(strip + i * strip_row);
        line_input<Tile, V>(d, r);
#pragma GCC unroll 8
        for (int i = 0; i < Tile; i++) store(strip + i * strip_row, r[i]);
    }
}

// Where the cells of a strip are the phases of a stride.
template <class T, int Tile>
FASTCONV_INLINE void input_phases(const T* strip, WinogradCells cells, int64_t outputs, T* out,
                                  int64_t position, int64_t tile) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    const int64_t step = cells.cell * L;
    for (int64_t i = 0; i < cells.count; i++, strip += outputs * step, out += tile) {
        for (int64_t b = 0; b < cells.cell; b++) {
            const T* const from = strip + b * L;
            T* const to = out + b * cells.phase;
            V d[Tile], r[Tile];
#pragma GCC unroll 8
            for (int j = 0; j < Tile; j++) d[j] = load<V>(from + j * step);
            line_input<Tile, V>(d, r);
#pragma GCC unroll 8
            for (int j = 0; j + 1 < Tile; j++) store(to + j * position, r[j]);
            if (b < cells.longest) store(to + (Tile - 1) * position, r[Tile - 1]);
        }
    }
}

// Cell: that many tiles side by side, 0 for any.
template <class T, int Tile, int Cell>
FASTCONV_INLINE void input_cells(const T* strip, WinogradCells cells, int64_t outputs, T* out,
                                 int64_t position, int64_t tile) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    const int64_t cell = Cell > 0 ? Cell : cells.cell, step = cell * L;
    for (int64_t i = 0; i < cells.count; i++, strip += outputs * step) {
        for (int64_t b = 0; b < cell; b++, out += tile) {
            const T* const from = strip + b * L;
            V d[Tile], r[Tile];
#pragma GCC unroll 8
            for (int j = 0; j < Tile; j++) d[j] = load<V>(from + j * step);
            line_input<Tile, V>(d, r);
#pragma GCC unroll 8
            for (int j = 0; j < Tile; j++) store(out + j * position, r[j]);
        }
    }
}

template <class T, int Tile>
void input_along(const T* strip, WinogradCells cells, int64_t outputs, T* out, int64_t position,
                 int64_t tile) {
    // Tiles that winograd_stride2 has (longer ones would be kept in memory where registers are few).
    if constexpr (Tile >= 3 && Tile <= 6) {
        if (cells.phase > 0) return input_phases<T, Tile>(strip, cells, outputs, out, position, tile);
    }
    if (cells.cell == 1)
        input_cells<T, Tile, 1>(strip, cells, outputs, out, position, tile);
    else
        input_cells<T, Tile, 0>(strip, cells, outputs, out, position, tile);
}

template <class T, int Tile, int M, int Cell>
FASTCONV_INLINE void output_cells(const T* products, int64_t position, int64_t tile, WinogradCells cells,
                                  T* strip) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    const int64_t cell = Cell > 0 ? Cell : cells.cell, step = cell * L;
    for (int64_t i = 0; i < cells.count; i++, strip += M * step) {
        for (int64_t b = 0; b < cell; b++, products += tile) {
            T* const to = strip + b * L;
            V d[Tile], r[M];
#pragma GCC unroll 8
            for (int j = 0; j < Tile; j++) d[j] = load<V>(products + j * position);
            line_output<Tile, M, V>(d, r);
#pragma GCC unroll 8
            for (int j = 0; j < M; j++) store(to + j * step, r[j]);
        }
    }
}

template <class T, int Tile, int M>
void output_along(const T* products, int64_t position, int64_t tile, WinogradCells cells, T* strip) {
    if (cells.cell == 1)
        output_cells<T, Tile, M, 1>(products, position, tile, cells, strip);
    else
        output_cells<T, Tile, M, 0>(products, position, tile, cells, strip);
}

// x - x is zero for finite numbers only.
template <class V>
FASTCONV_INLINE bool all_finite(V value) {
    alignas(64) uint64_t words[sizeof(V) / 8];
    const auto unequal = value - value != V{};
    __builtin_memcpy(words, &unequal, sizeof(V));
    uint64_t any = 0;
#pragma GCC unroll 8
    for (uint64_t word : words) any |= word;
    return any == 0;
}

template <class T>
bool finite(const T* strip, int64_t columns, int64_t cell) {
    using V = vec<T, kLanes<T>>;
    V none{};
    for (int64_t c = 0; c < columns; c++) {
        const V value = load<V>(strip + c * cell * kLanes<T>);
        none += value - value;
    }
    return all_finite(none);
}

template <class T, int Tile, int M>
bool output_down(T* strip, int64_t strip_row, int64_t columns) {
    using V = vec<T, kLanes<T>>;
    V all{};
    for (int64_t c = 0; c < columns; c++, strip += kLanes<T>) {
        V d[Tile], r[M];
#pragma GCC unroll 8
        for (int i = 0; i < Tile; i++) d[i] = load<V>(strip + i * strip_row);
        line_output<Tile, M, V>(d, r);
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) {
            all += r[i];
            store(strip + i * strip_row, r[i]);
        }
    }
    return all_finite(all);
}

template <class T, int Tile, int M>
bool output_store(const WinogradStore<T>& to, int64_t channel, const T* strip, int64_t strip_row) {
    using V = vec<T, kLanes<T>>;
    const int64_t left = to.channels - channel;
    const auto valid = mask<V>(left);
    const V bias = to.bias ? load<V>(to.bias + channel, valid) : V{};
    const bool whole = to.rows == M && left >= kLanes<T> && to.add == nullptr;
    const int64_t row = to.row_step * to.row;
    V all{};
    for (int64_t c = 0; c < to.columns; c++, strip += kLanes<T>) {
        V d[Tile], r[M];
#pragma GCC unroll 8
        for (int i = 0; i < Tile; i++) d[i] = load<V>(strip + i * strip_row);
        line_output<Tile, M, V>(d, r);
        const int64_t start = channel + c * to.pixel;
        if (whole) {
#pragma GCC unroll 8
            for (int i = 0; i < M; i++) {
                all += r[i];
                __builtin_prefetch(to.y + start + i * row + kOutputAhead * to.pixel, 1, 3);
                store(to.y + start + i * row, clamped(r[i] + bias, to.clamp));
            }
            continue;
        }
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) {
            if (i >= to.rows) break;
            all += r[i];
            const V add = to.add ? load<V>(to.add + start + i * row, valid) : V{};
            store(to.y + start + i * row, clamped(r[i] + bias + add, to.clamp), valid);
        }
    }
    return all_finite(all);
}

template <class T>
void dot(const T* x, int64_t x_step, int64_t channels, const T* w, int64_t w_row, T* sum) {
    using V = vec<T, kLanes<T>>;
    V part{};
    for (int64_t c = 0; c < channels; c++) part += x[c * x_step] * load<V>(w + c * w_row);
    store(sum, load<V>(sum) + part);
}

template <class T>
void store_strip(const WinogradStore<T>& to, int64_t channel, const T* strip, int64_t strip_row) {
    using V = vec<T, kLanes<T>>;
    constexpr int64_t L = kLanes<T>;
    const int64_t left = to.channels - channel;
    const auto valid = mask<V>(left);
    const V bias = to.bias ? load<V>(to.bias + channel, valid) : V{};
    for (int64_t i = 0; i < to.rows; i++) {
        const T* const line = strip + i * strip_row;
        const int64_t start = channel * to.channel_step + i * to.row_step * to.row;
        if (to.channels_last) {
            for (int64_t c = 0; c < to.columns; c++) {
                const int64_t at = start + c * to.pixel;
                const V add = to.add ? load<V>(to.add + at, valid) : V{};
                const V value = clamped(load<V>(line + c * L) + bias + add, to.clamp);
                left >= L ? store(to.y + at, value) : store(to.y + at, value, valid);
            }
            continue;
        }
        const int64_t planes = left < L ? left : L;
        for (int64_t c = 0; c < to.columns; c += L) {
            const int64_t pixels = to.columns - c < L ? to.columns - c : L;
            V values[L];
            if (pixels == L) {
#pragma GCC unroll 16
                for (int k = 0; k < L; k++) values[k] = load<V>(line + (c + k) * L) + bias;
            } else {
                for (int64_t k = 0; k < L; k++)
                    values[k] = k < pixels ? load<V>(line + (c + k) * L) + bias : V{};
            }
            transpose(values);
            const int64_t at = start + c;
            if (pixels == L && planes == L && to.add == nullptr) {
#pragma GCC unroll 16
                for (int k = 0; k < L; k++)
                    store(to.y + at + k * to.channel_step, clamped(values[k], to.clamp));
            } else {
                const auto run = mask<V>(pixels);
                for (int64_t k = 0; k < planes; k++) {
                    const V add = to.add ? load<V>(to.add + at + k * to.channel_step, run) : V{};
                    store(to.y + at + k * to.channel_step, clamped(values[k] + add, to.clamp), run);
                }
            }
        }
    }
}

template <class T, int R>
FASTCONV_INLINE void products_of(const T* x, const vec<T, kLanes<T>> (&weight)[kLanes<T>], T* out) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    V sum[R] = {};
#pragma GCC unroll 16
    for (int c = 0; c < L; c++)
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) sum[r] += broadcast<V>(x[r * L + c]) * weight[c];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) store(out + r * L, sum[r]);
}

// The last tiles are computed twice rather than one by one.
template <class T>
void vector_products(const T* x, int64_t tiles, const T* w, T* out) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>, R = kRegisters >= 32 ? 8 : L == 8 ? 4 : 6;
    V weight[L];
#pragma GCC unroll 16
    for (int c = 0; c < L; c++) weight[c] = load<V>(w + c * L);
    if (tiles < R) {
        for (int64_t i = 0; i < tiles; i++) products_of<T, 1>(x + i * L, weight, out + i * L);
        return;
    }
    for (int64_t i = 0; i < tiles; i += R) {
        const int64_t at = (i + R <= tiles ? i : tiles - R) * L;
        products_of<T, R>(x + at, weight, out + at);
    }
}

// Taps: of both axes, 0 for any.
template <class T, int Taps>
FASTCONV_INLINE void weights_of(const WinogradTaps& down, const WinogradTaps& along, const T* taps, T* out,
                                int64_t position) {
    constexpr int D = kLanes<double>;
    using Wide = vec<double, D>;
    using Narrow = vec<T, D>;
    const int rows = Taps > 0 ? Taps : down.taps, columns = Taps > 0 ? Taps : along.taps;
    for (int part = 0; part < kLanes<T>; part += D) {
        Wide tap[kLongestTile][kLongestTile];
#pragma GCC unroll 3
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 3
            for (int c = 0; c < columns; c++)
                tap[r][c] =
                    __builtin_convertvector(load<Narrow>(taps + r * down.step + c * along.step + part), Wide);
        for (int i = 0; i < down.size; i++) {
            Wide half[kLongestTile];
#pragma GCC unroll 3
            for (int c = 0; c < columns; c++) {
                Wide sum{};
#pragma GCC unroll 3
                for (int r = 0; r < rows; r++) sum += down.matrix[i * kLongestTile + r] * tap[r][c];
                half[c] = sum;
            }
            for (int j = 0; j < along.size; j++) {
                Wide sum{};
#pragma GCC unroll 3
                for (int c = 0; c < columns; c++) sum += along.matrix[j * kLongestTile + c] * half[c];
                store(out + (i * along.size + j) * position + part, __builtin_convertvector(sum, Narrow));
            }
        }
    }
}

template <class T>
void transform_weight(const WinogradTaps& down, const WinogradTaps& along, const T* taps, T* out,
                      int64_t position) {
    if (down.taps == 3 && along.taps == 3)
        weights_of<T, 3>(down, along, taps, out, position);
    else
        weights_of<T, 0>(down, along, taps, out, position);
}

template <class T>
constexpr WinogradLines<T> make_lines() {
    WinogradLines<T> k = {};
    k.finite = finite<T>;
    k.dot = dot<T>;
    k.store = store_strip<T>;
    k.vector_products = vector_products<T>;
    k.weight = transform_weight<T>;
#define FASTCONV_LINE(tile)                   \
    k.input_down[tile] = input_down<T, tile>; \
    k.input_along[tile] = input_along<T, tile>;
    FASTCONV_LINE(1)
    FASTCONV_LINE(3)
    FASTCONV_LINE(4)
    FASTCONV_LINE(5)
    FASTCONV_LINE(6)
    FASTCONV_LINE(7)
    FASTCONV_LINE(8)
#undef FASTCONV_LINE
#define FASTCONV_LINE(tile, m)                          \
    k.output_down[tile][m] = output_down<T, tile, m>;   \
    k.output_store[tile][m] = output_store<T, tile, m>; \
    k.output_along[tile][m] = output_along<T, tile, m>;
    FASTCONV_LINE(1, 1)
    FASTCONV_LINE(3, 2)
    FASTCONV_LINE(4, 2)
    FASTCONV_LINE(4, 3)
    FASTCONV_LINE(5, 3)
    FASTCONV_LINE(5, 4)
    FASTCONV_LINE(6, 2)
    FASTCONV_LINE(6, 3)
    FASTCONV_LINE(6, 4)
    FASTCONV_LINE(6, 5)
    FASTCONV_LINE(7, 4)
    FASTCONV_LINE(8, 2)
    FASTCONV_LINE(8, 4)
    FASTCONV_LINE(8, 6)
#undef FASTCONV_LINE
    return k;
}

}  // namespace

const WinogradLinesSet winograd_lines = {make_lines<float>(), make_lines<double>()};

FASTCONV_END_ISA
