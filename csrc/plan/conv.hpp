// The candidates for a forward convolution: one ordered list, best first. Each accepts a problem or says why
// not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "plan/problem.hpp"

namespace fastconv {

// Where outputs stand, channels last, that are some of the pixels of a larger array: elements from one image, plane of depth,
// row and pixel to the next.
struct Placement {
    int64_t image, plane, row, pixel;
};

// What is read and written after a call, by others: `values` from x on, and `outputs` where its own outputs end.
struct Coming {
    const void* x = nullptr;
    int64_t values = 0, outputs = 0;
};

// The arrays of one call, in the problem's layout, contiguous. Sizes were checked by the caller.
struct ConvArgs {
    int64_t batch;
    const void* x;
    const void* weight;            // as the user wrote it; may be null where `packed` is given
    const void* packed = nullptr;  // what ConvKernel::pack made of it
    const void* bias = nullptr;
    const void* add = nullptr;  // of out's shape, added before the activation
    Activation activation = Activation::none;
    void* out = nullptr;
    // Channels first, where x and out (with add) are rows cut out of larger planes: elements from one channel to the next.
    // Zero stands for the problem's own size. Only for a batch of one and kernels that take bands.
    int64_t x_plane = 0, out_plane = 0;
    // Null stands for an output without gaps. Only for kernels that place pixels; no add and no activation but a clamp.
    const Placement* place = nullptr;
    bool past_caches =
        false;  // the larger array of `place` is streamed to (stream.hpp); without it: x's is far larger than caches
    // Null, or what kernels that compute longer than they read may ask for meanwhile: of a chain, whose calls find their
    // own inputs in L2.
    const Coming* coming = nullptr;

    int64_t x_plane_of(const ConvProblem& p) const { return x_plane != 0 ? x_plane : p.in_pixels(); }
    int64_t out_plane_of(const ConvProblem& p) const { return out_plane != 0 ? out_plane : p.out_pixels(); }
    // Channels last: `place`, or what stands for it.
    Placement placement(const ConvProblem& p) const {
        if (place != nullptr) return *place;
        const int64_t pixel = p.out_channels, row = p.out_size[2] * pixel, plane = p.out_size[1] * row;
        return {p.out_size[0] * plane, plane, row, pixel};
    }
};

// A number never given before.
uint64_t next_serial();

// How many threads a run may use, and the scratch that each of them should keep to.
struct ScratchShare {
    int threads;
    size_t budget;
};

// An algorithm made ready for one problem and dtype. Immutable, so that any number of threads may run it at
// once.
class ConvKernel {
  public:
    ConvKernel();
    virtual ~ConvKernel() = default;
    // Runs on the pool. The same bits for any number of threads, with packed weights or without.
    virtual void run(const ConvArgs& args) const = 0;
    // Weights in the order of use, where that pays; 0 where the weights are used as they are.
    virtual size_t packed_bytes() const { return 0; }
    virtual void pack(const void* weight, void* packed) const;
    // True where packing is dear: eager calls then come with weights from the cache (weight_cache.hpp), always packed.
    virtual bool keeps_packed() const { return false; }
    // The same for a call of so many images: few read their weights faster than a fingerprint and a copy are read.
    virtual bool keeps_packed_for(int64_t batch) const {
        (void)batch;
        return keeps_packed();
    }
    // A number of its own, never used again.
    uint64_t serial() const { return serial_; }
    // Whether rows can be computed by themselves: band_step holds and, channels first, x_plane and out_plane are heeded.
    virtual bool takes_bands() const { return false; }
    // Whether what comes after a call is asked for meanwhile (ConvArgs::coming).
    virtual bool asks_ahead() const { return false; }
    // Whether outputs can be placed (ConvArgs::place), for problems that say so.
    virtual bool places_pixels() const { return false; }
    // Output rows that begin at a multiple of this have the same bits when they are computed by themselves.
    virtual int64_t band_step() const { return 1; }

    // Scratch of one thread, at most.
    virtual size_t scratch_bytes() const = 0;
    // The same with packed weights and with blocks cut to keep within `budget`, where they can be cut.
    virtual size_t scratch_within(size_t budget) const {
        (void)budget;
        return scratch_bytes();
    }
    // Scratch of a run with packed weights on as many threads as there are now, at most, for any batch.
    virtual size_t workspace_bytes() const;
    // A bound for workspace_bytes, kept by smaller blocks and then by fewer threads, where it can be kept. Set before
    // the first run.
    virtual void limit_workspace(size_t bytes) { limit_ = bytes; }
    // Threads that a run uses now.
    int threads() const { return scratch_share().threads; }

  protected:
    ScratchShare scratch_share() const;
    size_t workspace_limit() const { return limit_; }

  private:
    uint64_t serial_;
    size_t limit_ = SIZE_MAX;
};

// What rounding up each piece of scratch may add for one thread.
constexpr size_t kScratchRounding = 512;

struct ConvAlgorithm {
    const char* name;
    bool exact_on_integers;
    int64_t chain;   // longest chain of additions into one accumulator
    bool automatic;  // false: only on request
    // Empty if it takes the problem, else one sentence.
    std::string (*why_not)(const ConvProblem& problem, DType dtype);
    // Predicted seconds for one image on one thread.
    double (*predict)(const ConvProblem& problem, DType dtype);
    std::unique_ptr<ConvKernel> (*make)(const ConvProblem& problem, DType dtype);
};

const std::vector<ConvAlgorithm>& conv_algorithms();

// nullptr for an unknown name.
const ConvAlgorithm* find_conv_algorithm(const std::string& name);

// The automatic candidate with the least predicted time among those that accept; one choice per problem and machine.
const ConvAlgorithm& choose_conv_algorithm(const ConvProblem& problem, DType dtype);

// The same for a run within `limit` bytes of scratch, made ready; threads that the limit forbids count. Where no
// candidate keeps it, the one that needs least.
struct LimitedChoice {
    const ConvAlgorithm* algorithm;
    std::unique_ptr<ConvKernel> kernel;
};
LimitedChoice choose_within(const ConvProblem& problem, DType dtype, size_t limit);

// Every candidate with its predicted time and workspace or its reason, one per line; the chosen one, which needs
// `workspace`, is marked.
std::string describe_conv(const ConvProblem& problem, DType dtype, const std::string& chosen,
                          size_t workspace);

}  // namespace fastconv
