// The Winograd family's candidates: which tiles each name stands for, and what they are predicted to take. winograd_tiles.cpp
// runs them all.
//
// winograd_2x3, _4x3 and _6x3 are F(m x m, 3 x 3) for m = 2, 4, 6: 2.25, 4 or 5.06 times fewer multiplications than direct. The
// others choose along each axis among the tiles of at most six or eight inputs, for any kernel. [Lavin & Gray, arXiv:1509.09308]
// With a stride: GFLOP/s on one thread, one image, direct beside it: 3 x 3 with stride 2, 128 channels at 56 x 56 173 > 217 (NHWC
// 177 > 205), 32 > 64 at 208 x 208 150 > 171 (171 > 190), 5 x 5 64 > 64 at 32 x 32 144 > 312, 7 x 7 32 > 64 at 64 x 64 150 > 390.
#include <algorithm>

#include "algorithms/winograd_tiles.hpp"
#include "plan/candidates.hpp"
#include "runtime/machine.hpp"

namespace fastconv {

namespace {

constexpr int kShort = 6, kLong = 8;
constexpr int64_t kLeastOfGroup = 4, kLongestAxis = int64_t{1} << 26;

// What every tiling asks for. Where rows and columns come from is written into tables (WinogradInputs): of 2^28 rows in 6 s.
std::string why_not_channels(const ConvProblem& p) {
    for (int a = 0; a < 3; a++)
        if (p.stride[a] * p.out_size[a] > kLongestAxis) return "Winograd takes axes of up to 2^26";
    if (p.in_channels == 0) return "there are no input channels";
    if (p.groups > 1 && std::min(p.group_in(), p.group_out()) < kLeastOfGroup)
        return "Winograd needs four channels a group, or groups=1";
    return "";
}

std::string why_not_square(const ConvProblem& p) {
    if (p.kernel[0] != 1 || p.kernel[1] != 3 || p.kernel[2] != 3) return "Winograd needs a 3x3 kernel";
    if (p.stride[1] != 1 || p.stride[2] != 1) return "Winograd needs stride 1";
    if (p.dilation[1] != 1 || p.dilation[2] != 1) return "Winograd needs dilation 1";
    if (p.has_depth()) return "Winograd needs two-dimensional data";
    return why_not_channels(p);
}

// Seconds for one image, where every tile of outputs reads one tile of inputs; cycles are those that peak_flops counts.
double predict_runs(const ConvProblem& p, DType dtype, const Tiling& tiling) {
    return run_cycles(p, tiling, winograd_machine(dtype)) / 3e9;
}

std::string why_not_strip(const Tiling& tiling) {
    return tiling.axis[2].columns(1) * tiling.axis[1].size > 4096
               ? "the dilation is too wide for a strip of tiles"
               : "";
}

std::string why_not_longest(const ConvProblem& p, DType dtype, int longest) {
    if (const std::string why = why_not_channels(p); !why.empty()) return why;
    Tiling tiling;
    if (!best_tiling(p, longest, false, winograd_machine(dtype), tiling))
        return "Winograd needs an axis of height or width with stride 1 and two taps or more";
    return why_not_strip(tiling);
}

double predict_longest(const ConvProblem& p, DType dtype, int longest) {
    Tiling tiling;
    best_tiling(p, longest, false, winograd_machine(dtype), tiling);
    // The names above come first where they stand for the same tiles. F(3, 3) lies between them: 512 channels at 7x7, one image
    // and sixteen, 1.10 and 10.3 ms against 1.02 and 13.6 of F(2, 3) and 1.50 and 8.4 of F(4, 3).
    const bool square = why_not_square(p).empty();
    if (square && tiling.one_input()) {
        const int64_t positions = tiling.positions();
        const bool named = positions == 16 || positions == 36;
        return (named ? 1.08 : 1.04) * predict_runs(p, dtype, tiling);
    }
    const double seconds = tiling_cycles(p, tiling, winograd_machine(dtype)) / 3e9;  // as peak_flops counts
    // Lanes that no channel fills: random problems took 1.1 times what others do of what they are told.
    return (square ? 1.08 : 1) * (p.in_channels < 8 ? 1.15 : 1) * seconds;
}

std::unique_ptr<ConvKernel> make_longest(const ConvProblem& p, DType dtype, int longest) {
    Tiling tiling;
    best_tiling(p, longest, false, winograd_machine(dtype), tiling);
    return make_winograd_tiles(p, dtype, tiling);
}

}  // namespace

std::string why_not_winograd_stride2(const ConvProblem& p, DType dtype) {
    if (p.stride[1] == 1 && p.stride[2] == 1) return "this needs a stride of 2 or more";
    if (p.groups != 1) return "Winograd needs groups=1";
    if (const std::string why = why_not_channels(p); !why.empty()) return why;
    Tiling tiling;
    if (!best_tiling(p, kShort, true, winograd_machine(dtype), tiling))
        return "this needs an axis of height or width with stride 2 to 4, a longer kernel and dilation 1";
    return why_not_strip(tiling);
}
double predict_winograd_stride2(const ConvProblem& p, DType dtype) {
    Tiling tiling;
    best_tiling(p, kShort, true, winograd_machine(dtype), tiling);
    // Random problems of 5x5 and 7x7 took six sevenths of it or less.
    const double factor = p.kernel[1] > 3 && p.kernel[2] > 3 ? 0.85 : 1;
    if (tiling.one_input()) return factor * predict_runs(p, dtype, tiling);
    return factor * tiling_cycles(p, tiling, winograd_machine(dtype)) / 3e9;
}
std::unique_ptr<ConvKernel> make_winograd_stride2(const ConvProblem& p, DType dtype) {
    Tiling tiling;
    best_tiling(p, kShort, true, winograd_machine(dtype), tiling);
    return make_winograd_tiles(p, dtype, tiling);
}

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
