// Winograd convolution by the tiles of winograd_tiling.hpp: any kernel longer than its stride, in one to three dimensions, dilated too.
//
// Of every block of tiles: strips of rows are read, zero-padded, and transformed along both axes; each position is a matrix
// product by the micro-kernel, whose list of segments runs over groups of taps and blocks of channels; the way back ends in a
// strip too, which is stored with bias, residual and clamp. An inf or NaN smears over its tile: a tile whose outputs are not
// all finite is computed again directly.
#include "algorithms/winograd_tiles.hpp"

#include <algorithm>

#include "algorithms/activations.hpp"
#include "algorithms/microkernel_kernels.hpp"
#include "algorithms/winograd_outputs.hpp"
#include "plan/candidates.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/machine.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr int64_t kChain = 256;  // additions into one accumulator before a partial sum is set aside

template <class T>
TileMachine machine_of() {
    return {micro<T>().lanes, micro<T>().channel_rows, sizeof(T)};
}

// How a batch is cut into blocks. Sums do not depend on it: every row of a matrix product is computed by itself.
struct Cut {
    int64_t count;
    bool shared;  // too few tiles: the threads share every block, first its inputs, then the weights' panels
    int64_t together;  // panels that take turns
    TileCut boxes;     // of each image, where blocks are boxes
};

template <class T>
class WinogradTiles final : public ConvKernel {
  public:
    WinogradTiles(const ConvProblem& p, const Tiling& tiling)
        : p_(p),
          tiling_(tiling),
          outputs_(p, tiling),
          w_(outputs_.weights()),
          inputs_(outputs_.inputs()),
          runs_(tiling.one_input()) {}

    size_t packed_bytes() const override { return static_cast<size_t>(w_.size()) * sizeof(T); }
    bool keeps_packed() const override { return true; }
    bool places_pixels() const override { return p_.channels_last; }

    void pack(const void* weight, void* packed) const override {
        w_.pack(static_cast<const T*>(weight), static_cast<T*>(packed));
    }

    size_t scratch_bytes() const override { return scratch_within(SIZE_MAX); }
    size_t scratch_within(size_t budget) const override {
        if (runs_) return run_bytes(most_tiles(budget), together(budget));
        const TileBox box = cut_tiles(p_, tiling_, machine_of<T>(), 1).largest;
        int64_t inputs = 1;
        for (int a = 0; a < 3; a++) inputs *= tiling_.axis[a].inputs(box.count[a]);
        return bytes_of(inputs, box.tiles(), 1);
    }
    // More than by blocks where the tiles of few images are shared.
    size_t workspace_bytes() const override {
        size_t most = ConvKernel::workspace_bytes();
        if (!runs_) return most;
        const ScratchShare share = scratch_share();
        for (int64_t batch = 1; batch * tiling_.tiles() <= 4 * share.threads * micro<T>().channel_rows;
             batch++)
            if (cut(batch, share).shared)
                most = std::max(most, shared_bytes(batch * tiling_.tiles(), share.threads));
        return most;
    }
    bool takes_bands() const override { return !p_.has_depth(); }
    int64_t band_step() const override { return tiling_.axis[1].outputs * tiling_.axis[1].cell; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        ScratchShare share = scratch_share();
        // A job of two halves that wait for each other must be worth it.
        if (least_seconds<T>(p_.flops() * static_cast<double>(args.batch) / 2.25) < kSmallJob)
            share.threads = 1;
        const int threads = share.threads;
        const Cut cut = this->cut(args.batch, share);
        if (!cut.shared) {
            const auto run_block = [&](int64_t i) {
                run_part(args, block_at(cut, args.batch, i), {0, w_.panels}, cut.together);
            };
            parallel_for(cut.count, run_block, threads);
        } else {
            for (int64_t i = 0; i < cut.count; i++) {
                const TileBlock block = block_at(cut, args.batch, i);
                if (each_transforms(threads)) {
                    const auto run_panels = [&](int64_t part) {
                        run_part(args, block, part_of(w_.panels, threads, part), cut.together);
                    };
                    parallel_for(threads, run_panels, threads);
                    continue;
                }
                ScratchFrame frame;
                T* const inputs = frame.take<T>(input_size(block.inputs));
                parallel_for(w_.blocks, [&](int64_t b) { transform(args, block, b, inputs); }, threads);
                const auto run_panel = [&](int64_t panel) {
                    ScratchFrame inner;
                    multiply(args, block, {panel, panel + 1}, inputs,
                             inner.take<T>(product_size(block.tiles)));
                };
                note_weight_parts(w_.panels);
                parallel_for(w_.panels, run_panel, threads);
            }
        }
        if (needs_pass(args.activation)) activate_output<T>(p_, args);
    }

  private:
    static const WinogradLines<T>& lines() { return winograd_lines_of<T>(); }
    static constexpr int64_t kLine =
        64 / static_cast<int64_t>(sizeof(T));  // keeps positions out of step in the cache
    int64_t position_step(int64_t inputs) const { return inputs * w_.blocks * w_.lanes + kLine; }
    int64_t input_size(int64_t inputs) const {
        return tiling_.positions() * tiling_.phases() * position_step(inputs);
    }
    int64_t product_size(int64_t tiles) const { return tiling_.positions() * (tiles * w_.width + kLine); }
    // From one position's products to the next.
    int64_t product_step(const TileBlock& block, int64_t panel) const {
        return block.tiles * w_.vectors_of(panel) * w_.lanes + kLine;
    }
    // Scratch of one block and some panels: without its inputs, and with them.
    size_t rest_bytes(int64_t tiles, int64_t panels) const {
        return static_cast<size_t>(panels * product_size(tiles) + inputs_.strip_size()) * sizeof(T) +
               static_cast<size_t>(tiling_.groups() * w_.blocks) * sizeof(int64_t);
    }
    size_t bytes_of(int64_t inputs, int64_t tiles, int64_t panels) const {
        return static_cast<size_t>(input_size(inputs)) * sizeof(T) + rest_bytes(tiles, panels);
    }
    size_t run_bytes(int64_t tiles, int64_t panels) const { return bytes_of(tiles, tiles, panels); }

    // Two threads are faster when each transforms all tiles itself than when they fetch half of them from each other's
    // cache: 256 channels at 14x14 0.40 -> 0.36 ms. More of them would repeat too much.
    bool each_transforms(int threads) const {
        return runs_ && threads == 2 && w_.panels >= 4 && w_.panels % 2 == 0;
    }
    size_t shared_bytes(int64_t tiles, int threads) const {
        const size_t inputs = static_cast<size_t>(input_size(tiles)) * sizeof(T) + kScratchRounding;
        return (each_transforms(threads) ? 2 : 1) * inputs +
               static_cast<size_t>(threads) * (rest_bytes(tiles, together(SIZE_MAX)) + kScratchRounding);
    }

    // Tiles of one run, at most, and panels that take turns. Where scratch is bounded, panels come one by one, and fewer rows
    // than the micro-kernel's may have to do.
    int64_t most_tiles(size_t bound) const {
        int64_t most = run_size(p_, tiling_, machine_of<T>()).tiles;
        if (bound != SIZE_MAX) {
            const int64_t left =
                std::max<int64_t>(0, static_cast<int64_t>(bound) - static_cast<int64_t>(run_bytes(0, 1)));
            most = std::min(most, left / static_cast<int64_t>(run_bytes(1, 1) - run_bytes(0, 1)));
        }
        const int64_t cell = tiling_.axis[2].cell;
        return std::max(cell, most - most % cell);
    }
    int64_t together(size_t bound) const {
        return runs_ && bound == SIZE_MAX ? std::min(w_.panels, run_size(p_, tiling_, machine_of<T>()).panels)
                                          : 1;
    }

    Cut cut(int64_t batch, const ScratchShare& share) const {
        const int threads = share.threads;
        const auto evenly = [&](int64_t count) {
            return threads > 1 && count < 4 * threads ? round_up(count, threads) : count;
        };
        if (!runs_) {
            Cut cut{0, false, 1, cut_tiles(p_, tiling_, machine_of<T>(), 1)};
            const int64_t count = batch * cut.boxes.boxes();
            if (evenly(count) != count)
                cut.boxes = cut_tiles(p_, tiling_, machine_of<T>(), ceil_div(evenly(count), batch));
            cut.count = batch * cut.boxes.boxes();
            cut.shared = cut.count < threads;
            return cut;
        }
        const int64_t all = batch * tiling_.tiles(), rows = micro<T>().channel_rows;
        const int64_t count =
            std::min(evenly(ceil_div(all, most_tiles(share.budget))), all / tiling_.axis[2].cell);
        const bool few = count <= 4 * threads && 4 * all < 3 * count * rows;
        if (threads > 1 && few && shared_bytes(all, threads) <= workspace_limit())
            return {1, true, together(share.budget), {}};
        return {count, false, together(share.budget), {}};
    }

    TileBlock block_at(const Cut& cut, int64_t batch, int64_t index) const {
        TileBlock block{};
        const TileAxis* const axis = tiling_.axis;
        if (runs_) {
            const int64_t cell = axis[2].cell;
            const Range run = part_of(batch * tiling_.tiles() / cell, cut.count, index);
            return run_of(tiling_, run.begin * cell, run.size() * cell);
        }
        block.tiles = block.inputs = 1;
        for (int a = 2; a >= 0; a--) {
            const int64_t cell = a == 2 ? axis[2].cell : 1;
            const Range part = part_of(axis[a].tiles / cell, cut.boxes.parts[a], index % cut.boxes.parts[a]);
            index /= cut.boxes.parts[a];
            block.first[a] = part.begin * cell;
            block.tiles *= block.out[a] = part.size() * cell;
            block.inputs *= block.in[a] = axis[a].inputs(block.out[a]);
        }
        block.image = index;
        return block;
    }

    // Some panels of outputs of one block.
    void run_part(const ConvArgs& args, const TileBlock& block, Range panels, int64_t together) const {
        ScratchFrame frame;
        T* const inputs = frame.take<T>(input_size(block.inputs));
        T* const products = frame.take<T>(together * product_size(block.tiles));
        for (int64_t b = 0; b < w_.blocks; b++) transform(args, block, b, inputs);
        for (int64_t panel = panels.begin; panel < panels.end; panel += together)
            multiply(args, block, {panel, std::min(panels.end, panel + together)}, inputs, products);
    }

    // The transformed inputs of a block for one vector of channels: [position][vector][tile][lane].
    void transform(const ConvArgs& args, const TileBlock& block, int64_t vector, T* inputs) const {
        inputs_.transform(static_cast<const T*>(args.x), args.x_plane_of(p_), block, vector,
                          inputs + vector * block.inputs * w_.lanes, position_step(block.inputs));
    }

    // Where the inputs of what adds up at a position stand, block of channels by block: groups of taps or phases.
    void list_segments(const TileBlock& block, int64_t at, int64_t position, int64_t* offsets) const {
        const TileAxis *const axis = tiling_.axis, &down = axis[1], &along = axis[2];
        const int64_t parts_h = down.parts(at / along.size), parts_w = along.parts(at % along.size);
        for (int64_t d = 0; d < axis[0].groups; d++)
            for (int64_t h = 0; h < parts_h; h++)
                for (int64_t w = 0; w < parts_w; w++) {
                    const int64_t plane =
                        (down.phases > 1 ? h * along.phases : 0) + (along.phases > 1 ? w : 0);
                    const int64_t tile =
                        (d * axis[0].shift * block.in[1] + h * down.shift) * block.in[2] + w * along.shift;
                    for (int64_t b = 0; b < w_.blocks; b++)
                        *offsets++ = plane * position + (b * block.inputs + tile) * w_.lanes;
                }
    }

    // Products of some panels of weights with the tiles of a block, position by position, and the outputs they make.
    void multiply(const ConvArgs& args, const TileBlock& block, Range panels, const T* inputs,
                  T* products) const {
        const TileAxis* const axis = tiling_.axis;
        const Micro<T>& kernel = micro<T>();
        const int64_t lanes = w_.lanes, position = position_step(block.inputs);
        const int64_t pitch[3] = {axis[0].stride * block.in[1] * block.in[2], axis[1].stride * block.in[2],
                                  axis[2].stride};
        // Tiles whose inputs follow one another are one run.
        int64_t run = block.out[2];
        if (runs_) {
            run = block.tiles;
        } else if (pitch[1] == run * pitch[2]) {
            run *= block.out[1];
            if (pitch[0] == run * pitch[2]) run *= block.out[0];
        }
        ScratchFrame frame;
        const int64_t longest = std::max<int64_t>(1, kChain / w_.length);
        int64_t* const offsets = frame.take<int64_t>(tiling_.groups() * w_.blocks);
        // The next weights come into L2 meanwhile, unless all of them stay there.
        const bool streams = static_cast<size_t>(w_.panels * w_.panel_size) * sizeof(T) > l2_bytes() / 2;
        const int64_t parts = ceil_div(run, kernel.channel_rows), calls = block.tiles / run * parts;
        ChannelTile<T> call;
        call.x_row = pitch[2] * lanes;
        call.length = w_.length;
        for (int64_t p = 0; p < tiling_.positions(); p++) {
            const int64_t segments = tiling_.products(p) * w_.blocks, chain = std::min(longest, segments);
            if (p == 0 || tiling_.phases() > 1) list_segments(block, p, position, offsets);
            for (int64_t panel = panels.begin; panel < panels.end; panel++) {
                const int vectors = w_.vectors_of(panel);
                const int64_t width = vectors * lanes, step = product_step(block, panel);
                const T* const w = w_.of(static_cast<const T*>(args.packed), panel, p);
                const T* const next_w = panel + 1 < panels.end
                                            ? w_.of(static_cast<const T*>(args.packed), panel + 1, p)
                                            : w_.of(static_cast<const T*>(args.packed), panels.begin, p + 1);
                T* const sums = products + (panel - panels.begin) * product_size(block.tiles);
                call.out_row = call.channels = width;
                int64_t number = 0;
                for (int64_t first = 0; first < block.tiles; first += run) {
                    const int64_t y = runs_ ? 0 : first / block.out[2] % block.out[1],
                                  z = runs_ ? 0 : first / block.out[2] / block.out[1];
                    const T* const x =
                        inputs + p * tiling_.phases() * position + (z * pitch[0] + y * pitch[1]) * lanes;
                    for (int64_t t = 0; t < parts; t++, number++) {
                        const Range rows = part_of(run, parts, t);
                        call.x = x + rows.begin * call.x_row;
                        call.out = sums + p * step + (first + rows.begin) * width;
                        for (int64_t b = 0; b < segments; b += chain) {
                            call.offsets = offsets + b;
                            call.segments = std::min(chain, segments - b);
                            call.w = w + b * w_.length * width;
                            call.accumulate = b > 0;
                            if (streams) {
                                const int64_t lines = call.segments * w_.length * width / kLine;
                                const Range next = part_of(lines, calls, number);
                                call.ahead = next_w + b * w_.length * width + next.begin * kLine;
                                call.ahead_lines = ceil_div(next.size(), call.segments);
                            }
                            kernel.channels[rows.size()][vectors](call);
                        }
                    }
                }
            }
        }
        finish(args, block, panels, products);
    }

    // From products to outputs, strip by strip. Channels last, the panels' outputs of a pixel follow each other: strips are single
    // cells then, so that lines of cache are complete before they leave it (64 channels at 56x56, 16 images, 10.6 -> 9.4 ms).
    void finish(const ConvArgs& args, const TileBlock& block, Range panels, const T* products) const {
        const TileAxis &down = tiling_.axis[1], &along = tiling_.axis[2];
        const int64_t lanes = w_.lanes, strip_row = inputs_.strip_row();
        const bool single = p_.channels_last && panels.size() > 1;
        ScratchFrame frame;
        T* const strip = frame.take<T>(inputs_.strip_size());
        for (int64_t tile = 0, tiles; tile < block.tiles; tile += tiles) {
            const TilePlace place = place_of(block.out, block.offset, tile, block.tiles);
            const auto to = outputs_.strip_of(args, 0, block, place,
                                              single ? 1 : inputs_.strip_cells(place.run / along.cell));
            tiles = to.cells.count * along.cell;
            for (int64_t panel = panels.begin; panel < panels.end && to.to.rows > 0; panel++) {
                const int64_t step = product_step(block, panel), width = w_.vectors_of(panel) * lanes;
                const T* const from =
                    products + (panel - panels.begin) * product_size(block.tiles) + tile * width;
                for (int64_t v = 0; v < width; v += lanes) {
                    for (int64_t i = 0; i < down.size; i++)
                        lines().output_along[along.size][along.outputs](
                            from + v + i * along.size * step, step, width, to.cells, strip + i * strip_row);
                    outputs_.put(args, to, panel * w_.width + v, strip, strip_row);
                }
            }
        }
    }

    ConvProblem p_;
    Tiling tiling_;
    const WinogradOutputs<T> outputs_;
    const WinogradWeights<T>& w_;
    const WinogradInputs<T>& inputs_;
    bool runs_;  // whether blocks are runs of tiles
};

}  // namespace

std::unique_ptr<ConvKernel> make_winograd_tiles(const ConvProblem& p, DType dtype, const Tiling& tiling) {
    if (p.groups > 1) return make_winograd_groups(p, dtype, tiling);
    if (dtype == DType::f32) return std::make_unique<WinogradTiles<float>>(p, tiling);
    return std::make_unique<WinogradTiles<double>>(p, tiling);
}

TileMachine winograd_machine(DType dtype) {
    return dtype == DType::f32 ? machine_of<float>() : machine_of<double>();
}

}  // namespace fastconv
