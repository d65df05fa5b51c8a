// Direct convolution: the sum itself, by the micro-kernel, with no transform and no matrix of windows.
//
// channels first (direct_first.cpp): pixels in lanes. A band of output rows gets its input from padded copies
// of the input
//   planes in scratch, one plane per phase of the stride, so that every tap is one constant offset and the
//   band's rows are one run of pixels with constant pitch; columns between the rows are computed and dropped
//   (3.4% at width 56). Weights are broadcast from where the user has them: nothing is packed.
// channels last (direct_last.cpp): channels in lanes, weights packed in order of use, pixels read as scalars,
// in place where no
//   padding is read, else from a padded copy of the band.
//
// Sums longer than about 288 terms are split by blocks of input channels into partial sums.
#pragma once

#include <memory>

#include "plan/conv.hpp"

namespace fastconv {

constexpr int64_t kChainAim = 288;
constexpr int64_t kChainMost = 512;

template <class T>
std::unique_ptr<ConvKernel> make_direct_first(const ConvProblem& problem);

template <class T>
std::unique_ptr<ConvKernel> make_direct_last(const ConvProblem& problem);

}  // namespace fastconv
