// Channels in lanes, either layout; see direct.hpp.
#include <algorithm>
#include <cstring>
#include <vector>

#include "algorithms/activations.hpp"
#include "algorithms/direct.hpp"
#include "algorithms/lanes_input.hpp"
#include "algorithms/microkernel_kernels.hpp"
#include "algorithms/rows_kernels.hpp"
#include "algorithms/stream.hpp"
#include "plan/candidates.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/machine.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

// Channels last, a tile asks for the outputs so many bytes further on, so that stores find their lines. First layers of 16
// images: 3 > 32 at 224 x 224 stride 2 3.6 to 2.8 ms, 3 > 40 at 300 x 300 (8 images) 5.9 to 4.1; one image of 3 > 64 with a
// 7x7 kernel 1.21 to 1.16. 2 KB and 8 KB are no different.
constexpr int64_t kOutputsAhead = 4096;

// How one call cuts its outputs. Sums do not depend on it.
struct Cut {
    int64_t rows, columns;  // of the largest band
    int64_t row_bands, column_bands, channel_chunks;
};

// A part of the outputs that one task computes, and where its input stands.
template <class T>
struct Band {
    int64_t image, depth;
    Range rows, columns;
    BandInput<T> input;
    T* stage;  // where its outputs wait for being streamed, or null
};

// Steps of one segment: the micro-kernel asks for inputs and weights ahead once a segment.
constexpr int64_t kSegment = 64;

// The largest divisor of n up to kSegment; n itself where there is none worth it.
int64_t segment_of(int64_t n) {
    if (n <= kSegment) return n;
    for (int64_t d = kSegment; d >= 16; d--)
        if (n % d == 0) return d;
    return n;
}

template <class T>
class DirectLanes final : public ConvKernel {
  public:
    explicit DirectLanes(const ConvProblem& problem)
        : blocks_(blocks_of(problem)),
          input_(problem, false, problem.group_in() % (blocks_ * unit_of(problem)) == 0 ? blocks_ : 1),
          p_(input_.view()) {
        const int64_t lanes = micro<T>().lanes, steps = p_.group_in() * p_.taps();
        unit_ = unit_of(p_);
        units_ = ceil_div(p_.group_in(), unit_);
        // A row of the kernel is one contiguous run of columns and channels where nothing lies between them.
        whole_rows_ = input_.by_pixels() && blocks_ == input_.apart() && p_.dilation[2] == 1 &&
                      p_.kernel[2] * p_.group_in() / blocks_ <= kChainAim;
        packed_ = 0;
        for (int64_t g = 0; g < p_.groups; g++) {
            for (int64_t k = 0; k < p_.group_out(); k += lanes * micro<T>().channel_vectors) {
                const int64_t count = std::min(lanes * micro<T>().channel_vectors, p_.group_out() - k);
                const int64_t vectors = ceil_div(count, lanes);
                lane_blocks_.push_back({g, g * p_.group_out() + k, count, vectors, packed_});
                packed_ += vectors * lanes * steps;
            }
        }
    }

    size_t packed_bytes() const override { return static_cast<size_t>(packed_) * sizeof(T); }

    void pack(const void* weight, void* packed) const override {
        for (const LaneBlock& block : lane_blocks_)
            pack_block(static_cast<const T*>(weight), block, static_cast<T*>(packed) + block.packed);
    }

    bool keeps_packed() const override { return lanes_keep_packed(packed_bytes(), whole_vectors()); }

    size_t scratch_bytes() const override {
        return scratch_within(SIZE_MAX) +
               static_cast<size_t>(panel_size() + (may_stream() ? kStage : 0)) * sizeof(T) +
               static_cast<size_t>(segments_of_all()) * sizeof(int64_t);
    }
    size_t scratch_within(size_t budget) const override {
        const Cut cut = cut_outputs(1, 1, budget);
        return static_cast<size_t>(input_.size(cut.rows, cut.columns)) * sizeof(T) + fixed_bytes();
    }
    bool takes_bands() const override { return true; }
    bool places_pixels() const override { return p_.channels_last && p_.placed; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        const ScratchShare share = scratch_share();
        const Cut cut = cut_outputs(args.batch, share.threads, share.budget);
        const int64_t passes = args.batch * p_.out_size[0] * cut.row_bands * cut.column_bands;
        ScratchFrame frame;
        const T* packed = static_cast<const T*>(args.packed);
        // Weights that several tasks need are packed once for all of them.
        if (packed == nullptr && passes > 1 && !in_place(args.batch)) {
            T* const all = frame.take<T>(packed_);
            const auto pack_one = [&](int64_t i) {
                pack_block(static_cast<const T*>(args.weight), lane_blocks_[i], all + lane_blocks_[i].packed);
            };
            parallel_for(static_cast<int64_t>(lane_blocks_.size()), pack_one,
                         packed_ > 65536 ? share.threads : 1);
            packed = all;
        }
        note_weight_parts(cut.channel_chunks);
        parallel_for(
            passes * cut.channel_chunks, [&](int64_t task) { run_task(args, packed, cut, task); },
            share.threads, least_seconds<T>(p_.flops() * args.batch));
    }

  private:
    // Channels last, vectors of output channels stand in the user's weights as they are.
    bool whole_vectors() const { return p_.channels_last && p_.group_out() % micro<T>().lanes == 0; }
    // Channel blocks of a 1x1 are whole lines.
    static int64_t unit_of(const ConvProblem& p) { return p.taps() == 1 ? 16 : 1; }
    // Blocks of input channels, each a chain of sums. Of one channel they would read pixels one by one; rows of taps are split
    // instead: 16x16 patches of 224x224, 3 > 768, 2.16 to 1.23 ms.
    static int64_t blocks_of(const ConvProblem& p) {
        const int64_t units = ceil_div(p.group_in(), unit_of(p)), steps = p.group_in() * p.taps();
        const int64_t blocks =
            std::clamp<int64_t>((steps + kChainAim / 2) / kChainAim, 1, std::max<int64_t>(1, units));
        return units < 2 * blocks ? 1 : blocks;
    }
    // Few pixels read such weights there if they come without a packed copy: 1x1 960 > 320 at 7x7 222 -> 184 us, as fast
    // as packed. Rows a power of two apart share their sets in L1, so that more pixels lose more by it than a copy of each
    // lane block costs: 256 > 1024 at 14x14 595 us there and 504 copied, 512 > 512 at 5x5 62 and 92.
    bool in_place(int64_t batch) const { return whole_vectors() && batch * p_.out_pixels() <= 64; }
    int64_t panel_size() const {
        return p_.group_in() * p_.taps() * micro<T>().lanes * micro<T>().channel_vectors;
    }
    int64_t width() const { return int64_t{micro<T>().lanes} * micro<T>().channel_vectors; }
    Range channels_of(int64_t block) const {
        const Range units = part_of(units_, blocks_, block);
        return {units.begin * unit_, std::min(units.end * unit_, p_.group_in())};
    }
    // Channels first: at most so many outputs of a lane block wait in L1 until they are turned into planes.
    static constexpr int64_t kGroup = 128;
    static constexpr int64_t kStage = kStageBytes / sizeof(T);
    int64_t sums_size() const { return p_.channels_last ? 0 : kGroup * width(); }
    size_t fixed_bytes() const {
        return static_cast<size_t>(sums_size()) * sizeof(T) +
               static_cast<size_t>(segments_of_all()) * sizeof(int64_t) +
               static_cast<size_t>(blocks_) * sizeof(Panel);
    }

    // Bands as large as half of L2 holds; where threads would idle, the grid of bands and chunks of output
    // channels with the least time of the busiest thread.
    Cut cut_outputs(int64_t batch, int threads, size_t bound) const {
        const int64_t height = p_.out_size[1], length = p_.out_size[2], tile = micro<T>().channel_rows;
        // A bound on scratch matters only where there is a copy.
        const bool bounded = bound != SIZE_MAX && input_.size(1, 1) > 0;
        const size_t most = !bounded                ? l2_bytes() / 2
                            : bound > fixed_bytes() ? std::min(l2_bytes() / 2, bound - fixed_bytes())
                                                    : 0;
        const auto budget = static_cast<int64_t>(most / sizeof(T));
        // Each lane block writes a part of every pixel. Where the weights stay in L2, bands are so small that all parts of
        // a line are written before it leaves L2: 16 > 96 channels at 112 x 112 took 0.59 ms without and 0.39 ms with it,
        // 64 > 256 at 56 x 56 0.69 and 0.58 (output not aligned to lines; 0.38 to 0.30 and 0.63 to 0.58 where it is).
        const bool light = p_.channels_last && lane_blocks_.size() > 1 && packed_bytes() <= l2_bytes() / 4;
        const int64_t written = streams(batch) ? kStage
                                : light        ? static_cast<int64_t>(l2_bytes() / 8 / sizeof(T))
                                               : INT64_MAX;
        const auto blocks = static_cast<int64_t>(lane_blocks_.size());
        Cut cut{height, length, 1, 1, 1};
        const auto set = [&](int64_t row_bands, int64_t column_bands) {
            cut.row_bands = row_bands;
            cut.column_bands = column_bands;
            cut.rows = ceil_div(height, row_bands);
            cut.columns = ceil_div(length, column_bands);
        };
        const auto fits = [&] {
            return input_.footprint(cut.rows, cut.columns) <= budget &&
                   cut.rows * cut.columns * p_.out_channels <= written;
        };
        while (!fits()) {
            if (cut.rows > 1) {
                set(std::min(height, cut.row_bands + 1 + cut.row_bands / 8), cut.column_bands);
            } else if (cut.columns > (bounded ? 1 : tile)) {
                set(cut.row_bands, cut.column_bands + 1);
            } else {
                break;
            }
        }
        const int64_t outer = batch * p_.out_size[0], rows = cut.row_bands, columns = cut.column_bands;
        const double work = p_.flops() * batch / 2, enough = 60e3;  // multiply-adds worth a task of their own
        if (threads == 1 || work < 2 * enough || outer * rows * columns >= 4 * threads) return cut;
        Cut best = cut;
        double least = 0;
        const double steps = static_cast<double>(p_.group_in() * p_.taps());
        for (int64_t bands = 1; bands <= 3 * threads; bands++) {
            if (height > 1)
                set(std::min(height, rows * bands), columns);
            else
                set(1, std::max(columns, std::min(length / 4, columns * bands)));
            for (int64_t chunks = 1; chunks <= std::min<int64_t>(blocks, 3 * threads); chunks++) {
                const int64_t tasks = outer * cut.row_bands * cut.column_bands * chunks;
                if (chunks * bands > 1 && work / static_cast<double>(tasks) < enough) break;
                const auto each = static_cast<double>(ceil_div(blocks, chunks));
                // In cycles: two vector FMAs each; a quarter for an element of input that is copied, weights
                // at 8 bytes; the beginning of a task.
                const double multiply = static_cast<double>(cut.rows * cut.columns) * each * steps;
                const double weights = each * steps * static_cast<double>(width() * sizeof(T)) / 8;
                const double copy = 0.25 * static_cast<double>(input_.size(cut.rows, cut.columns));
                const double time = static_cast<double>(ceil_div(tasks, threads)) *
                                    (std::max(multiply, weights) + copy + 1000);
                if (least == 0 || time < least) {
                    least = time;
                    best = cut;
                    best.channel_chunks = chunks;
                }
            }
        }
        return best;
    }

    // What the calls of one channel block have in common.
    struct Panel {
        const int64_t* offsets;    // of its segments from the pixel under the first tap
        const int64_t* w_offsets;  // of their weights in the user's array; null where those are packed
        int64_t segments, length;
        int64_t channel;  // first input channel, in its group
    };

    // All channel blocks; `offsets` and, where it is not null, `w_offsets` are as long as segments_of_all().
    void describe(const BandInput<T>& input, int64_t* offsets, int64_t* w_offsets, Panel* panels) const {
        // In the user's array the weights of a block end with the tap.
        const bool whole = whole_rows_ && (blocks_ == 1 || w_offsets == nullptr);
        const int64_t taps = whole ? 1 : p_.kernel[2];
        for (int64_t b = 0; b < blocks_; b++) {
            const Range channels = channels_of(b);
            const int64_t run = channels.size() * (whole ? p_.kernel[2] : 1), length = segment_of(run);
            panels[b] = {offsets, w_offsets, 0, length, channels.begin};
            for (int64_t d = 0; d < p_.kernel[0]; d++)
                for (int64_t h = 0; h < p_.kernel[1]; h++)
                    for (int64_t w = 0; w < taps; w++)
                        for (int64_t i = 0; i < run; i += length, panels[b].segments++) {
                            *offsets++ = d * input.depth + h * p_.dilation[1] * input.row +
                                         w * p_.dilation[2] * input.pixel + i * input.channel;
                            if (w_offsets == nullptr) continue;
                            const int64_t tap = (d * p_.kernel[1] + h) * p_.kernel[2] + w;
                            *w_offsets++ = (tap * p_.group_in() + channels.begin + i) * p_.out_channels;
                        }
        }
    }
    // Channels last: of the output before the first pixel of a row of the band.
    static int64_t row_of(const Placement& place, const Band<T>& band, int64_t row) {
        return band.image * place.image + band.depth * place.plane + (band.rows.begin + row) * place.row +
               band.columns.begin * place.pixel;
    }
    // Channels last and weights that stay in L2 beside a stage.
    bool may_stream() const {
        return p_.channels_last && !p_.placed && packed_bytes() <= l2_bytes() / 2 &&
               workspace_limit() == SIZE_MAX;
    }
    bool streams(int64_t batch) const {
        const int64_t values = p_.out_channels * p_.out_pixels() + p_.in_channels * p_.in_pixels();
        return may_stream() && past_caches(batch * values * sizeof(T), p_.group_in() * p_.taps());
    }
    // Bands of pixels that follow each other in the output, with all their channels.
    bool streams(int64_t batch, const Cut& cut) const {
        return streams(batch) && cut.channel_chunks == 1 && (p_.out_size[1] == 1 || cut.column_bands == 1) &&
               cut.rows * cut.columns * p_.out_channels <= kStage;
    }
    int64_t segments_of_all() const { return p_.taps() * (blocks_ + p_.group_in() / 16); }

    void run_task(const ConvArgs& args, const T* packed, const Cut& cut, int64_t task) const {
        const auto next = [&task](int64_t n) {
            const int64_t i = task % n;
            task /= n;
            return i;
        };
        const Range blocks =
            part_of(static_cast<int64_t>(lane_blocks_.size()), cut.channel_chunks, next(cut.channel_chunks));
        Band<T> band;
        band.columns = part_of(p_.out_size[2], cut.column_bands, next(cut.column_bands));
        band.rows = part_of(p_.out_size[1], cut.row_bands, next(cut.row_bands));
        band.depth = next(p_.out_size[0]);
        band.image = task;

        ScratchFrame frame;
        const bool direct = packed == nullptr && in_place(args.batch);
        T* const panel = packed == nullptr && !direct ? frame.take<T>(panel_size()) : nullptr;
        T* const sums = frame.take<T>(sums_size());
        int64_t* const offsets = frame.take<int64_t>(segments_of_all());
        Panel* const panels = frame.take<Panel>(blocks_);
        band.input = input_.stage(static_cast<const T*>(args.x), band.image, args.x_plane, band.depth,
                                  band.rows, band.columns, frame.take<T>(input_.size(cut.rows, cut.columns)));
        describe(band.input, offsets, direct ? frame.take<int64_t>(segments_of_all()) : nullptr, panels);

        const int64_t outputs = band.rows.size() * band.columns.size() * p_.out_channels;
        band.stage = streams(args.batch, cut) ? frame.take<T>(outputs) : nullptr;
        const RowTiles<T> tiles(band.columns.size());
        // Channels last sums in the output itself and needs no groups.
        const int64_t all = p_.channels_last ? tiles.count : kGroup / micro<T>().channel_rows;
        const int64_t rows_together =
            p_.channels_last ? band.rows.size() : std::max<int64_t>(1, kGroup / band.columns.size());
        const int64_t row_groups = ceil_div(band.rows.size(), rows_together),
                      tile_groups = band.columns.size() <= kGroup ? 1 : ceil_div(tiles.count, all);
        const bool streams = static_cast<size_t>(packed_) * sizeof(T) > l2_bytes() / 2 && packed != nullptr;
        for (int64_t i = blocks.begin; i < blocks.end; i++) {
            const LaneBlock& block = lane_blocks_[i];
            const T* weights = packed == nullptr ? nullptr : packed + block.packed;
            if (direct) {
                weights = static_cast<const T*>(args.weight) + block.first;
            } else if (packed == nullptr) {
                pack_block(static_cast<const T*>(args.weight), block, panel);
                weights = panel;
            }
            for (int64_t r = 0; r < row_groups; r++)
                for (int64_t t = 0; t < tile_groups; t++) {
                    Group group{part_of(band.rows.size(), row_groups, r),
                                part_of(tiles.count, tile_groups, t), tiles, 0};
                    if (streams) group.ahead = row_groups * tile_groups == 1 ? 1 : 2;
                    run_group(args, band, group, block, panels, weights, sums);
                }
        }
        if (band.stage != nullptr)
            stream(band.stage, static_cast<T*>(args.out) + row_of(args.placement(p_), band, 0), outputs);
    }

    // Outputs of a band that are summed together: rows counted from the band's first, tiles of each row.
    struct Group {
        Range rows, tiles;
        RowTiles<T> row;
        // The weights asked for meanwhile: none, the next channel block's, the next lane block's.
        int ahead;
    };

    // One lane block: channel block > row > tile.
    void run_group(const ConvArgs& args, const Band<T>& band, const Group& group, const LaneBlock& block,
                   const Panel* panels, const T* weights, T* sums) const {
        const int64_t lanes = micro<T>().lanes, k = p_.out_channels;
        const int64_t first = group.row[group.tiles.begin].begin,
                      columns = group.row[group.tiles.end - 1].end - first;
        const int64_t block_size = p_.group_in() * p_.taps() * block.vectors * lanes;
        const Placement place = args.placement(p_);
        ChannelTile<T> call;
        call.x_row = band.input.tile > 0 ? 1 : p_.stride[2] * band.input.pixel;
        call.x_step = band.input.channel;
        call.channels = block.count;
        call.w = weights;
        call.w_step = k;
        call.w_ahead = kRowsAhead * k;
        for (int64_t b = 0; b < blocks_; b++) {
            const Panel& panel = panels[b];
            const int64_t step = panel.length * block.vectors * lanes;
            const int64_t pieces =
                std::clamp<int64_t>((panel.segments * panel.length + kChainAim / 2) / kChainAim, 1,
                                    std::max<int64_t>(1, panel.segments));
            for (int64_t piece = 0; piece < pieces; piece++) {
                const Range part = part_of(panel.segments, pieces, piece);
                const bool last = b + 1 == blocks_ && piece + 1 == pieces;
                call.length = panel.length;
                call.offsets = panel.offsets + part.begin;
                call.w_offsets = panel.w_offsets == nullptr ? nullptr : panel.w_offsets + part.begin;
                call.segments = part.size();
                call.accumulate = b > 0 || piece > 0;
                if (last && args.bias != nullptr) call.bias = static_cast<const T*>(args.bias) + block.first;
                if (last && p_.channels_last) call.clamp = clamp_of(args.activation);
                const T* const ahead = call.w + (group.ahead == 2 ? block_size : part.size() * step);
                for (int64_t row = group.rows.begin; row < group.rows.end; row++) {
                    const T* const x =
                        band.input.base + row * p_.stride[1] * band.input.row +
                        (input_.apart() > 1 ? block.group * blocks_ + b : block.group) * band.input.group +
                        (input_.apart() > 1 ? 0 : panel.channel * band.input.channel);
                    for (int64_t t = group.tiles.begin; t < group.tiles.end; t++) {
                        const Range pixels = group.row[t];
                        call.x = x + (band.input.tile > 0 ? t * band.input.tile : pixels.begin * call.x_row);
                        if (group.ahead > 0) {
                            const Range lines =
                                part_of(part.size() * step * sizeof(T) / 64,
                                        band.rows.size() * group.row.count, row * group.row.count + t);
                            call.ahead = ahead + lines.begin * (64 / sizeof(T));
                            call.ahead_lines = ceil_div(lines.size(), part.size());
                        }
                        if (!p_.channels_last) {
                            call.out_row = block.vectors * lanes;
                            call.out = sums + ((row - group.rows.begin) * columns + pixels.begin - first) *
                                                  call.out_row;
                            micro<T>().channels[pixels.size()][block.vectors](call);
                            continue;
                        }
                        const int64_t at =
                            row_of(place, band, row) + pixels.begin * place.pixel + block.first;
                        call.out_row = place.pixel;
                        call.out =
                            band.stage == nullptr
                                ? static_cast<T*>(args.out) + at
                                : band.stage + (row * band.columns.size() + pixels.begin) * k + block.first;
                        call.ahead_x_lines = 0;
                        // no segments: there are no input channels, and the call writes the bias
                        if (band.stage == nullptr && block.first == 0 && b == 0 && piece == 0 &&
                            call.segments > 0) {
                            const int64_t written = pixels.size() * place.pixel * int64_t{sizeof(T)};
                            call.ahead_x =
                                static_cast<const T*>(args.out) + at + kOutputsAhead / int64_t{sizeof(T)};
                            call.ahead_x_lines = ceil_div(ceil_div(written, 64), call.segments);
                        }
                        call.add =
                            last && args.add != nullptr ? static_cast<const T*>(args.add) + at : nullptr;
                        micro<T>().channels[pixels.size()][block.vectors](call);
                        if (last && needs_pass(args.activation))
                            rows_of<T>().activate(args.activation, call.out, pixels.size(), place.pixel,
                                                  block.count);
                    }
                }
                if (call.w_offsets == nullptr) call.w += part.size() * step;
            }
        }
        if (p_.channels_last) return;
        // Rows that follow each other in the output are one.
        const bool whole = columns == p_.out_size[2];
        const int64_t plane = args.out_plane_of(p_), row_size = block.vectors * lanes;
        for (int64_t row = group.rows.begin; row < group.rows.end; row += whole ? group.rows.size() : 1) {
            const int64_t at = (band.image * k + block.first) * plane +
                               (band.depth * p_.out_size[1] + band.rows.begin + row) * p_.out_size[2] +
                               band.columns.begin + first;
            rows_of<T>().planes(sums + (row - group.rows.begin) * columns * row_size, row_size,
                                columns * (whole ? group.rows.size() : 1), block.count,
                                args.add == nullptr ? nullptr : static_cast<const T*>(args.add) + at,
                                static_cast<T*>(args.out) + at, plane, args.activation);
        }
    }

    // Weights [channel block][tap][channel][lane] of one lane block, lanes beyond K zero.
    void pack_block(const T* weight, const LaneBlock& block, T* to) const {
        const int64_t lanes = micro<T>().lanes, wide = block.vectors * lanes,
                      steps = p_.group_in() * p_.taps();
        for (int64_t b = 0; b < blocks_; b++) {
            const Range channels = channels_of(b);
            if (!p_.channels_last) {
                for (int64_t v = 0; v < block.vectors; v++)
                    rows_of<T>().panel(
                        weight + (block.first + v * lanes) * steps + channels.begin * p_.taps(), steps,
                        block.count - v * lanes, channels.size(), p_.taps(), to + v * lanes, wide);
                to += channels.size() * p_.taps() * wide;
                continue;
            }
            for (int64_t tap = 0; tap < p_.taps(); tap++) {
                const T* from =
                    weight + (tap * p_.group_in() + channels.begin) * p_.out_channels + block.first;
                for (int64_t c = 0; c < channels.size(); c++, to += wide, from += p_.out_channels) {
                    std::memcpy(to, from, static_cast<size_t>(block.count) * sizeof(T));
                    for (int64_t j = block.count; j < wide; j++) to[j] = T(0);
                }
            }
        }
    }

    int64_t blocks_;
    LanesInput<T> input_;
    ConvProblem p_;
    int64_t unit_, units_, packed_;
    bool whole_rows_;
    std::vector<LaneBlock> lane_blocks_;
};

}  // namespace

bool lanes_keep_packed(size_t bytes, bool in_place) {
    const size_t l2 = l2_bytes();
    return bytes > l2 || (!in_place && bytes >= 65536 && (bytes <= l2 / 2 || num_threads() > 1));
}

template <class T>
std::unique_ptr<ConvKernel> make_direct_lanes(const ConvProblem& problem) {
    return std::make_unique<DirectLanes<T>>(problem);
}

template std::unique_ptr<ConvKernel> make_direct_lanes<float>(const ConvProblem&);
template std::unique_ptr<ConvKernel> make_direct_lanes<double>(const ConvProblem&);

}  // namespace fastconv
