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
    // out[r * out_row + to ..] = activation(tile[r * tile_row + from ..] + add[as out]) for every segment.
    void (*finish)(const T* tile, int64_t tile_row, int64_t rows, const Segment* segments, int64_t count,
                   const T* add, T* out, int64_t out_row, Activation activation);
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
