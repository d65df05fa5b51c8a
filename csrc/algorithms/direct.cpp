#include "algorithms/direct.hpp"

#include <algorithm>
#include <cmath>

#include "plan/candidates.hpp"
#include "simd/dispatch.hpp"

namespace fastconv {

std::string why_not_direct(const ConvProblem&, DType) { return ""; }

namespace {

// Cycles for one image on one core that starts two vector multiply-adds a cycle. The constants were fitted to 220 random
// layers (1x1 to 5x5, stride 1 and 2, 4 to 112 pixels wide, 8 to 2048 channels; AVX-512, one thread): between the two
// orientations the faster one was chosen, or one within 5% of it, on 91% of them, and the mean loss was 1.7%.
struct Cycles {
    const ConvProblem& p;
    double lanes, taps, steps, outputs, weights;
    bool one_line;  // 1x1 without padding: the pixels are one line

    Cycles(const ConvProblem& problem, DType dtype)
        : p(problem),
          lanes(vector_lanes(dtype)),
          taps(static_cast<double>(p.taps())),
          steps(static_cast<double>(p.group_in()) * taps),
          outputs(static_cast<double>(p.out_channels) * static_cast<double>(p.out_pixels())),
          weights(static_cast<double>(p.weights())),
          one_line(p.taps() == 1 && !p.reads_padding()) {}

    static double vector_lanes(DType dtype) {
        const double bytes = active_isa() == Isa::avx512 ? 64 : active_isa() == Isa::avx2 ? 32 : 16;
        return dtype == DType::f32 ? bytes / 4 : bytes / 8;
    }
    // Input elements that a padded copy of a whole image takes.
    double copied() const {
        double n = static_cast<double>(p.in_channels);
        for (int a = 0; a < 3; a++) {
            const int64_t reach = one_line ? 1 : (p.kernel[a] - 1) * p.dilation[a] + 1;
            n *= static_cast<double>(one_line ? p.out_size[a] : (p.out_size[a] - 1) * p.stride[a] + reach);
        }
        return n;
    }
    // Blocks of channels that sum a chain each.
    double chains() const { return std::max(1.0, std::round(steps / kChainAim)); }
    // Work per element on vectors narrower than those of the fit.
    double narrow() const { return 16 / lanes; }

    // Every tile is a few pixels (four at least, for the units' latency) of one output row by two vectors of channels.
    double channels_in_lanes() const {
        const double rows = active_isa() == Isa::avx512 ? 14 : 6, vectors = std::ceil(p.group_out() / lanes);
        const double length =
            one_line ? static_cast<double>(p.out_pixels()) : static_cast<double>(p.out_size[2]);
        const double lines = static_cast<double>(p.out_pixels()) / length,
                     groups = static_cast<double>(p.groups);
        // Chains of few channels read a line of the cache for each of their numbers: one vector of outputs with 5x5x5, 9x9
        // or 15x15 of 3 to 16 channels took twice the time.
        const bool short_of_channels = chains() > 1 && static_cast<double>(p.group_in()) < 6 * chains();
        const double thin = vectors == 1 && short_of_channels ? 2 : 1;
        const double multiply = groups * lines * std::max(length, 4.0) * steps * vectors / 2 * thin;
        const double tiles = groups * lines * std::ceil(length / rows) * std::ceil(vectors / 2) * chains();
        const bool in_place =
            p.channels_last && !p.reads_padding() && (!one_line || p.in_pixels() == p.out_pixels());
        if (p.channels_last)
            return 1.27 * multiply + 160 * tiles + 0.17 * weights + (in_place ? 0 : 0.7 * copied());
        if (one_line) return 1.34 * multiply + 350 * tiles + narrow() * (0.15 * weights + 0.9 * copied());
        return 1.27 * multiply + 160 * tiles + narrow() * (0.17 * weights + 0.85 * copied() + outputs);
    }

    // Output rows of a plane are one run of pixels with the columns between them. Rows are copied one by one, short ones all at
    // once, and tiles are written row by row: small planes cost more by that than by their sums. (Fitted to 1,500 random
    // problems, nine in ten within a third; times a quarter, as in candidates.hpp.)
    double pixels_in_lanes() const {
        const double reach = one_line ? 0 : static_cast<double>((p.kernel[2] - 1) * p.dilation[2]);
        const double between = reach / static_cast<double>(p.stride[2]),
                     width = static_cast<double>(p.out_size[2]);
        const double lines = static_cast<double>(p.out_size[1]), planes = static_cast<double>(p.out_size[0]);
        const double vectors = std::ceil((lines * width + (lines - 1) * between) / lanes),
                     outputs_each = static_cast<double>(p.group_out());
        const double groups = planes * static_cast<double>(p.groups);
        const double multiply = vectors * steps * groups * std::max(outputs_each, 2.0) / 2;
        const double tiles = groups * std::ceil(vectors / 4) * std::ceil(outputs_each / 6) * chains();
        const double elements = copied() * (one_line ? 1 : planes_of_kernel());
        const double long_row = (width - 1) * static_cast<double>(p.stride[2]) + reach + 1;
        const double rows = one_line ? 0 : elements / long_row;
        const double row = p.stride[2] > 1 ? 12 : width + between <= 64 ? 2.9 : 18.7;
        const double element = p.stride[2] > 1 ? 2.2 : 0.33;
        return 1.25 * (0.58 * multiply + tiles * (60 + 3.8 * steps / chains()) + row * rows +
                       5 * static_cast<double>(p.out_channels) * planes * lines) +
               0.45 * weights + narrow() * (element * elements + 0.28 * outputs);
    }
    // Planes of a kernel with depth are copied once for every output plane.
    double planes_of_kernel() const { return static_cast<double>(p.kernel[0]); }
};

// An image of one channel and its filter are the same in both layouts, and lanes want its pixels: a 31x31 filter of
// 1024x1024 pixels took 330 ms channels last and takes 30.
ConvProblem in_planes(ConvProblem problem) {
    if (problem.in_channels == 1 && problem.out_channels == 1) problem.channels_last = false;
    return problem;
}

}  // namespace

bool lanes_pay(const ConvProblem& problem, DType dtype) {
    const ConvProblem p = problem.whole();
    const Cycles cycles(p, dtype);
    return p.channels_last || cycles.channels_in_lanes() < cycles.pixels_in_lanes();
}

double predict_direct(const ConvProblem& problem, DType dtype) {
    const ConvProblem p = in_planes(problem);
    const Cycles cycles(p, dtype);
    double least = cycles.channels_in_lanes();
    if (!p.channels_last) least = std::min(least, cycles.pixels_in_lanes());
    return least * 4 * cycles.lanes / peak_flops(dtype);
}

std::unique_ptr<ConvKernel> make_direct(const ConvProblem& written, DType dtype) {
    const ConvProblem problem = in_planes(written);
    const bool lanes = lanes_pay(problem, dtype);
    if (dtype == DType::f32)
        return lanes ? make_direct_lanes<float>(problem) : make_direct_first<float>(problem);
    return lanes ? make_direct_lanes<double>(problem) : make_direct_first<double>(problem);
}

// Two FMA units at 3 GHz: only ratios matter for the choice.
double peak_flops(DType dtype) { return 2 * 2 * 3e9 * Cycles::vector_lanes(dtype); }

}  // namespace fastconv
