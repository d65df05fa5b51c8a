// Channels last, channels in lanes; see direct.hpp.
#include <algorithm>
#include <cstring>
#include <vector>

#include "algorithms/direct.hpp"
#include "algorithms/microkernel_kernels.hpp"
#include "algorithms/rows_kernels.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/machine.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

struct LaneBlock {  // output channels of one micro-kernel call
    int64_t group, first, count, vectors;
    int64_t packed;  // where its panels begin in packed weights
};

// How one call cuts its outputs, and how a band lies in scratch. Sums do not depend on it.
struct LastLayout {
    int64_t rows, columns;  // of the largest band
    int64_t row_bands, column_bands, channel_chunks;
};

// Where a band's input stands: in x itself or in a padded copy.
template <class T>
struct BandInput {
    const T* base;              // the pixel under the first tap of the band's first output
    int64_t pixel, row, depth;  // elements from one input pixel, row, plane to the next
};

// A 1x1 convolution with stride 1 sees its pixels as one line.
ConvProblem flattened(ConvProblem p) {
    if (p.taps() != 1 || p.reads_padding() || p.in_pixels() != p.out_pixels()) return p;
    const int64_t pixels = p.out_pixels();
    for (int axis = 0; axis < 3; axis++) {
        p.in_size[axis] = p.out_size[axis] = axis == 2 ? pixels : 1;
        p.stride[axis] = p.dilation[axis] = 1;
        p.pad_lo[axis] = p.pad_hi[axis] = 0;
    }
    return p;
}

template <class T>
class DirectLast final : public ConvKernel {
  public:
    explicit DirectLast(const ConvProblem& problem) : p_(flattened(problem)) {
        const int64_t steps = p_.group_in() * p_.taps();
        blocks_ =
            std::clamp<int64_t>((steps + kChainAim / 2) / kChainAim, 1, std::max<int64_t>(1, p_.group_in()));
        // A row of the kernel is one contiguous run of columns and channels where nothing lies between them.
        whole_rows_ = blocks_ == 1 && p_.groups == 1 && p_.dilation[2] == 1 &&
                      p_.kernel[2] * p_.group_in() <= kChainAim;
        const int64_t lanes = micro<T>().lanes;
        int64_t packed = 0;
        for (int64_t g = 0; g < p_.groups; g++) {
            for (int64_t k = 0; k < p_.group_out(); k += lanes * micro<T>().channel_vectors) {
                const int64_t count = std::min(lanes * micro<T>().channel_vectors, p_.group_out() - k);
                const int64_t vectors = ceil_div(count, lanes);
                lane_blocks_.push_back({g, g * p_.group_out() + k, count, vectors, packed});
                packed += vectors * lanes * steps;
            }
        }
        packed_ = packed;
    }

    size_t packed_bytes() const override { return static_cast<size_t>(packed_) * sizeof(T); }

    void pack(const void* weight, void* packed) const override {
        for (const LaneBlock& block : lane_blocks_) {
            T* to = static_cast<T*>(packed) + block.packed;
            for (int64_t b = 0; b < blocks_; b++)
                to = pack_panel(static_cast<const T*>(weight), block, b, to);
        }
    }

    size_t scratch_bytes() const override {
        return scratch_within(SIZE_MAX) + static_cast<size_t>(panel_size()) * sizeof(T);
    }
    size_t scratch_within(size_t budget) const override {
        return static_cast<size_t>(input_size(lay_out(1, 1, budget))) * sizeof(T) +
               static_cast<size_t>(p_.taps()) * sizeof(int64_t);
    }

    bool takes_bands() const override { return true; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        const ScratchShare share = scratch_share();
        const LastLayout l = lay_out(args.batch, share.threads, share.budget);
        const int64_t tasks = args.batch * p_.out_size[0] * l.row_bands * l.column_bands * l.channel_chunks;
        parallel_for(tasks, [&](int64_t task) { run_task(args, l, task); }, share.threads);
    }

  private:
    int64_t largest_block() const { return ceil_div(p_.group_in(), blocks_); }
    int64_t panel_size() const { return largest_block() * p_.taps() * micro<T>().lanes * kMaxChannelVectors; }
    int64_t reach(int axis) const { return (p_.kernel[axis] - 1) * p_.dilation[axis] + 1; }
    int64_t band_rows(int64_t rows) const { return (rows - 1) * p_.stride[1] + reach(1); }
    int64_t band_columns(int64_t columns) const { return (columns - 1) * p_.stride[2] + reach(2); }
    int64_t band_pixels(const LastLayout& l) const {
        return p_.kernel[0] * band_rows(l.rows) * band_columns(l.columns);
    }
    int64_t input_size(const LastLayout& l) const {
        return p_.reads_padding() ? band_pixels(l) * p_.in_channels : 0;
    }

    LastLayout lay_out(int64_t batch, int threads, size_t bound) const {
        LastLayout l;
        const int64_t height = p_.out_size[1], width = p_.out_size[2];
        // A bound on scratch matters only where there is a padded copy.
        const size_t offsets = static_cast<size_t>(p_.taps()) * sizeof(int64_t);
        const size_t most = bound == SIZE_MAX || !p_.reads_padding() ? l2_bytes() / 2
                            : bound > offsets ? std::min(l2_bytes() / 2, bound - offsets)
                                              : 0;
        const auto budget = static_cast<int64_t>(most / sizeof(T));
        const auto blocks = static_cast<int64_t>(lane_blocks_.size());
        const int64_t tile = micro<T>().channel_rows;
        // Each lane block writes a part of every pixel. Where the weights stay in L2, bands are so small that all parts of
        // a line are written before it leaves L2: 16 > 96 channels at 112 x 112 took 0.59 ms without and 0.39 ms with it,
        // 64 > 256 at 56 x 56 0.69 and 0.58 (output not aligned to lines; 0.38 to 0.30 and 0.63 to 0.58 where it is).
        const bool light = blocks > 1 && packed_bytes() <= l2_bytes() / 4;
        const int64_t written = light ? static_cast<int64_t>(l2_bytes() / 8 / sizeof(T)) : INT64_MAX;
        l.row_bands = l.column_bands = l.channel_chunks = 1;
        const auto fits = [&] {
            l.rows = ceil_div(height, l.row_bands);
            l.columns = ceil_div(width, l.column_bands);
            return band_pixels(l) * p_.in_channels <= budget &&
                   l.rows * l.columns * p_.out_channels <= written;
        };
        while (!fits()) {
            if (l.rows > 1) {
                l.row_bands = std::min(height, l.row_bands + 1 + l.row_bands / 8);
            } else if (l.columns > (bound == SIZE_MAX ? tile : 1)) {
                l.column_bands++;
            } else {
                break;
            }
        }
        const auto tasks = [&] {
            return batch * p_.out_size[0] * l.row_bands * l.column_bands * l.channel_chunks;
        };
        const double enough = 60e3;  // multiply-adds worth a task of their own
        const double work = p_.flops() * batch / 2;
        while (threads > 1 && tasks() < 3 * threads && work / tasks() > enough) {
            if (l.rows > 1 && l.rows * l.columns > 8 * tile) {
                l.row_bands++;
            } else if (l.columns > 8 * tile) {
                l.column_bands++;
            } else if (l.channel_chunks < blocks) {
                l.channel_chunks++;
            } else if (l.rows > 1) {
                l.row_bands++;
            } else if (l.columns > tile) {
                l.column_bands++;
            } else {
                break;
            }
            fits();
        }
        return l;
    }

    void run_task(const ConvArgs& args, const LastLayout& l, int64_t task) const {
        const auto next = [&task](int64_t n) {
            const int64_t i = task % n;
            task /= n;
            return i;
        };
        const int64_t chunk = next(l.channel_chunks);
        const Range columns = part_of(p_.out_size[2], l.column_bands, next(l.column_bands));
        const Range rows = part_of(p_.out_size[1], l.row_bands, next(l.row_bands));
        const int64_t depth = next(p_.out_size[0]), image = task;

        ScratchFrame frame;
        T* const scratch = frame.take<T>(input_size(l));
        T* const panel = args.packed == nullptr ? frame.take<T>(panel_size()) : nullptr;
        const BandInput<T> input = band_input(args, image, depth, rows, columns, scratch);

        // Offsets of the segments of one channel block from the pixel under the first tap.
        const int64_t segments = p_.kernel[0] * p_.kernel[1] * (whole_rows_ ? 1 : p_.kernel[2]);
        int64_t* const offsets = frame.take<int64_t>(segments);
        int64_t s = 0;
        for (int64_t d = 0; d < p_.kernel[0]; d++)
            for (int64_t h = 0; h < p_.kernel[1]; h++)
                for (int64_t w = 0; w < (whole_rows_ ? 1 : p_.kernel[2]); w++)
                    offsets[s++] =
                        d * input.depth + h * p_.dilation[1] * input.row + w * p_.dilation[2] * input.pixel;

        const Range blocks = part_of(static_cast<int64_t>(lane_blocks_.size()), l.channel_chunks, chunk);
        for (int64_t i = blocks.begin; i < blocks.end; i++) {
            const LaneBlock& block = lane_blocks_[i];
            const T* weights =
                args.packed == nullptr ? panel : static_cast<const T*>(args.packed) + block.packed;
            for (int64_t b = 0; b < blocks_; b++) {
                const Range channels = part_of(p_.group_in(), blocks_, b);
                if (args.packed == nullptr) pack_panel(static_cast<const T*>(args.weight), block, b, panel);
                ChannelTile<T> call;
                call.length = channels.size() * (whole_rows_ ? p_.kernel[2] : 1);
                const int64_t pieces =
                    std::clamp<int64_t>(ceil_div(segments * call.length, kChainMost), 1, segments);
                for (int64_t piece = 0; piece < pieces; piece++) {
                    const Range part = part_of(segments, pieces, piece);
                    call.offsets = offsets + part.begin;
                    call.segments = part.size();
                    call.w = weights + part.begin * call.length * block.vectors * micro<T>().lanes;
                    call.accumulate = b > 0 || piece > 0;
                    const bool last = b + 1 == blocks_ && piece + 1 == pieces;
                    BandInput<T> from = input;
                    from.base += block.group * p_.group_in() + channels.begin;
                    run_band(args, image, depth, rows, columns, block, from, call, last);
                }
                if (args.packed != nullptr)
                    weights += channels.size() * p_.taps() * block.vectors * micro<T>().lanes;
            }
        }
    }

    // One panel of weights against all pixels of the band.
    void run_band(const ConvArgs& args, int64_t image, int64_t depth, Range rows, Range columns,
                  const LaneBlock& block, const BandInput<T>& input, ChannelTile<T> call, bool last) const {
        const Micro<T>& kernels = micro<T>();
        const int64_t tiles = ceil_div(columns.size(), kernels.channel_rows);
        const bool clamps = args.activation == Activation::relu || args.activation == Activation::relu6;
        call.x_row = p_.stride[2] * input.pixel;
        call.out_row = p_.out_channels;
        call.channels = block.count;
        if (last && args.bias != nullptr) call.bias = static_cast<const T*>(args.bias) + block.first;
        if (last && clamps) call.clamp = args.activation == Activation::relu ? Clamp::relu : Clamp::relu6;
        for (int64_t row = rows.begin; row < rows.end; row++) {
            const int64_t line = ((image * p_.out_size[0] + depth) * p_.out_size[1] + row) * p_.out_size[2];
            for (int64_t t = 0; t < tiles; t++) {
                const Range part = part_of(columns.size(), tiles, t);
                const int64_t at = (line + columns.begin + part.begin) * p_.out_channels + block.first;
                call.x = input.base + (row - rows.begin) * p_.stride[1] * input.row + part.begin * call.x_row;
                call.out = static_cast<T*>(args.out) + at;
                call.add = last && args.add != nullptr ? static_cast<const T*>(args.add) + at : nullptr;
                kernels.channels[part.size()][block.vectors](call);
                if (last && !clamps && args.activation != Activation::none)
                    rows_of<T>().activate(args.activation, call.out, part.size(), call.out_row, block.count);
            }
        }
    }

    BandInput<T> band_input(const ConvArgs& args, int64_t image, int64_t depth, Range rows, Range columns,
                            T* scratch) const {
        const int64_t channels = p_.in_channels;
        const T* const x = static_cast<const T*>(args.x) + image * p_.in_pixels() * channels;
        BandInput<T> in;
        in.pixel = channels;
        if (!p_.reads_padding()) {
            in.row = p_.in_size[2] * channels;
            in.depth = p_.dilation[0] * p_.in_size[1] * in.row;
            const int64_t z = depth * p_.stride[0] - p_.pad_lo[0],
                          y = rows.begin * p_.stride[1] - p_.pad_lo[1];
            in.base = x + (z * p_.in_size[1] + y) * in.row +
                      (columns.begin * p_.stride[2] - p_.pad_lo[2]) * channels;
            return in;
        }
        const int64_t width = band_columns(columns.size()), height = band_rows(rows.size());
        in.row = width * channels;
        in.depth = height * in.row;
        in.base = scratch;
        const int64_t first = columns.begin * p_.stride[2] - p_.pad_lo[2];
        // Columns that lie in the input are one copy; those of the padding are looked up one by one.
        const int64_t inner = std::clamp<int64_t>(-first, 0, width);
        const int64_t outer = std::clamp<int64_t>(p_.in_size[2] - first, inner, width);
        for (int64_t d = 0; d < p_.kernel[0]; d++) {
            const int64_t z =
                axis_source(p_.mode, p_.in_size[0], depth * p_.stride[0] + d * p_.dilation[0] - p_.pad_lo[0]);
            for (int64_t r = 0; r < height; r++) {
                T* const to = scratch + d * in.depth + r * in.row;
                const int64_t y =
                    axis_source(p_.mode, p_.in_size[1], rows.begin * p_.stride[1] + r - p_.pad_lo[1]);
                if (z < 0 || y < 0) {
                    std::memset(to, 0, static_cast<size_t>(in.row) * sizeof(T));
                    continue;
                }
                const T* const line = x + (z * p_.in_size[1] + y) * p_.in_size[2] * channels;
                const auto copy = [&](int64_t w, int64_t n, int64_t source) {
                    if (n <= 0) return;
                    const size_t bytes = static_cast<size_t>(n * channels) * sizeof(T);
                    if (source < 0) {
                        std::memset(to + w * channels, 0, bytes);
                    } else {
                        std::memcpy(to + w * channels, line + source * channels, bytes);
                    }
                };
                for (int64_t w = 0; w < inner; w++)
                    copy(w, 1, axis_source(p_.mode, p_.in_size[2], first + w));
                copy(inner, outer - inner, first + inner);
                for (int64_t w = outer; w < width; w++)
                    copy(w, 1, axis_source(p_.mode, p_.in_size[2], first + w));
            }
        }
        return in;
    }

    // Weights (tap, channel, K) of one lane block and channel block, lanes beyond K zero; returns the end of
    // the panel.
    T* pack_panel(const T* weight, const LaneBlock& block, int64_t b, T* to) const {
        const Range channels = part_of(p_.group_in(), blocks_, b);
        const int64_t width = block.vectors * micro<T>().lanes;
        for (int64_t tap = 0; tap < p_.taps(); tap++) {
            const T* from = weight + (tap * p_.group_in() + channels.begin) * p_.out_channels + block.first;
            for (int64_t c = 0; c < channels.size(); c++, to += width, from += p_.out_channels) {
                std::memcpy(to, from, static_cast<size_t>(block.count) * sizeof(T));
                for (int64_t k = block.count; k < width; k++) to[k] = T(0);
            }
        }
        return to;
    }

    ConvProblem p_;
    int64_t blocks_, packed_;
    bool whole_rows_;
    std::vector<LaneBlock> lane_blocks_;
};

}  // namespace

template <class T>
std::unique_ptr<ConvKernel> make_direct_last(const ConvProblem& problem) {
    return std::make_unique<DirectLast<T>>(problem);
}

template std::unique_ptr<ConvKernel> make_direct_last<float>(const ConvProblem&);
template std::unique_ptr<ConvKernel> make_direct_last<double>(const ConvProblem&);

}  // namespace fastconv
