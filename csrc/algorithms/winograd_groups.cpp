// Winograd convolution in groups: the tiles of winograd_tiling.hpp, group after group.
//
// A group has few channels, so that its products are short and its transforms are most of the work; what they read and write
// must stay near. Therefore some tiles are taken at a time, and of their transformed rows one after the other: along a
// row, its products, and back along the row into the strip that the row came from. Only strips and one row of tiles wait between
// the steps, where all positions of inputs and products are four times as much. Groups of fewer channels than a vector has
// lanes are taken together (ChannelUnits), with zeros between them.
#include <algorithm>

#include "algorithms/activations.hpp"
#include "algorithms/microkernel_kernels.hpp"
#include "algorithms/winograd_outputs.hpp"
#include "algorithms/winograd_tiles.hpp"
#include "plan/candidates.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/machine.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr int64_t kTiles = 28;   // 64 channels in 4 groups at 56x56: 266 us, with 16 of them 304, with 8 325
constexpr int64_t kChain = 256;  // additions into one accumulator before a partial sum is set aside

template <class T>
class WinogradGroups final : public ConvKernel {
  public:
    WinogradGroups(const ConvProblem& p, const Tiling& tiling)
        : p_(p),
          tiling_(tiling),
          outputs_(p, tiling),
          units_(outputs_.units()),
          w_(outputs_.weights()),
          inputs_(outputs_.inputs()) {}

    size_t packed_bytes() const override { return static_cast<size_t>(units_.count * w_.size()) * sizeof(T); }
    bool keeps_packed() const override { return true; }
    bool places_pixels() const override { return p_.channels_last; }

    void pack(const void* weight, void* packed) const override {
        parallel_for(units_.count, [&](int64_t unit) {
            ScratchFrame frame;
            T* const dense = frame.take<T>(units_.problem.weights());
            gather_weights(static_cast<const T*>(weight), unit, dense);
            w_.pack(dense, static_cast<T*>(packed) + unit * w_.size());
        });
    }

    size_t scratch_bytes() const override { return scratch_within(SIZE_MAX); }
    size_t scratch_within(size_t budget) const override { return bytes_of(most_tiles(budget)); }
    bool takes_bands() const override { return !p_.has_depth(); }
    int64_t band_step() const override { return tiling_.axis[1].outputs * tiling_.axis[1].cell; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        ScratchShare share = scratch_share();
        if (least_seconds<T>(p_.flops() * static_cast<double>(args.batch) / 2.25) < kSmallJob)
            share.threads = 1;
        const int64_t cell = tiling_.axis[2].cell, cells = args.batch * tiling_.tiles() / cell;
        const int64_t blocks = ceil_div(cells, most_tiles(share.budget) / cell);
        const int64_t parts =
            share.threads > 1 ? std::min(units_.count, ceil_div(4 * share.threads, blocks)) : 1;
        const auto run_part = [&](int64_t task) {
            const Range run = part_of(cells, blocks, task / parts),
                        units = part_of(units_.count, parts, task % parts);
            const TileBlock block = run_of(tiling_, run.begin * cell, run.size() * cell);
            for (int64_t unit = units.begin; unit < units.end; unit++) run_unit(args, unit, block);
        };
        parallel_for(blocks * parts, run_part, share.threads);
        if (needs_pass(args.activation)) activate_output<T>(p_, args);
    }

  private:
    using Strip = typename WinogradOutputs<T>::Strip;
    static constexpr int64_t kLine =
        64 / static_cast<int64_t>(sizeof(T));  // keeps positions out of step in the cache

    int64_t out_vectors() const { return ceil_div(units_.problem.out_channels, w_.lanes); }
    // Of a strip: vectors of inputs, whose place vectors of outputs take.
    int64_t planes() const { return std::max(w_.blocks, out_vectors()); }
    int64_t strips_size(int64_t tiles) const { return tiles * tiling_.positions() * planes() * w_.lanes; }
    int64_t input_step(int64_t tiles) const { return tiles * w_.blocks * w_.lanes + kLine; }
    int64_t product_step(int64_t tiles) const { return tiles * out_vectors() * w_.lanes + kLine; }
    size_t bytes_of(int64_t tiles) const {
        const int64_t rows = tiling_.axis[2].size * (input_step(tiles) + product_step(tiles));
        return static_cast<size_t>(strips_size(tiles) + rows) * sizeof(T) +
               static_cast<size_t>(tiles) * sizeof(Strip) + static_cast<size_t>(w_.blocks) * sizeof(int64_t);
    }

    int64_t most_tiles(size_t bound) const {
        int64_t most = kTiles;
        if (bound != SIZE_MAX) {
            const auto fixed = static_cast<int64_t>(bytes_of(0)),
                       left = std::max<int64_t>(0, static_cast<int64_t>(bound) - fixed);
            most = std::min(most, left / (static_cast<int64_t>(bytes_of(1)) - fixed));
        }
        const int64_t cell = tiling_.axis[2].cell;
        return std::max(cell, most - most % cell);
    }

    // The weights of a unit, [tap][channel][output]: zero between groups.
    void gather_weights(const T* from, int64_t unit, T* to) const {
        const ConvProblem& u = units_.problem;
        const int64_t ins = p_.group_in(), outs = p_.group_out(), taps = p_.taps();
        const Range outputs = units_.outputs_of(unit);
        std::fill_n(to, u.weights(), T(0));
        for (int64_t k = 0; k < outputs.size(); k++) {
            const int64_t first = k / outs * ins, output = outputs.begin + k;
            for (int64_t c = 0; c < ins; c++)
                for (int64_t tap = 0; tap < taps; tap++)
                    to[(tap * u.in_channels + first + c) * u.out_channels + k] =
                        p_.channels_last ? from[(tap * ins + c) * p_.out_channels + output]
                                         : from[(output * ins + c) * taps + tap];
        }
    }

    void run_unit(const ConvArgs& args, int64_t unit, const TileBlock& block) const {
        const WinogradLines<T>& lines = winograd_lines_of<T>();
        const TileAxis &down = tiling_.axis[1], &along = tiling_.axis[2];
        const int64_t lanes = w_.lanes, in_step = input_step(block.tiles),
                      out_step = product_step(block.tiles), width = out_vectors() * lanes,
                      plane = args.x_plane_of(p_);
        const Range channels = units_.inputs_of(unit);
        const T* const x = static_cast<const T*>(args.x) + channels.begin * (p_.channels_last ? 1 : plane);
        ScratchFrame frame;
        T* const values = frame.take<T>(strips_size(block.tiles));
        T* const inputs = frame.take<T>(along.size * in_step);
        T* const products = frame.take<T>(along.size * out_step);
        Strip* const strips = frame.take<Strip>(block.tiles);
        int64_t* const offsets = frame.take<int64_t>(w_.blocks);
        for (int64_t b = 0; b < w_.blocks; b++) offsets[b] = b * block.tiles * lanes;
        // body(strip, its first tile, its values, elements of one of its rows)
        int64_t count = 0;
        const auto each_strip = [&](auto&& body) {
            T* at = values;
            int64_t tile = 0;
            for (int64_t s = 0; s < count; s++) {
                const int64_t row = along.columns(strips[s].cells.count) * lanes;
                body(strips[s], tile, at, row);
                at += planes() * down.size * row;
                tile += strips[s].cells.count * along.cell;
            }
        };
        T* at = values;
        for (int64_t tile = 0; tile < block.tiles; count++) {
            const TilePlace place = place_of(block.out, block.offset, tile, block.tiles);
            const int64_t cells = inputs_.strip_cells(place.run / along.cell),
                          row = along.columns(cells) * lanes;
            strips[count] = outputs_.strip_of(args, unit, block, place, cells);
            const WinogradPlane<T> from = inputs_.plane_of(x, channels.size(), plane, block, place, cells);
            for (int64_t b = 0; b < w_.blocks; b++)
                lines.input_down[down.size](from, b * lanes, at + b * down.size * row, row);
            at += planes() * down.size * row;
            tile += cells * along.cell;
        }
        for (int64_t i = 0; i < down.size; i++) {
            each_strip([&](const Strip& s, int64_t tile, const T* strip, int64_t row) {
                for (int64_t b = 0; b < w_.blocks; b++)
                    lines.input_along[along.size](strip + (b * down.size + i) * row, s.cells, along.outputs,
                                                  inputs + (b * block.tiles + tile) * lanes, in_step, lanes);
            });
            for (int64_t j = 0; j < along.size; j++)
                multiply(static_cast<const T*>(args.packed) + unit * w_.size(), i * along.size + j,
                         block.tiles, inputs + j * in_step, offsets, products + j * out_step);
            each_strip([&](const Strip& s, int64_t tile, T* strip, int64_t row) {
                for (int64_t v = 0; v < out_vectors(); v++)
                    lines.output_along[along.size][along.outputs](products + tile * width + v * lanes,
                                                                  out_step, width, s.cells,
                                                                  strip + (v * down.size + i) * row);
            });
        }
        each_strip([&](const Strip& s, int64_t, T* strip, int64_t row) {
            for (int64_t v = 0; v < out_vectors() && s.to.rows > 0; v++)
                outputs_.put(args, s, v * lanes, strip + v * down.size * row, row);
        });
    }

    // The products of one position.
    void multiply(const T* packed, int64_t position, int64_t tiles, const T* inputs, const int64_t* offsets,
                  T* products) const {
        if (w_.blocks == 1 && w_.length == w_.lanes && out_vectors() == 1)
            return winograd_lines_of<T>().vector_products(inputs, tiles, w_.of(packed, 0, position),
                                                          products);
        const Micro<T>& kernel = micro<T>();
        const int64_t chain = std::max<int64_t>(1, kChain / w_.length),
                      parts = ceil_div(tiles, kernel.channel_rows);
        ChannelTile<T> call;
        call.x_row = w_.lanes;
        call.length = w_.length;
        call.out_row = out_vectors() * w_.lanes;
        for (int64_t panel = 0; panel < w_.panels; panel++) {
            const int vectors = w_.vectors_of(panel);
            const T* const w = w_.of(packed, panel, position);
            call.channels = vectors * w_.lanes;
            for (int64_t t = 0; t < parts; t++) {
                const Range rows = part_of(tiles, parts, t);
                call.x = inputs + rows.begin * w_.lanes;
                call.out = products + rows.begin * call.out_row + panel * w_.width;
                for (int64_t b = 0; b < w_.blocks; b += chain) {
                    call.offsets = offsets + b;
                    call.segments = std::min(chain, w_.blocks - b);
                    call.w = w + b * w_.length * call.channels;
                    call.accumulate = b > 0;
                    kernel.channels[rows.size()][vectors](call);
                }
            }
        }
    }

    ConvProblem p_;
    Tiling tiling_;
    const WinogradOutputs<T> outputs_;
    const ChannelUnits& units_;
    const WinogradWeights<T>& w_;
    const WinogradInputs<T>& inputs_;
};

}  // namespace

std::unique_ptr<ConvKernel> make_winograd_groups(const ConvProblem& p, DType dtype, const Tiling& tiling) {
    if (dtype == DType::f32) return std::make_unique<WinogradGroups<float>>(p, tiling);
    return std::make_unique<WinogradGroups<double>>(p, tiling);
}

}  // namespace fastconv
