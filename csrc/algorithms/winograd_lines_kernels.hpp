// Winograd's transforms along one axis, for tiles of 3 to 8 inputs; what winograd_tiles.cpp puts together for any kernel.
#pragma once

#include <cstdint>

#include "algorithms/microkernel_kernels.hpp"
#include "algorithms/toom_cook.hpp"
#include "simd/dispatch.hpp"

namespace fastconv {

// One plane of one image. A strip is a piece of some of its rows in scratch: [row][column][lane], lanes being channels.
template <class T>
struct WinogradPlane {
    const T* x;  // channel 0 of the plane's first pixel
    bool channels_last;
    int64_t channels;      // that exist
    int64_t channel_step;  // from one channel to the next
    int64_t width, row;    // pixels of a row; elements from one row to the next
    const int32_t* rows;   // source row of every row of the strip, -1 where it is zero
    const int32_t* cols;   // likewise columns
    int64_t columns;
};

// Where a strip's tiles lie along the width: tile (i, b), b < cell, reads columns (i * outputs + j) * cell + b.
struct WinogradCells {
    int64_t count, cell;  // cells of `cell` interleaved tiles
    // Where those are the phases of a stride, `count` tiles in all: elements from one phase's results to the next, and how many
    // phases have a last input.
    int64_t phase = 0, longest = 0;
};

// What becomes of a strip of finished sums: rows and columns that exist, [row][column][lane] -> y.
template <class T>
struct WinogradStore {
    T* y;  // channel 0 of the strip's first pixel
    const T* add;
    const T* bias;
    Clamp clamp;
    bool channels_last;
    int64_t channels, channel_step, row,
        row_step;  // row: from one row of y to the next; rows of the strip are row_step apart
    int64_t rows, columns;
    int64_t pixel;  // channels last: from one pixel of y to the next
};

// One axis of weights: the matrix G, rows kLongestTile apart, the rows and columns of it that count, elements between taps.
struct WinogradTaps {
    const double* matrix;
    int size, taps;
    int64_t step;
};

template <class T>
struct WinogradLines {
    // t rows of the plane, for `lanes` channels from `channel` on, transformed down into t rows of a strip. [t]
    void (*input_down[kLongestTile + 1])(const WinogradPlane<T>& plane, int64_t channel, T* strip,
                                         int64_t strip_row);
    // Along a row of a strip: position j of tile i goes to out[j * position + i * tile]. [t]
    void (*input_along[kLongestTile + 1])(const T* strip, WinogradCells cells, int64_t outputs, T* out,
                                          int64_t position, int64_t tile);
    // The way back: position j of tile i from products[j * position + i * tile] into a row of the strip. [t][m]
    void (*output_along[kLongestTile + 1][kLongestTile])(const T* products, int64_t position, int64_t tile,
                                                         WinogradCells cells, T* strip);
    // Down the rows, in place: t rows become m. False where some sum is not finite (or many are near the largest). [t][m]
    bool (*output_down[kLongestTile + 1][kLongestTile])(T* strip, int64_t strip_row, int64_t columns);
    // The same for `lanes` channels from `channel` on of a channels-last image, straight into y; the strip stays. [t][m]
    bool (*output_store[kLongestTile + 1][kLongestTile])(const WinogradStore<T>& to, int64_t channel,
                                                         const T* strip, int64_t strip_row);
    // Whether all values of `columns` vectors, cell apart, are finite.
    bool (*finite)(const T* strip, int64_t columns, int64_t cell);
    // Sums of one pixel of x against the weights of one tap: sum[lane] += x[c] * w[c * w_row + lane], a chain of its own.
    void (*dot)(const T* x, int64_t x_step, int64_t channels, const T* w, int64_t w_row, T* sum);
    // A strip of `lanes` channels from `channel` on into y.
    void (*store)(const WinogradStore<T>& to, int64_t channel, const T* strip, int64_t strip_row);
    // Products of one position where its channels are one vector, of inputs and of outputs: out[i] = sum over c of
    // x[i * lanes + c] * w[c], in that order; all weights stay in registers.
    void (*vector_products)(const T* x, int64_t tiles, const T* w, T* out);
    // Transforms the taps between one input channel and a vector of output channels in double, rounded once: those of (r, c) stand
    // at taps[r * down.step + c * along.step], position (i, j) goes to out[(i * along.size + j) * position].
    void (*weight)(const WinogradTaps& down, const WinogradTaps& along, const T* taps, T* out,
                   int64_t position);
};

struct WinogradLinesSet {
    WinogradLines<float> f32;
    WinogradLines<double> f64;
};

FASTCONV_DECLARE_KERNELS(WinogradLinesSet, winograd_lines)

template <class T>
const WinogradLines<T>& winograd_lines_of();

template <>
inline const WinogradLines<float>& winograd_lines_of<float>() {
    return FASTCONV_DISPATCH(winograd_lines).f32;
}

template <>
inline const WinogradLines<double>& winograd_lines_of<double>() {
    return FASTCONV_DISPATCH(winograd_lines).f64;
}

}  // namespace fastconv
