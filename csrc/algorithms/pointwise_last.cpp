// Pointwise convolution channels last; see pointwise.hpp.
#include <algorithm>
#include <cstring>
#include <vector>

#include "algorithms/activations.hpp"
#include "algorithms/direct.hpp"
#include "algorithms/lanes_input.hpp"
#include "algorithms/lines_ahead.hpp"
#include "algorithms/microkernel_kernels.hpp"
#include "algorithms/placed_rows.hpp"
#include "algorithms/pointwise.hpp"
#include "algorithms/pointwise_few.hpp"
#include "algorithms/product_grid.hpp"
#include "algorithms/rows_kernels.hpp"
#include "algorithms/stream.hpp"
#include "plan/candidates.hpp"
#include "runtime/check.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/machine.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

// Weights in an eager call that so many pixels read are read where the user has them. Rows a power of two apart share
// their sets in L1: 576 > 96 at 14 x 14 lost 17% by it and 8% by packing. Tiles of two vectors read them less often: 960 >
// 320 at 7 x 7 214 us, by four 245.
constexpr int64_t kFewPixels = 64;
// Inputs and outputs that stay in L2 beside the weights.
constexpr int64_t kSmallBand = 128 << 10;
// Outputs that are streamed wait in a stage of so many bytes.
constexpr int64_t kSmallStage = 64 << 10;

struct Chain {  // input channels that are summed in registers
    int64_t begin, length, segments;
    int64_t offsets;  // where those of its segments begin
};

// How one call cuts its outputs. Sums do not depend on it.
struct Cut {
    int64_t band;           // pixels that all channels of a task pass over before the next
    int64_t parts, chunks;  // of the pixels, of the output channels
    bool staged;            // outputs of a band wait for being streamed
    bool packs;             // weights are packed by the one task that reads them, just before
};

template <class T>
class PointwiseLast final : public ConvKernel {
  public:
    explicit PointwiseLast(const ConvProblem& problem)
        : p_(problem), dense_(problem.in_pixels() == problem.out_pixels()), turned_(!problem.channels_last) {
        const Micro<T>& kernels = micro<T>();
        const int64_t vectors = ceil_div(p_.out_channels, kernels.lanes), steps = p_.in_channels;
        // Tiles of a whole cell of pixels by two vectors of channels, or of half of one by four.
        const bool wide = vectors >= kernels.wide_vectors && kernels.wide_vectors > kernels.channel_vectors;
        cell_ = wide ? 2 * kernels.wide_rows : kernels.channel_rows;
        lane_blocks_ = cut_channels(kernels.wide_vectors);
        narrow_blocks_ = cut_channels(kernels.channel_vectors);
        packed_ = vectors * kernels.lanes * steps;
        widest_ = std::min<int64_t>(vectors, kernels.wide_vectors) * kernels.lanes;
        const int64_t units = ceil_div(steps, kUnit),
                      chains = std::clamp<int64_t>((steps + kChainAim / 2) / kChainAim, 1,
                                                   std::max<int64_t>(1, units));
        for (int64_t c = 0; c < chains; c++) {
            const Range part = part_of(units, chains, c);
            const int64_t begin = part.begin * kUnit, size = std::min(part.end * kUnit, steps) - begin,
                          length = least_segment(size), segments = length == 0 ? 0 : size / length;
            chains_.push_back({begin, length, segments, static_cast<int64_t>(offsets_.size())});
            ranges_.push_back({begin, begin + size});
            for (int64_t s = 0; s < segments; s++) {
                offsets_.push_back(s * length);
                w_offsets_.push_back((begin + s * length) * p_.out_channels);
            }
        }
        cut_passes();
    }

    size_t packed_bytes() const override { return static_cast<size_t>(packed_) * sizeof(T); }

    void pack(const void* weight, void* packed) const override {
        for (const LaneBlock& block : lane_blocks_)
            pack_channels(static_cast<const T*>(weight), block, {0, p_.in_channels},
                          static_cast<T*>(packed) + block.packed);
    }

    bool keeps_packed() const override {
        return lanes_keep_packed(packed_bytes(), !turned_ && whole_vectors());
    }
    bool keeps_packed_for(int64_t batch) const override { return !few(batch) && keeps_packed(); }

    size_t scratch_bytes() const override {
        const size_t eager = packed_bytes() + static_cast<size_t>(gathered(large_band())) * sizeof(T);
        return scratch_within(SIZE_MAX) + std::max(eager, few_pixels_scratch<T>());
    }
    size_t scratch_within(size_t budget) const override {
        int64_t elements = gathered(largest_band(budget));
        if (may_stream())
            elements = std::max(elements, gathered(stage_pixels())) + stage_pixels() * p_.out_channels;
        return static_cast<size_t>(elements) * sizeof(T);
    }
    bool takes_bands() const override { return !turned_; }
    bool asks_ahead() const override { return true; }
    bool places_pixels() const override { return p_.placed; }

    void run(const ConvArgs& args) const override {
        FASTCONV_DCHECK(args.place == nullptr || (args.add == nullptr && !needs_pass(args.activation)));
        const FlushToZero flush;
        const ScratchShare share = scratch_share();
        if (args.packed == nullptr && args.place == nullptr && few(args.batch))
            return run_few_pixels<T>(p_, args, ranges_, turned_, share.threads);
        const int64_t pixels = args.batch * p_.out_pixels();
        Cut cut = cut_outputs(args, share);
        ScratchFrame frame;
        const T* packed = static_cast<const T*>(args.packed);
        const std::vector<LaneBlock>* list = &lane_blocks_;
        if (packed == nullptr && !turned_ && whole_vectors() && pixels <= kFewPixels) {
            list = &narrow_blocks_;
        } else if (packed == nullptr) {
            cut.packs = !cut.staged && cut.parts == 1 && pixels <= within(large_band(), share.budget);
            if (cut.packs)
                cut.band = pixels;
            else
                packed = pack_all(args, frame, share.threads);
        }
        note_weight_parts(cut.chunks);
        const auto run_part = [&](int64_t task) {
            const Range cells = part_of(ceil_div(pixels, cell_), cut.parts, task / cut.chunks);
            const Range blocks = part_of(static_cast<int64_t>(list->size()), cut.chunks, task % cut.chunks);
            run_task(args, packed, cut, {cells.begin * cell_, std::min(cells.end * cell_, pixels)},
                     list->data() + blocks.begin, list->data() + blocks.end);
        };
        parallel_for(cut.parts * cut.chunks, run_part, share.threads,
                     least_seconds<T>(p_.flops() * args.batch));
    }

  private:
    // What the bands of one task have in common.
    struct Task {
        const ConvArgs& args;
        const T* packed;               // all weights, or null
        const LaneBlock *first, *end;  // its output channels
        int64_t band;                  // pixels of a band, at most
        T *gather, *stage, *panel;     // its scratch; each may be null
    };
    // What the calls of a band ask for, and what for.
    struct Ahead {
        LinesAhead<T> inputs, weights, outputs;  // outputs where no weights are asked for
        const T* x = nullptr;  // inputs in one run; null: those of the pixels from `next` on
        int64_t next = 0;
        const T* out = nullptr;
        const T* later_panel = nullptr;  // of the weights that follow this lane block's
    };

    static constexpr int64_t kUnit = 16;  // chains begin at whole lines
    static constexpr int64_t kMostTogether = 4;

    // Pixels whose sums wait while the weights pass over them (pointwise_few.hpp).
    bool few(int64_t batch) const {
        return dense_ && p_.in_channels > 0 && batch * p_.out_pixels() <= kMostFewPixels;
    }
    // Vectors of output channels stand in the user's weights as they are.
    bool whole_vectors() const { return p_.out_channels % micro<T>().lanes == 0; }
    int64_t blocks() const { return static_cast<int64_t>(lane_blocks_.size()); }
    // Over how many parts of its chains a band passes: the weights of a lane block and a part stay in L2 beside the pixels.
    // Those read in place stay in L1, where their rows have sets enough.
    int64_t passes(const Task& task) const {
        const bool in_place = task.packed == nullptr && task.panel == nullptr;
        return in_place ? static_cast<int64_t>(chains_.size()) : passes_;
    }
    // As few passes as leave the weights of a lane block an eighth of L2: sums of several chains then do not wait in the
    // output. 16 images, 960 > 320 at 7 x 7 170 GFLOP/s with a pass for every chain and 180 with one, 1024 > 512 at 14 x 14
    // 171 and 177.
    void cut_passes() {
        const auto chains = static_cast<int64_t>(chains_.size());
        int64_t longest = 1;
        for (const Range& chain : ranges_) longest = std::max(longest, chain.size());
        const int64_t most = static_cast<int64_t>(l2_bytes() / 8 / sizeof(T)) / (longest * widest_);
        passes_ = ceil_div(chains, std::clamp<int64_t>(most, 1, kMostTogether));
        panel_ = 0;
        for (int64_t i = 0; i < passes_; i++) {
            const Range part = part_of(chains, passes_, i);
            panel_ = std::max(panel_, (ranges_[part.end - 1].end - ranges_[part.begin].begin) * widest_);
        }
    }
    bool heavy(int64_t blocks) const {
        const int64_t width = int64_t{micro<T>().wide_vectors} * micro<T>().lanes;
        return static_cast<size_t>(blocks * width * p_.in_channels) * sizeof(T) > l2_bytes() / 2;
    }
    int64_t tile_rows(const LaneBlock& block) const {
        return block.vectors > micro<T>().channel_vectors ? micro<T>().wide_rows : micro<T>().channel_rows;
    }

    int64_t gathered_pixel() const { return fastconv::gathered_pixel<T>(p_.in_channels); }
    int64_t gathered(int64_t pixels) const { return dense_ ? 0 : pixels * gathered_pixel(); }

    bool may_stream() const { return workspace_limit() == SIZE_MAX; }
    int64_t stage_pixels() const {
        const int64_t pixel = std::max<int64_t>(1, p_.out_channels) * static_cast<int64_t>(sizeof(T));
        return std::max<int64_t>(1, kSmallStage / pixel / cell_) * cell_;
    }
    // Pixels that may wait in L2 for all channels. 512 > 2048 at 7 x 7, 16 images: 192 and 384 pixels 208 GFLOP/s, 512
    // pixels 199.
    int64_t large_band() const {
        const auto pixel = std::max<int64_t>(1, p_.in_channels) * static_cast<int64_t>(sizeof(T));
        return std::max<int64_t>(1, static_cast<int64_t>(l2_bytes()) * 2 / 5 / pixel / cell_) * cell_;
    }
    // Pixels that so many lane blocks pass over at a time: while their weights stay in L2, few enough that inputs and
    // outputs stay there too: 64 > 64 at 56 x 56 143 us with 16 KB of each and 133 with 128, 16 images of 256 > 64 9.6 and
    // 9.2 ms, of 128 > 512 at 28 x 28 8.7 and 8.4.
    int64_t band_pixels(int64_t blocks) const {
        if (heavy(blocks)) return large_band();
        const int64_t channels = std::max({int64_t{1}, p_.in_channels, p_.out_channels}),
                      pixel = channels * static_cast<int64_t>(sizeof(T));
        return std::max<int64_t>(1, kSmallBand / pixel / cell_) * cell_;
    }
    // As many as can be gathered within `budget`.
    int64_t within(int64_t band, size_t budget) const {
        if (static_cast<size_t>(gathered(band)) * sizeof(T) <= budget) return band;
        const auto most = static_cast<int64_t>(budget / (static_cast<size_t>(gathered_pixel()) * sizeof(T)));
        return std::max<int64_t>(1, most >= cell_ ? most / cell_ * cell_ : most);
    }
    // No band is larger: few pixels are one.
    int64_t largest_band(size_t budget) const {
        return within(std::max(band_pixels(blocks()), round_up(kFewPixels, cell_)), budget);
    }

    std::vector<LaneBlock> cut_channels(int64_t widest) const {
        const int64_t lanes = micro<T>().lanes;
        std::vector<LaneBlock> blocks;
        for (int64_t first = 0; first < p_.out_channels;) {
            const int64_t left = ceil_div(p_.out_channels - first, lanes);
            const int64_t vectors =
                left >= widest ? widest : std::min<int64_t>(left, micro<T>().channel_vectors);
            const int64_t count = std::min(vectors * lanes, p_.out_channels - first);
            blocks.push_back({0, first, count, vectors, first * p_.in_channels});
            first += count;
        }
        return blocks;
    }

    const T* pack_all(const ConvArgs& args, ScratchFrame& frame, int threads) const {
        T* const all = frame.take<T>(packed_);
        const auto pack_one = [&](int64_t i) {
            pack_channels(static_cast<const T*>(args.weight), lane_blocks_[i], {0, p_.in_channels},
                          all + lane_blocks_[i].packed);
        };
        parallel_for(blocks(), pack_one, packed_ > 65536 ? threads : 1);
        return all;
    }

    Cut cut_outputs(const ConvArgs& args, const ScratchShare& share) const {
        const int64_t pixels = args.batch * p_.out_pixels(),
                      width = int64_t{micro<T>().wide_vectors} * micro<T>().lanes;
        const ProductGrid grid =
            cut_product({pixels, cell_, p_.in_channels, p_.out_channels, width, sizeof(T)}, micro<T>().lanes,
                        share.threads);
        Cut cut{0, grid.parts, grid.chunks, false, false};
        const int64_t most = ceil_div(blocks(), cut.chunks);
        cut.staged = may_stream() && cut.chunks == 1 && !heavy(most) && streams(args);
        cut.band = cut.staged ? stage_pixels() : within(band_pixels(most), share.budget);
        if (cut.parts == 1 && pixels <= kFewPixels)
            cut.band = std::max(cut.band, std::min(pixels, largest_band(share.budget)));
        return cut;
    }
    int64_t output_bytes(const ConvArgs& args) const {
        return args.batch * p_.out_channels * p_.out_pixels() * static_cast<int64_t>(sizeof(T));
    }
    // Placed outputs are streamed where the caller says so, others where no cache holds them. While one does, asking for
    // their lines ahead is faster: 16 images of 24 > 144 at 56 x 56 3.8 ms streamed, 2.7 by plain stores and 2.5 asked for,
    // 16 > 64 at 112 x 112 5.6, 4.8 and 3.3, 64 > 256 at 56 x 56 11.9, 14.3 and 9.5; 205 MB of 64 > 256 at 112 x 112 43.5,
    // 54 and 37, but 308 MB of 16 > 96 at 224 x 224 32, 53 and 33.
    bool streams(const ConvArgs& args) const {
        if (args.place != nullptr) return args.past_caches && args.place->pixel == p_.out_channels;
        return output_bytes(args) >=
               std::clamp<int64_t>(static_cast<int64_t>(l3_bytes()), 32 << 20, 256 << 20);
    }
    // What `calls` calls of a band ask for: of the next band, or of what comes after all of them. Outputs that L2 holds
    // are there: asking costs 1 to 3%.
    void begin_ahead(const Task& task, Range band, Range next, int64_t calls, Ahead& ahead) const {
        const Coming* const coming = task.args.coming;
        const int64_t pixels = task.args.batch * p_.out_pixels(), k = p_.out_channels;
        if (coming != nullptr) {
            const int64_t first = coming->values * band.begin / pixels;
            ahead.x = static_cast<const T*>(coming->x) + first;
            ahead.inputs.begin(1, coming->values * band.end / pixels - first, calls);
        } else if (dense_) {
            ahead.x = static_cast<const T*>(task.args.x) + next.begin * p_.in_channels;
            ahead.inputs.begin(1, next.size() * p_.in_channels, calls);
        } else {
            ahead.next = next.begin;
            ahead.inputs.begin(next.size(), p_.in_channels, calls);
        }
        int64_t values = output_bytes(task.args) > static_cast<int64_t>(l2_bytes()) ? next.size() * k : 0;
        if (coming != nullptr) values = std::min(task.band * k, (pixels - band.end) * k + coming->outputs);
        if (task.stage != nullptr || task.args.place != nullptr) return;
        ahead.out = static_cast<const T*>(task.args.out) + band.end * k;
        ahead.outputs.begin(1, values, calls);
    }

    // Where the input of an output pixel stands.
    const T* source(const ConvArgs& args, int64_t pixel) const {
        const T* const x = static_cast<const T*>(args.x);
        if (dense_) return x + pixel * p_.in_channels;
        const int64_t size = p_.out_pixels(), image = pixel / size, at = pixel % size;
        const int64_t w = at % p_.out_size[2], h = at / p_.out_size[2] % p_.out_size[1],
                      d = at / p_.out_size[2] / p_.out_size[1];
        const int64_t line = (image * p_.in_size[0] + d * p_.stride[0]) * p_.in_size[1] + h * p_.stride[1];
        return x + (line * p_.in_size[2] + w * p_.stride[2]) * p_.in_channels;
    }

    // Band > lane block > chain > tile.
    void run_task(const ConvArgs& args, const T* packed, const Cut& cut, Range pixels, const LaneBlock* first,
                  const LaneBlock* end) const {
        ScratchFrame frame;
        Task task{args, packed, first, end, cut.band, nullptr, nullptr, nullptr};
        if (!dense_) task.gather = frame.take<T>(gathered(cut.band));
        if (cut.staged) task.stage = frame.take<T>(cut.band * p_.out_channels);
        if (cut.packs) task.panel = frame.take<T>(panel_);
        for (int64_t begin = pixels.begin; begin < pixels.end; begin += cut.band) {
            const Range band{begin, std::min(begin + cut.band, pixels.end)},
                next{band.end, std::min(band.end + cut.band, pixels.end)};
            run_band(task, band, next);
            if (task.stage != nullptr) stream_band(args, band, task.stage);
        }
    }

    void stream_band(const ConvArgs& args, Range band, const T* stage) const {
        const int64_t k = p_.out_channels, width = p_.out_size[2];
        if (args.place == nullptr)
            return stream(stage, static_cast<T*>(args.out) + band.begin * k, band.size() * k);
        for (int64_t i = band.begin, n; i < band.end; i += n, stage += n * k) {
            n = std::min(width - i % width, band.end - i);
            stream(stage, placed_row<T>(p_, args, i / width) + i % width * k, n * k);
        }
    }
    void run_band(const Task& task, Range band, Range next) const {
        if (!dense_) {
            for (int64_t i = band.begin; i < band.end; i++)
                std::memcpy(task.gather + (i - band.begin) * gathered_pixel(), source(task.args, i),
                            static_cast<size_t>(p_.in_channels) * sizeof(T));
        }
        const auto calls_of = [&](const LaneBlock& block) {
            return static_cast<int64_t>(chains_.size()) * ceil_div(band.size(), tile_rows(block));
        };
        int64_t calls = 0;
        for (const LaneBlock* block = task.first; block < task.end; block++) calls += calls_of(*block);
        Ahead ahead;
        begin_ahead(task, band, next, calls, ahead);
        // Panels of more than a quarter of L2 are asked for in vain: one pixel of 25,088 > 512 took 3.3 ms so and takes 1.8,
        // 4096 > 512 at 7 x 7 1.34 and 1.28.
        const size_t panel = static_cast<size_t>(widest_ * p_.in_channels) * sizeof(T);
        const bool reads_ahead =
            task.packed != nullptr && heavy(task.end - task.first) && panel <= l2_bytes() / 4;
        for (const LaneBlock* block = task.first; block < task.end; block++) {
            const bool more = block + 1 < task.end || next.size() > 0;
            const LaneBlock& later = block + 1 < task.end ? block[1] : *task.first;
            if (reads_ahead) ahead.later_panel = task.packed + later.packed;
            ahead.weights.begin(reads_ahead && more ? 1 : 0,
                                later.vectors * micro<T>().lanes * p_.in_channels, calls_of(*block));
            const int64_t chains = static_cast<int64_t>(chains_.size()), parts = passes(task);
            for (int64_t i = 0; i < parts; i++)
                run_chains(task, *block, part_of(chains, parts, i), band, ahead);
        }
    }

    // What the tiles of a lane block and a chain have in common. `first`: the input channel with which the panel of a task
    // begins.
    ChannelTile<T> describe(const Task& task, const LaneBlock& block, const Chain& chain,
                            int64_t first) const {
        const ConvArgs& args = task.args;
        const int64_t width = block.vectors * micro<T>().lanes;
        ChannelTile<T> call;
        call.x_row = dense_ ? p_.in_channels : gathered_pixel();
        call.w_step = p_.out_channels;
        call.w_ahead = kRowsAhead * p_.out_channels;
        call.channels = block.count;
        call.length = chain.length * chain.segments;
        call.segments = std::min<int64_t>(chain.segments, 1);
        call.offsets = offsets_.data() + chain.offsets;
        if (task.panel != nullptr) {
            call.w = task.panel + (chain.begin - first) * width;
        } else if (task.packed != nullptr) {
            call.w = task.packed + block.packed + chain.begin * width;
        } else {
            call.w = static_cast<const T*>(args.weight) + block.first;
            call.w_offsets = w_offsets_.data() + chain.offsets;
            call.length = chain.length;
            call.segments = chain.segments;
        }
        call.accumulate = &chain != &chains_.front();
        if (&chain != &chains_.back()) return call;
        if (args.bias != nullptr) call.bias = static_cast<const T*>(args.bias) + block.first;
        call.clamp = clamp_of(args.activation);
        return call;
    }
    // Every tile of a band sums these chains before the next; sums of all but the last wait in L1.
    void run_chains(const Task& task, const LaneBlock& block, Range chains, Range band, Ahead& ahead) const {
        const ConvArgs& args = task.args;
        const Range channels{ranges_[chains.begin].begin, ranges_[chains.end - 1].end};
        if (task.panel != nullptr)
            pack_channels(static_cast<const T*>(args.weight), block, channels, task.panel);
        ChannelTile<T> calls[kMostTogether];
        for (int64_t c = chains.begin; c < chains.end; c++)
            calls[c - chains.begin] = describe(task, block, chains_[c], channels.begin);
        const bool last = chains.end == static_cast<int64_t>(chains_.size());
        const int64_t rows = tile_rows(block), width = p_.out_size[2];
        alignas(64) T waiting[kMostRows * kWidest];
        alignas(64) T tile[kMostRows * kWidest];  // of placed outputs that go on in the next row
        T* row = nullptr;
        int64_t column = width;
        for (int64_t pixel = band.begin; pixel < band.end; pixel += rows) {
            const int64_t n = std::min(rows, band.end - pixel), at = pixel * p_.out_channels + block.first;
            T* out = static_cast<T*>(args.out) + at;
            int64_t out_row = p_.out_channels;
            bool cut = false;
            if (task.stage != nullptr) {
                out = task.stage + (pixel - band.begin) * p_.out_channels + block.first;
            } else if (args.place != nullptr) {
                if (column >= width) {
                    row = placed_row<T>(p_, args, pixel / width);
                    column = pixel % width;
                }
                cut = column + n > width;
                out = cut ? tile : row + column * args.place->pixel + block.first;
                out_row = cut ? kWidest : args.place->pixel;
                column += n;
                if (cut && chains.begin > 0) cut_tile(p_, args, pixel, n, block, tile, true);
            }
            for (int64_t c = chains.begin; c < chains.end; c++) {
                ChannelTile<T>& call = calls[c - chains.begin];
                const bool first = c == chains.begin, ends = c + 1 == chains.end;
                aim(task, call, chains_[c].begin, band, pixel, ahead);
                call.earlier = first ? out : waiting;
                call.earlier_row = first ? out_row : kWidest;
                call.out = ends ? out : waiting;
                call.out_row = ends ? out_row : kWidest;
                if (ends && last && args.add != nullptr) call.add = static_cast<const T*>(args.add) + at;
                micro<T>().channels[n][block.vectors](call);
            }
            if (cut) cut_tile(p_, args, pixel, n, block, tile, false);
            if (last && needs_pass(args.activation))
                rows_of<T>().activate(args.activation, out, n, out_row, block.count);
        }
    }
    // Where the tile at `pixel` reads, and what it asks for.
    void aim(const Task& task, ChannelTile<T>& call, int64_t first, Range band, int64_t pixel,
             Ahead& ahead) const {
        call.x = (dense_ ? source(task.args, pixel) : task.gather + (pixel - band.begin) * gathered_pixel()) +
                 first;
        ahead.inputs.take(
            [&](int64_t run) { return ahead.x != nullptr ? ahead.x : source(task.args, ahead.next + run); },
            call.segments, &call.ahead_x, &call.ahead_x_lines);
        ahead.weights.take([&](int64_t) { return ahead.later_panel; }, call.segments, &call.ahead,
                           &call.ahead_lines);
        if (call.ahead_lines > 0) return;
        ahead.outputs.take([&](int64_t) { return ahead.out; }, call.segments, &call.ahead, &call.ahead_lines);
    }

    // Weights [channel][lane] of one lane block, lanes beyond K zero.
    void pack_channels(const T* weight, const LaneBlock& block, Range channels, T* to) const {
        const int64_t lanes = micro<T>().lanes, width = block.vectors * lanes;
        if (turned_) {
            for (int64_t v = 0; v < block.vectors; v++)
                rows_of<T>().panel(weight + (block.first + v * lanes) * p_.in_channels + channels.begin,
                                   p_.in_channels, block.count - v * lanes, channels.size(), 1,
                                   to + v * lanes, width);
            return;
        }
        const T* from = weight + channels.begin * p_.out_channels + block.first;
        for (int64_t c = channels.begin; c < channels.end; c++, to += width, from += p_.out_channels) {
            std::memcpy(to, from, static_cast<size_t>(block.count) * sizeof(T));
            for (int64_t j = block.count; j < width; j++) to[j] = T(0);
        }
    }

    ConvProblem p_;
    bool dense_;
    bool turned_;  // weights are [output][input]: channels first, images of one pixel
    int64_t cell_ = 0, packed_ = 0, widest_ = 0;
    int64_t passes_ = 1, panel_ = 0;  // panel_: numbers of the weights of a lane block and a pass
    std::vector<LaneBlock> lane_blocks_, narrow_blocks_;
    std::vector<Chain> chains_;
    std::vector<Range> ranges_;  // of their input channels
    std::vector<int64_t> offsets_, w_offsets_;
};

}  // namespace

template <class T>
std::unique_ptr<ConvKernel> make_pointwise_last(const ConvProblem& problem) {
    return std::make_unique<PointwiseLast<T>>(problem);
}

template std::unique_ptr<ConvKernel> make_pointwise_last<float>(const ConvProblem&);
template std::unique_ptr<ConvKernel> make_pointwise_last<double>(const ConvProblem&);

}  // namespace fastconv
