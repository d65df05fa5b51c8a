// The weights of Winograd's tiles, transformed and in the order of use. winograd_tiles.cpp multiplies with them.
#pragma once

#include <algorithm>

#include "algorithms/rows_kernels.hpp"
#include "algorithms/winograd_lines_kernels.hpp"
#include "algorithms/winograd_tiling.hpp"
#include "plan/conv.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

// Sizes of a problem without groups in vectors, and the packing: [panel][position][group][channel][lane], then the weights as they
// are, [panel][tap][channel][lane], for tiles that hold numbers which are not finite.
template <class T>
class WinogradWeights {
  public:
    static constexpr int kPanelVectors = 2;

    WinogradWeights(const ConvProblem& p, const Tiling& tiling)
        : problem(p),
          tiling(tiling),
          lanes(micro<T>().lanes),
          width(std::min<int64_t>(kPanelVectors, ceil_div(p.out_channels, lanes)) * lanes),
          blocks(ceil_div(p.in_channels, lanes)),
          length(blocks == 1 ? p.in_channels : lanes),
          panels(ceil_div(p.out_channels, width)),
          panel_size(tiling.all_products() * blocks * length * width) {}

    const ConvProblem problem;
    const Tiling tiling;
    const int64_t lanes, width;    // of a vector; of a panel
    const int64_t blocks, length;  // of input channels; channels of one
    const int64_t panels, panel_size;

    int64_t size() const {
        return panels * panel_size + problem.taps() * problem.in_channels * panels * width;
    }
    // The last panel is one vector wide where that is enough.
    int vectors_of(int64_t panel) const {
        return problem.out_channels - panel * width > lanes ? kPanelVectors : 1;
    }

    // Where the weights of one panel and position stand.
    const T* of(const T* packed, int64_t panel, int64_t position) const {
        return packed + panel * panel_size +
               tiling.products_before(position) * blocks * length * vectors_of(panel) * lanes;
    }
    // Where the weights of one tap and one panel stand as they are, channels `width` apart.
    const T* plain(const T* packed, int64_t panel, int64_t tap) const {
        return packed + panels * panel_size + (panel * problem.taps() + tap) * problem.in_channels * width;
    }

    // A block of channels is transformed in L2 and copied from there: positions of many channels lie a power of two apart, and
    // stores of single lines put each other out of the cache: 512 > 512 channels 24 > 14 ms.
    void pack(const T* from, T* to) const {
        const ConvProblem& p = problem;
        const TileAxis &tall = tiling.axis[1], &wide = tiling.axis[2];
        const WeightMatrix down(tall), along(wide);
        const int64_t groups = tiling.groups(), positions = tiling.positions(), all = tiling.all_products();
        const auto pack_block = [&](int64_t task) {
            const int64_t panel = task / blocks, block = task % blocks,
                          channels = std::min(length, p.in_channels - block * length);
            const int64_t row = vectors_of(panel) * lanes, piece = length * row, step = piece + lanes;
            T* const begin = to + panel * panel_size;
            if (block == 0) std::fill(begin + all * blocks * piece, begin + panel_size, T(0));
            ScratchFrame frame;
            T* const pieces = frame.take<T>(positions * step);
            std::fill_n(pieces, positions * step, T(0));
            const int64_t tap_step = channels * width, tap_row = p.kernel[2] * tap_step;
            T* const taps = frame.take<T>(p.taps() * tap_step);
            take_taps(from, panel, block * length, channels, taps);
            for (int64_t tap = 0; tap < p.taps(); tap++)
                std::copy_n(taps + tap * tap_step, tap_step,
                            const_cast<T*>(plain(to, panel, tap)) + block * length * width);
            for (int64_t g = 0; g < groups; g++) {
                // Of the groups of taps, or of the phases:
                const int64_t part_w = g % wide.parts(0), part_h = g / wide.parts(0) % tall.parts(0),
                              d = g / wide.parts(0) / tall.parts(0);
                const int64_t h = tall.phases > 1 ? part_h : part_h * tall.taps,
                              w = wide.phases > 1 ? part_w : part_w * wide.taps;
                const T* const first = taps + (d * p.kernel[1] + h) * tap_row + w * tap_step;
                const auto rows = std::min<int64_t>(tall.taps, ceil_div(p.kernel[1] - h, tall.phases)),
                           columns = std::min<int64_t>(wide.taps, ceil_div(p.kernel[2] - w, wide.phases));
                for (int64_t i = 0; i < channels; i++)
                    for (int64_t lane = 0; lane < row; lane += lanes)
                        winograd_lines_of<T>().weight(
                            {down.at, tall.size, static_cast<int>(rows), tall.phases * tap_row},
                            {along.at, wide.size, static_cast<int>(columns), wide.phases * tap_step},
                            first + i * width + lane, pieces + i * row + lane, step);
                for (int64_t at = 0; at < positions; at++) {
                    const int64_t parts_h = tall.parts(at / wide.size), parts_w = wide.parts(at % wide.size);
                    if (part_h >= parts_h || part_w >= parts_w) continue;
                    const int64_t to_part =
                        tiling.products_before(at) + (d * parts_h + part_h) * parts_w + part_w;
                    std::copy_n(pieces + at * step, piece, begin + (to_part * blocks + block) * piece);
                }
            }
        };
        parallel_for(panels * blocks, pack_block);
    }

  private:
    // The weights between some channels and the outputs of a panel, [tap][channel][output], zero beyond the last output.
    void take_taps(const T* from, int64_t panel, int64_t c, int64_t channels, T* to) const {
        const ConvProblem& p = problem;
        const int64_t first = panel * width, count = std::min(width, p.out_channels - first),
                      all = p.in_channels;
        if (p.channels_last) {
            for (int64_t tap = 0; tap < p.taps(); tap++) {
                for (int64_t i = 0; i < channels; i++, to += width) {
                    std::copy_n(from + (tap * all + c + i) * p.out_channels + first, count, to);
                    std::fill(to + count, to + width, T(0));
                }
            }
            return;
        }
        if (count <= lanes) std::fill_n(to, p.taps() * channels * width, T(0));
        for (int64_t lane = 0; lane < count; lane += lanes)
            rows_of<T>().panel(from + ((first + lane) * all + c) * p.taps(), all * p.taps(),
                               std::min(lanes, count - lane), channels, p.taps(), to + lane, width);
    }
};

}  // namespace fastconv
