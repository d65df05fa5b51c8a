// Direct convolution: the sum itself, by the micro-kernel, with no transform and no matrix of windows.
//
// channels in lanes (direct_lanes.cpp): weights are packed in order of use and read as vectors of output channels,
//   pixels are read as scalars from wherever lanes_input.hpp puts them. Channels last writes its outputs from the
//   tile; channels first sums some 128 pixels of 32 channels in L1 and turns them into planes in registers.
// pixels in lanes (direct_first.cpp, channels first): a band of output rows gets its input from padded copies of the
//   input planes in scratch, one plane per phase of the stride, so that every tap is one constant offset and the
//   band's rows are one run of pixels with constant pitch; columns between the rows are computed and dropped
//   (3.4% at width 56). Weights are broadcast from where the user has them: nothing is packed.
//
// Channels first takes the orientation that a small model predicts to be faster (direct.cpp). Pixels in lanes waste a
// quarter of their vectors at 7x7 and copy strided rows twice; 96 > 160 at 7x7, 3x3 stride 2: 53 GFLOP/s, with
// channels in lanes 115; 1x1 2048 > 512 at 7x7 107 and 140. On large planes turning the tile costs more.
//
// Sums longer than about 288 terms are split by blocks of input channels into partial sums (a panel of 288 x 32 weights
// is three quarters of L1: 192 terms are 2 to 8% slower, 144 up to 14%).
#pragma once

#include <cstddef>
#include <memory>

#include "plan/conv.hpp"

namespace fastconv {

constexpr int64_t kChainAim = 288;
constexpr int64_t kChainMost = 512;

// Channels in lanes, and so 1x1 channels last:
// Steps by which weights that are read where they are are brought into L2: the next lane block's, which stand beside them,
// would all fall onto the sets of this one's where the output channels are a power of two.
constexpr int64_t kRowsAhead = 32;

struct LaneBlock {  // output channels of one micro-kernel call
    int64_t group, first, count, vectors;
    int64_t packed;  // where its panels begin in packed weights
};

// Whether an eager call keeps so many bytes of packed weights. `in_place`: it can read them where the user has them.
// Weights that leave L2 in any case are read less with a fingerprint and the packed copy than by packing (3x3 stride 2 with
// 512 channels at 14x14 2.2 -> 2.0 ms), and turning OIHW weights over costs more than a fingerprint while both copies stay
// in L2 (1x1 160 > 960 at 7x7 127 -> 112 us) or threads would pack for each other (960 > 320 on two threads 232 us, where
// a plan takes 115).
bool lanes_keep_packed(size_t bytes, bool in_place);

// True where channels in lanes are predicted to take less time than pixels in lanes.
bool lanes_pay(const ConvProblem& problem, DType dtype);

template <class T>
std::unique_ptr<ConvKernel> make_direct_first(const ConvProblem& problem);

template <class T>
std::unique_ptr<ConvKernel> make_direct_lanes(const ConvProblem& problem);

}  // namespace fastconv
