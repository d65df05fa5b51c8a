// Strips of outputs of Winograd's tiles, from transformed sums to the user's array: what the drivers of winograd_tiles.cpp and
// winograd_groups.cpp share. Not for the sources of one instruction set.
//
// An inf or NaN smears over its tile: a tile whose outputs are not all finite is summed again as the direct algorithm does.
#pragma once

#include <algorithm>

#include "algorithms/activations.hpp"
#include "algorithms/winograd_inputs.hpp"
#include "algorithms/winograd_weights.hpp"

namespace fastconv {

// Of a kernel whose packed weights are those of WinogradWeights, unit after unit.
template <class T>
class WinogradOutputs {
  public:
    WinogradOutputs(const ConvProblem& p, const Tiling& tiling)
        : p_(p),
          tiling_(tiling),
          units_(p, micro<T>().lanes),
          weights_(weights_problem(), tiling),
          inputs_(p, tiling) {}

    // A strip: the cells from one tile of a block on, of one unit's channels.
    struct Strip {
        WinogradStore<T> to;
        WinogradCells cells;
        int64_t unit, image, at[3];
    };
    Strip strip_of(const ConvArgs& args, int64_t unit, const TileBlock& block, const TilePlace& place,
                   int64_t cells) const {
        const TileAxis &down = tiling_.axis[1], &along = tiling_.axis[2];
        const int64_t plane = args.out_plane_of(p_);
        const Placement to_place =
            p_.channels_last
                ? args.placement(p_)
                : Placement{p_.out_channels * plane, p_.out_size[1] * p_.out_size[2], p_.out_size[2], 1};
        const Range channels = units_.outputs_of(unit);
        Strip s;
        s.cells = {cells, along.cell};
        s.unit = unit;
        s.image = block.image + place.image;
        s.at[0] = block.first[0] + place.at[0];
        s.at[1] = down.position(block.first[1] + place.at[1]);
        s.at[2] = along.position(block.first[2] + place.at[2]);
        WinogradStore<T>& to = s.to;
        to.bias = args.bias == nullptr ? nullptr : static_cast<const T*>(args.bias) + channels.begin;
        to.clamp = clamp_of(args.activation);
        to.channels_last = p_.channels_last;
        to.channels = channels.size();
        to.channel_step = p_.channels_last ? 1 : plane;
        to.row = to_place.row;
        to.row_step = down.cell;
        to.pixel = to_place.pixel;
        to.rows = std::clamp<int64_t>(ceil_div(p_.out_size[1] - s.at[1], down.cell), 0, down.outputs);
        to.columns = std::clamp<int64_t>(p_.out_size[2] - s.at[2], 0, cells * along.cell * along.outputs);
        const int64_t start = s.image * to_place.image + s.at[0] * to_place.plane + s.at[1] * to_place.row +
                              s.at[2] * to_place.pixel + channels.begin * to.channel_step;
        to.y = static_cast<T*>(args.out) + start;
        to.add = args.add == nullptr ? nullptr : static_cast<const T*>(args.add) + start;
        return s;
    }

    // The way back down the rows, for the vector of channels from `channel` on, and into the user's array.
    void put(const ConvArgs& args, const Strip& s, int64_t channel, T* strip, int64_t strip_row) const {
        const TileAxis &down = tiling_.axis[1], &along = tiling_.axis[2];
        const WinogradLines<T>& lines = winograd_lines_of<T>();
        if (p_.channels_last && lines.output_store[down.size][down.outputs](s.to, channel, strip, strip_row))
            return;
        if (!lines.output_down[down.size][down.outputs](strip, strip_row,
                                                        s.cells.count * along.cell * along.outputs))
            mend(args, s, channel, strip, strip_row);
        lines.store(s.to, channel, strip, strip_row);
    }

    const ChannelUnits& units() const { return units_; }
    const WinogradWeights<T>& weights() const { return weights_; }
    const WinogradInputs<T>& inputs() const { return inputs_; }

  private:
    // Weights of groups are gathered as those of channels last are.
    ConvProblem weights_problem() const {
        ConvProblem w = units_.problem;
        w.channels_last = w.channels_last || p_.groups > 1;
        return w;
    }
    // Tiles of a strip with values that are not finite.
    void mend(const ConvArgs& args, const Strip& s, int64_t channel, T* strip, int64_t strip_row) const {
        const TileAxis &down = tiling_.axis[1], &along = tiling_.axis[2];
        const int64_t lanes = weights_.lanes;
        for (int64_t tile = 0; tile < s.cells.count * along.cell; tile++) {
            const int64_t first = along.position(tile);
            const int64_t columns =
                std::clamp<int64_t>(ceil_div(s.to.columns - first, along.cell), 0, along.outputs);
            bool finite = true;
            for (int64_t i = 0; i < s.to.rows; i++)
                finite = winograd_lines_of<T>().finite(strip + i * strip_row + first * lanes, columns,
                                                       along.cell) &&
                         finite;
            if (finite) continue;
            for (int64_t i = 0; i < s.to.rows; i++) {
                for (int64_t j = 0; j < columns; j++) {
                    const int64_t column = first + j * along.cell;
                    sum_directly(args, s, {s.at[0], s.at[1] + i * down.cell, s.at[2] + column}, channel,
                                 strip + i * strip_row + column * lanes);
                }
            }
        }
    }

    // One pixel, group by group: an inf of one group would meet the zeros between groups otherwise.
    void sum_directly(const ConvArgs& args, const Strip& s, const int64_t (&at)[3], int64_t channel,
                      T* sum) const {
        if (units_.groups == 1) return sum_group(args, s, {0, units_.problem.in_channels}, at, channel, sum);
        const int64_t ins = p_.group_in(), outs = p_.group_out();
        ScratchFrame frame;
        T* const each = frame.take<T>(weights_.lanes);
        for (int64_t g = 0; g < units_.inputs_of(s.unit).size() / ins; g++) {
            sum_group(args, s, {g * ins, (g + 1) * ins}, at, channel, each);
            std::copy_n(each + g * outs, outs, sum + g * outs);
        }
    }

    // From some channels of a unit.
    void sum_group(const ConvArgs& args, const Strip& s, Range channels, const int64_t (&at)[3],
                   int64_t channel, T* sum) const {
        const int64_t plane = args.x_plane_of(p_);
        const int64_t pixel = p_.channels_last ? p_.in_channels : 1, step = p_.channels_last ? 1 : plane;
        const T* const from = static_cast<const T*>(args.x) + s.image * p_.in_channels * plane +
                              (units_.inputs_of(s.unit).begin + channels.begin) * step;
        const WinogradWeights<T>& w = weights_;
        const T* const packed = static_cast<const T*>(args.packed) + s.unit * w.size();
        std::fill_n(sum, w.lanes, T(0));
        for (int64_t tap = 0; tap < p_.taps(); tap++) {
            const int64_t of[3] = {tap / p_.kernel[2] / p_.kernel[1], tap / p_.kernel[2] % p_.kernel[1],
                                   tap % p_.kernel[2]};
            int64_t source_of[3];
            bool inside = true;
            for (int a = 0; a < 3; a++) {
                source_of[a] = inputs_.source(a, at[a] * p_.stride[a] + of[a] * p_.dilation[a]);
                inside = inside && source_of[a] >= 0;
            }
            if (!inside) continue;
            const int64_t place =
                (source_of[0] * p_.in_size[1] + source_of[1]) * p_.in_size[2] + source_of[2];
            winograd_lines_of<T>().dot(
                from + place * pixel, step, channels.size(),
                w.plain(packed, channel / w.width, tap) + channels.begin * w.width + channel % w.width,
                w.width, sum);
        }
    }

    const ConvProblem p_;
    const Tiling tiling_;
    const ChannelUnits units_;
    const WinogradWeights<T> weights_;
    const WinogradInputs<T> inputs_;
};

}  // namespace fastconv
