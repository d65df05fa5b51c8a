#include "algorithms/winograd_tiling.hpp"

#include <algorithm>

#include "runtime/machine.hpp"

namespace fastconv {

namespace {

constexpr struct {
    int outputs, taps;
} kFilters[] = {{2, 2}, {3, 2}, {4, 2}, {5, 2}, {2, 3}, {3, 3},
                {4, 3}, {3, 4}, {2, 5}, {4, 4}, {4, 5}, {2, 7}};

constexpr int64_t kPanelVectors = 2;
constexpr int64_t kWidestCell = 512;  // tiles side by side: their columns must fit into a strip
constexpr int64_t kMostPhases = 4;

TileAxis plain_axis(const ConvProblem& p, int a) {
    TileAxis axis;
    axis.groups = p.kernel[a];
    axis.shift = p.dilation[a];
    axis.stride = p.stride[a];
    axis.tiles = p.out_size[a];
    return axis;
}

TileAxis tiled_axis(const ConvProblem& p, int a, int outputs, int taps) {
    TileAxis axis;
    axis.outputs = outputs;
    axis.taps = taps;
    axis.size = outputs + taps - 1;
    axis.groups = ceil_div(p.kernel[a], taps);
    axis.cell = p.dilation[a];
    axis.shift = taps / outputs * axis.cell;
    axis.tiles = ceil_div(p.out_size[a], axis.cell * outputs) * axis.cell;
    return axis;
}

TileAxis phased_axis(const ConvProblem& p, int a, int outputs, int taps) {
    TileAxis axis;
    axis.outputs = outputs;
    axis.taps = taps;
    axis.size = outputs + taps - 1;
    axis.tiles = ceil_div(p.out_size[a], int64_t{outputs});
    axis.phases = p.stride[a];
    axis.longest = p.kernel[a] - (taps - 1) * p.stride[a];
    return axis;
}

// All ways to do one axis, `count` of them; phases only where asked for.
int ways_of(const ConvProblem& p, int a, int longest, bool phased, TileAxis (&ways)[16]) {
    int count = 0;
    ways[count++] = plain_axis(p, a);
    const bool strided = p.stride[a] != 1;
    if (p.kernel[a] < 2 || (strided && !phased)) return count;
    if (strided ? p.stride[a] > kMostPhases || p.dilation[a] != 1 : p.dilation[a] > kWidestCell) return count;
    for (const auto& f : kFilters) {
        if (f.outputs + f.taps - 1 > longest) continue;
        if (strided) {
            if (f.taps == ceil_div(p.kernel[a], p.stride[a]))
                ways[count++] = phased_axis(p, a, f.outputs, f.taps);
            continue;
        }
        const int64_t groups = ceil_div(p.kernel[a], int64_t{f.taps});
        if (f.outputs + f.taps < 5 || f.taps >= p.kernel[a] + 2) continue;
        if (groups > 1 && f.taps % f.outputs != 0) continue;
        ways[count++] = tiled_axis(p, a, f.outputs, f.taps);
    }
    return count;
}

struct Sizes {
    int64_t units;
    int64_t blocks, steps, panels, vectors;  // of one: of channels; of one segment; of output channels
    Sizes(const ConvProblem& p, const TileMachine& m) : Sizes(ChannelUnits(p, m.lanes), m) {}
    Sizes(const ChannelUnits& u, const TileMachine& m)
        : units(u.count),
          blocks(ceil_div(u.problem.in_channels, m.lanes)),
          steps(blocks == 1 ? u.problem.in_channels : blocks * m.lanes),
          panels(ceil_div(u.problem.out_channels, kPanelVectors * m.lanes)),
          vectors(ceil_div(u.problem.out_channels, m.lanes)) {}
};

// The planes of phases and their weights are many, and pass through L2. Seen with 3 x 3, stride 2, 16 to 512 channels: tiles of
// 3, 4 and 5 then take one and the same share of what is told, which is that of direct convolution.
double phased(const Tiling& tiling) {
    double factor = 1;
    for (const TileAxis& axis : tiling.axis)
        if (axis.phases > 1) factor *= 0.97 + 0.045 * axis.size;
    return factor;
}

}  // namespace

TileCut cut_tiles(const ConvProblem& p, const Tiling& tiling, const TileMachine& m, int64_t wanted) {
    const Sizes sizes(p, m);
    const auto& axis = tiling.axis;
    const int64_t budget = static_cast<int64_t>(l2_bytes() * 6 / 10) / m.item;
    const int64_t cells = axis[2].tiles / axis[2].cell;
    TileCut cut{{axis[0].tiles, axis[1].tiles, 1}, {}};
    const auto fits = [&] {
        cut.largest = {ceil_div(axis[0].tiles, cut.parts[0]), ceil_div(axis[1].tiles, cut.parts[1]),
                       ceil_div(cells, cut.parts[2]) * axis[2].cell};
        int64_t inputs = 1;
        for (int a = 0; a < 3; a++) inputs *= axis[a].inputs(cut.largest.count[a]);
        const int64_t each = sizes.blocks * m.lanes;
        return tiling.positions() * (inputs * each + cut.largest.tiles() * kPanelVectors * m.lanes) <=
                   budget &&
               cut.largest.tiles() <= 16 * m.rows;
    };
    // The fewest parts that fit: more parts are never larger.
    const auto cut_along = [&](int a, int64_t most) {
        int64_t least = 1;
        while (least < most) {
            cut.parts[a] = (least + most) / 2;
            if (fits())
                most = cut.parts[a];
            else
                least = cut.parts[a] + 1;
        }
        cut.parts[a] = least;
    };
    // A row of tiles, or part of one; then as many rows, and planes, as there is room for.
    cut_along(2, cells);
    cut_along(1, axis[1].tiles);
    cut_along(0, axis[0].tiles);
    while (cut.boxes() < wanted && cut.largest.tiles() > 2 * m.rows) {
        const int a = cut.largest.count[1] > 1 ? 1 : cut.largest.count[0] > 1 ? 0 : 2;
        if (cut.parts[a] >= (a == 2 ? cells : axis[a].tiles)) break;
        cut.parts[a]++;
        fits();
    }
    fits();
    return cut;
}

// Where all weights stay in L2, tiles and products take a fifth of it beside them: 64 channels at 56x56 0.49 -> 0.44 ms against
// twelve tenths. Otherwise transformed tiles, the products of one panel and two positions of its weights share L2; 49 tiles of
// F(4, 3) do: 128 channels at 28x28, 16 images, 6.8 -> 6.5 ms against 89. Where not even 42 tiles fit (from 288 channels on),
// inputs come from beyond L2 anyway: then as many as 84 read the weights less often, and four panels that take turns at every
// position read the inputs less often. 512 channels at 28x28 6.7 -> 5.9 ms, at 14x14, 8 images, 17.6 -> 15.3.
RunSize run_size(const ConvProblem& p, const Tiling& tiling, const TileMachine& m) {
    const Sizes sizes(p, m);
    const int64_t channels = sizes.blocks * m.lanes, width = kPanelVectors * m.lanes,
                  positions = tiling.positions(), each = tiling.planes() * channels + positions * width,
                  weights = tiling.all_products() * channels * sizes.panels * width;
    const auto l2 = static_cast<int64_t>(l2_bytes()) / m.item;
    const int64_t beside = (l2 - 2 * tiling.groups() * channels * width) / each;
    const bool small = 2 * weights <= l2;
    if (!small && beside < 3 * m.rows) return {6 * m.rows, 4};
    const int64_t most = std::clamp<int64_t>(small ? l2 / 5 / each : std::min(beside, 1792 / positions),
                                             2 * m.rows, 8 * m.rows),
                  image = tiling.tiles();
    // An image that is little more than a block is one, so that its weights are streamed once. Where they stay, runs are whole
    // tiles of the micro-kernel: 32 > 64 channels with stride 2 at 208x208 219 > 229 GFLOP/s against runs of 30.
    if (image > most && image <= most + m.rows / 2) return {image, small && p.channels_last ? 4 : 1};
    return {small ? most - most % m.rows : most, small && p.channels_last ? 4 : 1};
}

Tiling square_tiling(const ConvProblem& p, int outputs) {
    return {{plain_axis(p, 0), tiled_axis(p, 1, outputs, 3), tiled_axis(p, 2, outputs, 3)}};
}

double tiling_cycles(const ConvProblem& p, const Tiling& tiling, const TileMachine& m) {
    const Sizes sizes(p, m);
    const TileCut cut = cut_tiles(p, tiling, m, 1);
    const auto& axis = tiling.axis;
    double inputs = static_cast<double>(cut.boxes()), outputs = 1;
    for (int a = 0; a < 3; a++) {
        inputs *= static_cast<double>(axis[a].inputs(cut.largest.count[a]));
        outputs *= static_cast<double>(axis[a].tiles);
    }
    const auto positions = static_cast<double>(tiling.positions()),
               planes = static_cast<double>(tiling.planes()),
               products = static_cast<double>(tiling.all_products());
    // Short runs of rows leave the multipliers waiting.
    const bool long_runs = axis[2].reach() == 0 && axis[2].stride == 1;
    const double run =
        static_cast<double>(std::min(long_runs ? cut.largest.tiles() : cut.largest.count[2], m.rows));
    const double rate = 2 * 0.85 * std::min(1.0, run / 8);
    const double multiply = products * outputs * static_cast<double>(sizes.steps * sizes.vectors) / rate;
    const double transforms = 11.0 * planes * inputs * static_cast<double>(sizes.blocks) +
                              13.0 * positions * outputs * static_cast<double>(sizes.vectors);
    const double weights = products * static_cast<double>(sizes.steps * sizes.vectors * m.lanes * m.item);
    const double stream =
        weights > 0.5 * static_cast<double>(l2_bytes()) ? static_cast<double>(cut.boxes()) * weights / 16 : 0;
    // What a call begins with: a single image counts once, one of a batch of 16 twice.
    const double start = p.batch_hint > 0 ? 6000.0 / static_cast<double>(p.batch_hint) : 2250;
    return static_cast<double>(sizes.units) * (phased(tiling) * (multiply + transforms) + stream) + start;
}

// Cycles more of a transformed input where those of a block are beyond L2: 441 > 3 channels at 40x40 took 1.65 times what was
// told channels last and 1.17 times channels first, 288 > 5 at 56x56 1.65 and 1.22.
double far_inputs(const ConvProblem& p, const Tiling& tiling, const TileMachine& m) {
    const int64_t tiles = std::min(run_size(p, tiling, m).tiles, 16 * tiling.tiles());
    const auto bytes = static_cast<double>(tiles * tiling.planes() * Sizes(p, m).blocks * m.lanes * m.item);
    return (p.channels_last ? 30 : 15) * std::max(0.0, 1 - 2 * static_cast<double>(l2_bytes()) / bytes);
}

// The constants were seen on AVX-512. Weights beyond half of L2 stream: at 7x7 F(4, 3) of 256, 384 and 512 channels takes 0.35,
// 0.81 and 1.50 ms for one image, and 0.12, 0.29 and 0.52 each for sixteen; F(2, 3) 0.25, 0.57, 1.02 and 0.19, 0.47, 0.84. From
// 64 MB on they came at half the rate.
double run_cycles(const ConvProblem& p, const Tiling& tiling, const TileMachine& m) {
    const Sizes sizes(p, m);
    const auto tiles = static_cast<double>(sizes.units * tiling.tiles()),
               c = static_cast<double>(sizes.blocks), k = static_cast<double>(sizes.vectors),
               products = static_cast<double>(tiling.all_products());
    const double multiply = tiles * products * static_cast<double>(sizes.steps) * k / (2 * 0.85);
    // Channels first, rows of a few pixels are turned over by themselves (random problems: 1.4 times what was told).
    const double short_rows = !p.channels_last && p.out_size[2] < 6 ? 2 : 1;
    const double transforms =
        short_rows * tiles * 13.0 *
            (static_cast<double>(tiling.planes()) * c + static_cast<double>(tiling.positions()) * k) +
        tiles * far_inputs(p, tiling, m) * static_cast<double>(tiling.planes()) * c;
    const double weights = products *
                           static_cast<double>(sizes.units * sizes.steps * sizes.vectors * m.lanes * m.item),
                 far = std::max(0.0, weights - 0.5 * static_cast<double>(l2_bytes())),
                 bandwidth = weights < 48e6 ? 7 : 4;
    // Three quarters of the shorter of the two are hidden behind the longer.
    const auto time = [&](int64_t batch) {
        const int64_t blocks = ceil_div(batch * tiling.tiles(), run_size(p, tiling, m).tiles);
        const double passes = static_cast<double>(blocks) / static_cast<double>(batch);
        const double stream = passes * far / bandwidth;
        const double work = phased(tiling) * (multiply + transforms);
        return std::max(work, stream) + 0.25 * std::min(work, stream);
    };
    return p.batch_hint > 0 ? time(p.batch_hint) : (time(1) + 2 * time(16)) / 3;
}

// For some rows of an image the tiles are those of the whole, so that they have the same bits.
bool best_tiling(const ConvProblem& problem, int longest, bool strided, const TileMachine& m, Tiling& best) {
    const ConvProblem p = problem.whole();
    TileAxis down[16], along[16];
    const int downs = ways_of(p, 1, longest, strided, down), alongs = ways_of(p, 2, longest, strided, along);
    double least = 0;
    for (int i = 0; i < downs; i++) {
        for (int j = 0; j < alongs; j++) {
            if (i == 0 && j == 0) continue;
            const Tiling tiling{{plain_axis(p, 0), down[i], along[j]}};
            if (p.groups > 1 && !tiling.one_input()) continue;
            // An axis that can have phases has them.
            if (strided &&
                ((i == 0 && downs > 1 && p.stride[1] > 1) || (j == 0 && alongs > 1 && p.stride[2] > 1)))
                continue;
            if (strided && tiling.phases() == 1) continue;
            const double cycles =
                strided && tiling.one_input() ? run_cycles(p, tiling, m) : tiling_cycles(p, tiling, m);
            if (least == 0 || cycles < least) {
                least = cycles;
                best = tiling;
            }
        }
    }
    TileAxis& rows = best.axis[1];
    rows.tiles = ceil_div(problem.out_size[1], rows.cell * rows.outputs) * rows.cell;
    return least > 0;
}

WeightMatrix::WeightMatrix(const TileAxis& axis) {
    const auto fill = [&](const auto& numbers) {
        for (int j = 0; j < axis.size; j++)
            for (int i = 0; i < axis.taps; i++) at[j * kLongestTile + i] = numbers.weight(j, i, axis.taps);
    };
    if (axis.size == 1) at[0] = 1;
    if (axis.size == 3) fill(kToomCook<3>);
    if (axis.size == 4) fill(kToomCook<4>);
    if (axis.size == 5) fill(kToomCook<5>);
    if (axis.size == 6) fill(kToomCook<6>);
    if (axis.size == 7) fill(kToomCook<7>);
    if (axis.size == 8) fill(kToomCook<8>);
}

}  // namespace fastconv
