// How a convolution is cut into Winograd tiles, each axis by itself: which F(m, r), how many groups of r taps, how tiles
// interleave under dilation, which phases a stride makes. winograd_tiles.cpp runs it.
//
// An axis of k taps takes F(m, r) with r >= k, or splits its taps into groups of r = m or 2 m: the inputs of the next group are
// then other tiles of the same grid, transformed only once, and its products add up before the way back. So F(3, 3) and F(4, 4)
// do for any long kernel what F(4, 3) does for three taps. An axis that is not transformed is F(1, 1) with a group per tap: the
// depth of 3-D data, always, and one axis of 1x7. Dilation d makes d interleaved grids, which are kept side by side (a cell), so
// that the pixels of a strip stay neighbours in memory. [Lavin & Gray, arXiv:1509.09308; nested: Huang et al., arXiv:2102.13272]
//
// Of stride s, every s-th input and every s-th tap make a phase, a convolution of stride 1 by itself. All phases run on tiles of
// one size, so that their products add up at each position as if they were more channels, and the way back is one. A phase of a
// tap less has a zero weight at the point infinity and leaves that position out: 3 x 3 with stride 2 on tiles of 5 takes 9 x 9
// multiplications for 4 x 4 outputs, direct 144.
#pragma once

#include <algorithm>
#include <cstdint>

#include "algorithms/toom_cook.hpp"
#include "plan/problem.hpp"

namespace fastconv {

struct TileAxis {
    int outputs = 1, taps = 1, size = 1;  // m, r, and t = m + r - 1 inputs of a tile
    int64_t groups = 1;                   // of taps
    int64_t cell = 1;                     // tiles side by side
    int64_t shift = 0;                    // from a tile to that of the next group of taps
    int64_t stride = 1;                   // from the inputs of one tile of outputs to those of the next
    int64_t tiles = 1;                    // of outputs, along the whole axis
    int64_t phases = 1;                   // of a tiled axis: its stride
    int64_t longest = 1;                  // phases of `taps` taps; the others have one less

    // Whether every tile of outputs reads one tile of inputs, that of its own number.
    bool one_input() const { return groups == 1 && stride == 1; }
    int64_t reach() const { return (groups - 1) * shift; }
    // Tiles of inputs that so many neighbouring tiles of outputs read.
    int64_t inputs(int64_t count) const { return (count - 1) * stride + 1 + reach(); }
    // Of them some may be read by nobody.
    bool needed(int64_t input, int64_t count) const {
        for (int64_t g = 0; g < groups; g++) {
            const int64_t at = input - g * shift;
            if (at >= 0 && at % stride == 0 && at / stride < count) return true;
        }
        return false;
    }
    // The first output of a tile; the next ones are `cell` apart. Of phase f, its inputs (before padding) are f and as many
    // times `phases`.
    int64_t position(int64_t tile) const { return tile / cell * cell * outputs + tile % cell; }
    // Columns of inputs of a run of whole cells.
    int64_t columns(int64_t cells) const { return phases * cell * (cells * outputs + size - outputs); }
    // What adds up at a position of the tile: groups of taps, or the phases that reach it.
    int64_t parts(int64_t at) const { return phases > 1 && at == size - 1 ? longest : groups * phases; }
    int64_t parts_before(int64_t at) const { return at * groups * phases; }
    int64_t all_parts() const { return parts_before(size - 1) + parts(size - 1); }
    bool has(int64_t phase, int64_t at) const { return at < size - 1 || phase < longest; }
};

struct Tiling {
    TileAxis axis[3];

    int64_t positions() const { return int64_t{axis[1].size} * axis[2].size; }
    // Matrix products, each of all channels: those that add up at one position, those before it, and all.
    int64_t products(int64_t at) const {
        return axis[0].groups * axis[1].parts(at / axis[2].size) * axis[2].parts(at % axis[2].size);
    }
    int64_t products_before(int64_t at) const {
        const int64_t row = at / axis[2].size;
        return axis[0].groups * (axis[1].parts_before(row) * axis[2].all_parts() +
                                 axis[1].parts(row) * axis[2].parts_before(at % axis[2].size));
    }
    int64_t all_products() const { return axis[0].groups * axis[1].all_parts() * axis[2].all_parts(); }
    // The most that add up at a position; transformed inputs there; and of all positions.
    int64_t groups() const { return products(0); }
    int64_t phases() const { return axis[1].phases * axis[2].phases; }
    int64_t planes() const { return all_products() / axis[0].groups / axis[1].groups / axis[2].groups; }
    int64_t tiles() const { return axis[0].tiles * axis[1].tiles * axis[2].tiles; }  // of one image
    bool one_input() const { return axis[0].one_input() && axis[1].one_input() && axis[2].one_input(); }
};

// Tiles of outputs that are computed together, and the tiles of inputs that they read: a box of one image, or, where every tile
// of outputs reads the one tile of inputs that has its number, any run of the batch's tiles in row-major order.
struct TileBlock {
    int64_t image, first[3];  // first: of outputs
    int64_t out[3], in[3];    // tiles along each axis, of outputs and of inputs
    int64_t offset;           // of the block's first tile, counted in the box of all those axes
    int64_t tiles, inputs;    // how many
};

// Where one tile lies, from the block's first on, and how many follow it in its row of the block.
struct TilePlace {
    int64_t image, at[3], run;
};

inline TilePlace place_of(const int64_t (&count)[3], int64_t offset, int64_t tile, int64_t tiles) {
    const int64_t i = offset + tile;
    TilePlace p;
    p.at[2] = i % count[2];
    p.at[1] = i / count[2] % count[1];
    p.at[0] = i / count[2] / count[1] % count[0];
    p.image = i / count[2] / count[1] / count[0];
    p.run = std::min(count[2] - p.at[2], tiles - tile);
    return p;
}

// A run of the tiles of a batch.
inline TileBlock run_of(const Tiling& tiling, int64_t first, int64_t count) {
    TileBlock block{};
    for (int a = 0; a < 3; a++) block.out[a] = block.in[a] = tiling.axis[a].tiles;
    block.offset = first;
    block.tiles = block.inputs = count;
    return block;
}

// A box of tiles of outputs: what is computed together.
struct TileBox {
    int64_t count[3];
    int64_t tiles() const { return count[0] * count[1] * count[2]; }
};

// How an image is cut into boxes.
struct TileCut {
    int64_t parts[3];
    TileBox largest;
    int64_t boxes() const { return parts[0] * parts[1] * parts[2]; }
};

// Channels that are computed together: all of them, those of one group, or those of as many groups as fill a vector, whose
// weights are then a matrix with blocks along its diagonal.
struct ChannelUnits {
    int64_t count, groups;              // groups: of one unit; the last may have fewer
    ConvProblem problem;                // of one unit, as if it had no groups
    int64_t in_channels, out_channels;  // of all

    ChannelUnits(const ConvProblem& p, int64_t lanes)
        : groups(
              std::clamp<int64_t>(lanes / std::max({p.group_in(), p.group_out(), int64_t{1}}), 1, p.groups)),
          problem(p),
          in_channels(p.in_channels),
          out_channels(p.out_channels) {
        count = ceil_div(p.groups, groups);
        problem.in_channels = groups * p.group_in();
        problem.out_channels = groups * p.group_out();
        problem.groups = 1;
    }

    Range inputs_of(int64_t unit) const {
        return {unit * problem.in_channels, std::min((unit + 1) * problem.in_channels, in_channels)};
    }
    Range outputs_of(int64_t unit) const {
        return {unit * problem.out_channels, std::min((unit + 1) * problem.out_channels, out_channels)};
    }
};

// Of the instruction set that runs: lanes of a vector, rows of the micro-kernel's tile, bytes of an element.
struct TileMachine {
    int64_t lanes, rows, item;
};

// Boxes whose inputs, products and a panel of weights fit into L2; at least `wanted` of them where there are tiles enough.
TileCut cut_tiles(const ConvProblem& problem, const Tiling& tiling, const TileMachine& machine,
                  int64_t wanted);

// Tiles of a run, at most, and how many panels of weights take turns at each of their positions.
struct RunSize {
    int64_t tiles, panels;
};
RunSize run_size(const ConvProblem& problem, const Tiling& tiling, const TileMachine& machine);

// F(outputs, 3) along height and width.
Tiling square_tiling(const ConvProblem& problem, int outputs);

// Cycles for one image.
double tiling_cycles(const ConvProblem& problem, const Tiling& tiling, const TileMachine& machine);

// Cycles for one image where blocks are runs of tiles: a single image counts once, one of a batch of 16 twice.
double run_cycles(const ConvProblem& problem, const Tiling& tiling, const TileMachine& machine);

// The best tiling with tiles of at most `longest` inputs, false where there is none. `phased`: one with phases along an axis of
// stride 2 or more; else axes with a stride are not transformed.
bool best_tiling(const ConvProblem& problem, int longest, bool phased, const TileMachine& machine,
                 Tiling& best);

// The matrix G of one axis, rows kLongestTile apart.
struct WeightMatrix {
    double at[kLongestTile * kLongestTile] = {};
    explicit WeightMatrix(const TileAxis& axis);
};

}  // namespace fastconv
