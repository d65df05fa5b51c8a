// What the drivers of depthwise convolution share: tasks, activations, and which kernel takes a problem.
#pragma once

#include <algorithm>
#include <memory>

#include "algorithms/microkernel_kernels.hpp"
#include "plan/candidates.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

inline Clamp clamp_of(Activation activation) {
    return activation == Activation::relu    ? Clamp::relu
           : activation == Activation::relu6 ? Clamp::relu6
                                             : Clamp::none;
}

inline bool needs_pass(Activation activation) {
    return activation != Activation::none && clamp_of(activation) == Clamp::none;
}

// Multiply-adds are an eighth of what these kernels take: memory is the rest.
template <class T>
double depthwise_seconds(const ConvProblem& p, int64_t batch) {
    return least_seconds<T>(8 * p.flops() * batch);
}

// Tasks for `units` equal pieces of work of `each` multiply-adds; 100e3 are worth a task of their own.
inline int64_t task_count(int64_t units, double each) {
    const double worth = std::max(1.0, units * each / 100e3);
    return std::min<int64_t>({units, 4 * int64_t{num_threads()}, static_cast<int64_t>(worth)});
}

// Channels first, planes whose rows are shorter than a vector; null for a problem that is none of these.
template <class T>
std::unique_ptr<ConvKernel> make_depthwise_small(const ConvProblem& problem);

}  // namespace fastconv
