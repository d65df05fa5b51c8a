// The Winograd family's candidates: which tiles each name stands for, and what they are predicted to take. winograd_tiles.cpp
// runs them all.
//
// winograd_2x3, _4x3 and _6x3 are F(m x m, 3 x 3) for m = 2, 4, 6: 2.25, 4 or 5.06 times fewer multiplications than direct. The
// others choose along each axis among the tiles of at most six or eight inputs, for any kernel. [Lavin & Gray, arXiv:1509.09308]
#include <algorithm>

#include "algorithms/winograd_tiles.hpp"
#include "plan/candidates.hpp"
#include "runtime/machine.hpp"

namespace fastconv {

namespace {

constexpr int kShort = 6, kLong = 8;

std::string why_not_square(const ConvProblem& p) {
    if (p.kernel[0] != 1 || p.kernel[1] != 3 || p.kernel[2] != 3) return "Winograd needs a 3x3 kernel";
    if (p.stride[1] != 1 || p.stride[2] != 1) return "Winograd needs stride 1";
    if (p.dilation[1] != 1 || p.dilation[2] != 1) return "Winograd needs dilation 1";
    if (p.has_depth()) return "Winograd needs two-dimensional data";
    if (p.groups != 1) return "Winograd needs groups=1";
    if (p.in_channels == 0) return "there are no input channels";
    return "";
}

// Seconds for one image of a 3 x 3 kernel: a single one counts once, one of a batch of 16 twice; constants seen on AVX-512.
// Weights beyond half of L2 stream: at 7x7 F(4, 3) of 256, 384 and 512 channels takes 0.35, 0.81 and 1.50 ms for one image, and
// 0.12, 0.29 and 0.52 each for sixteen; F(2, 3) 0.25, 0.57, 1.02 and 0.19, 0.47, 0.84. From 64 MB on they came at half the rate.
double predict_runs(const ConvProblem& p, DType dtype, const Tiling& tiling) {
    const TileMachine m = winograd_machine(dtype);
    const double peak = peak_flops(dtype), lanes = static_cast<double>(m.lanes),
                 lane_cycle = 4.0 * lanes / peak;  // one vector FMA on each of two units
    const auto tiles = static_cast<double>(tiling.tiles()),
               positions = static_cast<double>(tiling.positions()),
               c = static_cast<double>(ceil_div(p.in_channels, m.lanes)),
               k = static_cast<double>(ceil_div(p.out_channels, m.lanes));
    const double multiply = tiles * positions * c * k * lanes * 2.0 * lanes / (0.85 * peak);
    // Channels first, rows of a few pixels are turned over by themselves (random problems: 1.4 times what was told).
    const double short_rows = !p.channels_last && p.out_size[2] < 6 ? 2 : 1;
    const double transforms = short_rows * tiles * lane_cycle * positions * (13.0 * c + 13.0 * k);
    const double weights = positions * c * k * lanes * lanes * static_cast<double>(m.item),
                 far = std::max(0.0, weights - 0.5 * static_cast<double>(l2_bytes())),
                 bandwidth = weights < 48e6 ? 21e9 : 12e9;
    // Three quarters of the shorter of the two are hidden behind the longer.
    const auto time = [&](int64_t batch) {
        const int64_t blocks = ceil_div(batch * tiling.tiles(), run_size(p, tiling, m).tiles);
        const double passes = static_cast<double>(blocks) / static_cast<double>(batch);
        const double stream = passes * far / bandwidth;
        const double work = multiply + transforms;
        return std::max(work, stream) + 0.25 * std::min(work, stream);
    };
    return p.batch_hint > 0 ? time(p.batch_hint) : (time(1) + 2 * time(16)) / 3;
}

std::string why_not_longest(const ConvProblem& p, DType dtype, int longest) {
    if (p.groups != 1) return "Winograd needs groups=1";
    if (p.in_channels == 0) return "there are no input channels";
    Tiling tiling;
    if (!best_tiling(p, longest, winograd_machine(dtype), tiling))
        return "Winograd needs an axis of height or width with stride 1 and two taps or more";
    const TileAxis& along = tiling.axis[2];
    if (along.columns(1) * tiling.axis[1].size > 4096) return "the dilation is too wide for a strip of tiles";
    return "";
}

double predict_longest(const ConvProblem& p, DType dtype, int longest) {
    Tiling tiling;
    best_tiling(p, longest, winograd_machine(dtype), tiling);
    // The names above come first where they stand for the same tiles. F(3, 3) lies between them: 512 channels at 7x7, one image
    // and sixteen, 1.10 and 10.3 ms against 1.02 and 13.6 of F(2, 3) and 1.50 and 8.4 of F(4, 3).
    if (why_not_square(p).empty() && tiling.one_input()) {
        const int64_t positions = tiling.positions();
        const bool named = positions == 16 || positions == 36;
        return (named ? 1.08 : 1) * predict_runs(p, dtype, tiling);
    }
    const double seconds = tiling_cycles(p, tiling, winograd_machine(dtype)) / 3e9;  // as peak_flops counts
    // Lanes that no channel fills: 3 > 32 channels with 7x7 took 1.27 times what the count of vectors says.
    return (p.in_channels < 8 ? 1.25 : 1) * seconds;
}

std::unique_ptr<ConvKernel> make_longest(const ConvProblem& p, DType dtype, int longest) {
    Tiling tiling;
    best_tiling(p, longest, winograd_machine(dtype), tiling);
    return make_winograd_tiles(p, dtype, tiling);
}

}  // namespace

#define FASTCONV_SQUARE(m)                                                                          \
    std::string why_not_winograd_##m##x3(const ConvProblem& p, DType) { return why_not_square(p); } \
    double predict_winograd_##m##x3(const ConvProblem& p, DType dtype) {                            \
        return predict_runs(p, dtype, square_tiling(p, m));                                         \
    }                                                                                               \
    std::unique_ptr<ConvKernel> make_winograd_##m##x3(const ConvProblem& p, DType dtype) {          \
        return make_winograd_tiles(p, dtype, square_tiling(p, m));                                  \
    }
FASTCONV_SQUARE(2)
FASTCONV_SQUARE(4)
FASTCONV_SQUARE(6)
#undef FASTCONV_SQUARE

#define FASTCONV_LONGEST(tile, longest)                                                   \
    std::string why_not_winograd_##tile(const ConvProblem& p, DType dtype) {              \
        return why_not_longest(p, dtype, longest);                                        \
    }                                                                                     \
    double predict_winograd_##tile(const ConvProblem& p, DType dtype) {                   \
        return predict_longest(p, dtype, longest);                                        \
    }                                                                                     \
    std::unique_ptr<ConvKernel> make_winograd_##tile(const ConvProblem& p, DType dtype) { \
        return make_longest(p, dtype, longest);                                           \
    }
FASTCONV_LONGEST(tile6, kShort)
FASTCONV_LONGEST(tile8, kLong)
#undef FASTCONV_LONGEST

}  // namespace fastconv
