// First layers, channels last, with output channels in lanes: see first_layer_stem.cpp.
#pragma once

#include <memory>
#include <string>

#include "plan/conv.hpp"

namespace fastconv {

// Beyond what any first layer must be. Empty, or why not.
std::string why_not_stem(const ConvProblem& problem, DType dtype);
double predict_stem(const ConvProblem& problem);
std::unique_ptr<ConvKernel> make_stem(const ConvProblem& problem);

}  // namespace fastconv
