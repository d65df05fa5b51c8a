// Convolutions of many groups with few channels each, without a loop of matrix products over the groups.
#pragma once

#include <cstdint>

#include "algorithms/microkernel_kernels.hpp"
#include "simd/dispatch.hpp"

namespace fastconv {

constexpr int kGroupedOutputs = 4;  // output channels of one group that are computed together
constexpr int kGroupedRows = 4;     // rows of them, at least

// Channels first: a piece of the output rows of up to kGroupedOutputs channels of one group, from its planes in place.
template <class T>
struct GroupedPlanes {
    const T* x;  // at row 0 and column 0 of the group's first plane
    const int64_t*
        sources;  // from there to the planes that are added up: input channels, of each its taps of depth
    int64_t planes;
    int64_t in_rows, in_width;
    int64_t first_row, first_column;  // input position of tap 0 of output 0; negative in the padding
    int64_t row_step, tap_rows, tap_columns, row_dilation, column_dilation;
    const T* w;               // of output 0; tap rows and columns of a plane are contiguous
    const int64_t* w_planes;  // from there to the taps of each plane
    int64_t w_output;
    int64_t outputs;
    T* out;
    const T* add;   // laid out as out, or null
    const T* bias;  // one per output, or null
    int64_t out_plane, out_width;
    int64_t begin, end;  // output rows
    Clamp clamp;
};

// Channels last: a row of neighbouring pixels, lanes being output channels of several groups. Expanded rows hold for every
// pixel [input channel of a group][lane]: the value that the lane's group has there. Rows in turns hold a vector for every
// pixel, of each input channel its value in all groups; so do the lanes of their weights and sums.
template <class T>
struct GroupedRow {
    const T* const* rows;  // expanded input row of every tap row
    int64_t tap_rows, tap_columns;
    int64_t depth;             // input channels of a group
    int64_t stride, dilation;  // of columns
    const T* w;                // [tap row][tap column][input channel][lane]
    T* out;
    const T* add;
    const T* bias;
    int64_t out_pixel, pixels, lanes;
    Clamp clamp;
    int64_t turns = 0;               // groups of rows in turns; 0: rows are expanded
    const int32_t* order = nullptr;  // of rows in turns: the lane of every output
};

// Half-cycles that a row of pixels takes for one channel of three taps, in blocks of p pixels: three multiply-adds for each, of
// which those of one pixel wait for one another, four cycles each. Always inlined, as files of every instruction set share it.
static inline __attribute__((always_inline)) int64_t row_cost(int64_t pixels, int64_t p) {
    return pixels < p ? INT64_MAX : (pixels + p - 1) / p * (p > 8 ? 3 * p : 24);
}

// The same with the best of the blocks that there are.
static inline __attribute__((always_inline)) int64_t row_cost(int64_t pixels) {
    int64_t best = pixels < 4 ? 24 * pixels : row_cost(pixels, 4);
    constexpr int64_t blocks[] = {7, 8, 10, 14};
    for (const int64_t p : blocks) best = row_cost(pixels, p) < best ? row_cost(pixels, p) : best;
    return best;
}

template <class T>
struct Grouped {
    // The most groups of rows in turns, a power of two; three tap columns, stride 1 or 2 and dilation 1 only.
    int64_t turns;
    // Stride of the columns 1 or 2.
    void (*planes)(const GroupedPlanes<T>&, int64_t stride);
    void (*row)(const GroupedRow<T>&);
    // Pixels of a channels-last row, `step` apart, into an expanded row: lane l of channel j takes x[index[j * lanes + l]].
    // `valid` elements of x may be read. The pixels `ahead` elements on are asked for.
    void (*expand)(const T* x, int64_t step, int64_t pixels, int64_t valid, const int32_t* index,
                   int64_t depth, T* to, int64_t ahead);
};

struct GroupedKernels {
    Grouped<float> f32;
    Grouped<double> f64;
};

FASTCONV_DECLARE_KERNELS(GroupedKernels, grouped_kernels)

template <class T>
const Grouped<T>& grouped_of();

template <>
inline const Grouped<float>& grouped_of<float>() {
    return FASTCONV_DISPATCH(grouped_kernels).f32;
}

template <>
inline const Grouped<double>& grouped_of<double>() {
    return FASTCONV_DISPATCH(grouped_kernels).f64;
}

}  // namespace fastconv
