// The depthwise weight gradient of 3 x 3 taps, channels last: read where it lies, no copy of x or dY.
//
// It is bound by memory. Tiles of a few outputs go through all channels in the order of memory, with nine sums for each vector
// of channels in L1; what the next row of tiles will read is asked for meanwhile. Pixels outside the image are a line of
// zeros. (Batch 8, one thread: 144 channels at 56 x 56 2.9 ms by packed copies, 1.5 so; 96 at 112 x 112, stride 2, 5.0 and 3.5;
// 576 at 14 x 14 0.80 and 0.47. Dropped: channels outside, pixels inside, sums in registers, which steps through memory by
// whole pixels: 1.9, 4.0, 0.66 ms.)
//
// Sums of at most kBandTiles tiles are added to those of a copy; copies are of fixed bands of rows, combined by a fixed tree.
#include <algorithm>
#include <cmath>

#include "algorithms/backward_weight_job.hpp"

namespace fastconv {

namespace {

constexpr int64_t kBandTiles = 64;
constexpr int64_t kLongestPatch = 5 * 9;  // pixels

template <class T>
struct Depthwise {
    const ConvProblem& p;
    const T *dy, *x;
    const GradientLoops<T>& loops = gradient_loops<T>();
    const int64_t L = loops.lanes, stride = p.stride[1], down = loops.depthwise_rows,
                  along = kDepthwiseColumns;
    const int64_t channels = p.in_channels, blocks = ceil_div(channels, L);
    const int64_t height = p.out_size[1], width = p.out_size[2];
    const int64_t x_row = p.in_size[2] * channels, dy_row = width * channels;
    const int64_t tiles_x = ceil_div(width, along), lines = ceil_div(height, down);
    const int64_t band_lines = std::min(lines, std::max<int64_t>(1, kBandTiles / tiles_x)),
                  parts = ceil_div(lines, band_lines);
    const Sums sums{blocks, 9, L, blocks, L, channels};

    // Adds the tiles of rows down * line .. of image n for the channels c0 .. c1 - 1.
    void add(int64_t n, int64_t line, int64_t c0, int64_t c1, const T* zeros, T* sum, T* bias) const {
        const int64_t rows = (down - 1) * stride + 3, columns = (along - 1) * stride + 3;
        const T *patch[kLongestPatch], *outputs[2 * kDepthwiseColumns];
        const DepthwiseTile<T> tile{patch, outputs, c1 - c0, sum, bias, down * stride * x_row, down * dy_row};
        const T* const image = x + n * p.in_size[1] * x_row + c0;
        for (int64_t left = 0; left < width; left += along) {
            for (int64_t i = 0; i < rows; i++) {
                const int64_t y = line * down * stride - p.pad_lo[1] + i;
                for (int64_t j = 0; j < columns; j++) {
                    const int64_t at = left * stride - p.pad_lo[2] + j;
                    const bool is_inside = y >= 0 && y < p.in_size[1] && at >= 0 && at < p.in_size[2];
                    patch[i * columns + j] = is_inside ? image + y * x_row + at * channels : zeros;
                }
            }
            for (int64_t i = 0; i < down; i++)
                for (int64_t j = 0; j < along; j++) {
                    const int64_t y = line * down + i;
                    outputs[i * along + j] = y < height && left + j < width
                                                 ? dy + (n * height + y) * dy_row + (left + j) * channels + c0
                                                 : zeros;
                }
            loops.depthwise[stride - 1](tile);
        }
    }

    // False where a sum is not finite: outputs beyond the image count as zeros, which times an inf of x are NaN.
    bool run(int64_t batch, T* dw, T* db) const {
        const int64_t bands = batch * parts, copies = std::min(bands, kMaxCopies);
        const int64_t tiles = ceil_div(channels, kTileColumns);
        ScratchFrame frame;
        T* const all = frame.take<T>(copies * sums.size());
        T* const bias = frame.take<T>(copies * blocks * L);
        parallel_for(copies * tiles, [&](int64_t task) {
            const int64_t copy = task / tiles;
            const Range blocks_here = part_of(blocks, tiles, task % tiles),
                        mine = part_of(bands, copies, copy);
            const int64_t c0 = blocks_here.begin * L, c1 = std::min(channels, blocks_here.end * L),
                          count = blocks_here.size() * L;
            ScratchFrame inner;
            T* const zeros = inner.take<T>(count);
            T* const sum = inner.take<T>(10 * count);  // of a band, and its bias
            std::fill_n(zeros, count, T(0));
            T* const to = all + copy * sums.size() + c0 * 9;
            T* const to_bias = bias + copy * blocks * L + c0;
            std::fill_n(to, 9 * count, T(0));
            std::fill_n(to_bias, count, T(0));
            for (int64_t i = mine.begin; i < mine.end; i++) {
                const Range band = part_of(lines, parts, i % parts);
                std::fill_n(sum, 10 * count, T(0));
                for (int64_t line = band.begin; line < band.end; line++)
                    add(i / parts, line, c0, c1, zeros, sum, db == nullptr ? nullptr : sum + 9 * count);
                loops.add_rows(sum, 1, 9 * count, to);
                loops.add_rows(sum + 9 * count, 1, count, to_bias);
            }
        });
        write_weight(p, sums, all, copies, dw);
        if (db != nullptr) write_bias(sums, bias, copies, db);
        return std::all_of(dw, dw + p.weights(), [](T sum) { return std::isfinite(sum); });
    }
};

}  // namespace

template <class T>
bool takes_depthwise(const ConvProblem& p) {
    return p.channels_last && p.group_in() == 1 && p.group_out() == 1 &&
           2 * p.in_channels > gradient_loops<T>().lanes && p.kernel[0] == 1 && p.kernel[1] == 3 &&
           p.kernel[2] == 3 && p.stride[1] == p.stride[2] && p.stride[1] <= 2 && p.dilation[1] == 1 &&
           p.dilation[2] == 1 && p.in_size[0] == 1 && p.out_size[0] == 1 && p.pad_lo[0] == 0;
}

template <class T>
bool backward_weight_depthwise(const ConvProblem& p, int64_t batch, const T* dy, const T* x, T* dw, T* db) {
    return Depthwise<T>{p, dy, x}.run(batch, dw, db);
}

template bool takes_depthwise<float>(const ConvProblem&);
template bool takes_depthwise<double>(const ConvProblem&);
template bool backward_weight_depthwise(const ConvProblem&, int64_t, const float*, const float*, float*,
                                        float*);
template bool backward_weight_depthwise(const ConvProblem&, int64_t, const double*, const double*, double*,
                                        double*);

}  // namespace fastconv
