// The gradient of a convolution to its input; also what a transposed convolution computes.
//
// With stride 1 it is the forward convolution of dY with the taps rotated and the channels exchanged, by
// whichever forward algorithm is best. With stride s the inputs fall into phases, one for each remainder per
// axis: the taps that reach a phase form a dense convolution with stride 1 of their own, so that no inserted
// zero is multiplied. Phases are computed into scratch, some images at a time so that they stay in the cache,
// and written interleaved; a phase that no tap reaches is zero.
#pragma once

#include <memory>
#include <vector>

#include "plan/conv.hpp"
#include "plan/reduce.hpp"

namespace fastconv {

class BackwardData {
  public:
    // The problem is the forward one. Its padding is constant.
    BackwardData(const ConvProblem& problem, DType dtype);
    // The weights of all phases, rotated and in the order of use.
    size_t packed_bytes() const { return packed_bytes_; }
    void pack(const void* weight, void* packed) const;
    // dy and dx are contiguous in the problem's layout, `packed` is what pack made. Runs on the pool.
    void run_packed(int64_t batch, const void* dy, const void* packed, void* dx) const;
    // The same from weights in the problem's layout; what pack makes of them is kept (weight_cache.hpp) where that pays.
    void run(int64_t batch, const void* dy, const void* weight, void* dx) const;
    const ConvProblem& problem() const { return given_; }
    DType dtype() const { return dtype_; }

  private:
    // The taps first, first + step, ... that reach the inputs start, start + stride, ... of an axis.
    struct PhaseAxis {
        int64_t start, size;
        int64_t first, step, taps;
        int64_t dilation, pad_lo;
    };
    struct Phase {
        PhaseAxis axis[3];
        ConvProblem problem;                 // over dY; meaningless without taps
        std::unique_ptr<ConvKernel> kernel;  // null where no tap reaches the phase
        bool packs;                          // whether the kernel is given its weights packed
        size_t at;                           // where its weights stand among those of all phases
        int64_t pixels() const { return axis[0].size * axis[1].size * axis[2].size; }
    };
    template <class T>
    void pack_as(const T* weight, char* packed) const;
    template <class T>
    void run_as(int64_t batch, const T* dy, const char* packed, T* dx) const;
    template <class T>
    void rotate(const Phase& phase, const T* weight, T* rotated) const;
    template <class T>
    void interleave(int64_t images, const std::vector<const T*>& parts, T* dx) const;

    ConvProblem given_;
    Reduced reduced_;
    ConvProblem problem_;  // what the given one reduces to
    DType dtype_;
    size_t packed_bytes_ = 0;
    uint64_t serial_;
    std::vector<Phase> phases_;  // stride[0] * stride[1] * stride[2], the width fastest; some may be empty
};

}  // namespace fastconv
