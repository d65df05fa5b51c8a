// A 1x1 convolution of few pixels, channels last (or images of one pixel), that reads its weights where the user has them.
//
// Such a call takes as long as its weights take to be read, so that a copy or a fingerprint (weight_cache.hpp) doubles it.
#pragma once

#include <vector>

#include "algorithms/few_pixels_kernels.hpp"
#include "plan/conv.hpp"

namespace fastconv {

// Bytes of scratch of one thread.
template <class T>
size_t few_pixels_scratch();

// `chains`: input channels that are summed in one accumulator each. `turned`: weights are [output][input]. At most
// kMostFewPixels pixels, which stand side by side.
template <class T>
void run_few_pixels(const ConvProblem& problem, const ConvArgs& args, const std::vector<Range>& chains,
                    bool turned, int threads);

}  // namespace fastconv
