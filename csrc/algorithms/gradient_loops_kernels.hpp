// The small loops of the gradients that the micro-kernel does not run: packing, sums of private copies,
// interleaving, and the weight gradient with few channels per group, where a lane is one output channel.
#pragma once

#include <cstdint>

#include "simd/dispatch.hpp"

namespace fastconv {

// sum[t][k] += sum over rows r and pixels i of dy[r, i, k] * x[rows[r] + taps[t] + i * step, k], k one lane
// each.
template <class T>
struct LaneTile {
    const T* x;
    const int64_t* rows;  // of x, in vectors; dy's rows follow each other without a gap
    int64_t row_count;
    int64_t width;  // pixels of a row
    int64_t step;   // of x, in vectors
    const T* dy;
    int64_t dy_step;      // in vectors
    const int64_t* taps;  // in vectors
    int64_t tap_count;
    T* sum;
    int64_t sum_row;  // elements from one tap to the next
};

// The depthwise gradient of 3 x 3 taps from kDepthwiseColumns outputs of each of a few rows, for all channels, channels last:
// sum[c / lanes][tap][c % lanes] += sum over outputs (i, j) of dy[i, j][c] * x[i * stride + h, j * stride + w][c].
template <class T>
struct DepthwiseTile {
    const T* const*
        x;  // the patch that the outputs read, row by row: a pointer to the channels of each pixel
    const T* const* dy;  // likewise
    int64_t channels;
    T* sum;
    T* bias;  // += dy, one vector for each vector of channels; or null
    int64_t x_ahead,
        dy_ahead;  // where what will be needed after a row of tiles lies; the patch's last rows ask for it
};
constexpr int kDepthwiseColumns = 4;

// to[r][i * ways + w] = from[w][r][i], `blank` where from[w] is null; `count` elements of each row of `to` in all.
template <class T>
struct Interleave {
    const T* const* from;
    const int64_t* from_row;
    int64_t ways, rows, count;
    T blank;
    T* to;
    int64_t to_row;
};

template <class T>
struct GradientLoops {
    int lanes;
    void (*lane_tile)(const LaneTile<T>& tile);
    // Strides 1 and 2, the same in both axes; of so many rows of outputs.
    int depthwise_rows;
    void (*depthwise[2])(const DepthwiseTile<T>& tile);
    // to[c][r] = from[r][c]
    void (*transpose)(const T* from, int64_t from_row, int64_t rows, int64_t columns, T* to, int64_t to_row);
    // to[r][0..columns) = from[r][...], zeros up to `full` columns
    void (*copy)(const T* from, int64_t from_row, int64_t rows, int64_t columns, T* to, int64_t to_row,
                 int64_t full);
    // to[i] = from[i * step]
    void (*gather)(const T* from, int64_t step, int64_t count, T* to);
    // to[r][l] = from[r][index[l]] for each lane l; from is readable for a whole vector only where `span`
    // says so
    void (*spread)(const T* from, int64_t from_row, int64_t rows, int64_t span, const int32_t* index, T* to);
    void (*interleave)(const Interleave<T>& rows);
    // to[c] += sum over rows of from[r][c]; columns is a multiple of the lanes
    void (*add_rows)(const T* from, int64_t rows, int64_t columns, T* to);
    // to[i] = the sum of `copies` vectors that stand `apart` from each other, by a fixed tree
    void (*add_copies)(const T* from, int64_t apart, int64_t copies, int64_t count, T* to);
};

struct GradientKernels {
    GradientLoops<float> f32;
    GradientLoops<double> f64;
};

constexpr int64_t kMaxCopies = 16;

FASTCONV_DECLARE_KERNELS(GradientKernels, gradient_kernels)

template <class T>
const GradientLoops<T>& gradient_loops();

template <>
inline const GradientLoops<float>& gradient_loops<float>() {
    return FASTCONV_DISPATCH(gradient_kernels).f32;
}

template <>
inline const GradientLoops<double>& gradient_loops<double>() {
    return FASTCONV_DISPATCH(gradient_kernels).f64;
}

}  // namespace fastconv
