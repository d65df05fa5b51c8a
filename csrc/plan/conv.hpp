// The candidates for a forward convolution: one ordered list, best first. Each accepts a problem or says why
// not.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "plan/problem.hpp"

namespace fastconv {

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
    // A number of its own, never used again.
    uint64_t serial() const { return serial_; }
    // Scratch of one thread, at most.
    virtual size_t scratch_bytes() const = 0;

  private:
    uint64_t serial_;
};

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

// Every candidate with its predicted time or its reason, one per line, the chosen one marked.
std::string describe_conv(const ConvProblem& problem, DType dtype, const std::string& chosen);

}  // namespace fastconv
