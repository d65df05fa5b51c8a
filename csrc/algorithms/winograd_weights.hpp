// The weights of Winograd's tiles, transformed and in the order of use. winograd_tiles.cpp multiplies with them.
#pragma once

#include <algorithm>

#include "algorithms/winograd_lines_kernels.hpp"
#include "algorithms/winograd_tiling.hpp"
#include "plan/conv.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

// Sizes of a problem in vectors, and the packing: [panel][position][group][channel][lane], then the weights as they are,
// [tap][channel][K], for tiles that hold numbers which are not finite.
template <class T>
class WinogradWeights {
  public:
    static constexpr int kPanelVectors = 2;

    WinogradWeights(const ConvProblem& p, const Tiling& tiling)
        : problem(p),
          tiling(tiling),
          lanes(micro<T>().lanes),
          width(kPanelVectors * lanes),
          blocks(ceil_div(p.in_channels, lanes)),
          length(blocks == 1 ? p.in_channels : lanes),
          panels(ceil_div(p.out_channels, width)),
          panel_size(tiling.positions() * tiling.groups() * blocks * length * width) {}

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

    void pack(const T* from, T* to) const {
        const ConvProblem& p = problem;
        const WeightMatrix down(tiling.axis[1]), along(tiling.axis[2]);
        const int64_t c_all = p.in_channels, taps = p.taps(), row = panels * width;
        const int64_t k_step = p.channels_last ? 1 : c_all * taps,
                      c_step = p.channels_last ? p.out_channels : taps;
        const int64_t tap_step = p.channels_last ? c_all * p.out_channels : 1;
        T* const plain = to + panels * panel_size;
        parallel_for(panels * blocks, [&](int64_t task) {
            const int64_t panel = task / blocks, block = task % blocks;
            const int vectors = vectors_of(panel);
            T* const begin = to + panel * panel_size;
            const int64_t used = panel_size * vectors / kPanelVectors;
            if (block == 0) std::fill(begin + used, begin + panel_size, T(0));
            for (int64_t i = 0; i < length; i++) {
                const int64_t c = block * lanes + i;
                for (int v = 0; v < kPanelVectors; v++) {
                    const int64_t first = panel * width + v * lanes,
                                  count =
                                      c < c_all ? std::clamp<int64_t>(p.out_channels - first, 0, lanes) : 0;
                    const T* const at = from + first * k_step + c * c_step;
                    if (c < c_all)
                        for (int64_t tap = 0; tap < taps; tap++)
                            for (int64_t j = 0; j < lanes; j++)
                                plain[(tap * c_all + c) * row + first + j] =
                                    j < count ? at[j * k_step + tap * tap_step] : T(0);
                    if (v < vectors)
                        pack_channel(at, k_step, tap_step, count, down, along,
                                     begin + c * vectors * lanes + v * lanes, vectors * lanes);
                }
            }
        });
    }

  private:
    void pack_channel(const T* at, int64_t k_step, int64_t tap_step, int64_t count, const WeightMatrix& down,
                      const WeightMatrix& along, T* to, int64_t row) const {
        const TileAxis* const axis = tiling.axis;
        const int64_t group = blocks * length * row, position = tiling.groups() * group;
        const auto& kernel = problem.kernel;
        alignas(64) double taps[kLongestTile * kLongestTile * 16];
        for (int64_t d = 0; d < axis[0].groups; d++) {
            for (int64_t h = 0; h < axis[1].groups; h++) {
                for (int64_t w = 0; w < axis[2].groups; w++, to += group) {
                    double* tap = taps;
                    for (int64_t i = h * axis[1].taps; i < (h + 1) * axis[1].taps; i++) {
                        for (int64_t j = w * axis[2].taps; j < (w + 1) * axis[2].taps; j++, tap += lanes) {
                            const bool real = i < kernel[1] && j < kernel[2];
                            const T* const value = at + ((d * kernel[1] + i) * kernel[2] + j) * tap_step;
                            for (int64_t k = 0; k < lanes; k++)
                                tap[k] = real && k < count ? static_cast<double>(value[k * k_step]) : 0;
                        }
                    }
                    winograd_lines_of<T>().weight(down.at, axis[1].size, axis[1].taps, along.at, axis[2].size,
                                                  axis[2].taps, taps, to, position);
                }
            }
        }
    }
};

}  // namespace fastconv
