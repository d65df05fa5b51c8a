// Pointwise convolution (1x1, any stride, no padding read): a matrix product, output channels by pixels.
//
// channels first (pointwise.cpp): pixels in lanes. For one tile of pixels a block of input channels is
// gathered into L1, and
//   all output channels pass over it; weights are broadcast from where the user has them. Sums over several
//   blocks wait in a small buffer, so that the output is written once. Reading the pixels in place instead
//   costs a page and a split cache line per channel for every row block: 256 -> 64 at 56x56 ran at 98 GFLOP/s
//   as direct convolution.
// channels last: direct convolution sees the pixels as one line and is this already.
#pragma once

#include <memory>

#include "plan/conv.hpp"

namespace fastconv {

template <class T>
std::unique_ptr<ConvKernel> make_pointwise_first(const ConvProblem& problem);

}  // namespace fastconv
