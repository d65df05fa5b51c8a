// Pointwise convolution (1x1, any stride, no padding read): a matrix product, output channels by pixels.
//
// channels first (pointwise.cpp): pixels in lanes. Tiles of pixels wait in L1 as panels, all output channels pass over
//   them, and the first that do so read the pixels where they are (panel_tile_kernels.hpp). Tiles of few channels share
//   L1: their outputs then are written in longer runs, 16 > 96 at 112x112 65 -> 109 GFLOP/s. Sums over several blocks
//   of input channels wait in a small buffer, so that the output is written once. Plans pack the weights; an eager
//   call reads them where they are (3% slower; 10% at 1024 channels, whose rows share their cache sets) while L2 holds
//   them.
//   Tried: tiles of 6x4 (the same within 3%, better only for 16 channels), 9x3 (5% slower), asking for all lines of the next
//   panel where few outputs leave few calls to do so (64 > 2 at 256 x 256 13% slower), prefetching for writing
//   instead of reading (20% slower), all blocks of channels of a tile one after the other, so that its sums wait in L1
//   (2% slower), a line of inputs and of outputs asked for with every two steps (3% slower), not asking for weights (up
//   to 6% slower at 7x7).
//   One pixel beyond the last full vector (7 x 7 is three vectors and one) is summed with the output channels in lanes.
//   A small model (pointwise.cpp) sends images of few pixels to channels in lanes instead.
//   Images of one pixel are the same in both layouts and go channels last: one product for all images.
// few pixels of an eager call (pointwise_few.cpp): weights are read once, where they are. One thread, 960 > 1280 and an
//   image of one pixel: with a fingerprint and packed weights 370 us, so 171, as a plan; 16 of them 506 and 344.
// channels last (pointwise_last.cpp): channels in lanes. All pixels of all images are one line (so that 49 pixels an image
//   waste no tile). While the weights stay in L2, all channels pass over a band of few pixels, in tiles of 6 by 4 vectors,
//   and every call asks for some lines of the next band: memory is read once, in order, while the units work.
//   Weights that do not stay there pass over as many pixels as do, and the next panel is asked for instead. Outputs that L2
//   does not hold are asked for too, a band ahead; beyond the caches they wait in L2 to be streamed. 16 images, GFLOP/s,
//   direct_lanes.cpp before and this after: 256 > 64 at
//   56 x 56 115 and 188, 64 > 64 128 and 180, 256 > 128 137 and 175, 512 > 256 at 28 x 28 182 and 202, 512 > 2048 at
//   7 x 7 178 and 205.
//   Tried, 256 > 64 at 56 x 56: tiles of 14 x 2 115 without and 163 with lines asked for in bands of 1,000 pixels, 193 in bands
//   of 112; 6 x 4 without 165. Asking into L1 instead of L2: the same. x or output beginning on a line: 3 to 5% better, not more. A chain of 512 steps instead of 256: the same. Groups
//   still go by direct convolution.
#pragma once

#include <memory>

#include "plan/conv.hpp"

namespace fastconv {

template <class T>
std::unique_ptr<ConvKernel> make_pointwise_first(const ConvProblem& problem);

template <class T>
std::unique_ptr<ConvKernel> make_pointwise_last(const ConvProblem& problem);

}  // namespace fastconv
