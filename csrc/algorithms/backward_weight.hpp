// The gradient of a convolution to its weight and its bias.
//
// dW[k, c, tap] = sum over images and output pixels of dY[k, pixel] * X[c, pixel * stride + tap]: the
// micro-kernel with pixels as the reduction. Rows of a tile are input channels, its lanes output channels,
// its steps pixels. Pixels are cut into bands of at most kBandPixels and those into chunks of kChunkPixels
// (row bands of one image; small images share a chunk); of each chunk X is packed as [channel][pixel] with
// its padding and dY as [pixel][channel], which costs one of them a transposition in either layout, shared by
// all taps. Chunks are added up in a fixed number of copies, and the copies by a fixed tree: chunks, copies
// and tree follow from the problem and the batch alone, so the number of threads does not show in the result.
//
// Longest chain of additions into one accumulator: kChunkPixels; partial sums: the chunks of a copy, and
// log2(copies). [Georganas 2018, Anatomy of high-performance convolutions on SIMD: the two ways of sharing
// the work]
#pragma once

#include <cstdint>

#include "plan/problem.hpp"

namespace fastconv {

constexpr int64_t kBandPixels = 448;  // packed at a time: eight rows of 56 read two more, 1.25 of x
constexpr int64_t kChunkPixels =
    200;  // added at a time: 24 KB of dy for a tile's 32 channels; 112 was 3-8% slower

// dy, x, dw and db are contiguous in the problem's layout; db may be null. Runs on the pool.
template <class T>
void backward_weight(const ConvProblem& problem, int64_t batch, const T* dy, const T* x, T* dw, T* db);

extern template void backward_weight(const ConvProblem&, int64_t, const float*, const float*, float*, float*);
extern template void backward_weight(const ConvProblem&, int64_t, const double*, const double*, double*,
                                     double*);

}  // namespace fastconv
