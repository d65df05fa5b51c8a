// Chunks of output pixels, and how the weight gradient packs what one chunk reads.
#pragma once

#include <cstdint>

#include "plan/problem.hpp"

namespace fastconv {

// Images, and a box of output pixels of each.
struct Chunk {
    Range image, box[3];
    int64_t rows() const { return image.size() * box[0].size() * box[1].size(); }
    int64_t width() const { return box[2].size(); }
    int64_t pixels() const { return rows() * width(); }
};

// All output pixels of a batch in chunks of at most `limit`: parts of rows, else whole rows, planes, volumes,
// images.
class Chunks {
  public:
    Chunks(const ConvProblem& problem, int64_t batch, int64_t limit);
    int64_t count() const { return parts_[0] * parts_[1] * parts_[2] * parts_[3]; }
    Chunk operator[](int64_t index) const;
    // Of the largest chunk.
    int64_t images() const { return largest_[0]; }
    int64_t size(int axis) const { return largest_[axis + 1]; }
    int64_t pixels() const { return largest_[0] * largest_[1] * largest_[2] * largest_[3]; }

  private:
    int64_t total_[4], parts_[4], largest_[4];  // images, depth, height, width
};

// Along one axis: which positions of the input are packed. Position `start + i * skip` stands at i; an output
// step is `step` packed positions, a tap `tap`. A stride that no tap fills (1x1) or that divides the dilation
// is packed away.
struct PackedAxis {
    int64_t skip, step, tap;
    PackedAxis(const ConvProblem& problem, int axis);
    int64_t length(int64_t outputs, int64_t taps) const {
        return (outputs - 1) * step + (taps - 1) * tap + 1;
    }
};

// The part of 0 .. n-1 whose sources first + i * skip lie inside 0 .. size-1.
Range inside(int64_t first, int64_t skip, int64_t n, int64_t size);

}  // namespace fastconv
