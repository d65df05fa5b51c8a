// Pointwise convolution (1x1, any stride, no padding read): a matrix product, output channels by pixels.
//
// channels first (pointwise.cpp): pixels in lanes. Tiles of pixels wait in L1 as panels, all output channels pass over
//   them, and the first that do so read the pixels where they are (panel_tile_kernels.hpp). Tiles of few channels share
//   L1: their outputs then are written in longer runs, 16 > 96 at 112x112 65 -> 109 GFLOP/s. Sums over several blocks
//   of input channels wait in a small buffer, so that the output is written once. Plans pack the weights; an eager
//   call reads them where they are (3% slower; 10% at 1024 channels, whose rows share their cache sets) while L2 holds
//   them.
//   Tried: tiles of 6x4 (the same within 3%, better only for 16 channels), 9x3 (5% slower), prefetching for writing
//   instead of reading (20% slower).
//   One pixel beyond the last full vector (7 x 7 is three vectors and one) is summed with the output channels in lanes.
//   A small model (pointwise.cpp) sends images of few pixels to channels in lanes instead.
// channels last: direct convolution sees the pixels as one line and is this already.
#pragma once

#include <memory>

#include "plan/conv.hpp"

namespace fastconv {

template <class T>
std::unique_ptr<ConvKernel> make_pointwise_first(const ConvProblem& problem);

}  // namespace fastconv
