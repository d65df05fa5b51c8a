// The gradient of a convolution to its input; also what a transposed convolution computes.
//
// With stride 1 it is the forward convolution of dY with the taps rotated and the channels exchanged, by
// whichever forward algorithm is best. With stride s the inputs fall into phases, one for each remainder per
// axis: the taps that reach a phase form a dense convolution with stride 1 of their own, so that no inserted
// zero is multiplied. Neighbouring phases of a row whose taps see the same pixels of dY are one convolution with
// more outputs: 2x2 with stride 2 is a 1x1 for each row of the kernel. [Shi et al., arXiv:1609.07009]
//
// Phases with the same number of taps see the same pixels of dY once the outputs of some are counted from one place further
// on: 4x4 with stride 2 is one 2x2 with four times as many outputs, its input packed or transformed once for all of them
// (64 > 3 channels at 32x32 146 to 65 us, 256 > 128 at 16x16 1.34 to 1.10 ms, 32 > 16 at 64x64 0.53 to 0.36), unless the
// one place more costs a row of tiles (512 > 256 at 8x8 1.35 to 1.60 ms).
//
// Channels last, outputs are written where they belong (ConvArgs::place). Channels first, phases are computed into
// scratch, some images at a time so that they stay in the cache, and written interleaved. A phase that no tap
// reaches is zero. Threads take whole images where there are enough, else they share each phase.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "plan/conv.hpp"
#include "plan/reduce.hpp"

namespace fastconv {

// The arrays of one call, contiguous in the problem's layout. A transposed convolution has a bias, one value per channel of
// dx, and an activation.
struct BackwardDataArgs {
    int64_t batch;
    const void* dy;
    void* dx;
    const void* bias = nullptr;
    Activation activation = Activation::none;
};

class BackwardData {
  public:
    // The problem is the forward one. Its padding is constant.
    BackwardData(const ConvProblem& problem, DType dtype);
    // The weights of all phases, rotated and in the order of use.
    size_t packed_bytes() const { return packed_bytes_; }
    void pack(const void* weight, void* packed) const;
    // `packed` is what pack made. Runs on the pool.
    void run_packed(const BackwardDataArgs& args, const void* packed) const;
    // The same from weights in the problem's layout; what pack makes of them is kept (weight_cache.hpp) where that pays.
    void run(const BackwardDataArgs& args, const void* weight) const;
    // One line for each phase: the pixels it is, its taps and its algorithm.
    std::string describe() const;
    const ConvProblem& problem() const { return given_; }
    DType dtype() const { return dtype_; }

  private:
    // The taps first, first + step, ... that reach the inputs start, start + stride, ... of an axis.
    struct PhaseAxis {
        int64_t start, size;
        int64_t first, step, taps;
        int64_t dilation, pad_lo;
    };
    // One remainder of height and width: where its pixels begin and how many they are, its first tap, and how many places
    // further on its phase counts its outputs.
    struct Way {
        int64_t start[2], size[2], first[2], shift[2];
    };
    // Ways whose outputs follow each other as channels.
    struct Phase {
        PhaseAxis axis[3];
        std::vector<Way> ways;
        bool joined;          // whether its ways are neither of one row nor at one place
        ConvProblem problem;  // over dY; meaningless without taps
        const ConvAlgorithm* algorithm;
        std::unique_ptr<ConvKernel> kernel;  // null where no tap reaches the phase
        bool packs;                          // whether the kernel is given its weights packed
        size_t at;                           // where its weights stand among those of all phases
        int64_t count() const { return static_cast<int64_t>(ways.size()); }
        bool placed() const { return problem.placed && kernel->places_pixels(); }
        int64_t pixels() const { return axis[0].size * axis[1].size * axis[2].size; }
    };
    // Of each remainder per axis: a phase, and one of its ways.
    struct Place {
        size_t phase, way;
    };
    PhaseAxis axis_of(int axis, int64_t start) const;
    Phase phase_of(const PhaseAxis& depth, const PhaseAxis& down, const PhaseAxis& along,
                   std::vector<Way> ways, bool joined) const;
    // The phases of one remainder of the depth: by rows, or all in one, if they can be.
    std::vector<Phase> phases_of(const PhaseAxis& depth) const;
    std::vector<Phase> joined_of(const PhaseAxis& depth) const;
    double predict(const std::vector<Phase>& phases) const;
    void add(Phase&& phase);
    // Of dx, channels last, the pixels of a phase; `ways` of them count as one.
    Placement placement() const;
    int64_t corner(const Phase& phase, const Way& way) const;

    template <class T>
    void pack_as(const T* weight, char* packed) const;
    template <class T>
    void rotate(const Phase& phase, const T* weight, T* rotated) const;
    template <class T>
    void run_as(const BackwardDataArgs& args, const char* packed) const;
    template <class T>
    void run_images(const BackwardDataArgs& args, const char* packed, const T* bias, const T* blank,
                    int64_t first, int64_t images) const;
    template <class T>
    void put(const Phase& phase, int64_t images, const T* from, int64_t from_pixel, T* dx) const;
    template <class T>
    void interleave(int64_t images, const T* const* parts, const T* blank, T* dx) const;

    ConvProblem given_;
    Reduced reduced_;
    ConvProblem problem_;  // what the given one reduces to
    DType dtype_;
    size_t packed_bytes_ = 0;
    uint64_t serial_;
    std::vector<Phase> phases_;
    std::vector<Place> places_;  // stride[0] * stride[1] * stride[2], the width fastest; some may be empty
};

}  // namespace fastconv
