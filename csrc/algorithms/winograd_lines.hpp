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

template <class T, int Tile>
void input_down(T* strip, int64_t strip_row, int64_t columns) {
    using V = vec<T, kLanes<T>>;
    for (int64_t c = 0; c < columns; c++, strip += kLanes<T>) {
        V d[Tile], r[Tile];
#pragma GCC unroll 8
        for (int i = 0; i < Tile; i++) d[i] = load<V>(strip + i * strip_row);
        line_input<Tile, V>(d, r);
#pragma GCC unroll 8
        for (int i = 0; i < Tile; i++) store(strip + i * strip_row, r[i]);
    }
}

template <class T, int Tile>
void input_along(const T* strip, WinogradCells cells, int64_t outputs, T* out, int64_t position,
                 int64_t tile) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    const int64_t step = cells.cell * L;
    for (int64_t i = 0; i < cells.count; i++, strip += outputs * step) {
        for (int64_t b = 0; b < cells.cell; b++, out += tile) {
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

template <class T, int Tile, int M>
void output_along(const T* products, int64_t position, int64_t tile, WinogradCells cells, T* strip) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    const int64_t step = cells.cell * L;
    for (int64_t i = 0; i < cells.count; i++, strip += M * step) {
        for (int64_t b = 0; b < cells.cell; b++, products += tile) {
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
void output_down(T* strip, int64_t strip_row, int64_t columns) {
    using V = vec<T, kLanes<T>>;
    for (int64_t c = 0; c < columns; c++, strip += kLanes<T>) {
        V d[Tile], r[M];
#pragma GCC unroll 8
        for (int i = 0; i < Tile; i++) d[i] = load<V>(strip + i * strip_row);
        line_output<Tile, M, V>(d, r);
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) store(strip + i * strip_row, r[i]);
    }
}

// An axis that is not transformed: tiles of one input and one output.
template <class T>
void copy_along(const T* strip, WinogradCells cells, int64_t, T* out, int64_t, int64_t tile) {
    using V = vec<T, kLanes<T>>;
    for (int64_t i = 0; i < cells.count * cells.cell; i++)
        store(out + i * tile, load<V>(strip + i * kLanes<T>));
}
template <class T>
void copy_back(const T* products, int64_t, int64_t tile, WinogradCells cells, T* strip) {
    using V = vec<T, kLanes<T>>;
    for (int64_t i = 0; i < cells.count * cells.cell; i++)
        store(strip + i * kLanes<T>, load<V>(products + i * tile));
}
template <class T>
void stay(T*, int64_t, int64_t) {}

template <class T>
void gather(const WinogradPlane<T>& p, int64_t channel, int64_t rows, T* strip, int64_t strip_row) {
    using V = vec<T, kLanes<T>>;
    constexpr int64_t L = kLanes<T>;
    const int64_t left = p.channels - channel;
    const auto valid = mask<V>(left);
    for (int64_t i = 0; i < rows; i++) {
        T* const line = strip + i * strip_row;
        const T* const source = p.x + channel * p.channel_step + p.rows[i] * p.row;
        if (p.rows[i] < 0) {
            for (int64_t c = 0; c < p.columns; c++) store(line + c * L, V{});
        } else if (!p.channels_last) {
            gather_planes(source, left < L ? left : L, p.channel_step, p.cols, p.columns, line);
        } else if (left >= L) {
            const int64_t pixel = p.row / p.width;
            for (int64_t c = 0; c < p.columns; c++)
                store(line + c * L, p.cols[c] < 0 ? V{} : load<V>(source + p.cols[c] * pixel));
        } else {
            const int64_t pixel = p.row / p.width;
            for (int64_t c = 0; c < p.columns; c++)
                store(line + c * L, p.cols[c] < 0 ? V{} : load<V>(source + p.cols[c] * pixel, valid));
        }
    }
}

// x - x is zero for finite numbers only.
template <class T>
bool finite(const T* strip, int64_t columns, int64_t cell) {
    using V = vec<T, kLanes<T>>;
    auto unequal = V{} != V{};
    for (int64_t c = 0; c < columns; c++) {
        const V value = load<V>(strip + c * cell * kLanes<T>);
        unequal |= value - value != V{};
    }
    alignas(64) uint64_t words[sizeof(V) / 8];
    __builtin_memcpy(words, &unequal, sizeof(V));
    uint64_t any = 0;
#pragma GCC unroll 8
    for (uint64_t word : words) any |= word;
    return any == 0;
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

template <class T>
void transform_weight(const double* down, int down_size, int down_taps, const double* along, int along_size,
                      int along_taps, const double* taps, T* out, int64_t position) {
    constexpr int D = kLanes<double>;
    using Wide = vec<double, D>;
    using Narrow = vec<T, D>;
    for (int part = 0; part < kLanes<T>; part += D) {
        for (int i = 0; i < down_size; i++) {
            Wide half[kLongestTile];
            for (int c = 0; c < along_taps; c++) {
                Wide sum{};
                for (int r = 0; r < down_taps; r++)
                    sum += down[i * kLongestTile + r] *
                           load<Wide>(taps + (r * along_taps + c) * kLanes<T> + part);
                half[c] = sum;
            }
            for (int j = 0; j < along_size; j++) {
                Wide sum{};
                for (int c = 0; c < along_taps; c++) sum += along[j * kLongestTile + c] * half[c];
                store(out + (i * along_size + j) * position + part, __builtin_convertvector(sum, Narrow));
            }
        }
    }
}

template <class T>
constexpr WinogradLines<T> make_lines() {
    WinogradLines<T> k = {};
    k.gather = gather<T>;
    k.finite = finite<T>;
    k.dot = dot<T>;
    k.store = store_strip<T>;
    k.weight = transform_weight<T>;
    k.input_down[1] = stay<T>;
    k.input_down[4] = input_down<T, 4>;
    k.input_down[5] = input_down<T, 5>;
    k.input_down[6] = input_down<T, 6>;
    k.input_down[7] = input_down<T, 7>;
    k.input_down[8] = input_down<T, 8>;
    k.input_along[1] = copy_along<T>;
    k.input_along[4] = input_along<T, 4>;
    k.input_along[5] = input_along<T, 5>;
    k.input_along[6] = input_along<T, 6>;
    k.input_along[7] = input_along<T, 7>;
    k.input_along[8] = input_along<T, 8>;
    k.output_down[1][1] = stay<T>;
    k.output_along[1][1] = copy_back<T>;
#define FASTCONV_LINE(tile, m)                        \
    k.output_down[tile][m] = output_down<T, tile, m>; \
    k.output_along[tile][m] = output_along<T, tile, m>;
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
#undef FASTCONV_LINE
    return k;
}

}  // namespace

const WinogradLinesSet winograd_lines = {make_lines<float>(), make_lines<double>()};

FASTCONV_END_ISA
