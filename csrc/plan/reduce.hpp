// A problem as little as it can be said: what only sees zeros goes, and so do axes of length one.
//
// Padding often reaches further than the image does: 3x3 with a padding of one on an image of one pixel reads nine
// taps' weights and needs one; 7x7 on 58x1 multiplies six columns of zeros. Such taps are dropped, per axis, where no output
// meets a pixel through them. Axes along which nothing is left to move along are then put before the others: vectors run
// along the last axis, and a volume of 9x9x1 is an image of 9x9. Last, an axis that the kernel leaves alone is joined with the
// one before it: 5x1x1 on 2x36x7 is 5x1 on 2x252; and planes of a volume, channels last, that the kernel does not join are images.
// None of these moves a number in memory.
//
// Every entry of algorithms.inc gets its problems so reduced, where it takes them (conv.cpp); weights are gathered when
// they are packed, or at the call. A weight that is not finite is not multiplied with padding then, as in the kernels
// that pass over padding.
#pragma once

#include <cstddef>
#include <memory>

#include "plan/conv.hpp"

namespace fastconv {

struct Reduced {
    ConvProblem problem;
    int64_t first[3];  // tap that is kept, along the axes as they were
    int64_t taps[3];   // that are kept
    int64_t images;    // of the problem for each image, where planes of a volume became images
    bool trimmed;      // whether taps were dropped
    bool moved;        // whether the axes are others now
    bool changed() const { return trimmed || moved; }
};

// How far to go: a narrow last axis joined with the one before it fills vectors, but makes a dilated kernel; a kernel as
// large as its image is a matrix product over pixels and channels.
enum class Reduction { none, plain, joined, dense };

Reduced reduce(const ConvProblem& problem, Reduction how = Reduction::joined);

// The weights of the reduced problem out of those of `problem`, both in its layout. Runs on the pool.
void gather_taps(const ConvProblem& problem, const Reduced& reduced, DType dtype, const void* weight,
                 void* kept);
// The way back, for a gradient: dropped taps become zero.
void spread_taps(const ConvProblem& problem, const Reduced& reduced, DType dtype, const void* kept,
                 void* weight);

// A kernel for `problem` by one that was made for what it reduces to.
std::unique_ptr<ConvKernel> make_reduced(const ConvProblem& problem, const Reduced& reduced, DType dtype,
                                         std::unique_ptr<ConvKernel> inner);

}  // namespace fastconv
