// Moving rows between arrays and scratch: packing with padding and stride, writing finished tiles,
// activations.
#pragma once

#include <cstdint>

#include "plan/problem.hpp"
#include "simd/dispatch.hpp"

namespace fastconv {

// A run of a finished tile that belongs to one output row.
struct Segment {
    int64_t from;  // first pixel in the tile
    int64_t to;    // where it goes in the output plane
    int64_t count;
};

template <class T>
struct Rows {
    // dst[j] = row[source(first + j * stride)] for j < n, zero where the mode says so; `n_in` is the row's
    // length.
    void (*pack)(const T* row, int64_t n_in, PadMode mode, int64_t first, int64_t stride, T* dst, int64_t n);
    // to[r * n + j] = from[r * from_row + first + j] for j < n, zero where first + j lies outside 0 .. n_in-1.
    void (*copy)(const T* from, int64_t from_row, int64_t rows, int64_t first, int64_t n_in, T* to,
                 int64_t n);
    // n pixels of each of some channels in tiles of `tile` pixels:
    // to[j / tile * pitch + c * tile + j % tile] = from[c * from_row + (at ? at[j] : j)].
    void (*tiles)(const T* from, int64_t from_row, int64_t channels, const int64_t* at, int64_t n, T* to,
                  int64_t tile, int64_t pitch);
    // out[r * out_row + to ..] = activation(tile[r * tile_row + from ..] + add[as out]) for every segment.
    void (*finish)(const T* tile, int64_t tile_row, int64_t rows, const Segment* segments, int64_t count,
                   const T* add, T* out, int64_t out_row, Activation activation);
    // out[k * plane + p] = activation(tile[p * tile_row + k] + add[as out]): pixels of channels to planes.
    void (*planes)(const T* tile, int64_t tile_row, int64_t pixels, int64_t channels, const T* add, T* out,
                   int64_t plane, Activation activation);
    // to[(tap * channels + c) * to_row + k] = weight[k * row + c * taps + tap] for k < count, zero up to a
    // whole vector.
    void (*panel)(const T* weight, int64_t row, int64_t count, int64_t channels, int64_t taps, T* to,
                  int64_t to_row);
    // to[j] = from[j] for j < n, past the caches: whole lines of `to` are written without being read. The caller calls
    // stream_fence() before another thread may read them.
    void (*stream)(const T* from, T* to, int64_t n);
    // The activation in place over rows of n values.
    void (*activate)(Activation activation, T* x, int64_t rows, int64_t row, int64_t n);
};

struct RowsKernels {
    Rows<float> f32;
    Rows<double> f64;
};

FASTCONV_DECLARE_KERNELS(RowsKernels, rows_kernels)

template <class T>
const Rows<T>& rows_of();

template <>
inline const Rows<float>& rows_of<float>() {
    return FASTCONV_DISPATCH(rows_kernels).f32;
}

template <>
inline const Rows<double>& rows_of<double>() {
    return FASTCONV_DISPATCH(rows_kernels).f64;
}

}  // namespace fastconv
