#include "algorithms/direct.hpp"

#include <algorithm>

#include "plan/candidates.hpp"
#include "simd/dispatch.hpp"

namespace fastconv {

std::string why_not_direct(const ConvProblem&, DType) { return ""; }

double predict_direct(const ConvProblem& problem, DType dtype) {
    // Few output channels per group leave lanes (channels last) or rows (channels first) of the tile empty.
    const double full = problem.channels_last ? (dtype == DType::f32 ? 16 : 8) : 4;
    const double use = std::min(1.0, problem.group_out() / full);
    // Channels first, every finished tile is copied to its place.
    const double outputs = static_cast<double>(problem.out_channels) * problem.out_pixels();
    const double copied = problem.channels_last ? 0 : outputs * 0.25e-9;
    return problem.flops() / (0.8 * use * use * peak_flops(dtype)) + copied;
}

std::unique_ptr<ConvKernel> make_direct(const ConvProblem& problem, DType dtype) {
    if (dtype == DType::f32)
        return problem.channels_last ? make_direct_last<float>(problem) : make_direct_first<float>(problem);
    return problem.channels_last ? make_direct_last<double>(problem) : make_direct_first<double>(problem);
}

// Two FMA units at 3 GHz: only ratios matter for the choice.
double peak_flops(DType dtype) {
    const double lanes = active_isa() == Isa::avx512 ? 16 : active_isa() == Isa::avx2 ? 8 : 4;
    return 2 * 2 * 3e9 * lanes * (dtype == DType::f32 ? 1 : 0.5);
}

}  // namespace fastconv
