// The three functions of every candidate of algorithms.inc; each is defined beside its algorithm.
#pragma once

#include "plan/conv.hpp"

namespace fastconv {

#define FASTCONV_ALGORITHM(name, exact, chain, automatic)                \
    std::string why_not_##name(const ConvProblem& problem, DType dtype); \
    double predict_##name(const ConvProblem& problem, DType dtype);      \
    std::unique_ptr<ConvKernel> make_##name(const ConvProblem& problem, DType dtype);
#include "plan/algorithms.inc"
#undef FASTCONV_ALGORITHM

// Multiply-adds per second of one core at full rate, taken as the denominator of every prediction.
double peak_flops(DType dtype);

// A cycle of a prediction that was fitted to times (at 3 GHz): what was measured, and the quarter by which the other predictions
// are too long on the machine that all were fitted on.
constexpr double kCycleSeconds = 1.25 / 3e9;

// What a job of so many operations takes at the least, as parallel_for wants to know it.
template <class T>
double least_seconds(double flops) {
    return flops / peak_flops(sizeof(T) == 4 ? DType::f32 : DType::f64);
}

}  // namespace fastconv
