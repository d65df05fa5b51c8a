// Direct convolution on matrix tiles (AMX): float32 in thirds of bfloat16.
//
// A float32 has 24 significant bits, a bfloat16 eight: each number is the exact sum of three. Of the nine products of two such
// sums the six largest are added in float32; the other three are below 2^-23 of the product, so that errors are those of
// float32 itself, or smaller, because a tile adds 32 products before it rounds the sum they are added to. [Henry, Tang,
// Heinecke, "Leveraging the bfloat16 artificial intelligence datatype for higher-precision computations", ARITH 2019]
// One core's tiles do 3690 GFLOP/s in bfloat16 where its vectors do 245 in float32: a sixth of it is 2.5 times as much. From
// L2, with two by two tiles of sums, 440 GFLOP/s are left; from L1 530.
//
// The input of a band of output rows is split once, into positions that all taps read with offsets alone: rows and columns
// sorted by the phase of the stride, padding among them, rows of outputs one line of positions. Those between two rows are
// computed and not written. Rows of a tile are positions of 32 channels; 1x1 with channels first has pairs of channels of 16
// positions instead, and the weights change sides, so that finished tiles lie as the output does. (Taps shift such lines by
// four bytes, and rows of tiles that lie in two cache lines cost half the speed: other kernels turn tiles over on the way in and
// out.)
//
// Between products the vector units write what is finished and, in 1x1 whose weights L2 holds, make the next 32 pixels' thirds
// (splits_ahead in bf16x3.cpp): 512 > 128 channels at 28 x 28 362 to 300 us. Dropped: asking for the next step's tiles (they come
// from L2 as fast without: 440 to 310 GFLOP/s), tiles of fewer rows (eight rows take as long as sixteen, almost).
// What would lift it: 64 > 64 channels at 56 x 56 reach 220 of 615 GFLOP/s, because writing and splitting do not hide behind
// products of only two steps; weights beyond L2 arrive at 13 GB/s (512 > 512, 3x3 at 7 x 7).
//
// An infinite number has no thirds: it leaves NaN, also where float32 would have left an infinity. Outputs that come out as
// NaN or infinite are therefore computed again, term by term. Where a third is subnormal (numbers below 2e-31) it is taken for zero.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "algorithms/bf16x3_kernels.hpp"
#include "plan/conv.hpp"

namespace fastconv {

// Taps along one axis: those of one phase of the stride read the same positions, shifted.
struct AxisTaps {
    std::vector<int64_t> phases;        // first input positions, from the padding's begin
    std::vector<int64_t> phase, shift;  // of each tap
    int64_t reach = 0;                  // the largest shift

    AxisTaps(int64_t taps, int64_t dilation, int64_t stride);
    int64_t count() const { return static_cast<int64_t>(phases.size()); }
};

// What one task computes: some rows of one image, or all rows of some images.
struct Bf16x3Band {
    Range images, lines;
};

// How a problem becomes products of tiles.
class Bf16x3Shape {
  public:
    explicit Bf16x3Shape(const ConvProblem& problem);

    const ConvProblem problem;
    const bool dense;   // outputs are as many as inputs, and each reads its own: a line is one pixel
    const bool joined;  // the pixels of all images follow each other: they are one image
    const Bf16x3Form form;
    const AxisTaps rows, columns;
    const int64_t blocks, tiles, steps;  // of input channels, of output channels; of a sum
    const int64_t lines;                 // of an image: rows of outputs, or pixels

    int64_t width() const { return dense ? 1 : problem.out_size[2] + columns.reach; }  // positions of a line
    int64_t outputs() const { return dense ? 1 : problem.out_size[2]; }                // of a line
    // Positions of one image and one phase of rows and of columns; those of several images begin with a tile.
    int64_t plane(const Bf16x3Band& band) const {
        const int64_t all = (band.lines.size() + (dense ? 0 : rows.reach)) * width();
        return band.images.size() > 1 ? round_up(all, kTilePixels) : all;
    }
    // Where phases `row` and `column` of image `image` begin.
    int64_t position(const Bf16x3Band& band, int64_t row, int64_t column, int64_t image) const {
        return ((row * columns.count() + column) * band.images.size() + image) * plane(band);
    }
    int64_t tiles_of_image(const Bf16x3Band& band) const {
        return ceil_div((band.lines.size() - 1) * width() + outputs(), kTilePixels);
    }
    // Bytes of a position in a third, of a line of pairs, of a third of 32 channels. An odd number of cache lines a line of
    // pairs, so that 16 of them lie in different sets.
    int64_t unit() const { return form == Bf16x3Form::planes ? 4 : 64; }
    int64_t line(const Bf16x3Band& band) const {
        return form == Bf16x3Form::planes ? (ceil_div(positions(band) * 4, 64) | 1) * 64 : 64;
    }
    int64_t third(const Bf16x3Band& band) const {
        return form == Bf16x3Form::planes ? 16 * line(band) : positions(band) * 64;
    }
    int64_t input_bytes(const Bf16x3Band& band) const { return 3 * blocks * third(band); }

  private:
    int64_t positions(const Bf16x3Band& band) const {
        return position(band, rows.count(), 0, 0) + kTilePixels;
    }
};

// Weights in thirds: [tile of output channels][step][third][tile]; a step is 32 input channels of a tap, taps innermost.
void pack_thirds(const Bf16x3Shape& shape, const float* weight, char* packed);
// Those of output channel k as they were, [tap][input channel]; false where one is NaN.
bool unpack_thirds(const Bf16x3Shape& shape, const char* packed, int64_t k, float* weights);

// The input of a band in thirds: input_bytes at `to`. Takes scratch of row_bytes beside it.
void split_input(const Bf16x3Shape& shape, const ConvArgs& args, const Bf16x3Band& band, char* to);
inline size_t split_row_bytes(const Bf16x3Shape& shape) {
    return shape.form == Bf16x3Form::turned
               ? static_cast<size_t>(kTileDepth * (shape.problem.out_size[2] + shape.columns.reach) *
                                     shape.problem.stride[2]) *
                     sizeof(float)
               : 0;
}

}  // namespace fastconv
