// What the drivers of depthwise convolution share: what memory costs them, and which kernel takes a problem.
#pragma once

#include <memory>

#include "plan/candidates.hpp"

namespace fastconv {

// Multiply-adds are an eighth of what these kernels take: memory is the rest.
template <class T>
double depthwise_seconds(const ConvProblem& p, int64_t batch) {
    return least_seconds<T>(8 * p.flops() * batch);
}

// Channels first, planes whose rows are shorter than a vector; null for a problem that is none of these.
template <class T>
std::unique_ptr<ConvKernel> make_depthwise_small(const ConvProblem& problem);

template <class T>
bool depthwise_small_takes(const ConvProblem& problem);

// Channels first, by the kernels of channels last; `rows` runs where the workspace is limited to less than
// this takes.
template <class T>
std::unique_ptr<ConvKernel> make_depthwise_turned(const ConvProblem& problem,
                                                  std::unique_ptr<ConvKernel> rows);
template <class T>
bool depthwise_turned_takes(const ConvProblem& problem);

// Channels last: whether a tile of its own computes the tap columns, and no load serves one tap only.
bool depthwise_tiled(const ConvProblem& problem, DType dtype);

template <class T>
std::unique_ptr<ConvKernel> make_depthwise_last(const ConvProblem& problem);

}  // namespace fastconv
