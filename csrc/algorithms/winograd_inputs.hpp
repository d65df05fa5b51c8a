// The tiles of an image, transformed: what the convolution by Winograd and its weight gradient read. Not for the sources of one
// instruction set.
#pragma once

#include <algorithm>
#include <vector>

#include "algorithms/winograd_lines_kernels.hpp"
#include "algorithms/winograd_tiling.hpp"
#include "plan/conv.hpp"
#include "runtime/scratch.hpp"

namespace fastconv {

template <class T>
class WinogradInputs {
  public:
    WinogradInputs(const ConvProblem& p, const Tiling& tiling) : p_(p), tiling_(tiling) {
        // Rows by tile, columns as they stand in a strip. What lies beyond the last output reads zeros.
        const TileAxis &down = tiling.axis[1], &along = tiling.axis[2];
        // Where a phase has no last row, the one before stands again.
        const int64_t last = down.size - 1;
        for (int64_t v = 0; v < down.inputs(down.tiles); v++)
            for (int64_t f = 0; f < down.phases; f++)
                for (int64_t j = 0; j <= last; j++)
                    rows_.push_back(source(
                        1,
                        (down.position(v) + (down.has(f, j) ? j : last - 1) * down.cell) * down.phases + f));
        const int64_t columns = along.columns(along.inputs(along.tiles) / along.cell);
        for (int64_t c = 0; c < columns; c++) cols_.push_back(source(2, c));
        // Strips stay in L1 beside what is read and written: at 32 > 32 channels on 112 x 112, channels last, 28 columns took
        // 684 us, 40 739 and 72 776. Channels first, whole vectors of columns are transposed at once, and rows of up to 68 are
        // not cut.
        const int64_t each = along.columns(1) - along.columns(0), more = along.columns(0);
        const auto cells_in = [&](int64_t columns) { return std::max<int64_t>(1, (columns - more) / each); };
        strip_cells_ = cells_in(p.channels_last ? 28 : 52);
        whole_cells_ = p.channels_last ? strip_cells_ : cells_in(68);
        int64_t even = 1;
        while (even * each % micro<T>().lanes != 0) even++;
        if (!p.channels_last && strip_cells_ > even) strip_cells_ -= strip_cells_ % even;
        strip_row_ = along.columns(whole_cells_) * micro<T>().lanes;
    }

    // Strips: cells of one where so many are left in a row; elements from one of its rows to the next, and of all of it.
    int64_t strip_cells(int64_t left) const { return left <= whole_cells_ ? left : strip_cells_; }
    int64_t strip_row() const { return strip_row_; }
    int64_t strip_size() const { return tiling_.axis[1].size * strip_row_; }

    // Of a padded position that some output reads: where it lies in x, -1 for a zero.
    int32_t source(int a, int64_t at) const {
        const int64_t read = (p_.out_size[a] - 1) * p_.stride[a] + (p_.kernel[a] - 1) * p_.dilation[a];
        return at > read ? -1 : static_cast<int32_t>(axis_source(p_.mode, p_.in_size[a], at - p_.pad_lo[a]));
    }

    // The plane that the strip of some cells at a place of a block reads, for one phase of the rows: `channels` channels that lie
    // `plane` apart, from x on.
    WinogradPlane<T> plane_of(const T* x, int64_t channels, int64_t plane, const TileBlock& block,
                              const TilePlace& at, int64_t cells, int64_t phase = 0) const {
        static constexpr int32_t none[kLongestTile] = {-1, -1, -1, -1, -1, -1, -1, -1};
        const TileAxis &depth = tiling_.axis[0], &down = tiling_.axis[1], &along = tiling_.axis[2];
        const int64_t z = source(0, block.first[0] * depth.stride + at.at[0]);
        WinogradPlane<T> from;
        from.channels_last = p_.channels_last;
        from.channels = channels;
        from.channel_step = p_.channels_last ? 1 : plane;
        from.width = p_.in_size[2];
        from.row = p_.in_size[2] * (p_.channels_last ? p_.in_channels : 1);
        from.x = x + (block.image + at.image) * p_.in_channels * plane +
                 std::max<int64_t>(z, 0) * p_.in_size[1] * from.row;
        const int64_t row = (block.first[1] * down.stride + at.at[1]) * down.phases + phase;
        from.rows = z < 0 ? none : rows_.data() + row * down.size;
        from.cols = cols_.data() + along.position(block.first[2] * along.stride + at.at[2]) * along.phases;
        from.columns = along.columns(cells);
        return from;
    }

    // The transformed inputs of a block for one vector of channels, from channel to channel `plane` apart: tile i of position
    // j stands at to[j * position + i * lanes]; of a stride, j counts positions and at each of them all phases, some of which
    // nobody reads.
    void transform(const T* x, int64_t plane, const TileBlock& block, int64_t vector, T* to,
                   int64_t position) const {
        const TileAxis &depth = tiling_.axis[0], &down = tiling_.axis[1], &along = tiling_.axis[2];
        const WinogradLines<T>& lines = winograd_lines_of<T>();
        const int64_t lanes = micro<T>().lanes;
        ScratchFrame frame;
        T* const strip = frame.take<T>(strip_size());
        for (int64_t i = 0, tiles; i < block.inputs; i += tiles, to += tiles * lanes) {
            const TilePlace at = place_of(block.in, block.offset, i, block.inputs);
            WinogradCells cells{strip_cells(at.run / along.cell), along.cell};
            tiles = cells.count * along.cell;
            if (!depth.needed(at.at[0], block.out[0]) || !down.needed(at.at[1], block.out[1])) {
                tiles = at.run;
                continue;
            }
            if (along.phases > 1) cells = {cells.count, along.phases, position, along.longest};
            const int64_t step = tiling_.phases() * position, count = cells.count;
            for (int64_t f = 0; f < down.phases; f++) {
                lines.input_down[down.size](plane_of(x, p_.in_channels, plane, block, at, count, f),
                                            vector * lanes, strip, strip_row_);
                for (int64_t j = 0; j < down.size && down.has(f, j); j++)
                    lines.input_along[along.size](strip + j * strip_row_, cells, along.outputs,
                                                  to + j * along.size * step + f * along.phases * position,
                                                  step, lanes);
            }
        }
    }

  private:
    ConvProblem p_;
    Tiling tiling_;
    int64_t strip_cells_, whole_cells_, strip_row_;
    std::vector<int32_t> rows_, cols_;
};

}  // namespace fastconv
