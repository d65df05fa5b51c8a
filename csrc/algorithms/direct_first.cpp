// Channels first, pixels in lanes; see direct.hpp.
#include <algorithm>
#include <vector>

#include "algorithms/activations.hpp"
#include "algorithms/direct.hpp"
#include "algorithms/microkernel_kernels.hpp"
#include "algorithms/rows_kernels.hpp"
#include "plan/candidates.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/machine.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

// One axis of the kernel seen through its stride: a tap reads phase (tap * dilation) % stride, shifted by the
// quotient.
struct Phases {
    std::vector<int64_t> phase;   // the phases that taps read, ascending
    std::vector<int64_t> reach;   // of each: the largest shift
    std::vector<int64_t> of_tap;  // index into `phase`
    std::vector<int64_t> shift;   // of each tap
    int64_t most = 0;             // the largest shift of all

    Phases(int64_t taps, int64_t stride, int64_t dilation) {
        for (int64_t t = 0; t < taps; t++) phase.push_back(t * dilation % stride);
        std::sort(phase.begin(), phase.end());
        phase.erase(std::unique(phase.begin(), phase.end()), phase.end());
        reach.assign(phase.size(), 0);
        for (int64_t t = 0; t < taps; t++) {
            const auto at =
                std::lower_bound(phase.begin(), phase.end(), t * dilation % stride) - phase.begin();
            of_tap.push_back(at);
            shift.push_back(t * dilation / stride);
            reach[at] = std::max(reach[at], shift.back());
            most = std::max(most, shift.back());
        }
    }
};

// Copied rows up to so long go all at once: one by one, 15 ns each, they took longer than the sums (32 > 2 channels of 12 x 6,
// 4x4, 7.5 us an image, and 3.3 so).
constexpr int64_t kNarrow = 64;

struct RowBlock {  // output channels of one micro-kernel call
    int64_t group, first, rows;
};

// How one call cuts its outputs, and how a band lies in scratch. Sums do not depend on it.
struct Layout {
    int64_t rows, columns;  // of the largest band
    int64_t row_bands, column_bands, channel_chunks;
    int64_t pitch;                 // of a scratch row
    int64_t channel;               // elements of one input channel
    std::vector<int64_t> plane;    // first element of each (kernel depth, row phase, column phase)
    std::vector<int64_t> offsets;  // of each step of one channel block
};

template <class T>
class DirectFirst final : public ConvKernel {
  public:
    explicit DirectFirst(const ConvProblem& problem)
        : p_(problem),
          rows_(problem.kernel[1], problem.stride[1], problem.dilation[1]),
          columns_(problem.kernel[2], problem.stride[2], problem.dilation[2]) {
        const int64_t steps = p_.group_in() * p_.taps();
        blocks_ =
            std::clamp<int64_t>((steps + kChainAim / 2) / kChainAim, 1, std::max<int64_t>(1, p_.group_in()));
        for (int64_t g = 0; g < p_.groups; g++) {
            const int64_t parts = ceil_div(p_.group_out(), micro<T>().pixel_rows);
            for (int64_t i = 0; i < parts; i++) {
                const Range r = part_of(p_.group_out(), parts, i);
                row_blocks_.push_back({g, g * p_.group_out() + r.begin, r.size()});
            }
        }
    }

    size_t scratch_bytes() const override { return scratch_within(SIZE_MAX); }
    size_t scratch_within(size_t budget) const override {
        const Layout layout = lay_out(1, 1, budget);
        return static_cast<size_t>(input_size(layout) + partial_size(layout) + tile_size()) * sizeof(T);
    }
    bool takes_bands() const override { return true; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        const ScratchShare share = scratch_share();
        const Layout layout = lay_out(args.batch, share.threads, share.budget);
        note_weight_parts(layout.channel_chunks);
        const int64_t tasks =
            args.batch * p_.out_size[0] * layout.row_bands * layout.column_bands * layout.channel_chunks;
        parallel_for(
            tasks, [&](int64_t task) { run_task(args, layout, task); }, share.threads,
            least_seconds<T>(p_.flops() * args.batch));
    }

  private:
    int64_t vector_pixels() const { return int64_t{micro<T>().pixel_vectors} * micro<T>().lanes; }
    int64_t largest_block() const { return ceil_div(p_.group_in(), blocks_); }
    int64_t tile_size() const { return kMaxPixelRows * vector_pixels(); }
    int64_t input_size(const Layout& l) const {
        return largest_block() * l.channel + 2 * vector_pixels() + l.pitch;
    }
    int64_t run_length(const Layout& l, int64_t rows, int64_t columns) const {
        return (rows - 1) * l.pitch + columns;
    }
    int64_t partial_pitch(const Layout& l) const {
        return round_up(run_length(l, l.rows, l.columns), vector_pixels()) + 16;
    }
    int64_t chunk_rows(const Layout& l) const {
        return ceil_div(static_cast<int64_t>(row_blocks_.size()), l.channel_chunks) * micro<T>().pixel_rows;
    }
    int64_t partial_size(const Layout& l) const {
        return blocks_ == 1 && pieces() == 1 ? 0 : std::min(chunk_rows(l), p_.group_out()) * partial_pitch(l);
    }
    // A block of one channel with very many taps is summed in several pieces.
    int64_t pieces() const { return pieces_of(largest_block() * p_.taps()); }
    static int64_t pieces_of(int64_t steps) { return std::max<int64_t>(1, ceil_div(steps, kChainMost)); }

    void place(Layout& l) const {
        l.pitch = l.columns + columns_.most;
        l.plane.clear();
        int64_t at = 0;
        for (int64_t d = 0; d < p_.kernel[0]; d++)
            for (const int64_t reach : rows_.reach)
                for (size_t c = 0; c < columns_.phase.size(); c++) {
                    l.plane.push_back(at);
                    at += (l.rows + reach) * l.pitch;
                }
        // An odd number of cache lines, so that channels do not fall onto the same cache sets.
        const int64_t line = 64 / sizeof(T);
        l.channel = (ceil_div(at, line) | 1) * line;
    }

    // Bands as large as half of L2 (and the bound on scratch) holds with their partial sums; more and smaller ones where
    // threads would idle.
    Layout lay_out(int64_t batch, int threads, size_t bound) const {
        Layout l;
        const int64_t height = p_.out_size[1], width = p_.out_size[2];
        const int64_t budget = static_cast<int64_t>(std::min(l2_bytes() / 2, bound) / sizeof(T)) -
                               (bound == SIZE_MAX ? 0 : tile_size());
        const auto blocks = static_cast<int64_t>(row_blocks_.size());
        l.column_bands = ceil_div(width, std::max<int64_t>(8 * vector_pixels(), 512));
        l.channel_chunks = 1;
        l.row_bands = 1;
        const auto fits = [&] {
            l.rows = ceil_div(height, l.row_bands);
            l.columns = ceil_div(width, l.column_bands);
            place(l);
            return input_size(l) + partial_size(l) <= budget;
        };
        while (!fits()) {
            if (l.rows > 1) {
                l.row_bands = std::min(height, l.row_bands + 1 + l.row_bands / 8);
            } else if (l.columns > vector_pixels()) {
                l.column_bands++;
            } else if (bound != SIZE_MAX && partial_size(l) > 0 && l.channel_chunks < blocks) {
                l.channel_chunks++;
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
            if (l.rows > 1 && l.rows * l.columns > 4 * vector_pixels()) {
                l.row_bands++;
            } else if (l.channel_chunks < blocks) {
                l.channel_chunks++;
            } else if (l.columns > 2 * vector_pixels()) {
                l.column_bands++;
            } else {
                break;
            }
            fits();
        }
        l.offsets.clear();
        for (int64_t c = 0; c < largest_block(); c++)
            for (int64_t d = 0; d < p_.kernel[0]; d++)
                for (int64_t h = 0; h < p_.kernel[1]; h++)
                    for (int64_t w = 0; w < p_.kernel[2]; w++) {
                        const int64_t plane =
                            l.plane[(d * rows_.phase.size() + rows_.of_tap[h]) * columns_.phase.size() +
                                    columns_.of_tap[w]];
                        l.offsets.push_back(c * l.channel + plane + rows_.shift[h] * l.pitch +
                                            columns_.shift[w]);
                    }
        return l;
    }

    struct Band {
        int64_t image, depth;
        Range rows, columns;
    };

    void run_task(const ConvArgs& args, const Layout& l, int64_t task) const {
        const auto next = [&task](int64_t n) {
            const int64_t i = task % n;
            task /= n;
            return i;
        };
        const int64_t chunk = next(l.channel_chunks);
        Band band;
        band.columns = part_of(p_.out_size[2], l.column_bands, next(l.column_bands));
        band.rows = part_of(p_.out_size[1], l.row_bands, next(l.row_bands));
        band.depth = next(p_.out_size[0]);
        band.image = task;
        ScratchFrame frame;
        T* const input = frame.take<T>(input_size(l));
        T* const partial = frame.take<T>(partial_size(l));
        T* const tile = frame.take<T>(tile_size());
        Range blocks = part_of(static_cast<int64_t>(row_blocks_.size()), l.channel_chunks, chunk);
        while (blocks.begin < blocks.end) {
            int64_t end = blocks.begin;
            while (end < blocks.end && row_blocks_[end].group == row_blocks_[blocks.begin].group) end++;
            run_group(args, l, band, {blocks.begin, end}, input, partial, tile);
            blocks.begin = end;
        }
    }

    // All row blocks of one group that the task has: channel block > pixel tile > row block.
    void run_group(const ConvArgs& args, const Layout& l, const Band& band, Range blocks, T* input,
                   T* partial, T* tile) const {
        const Micro<T>& kernels = micro<T>();
        const int64_t length = run_length(l, band.rows.size(), band.columns.size());
        const int64_t vectors = ceil_div(length, kernels.lanes);
        const int64_t tiles = ceil_div(vectors, kernels.pixel_vectors);
        const int64_t first = row_blocks_[blocks.begin].first;
        const int64_t steps_all = p_.group_in() * p_.taps();
        for (int64_t b = 0; b < blocks_; b++) {
            const Range channels = part_of(p_.group_in(), blocks_, b);
            fill(args, l, band, row_blocks_[blocks.begin].group * p_.group_in() + channels.begin,
                 channels.size(), input);
            const int64_t steps = channels.size() * p_.taps();
            const int64_t pieces = pieces_of(steps);
            for (int64_t t = 0; t < tiles; t++) {
                const Range part = part_of(vectors, tiles, t);
                const int64_t pixel = part.begin * kernels.lanes;
                const int64_t pixels = std::min(part.end * kernels.lanes, length) - pixel;
                for (int64_t i = blocks.begin; i < blocks.end; i++) {
                    const RowBlock& block = row_blocks_[i];
                    T* const sums = partial + (block.first - first) * partial_pitch(l) + pixel;
                    for (int64_t s = 0; s < pieces; s++) {
                        const Range piece = part_of(steps, pieces, s);
                        PixelTile<T> call;
                        call.x = input + pixel;
                        call.offsets = l.offsets.data() + piece.begin;
                        call.steps = piece.size();
                        call.w = static_cast<const T*>(args.weight) + block.first * steps_all +
                                 channels.begin * p_.taps() + piece.begin;
                        call.w_row = steps_all;
                        if (b > 0 || s > 0) {
                            call.partial = sums;
                            call.partial_row = partial_pitch(l);
                        }
                        const auto run = kernels.pixels[block.rows][part.size()];
                        if (b + 1 < blocks_ || s + 1 < pieces) {
                            call.out = sums;
                            call.out_row = partial_pitch(l);
                            call.pixels = part.size() * kernels.lanes;
                            run(call);
                        } else {
                            write(args, l, band, block, call, run, pixel, pixels, tile);
                        }
                    }
                }
            }
        }
    }

    // The last sums of a tile: straight into the output where its pixels are neighbours there, else by way of
    // `tile`.
    template <class Run>
    void write(const ConvArgs& args, const Layout& l, const Band& band, const RowBlock& block,
               PixelTile<T>& call, Run run, int64_t pixel, int64_t pixels, T* tile) const {
        const int64_t plane = args.out_plane_of(p_);
        const int64_t at = (band.image * p_.out_channels + block.first) * plane +
                           (band.depth * p_.out_size[1] + band.rows.begin) * p_.out_size[2] +
                           band.columns.begin;
        T* const out = static_cast<T*>(args.out) + at;
        const T* const add = args.add == nullptr ? nullptr : static_cast<const T*>(args.add) + at;
        if (args.bias != nullptr) call.bias = static_cast<const T*>(args.bias) + block.first;
        call.pixels = pixels;
        if (band.rows.size() == 1 || l.pitch == p_.out_size[2]) {
            call.out = out + pixel;
            call.out_row = plane;
            call.add = add == nullptr ? nullptr : add + pixel;
            call.clamp = clamp_of(args.activation);
            run(call);
            if (needs_pass(args.activation))
                rows_of<T>().activate(args.activation, out + pixel, block.rows, plane, pixels);
            return;
        }
        call.out = tile;
        call.out_row = vector_pixels();
        run(call);
        Segment segments[kMaxPixelVectors * 16];
        int64_t count = 0;
        for (int64_t row = pixel / l.pitch; row * l.pitch < pixel + pixels; row++) {
            const int64_t begin = std::max(pixel, row * l.pitch);
            const int64_t end = std::min(pixel + pixels, row * l.pitch + band.columns.size());
            if (begin < end)
                segments[count++] = {begin - pixel, row * p_.out_size[2] + begin - row * l.pitch,
                                     end - begin};
        }
        rows_of<T>().finish(tile, call.out_row, block.rows, segments, count, add, out, plane,
                            args.activation);
    }

    // Padded copies of `count` input channels for one band, one plane per kernel depth and phase.
    void fill(const ConvArgs& args, const Layout& l, const Band& band, int64_t channel, int64_t count,
              T* input) const {
        const int64_t line = p_.in_size[2], plane = p_.in_size[1] * line;
        const T* const x =
            static_cast<const T*>(args.x) + (band.image * p_.in_channels + channel) * args.x_plane_of(p_);
        const bool zeros = p_.mode == PadMode::constant || !p_.reads_padding();
        for (int64_t c = 0; c < count; c++) {
            size_t index = 0;
            for (int64_t d = 0; d < p_.kernel[0]; d++) {
                const int64_t z = axis_source(p_.mode, p_.in_size[0],
                                              band.depth * p_.stride[0] + d * p_.dilation[0] - p_.pad_lo[0]);
                for (size_t a = 0; a < rows_.phase.size(); a++)
                    for (size_t b = 0; b < columns_.phase.size(); b++) {
                        T* to = input + c * l.channel + l.plane[index++];
                        const int64_t first =
                            band.columns.begin * p_.stride[2] + columns_.phase[b] - p_.pad_lo[2];
                        const int64_t n = band.columns.size() + columns_.reach[b];
                        const int64_t rows = band.rows.size() + rows_.reach[a];
                        if (p_.stride[2] == 1 && n == l.pitch && n <= kNarrow && z >= 0 && zeros) {
                            const int64_t y = band.rows.begin * p_.stride[1] + rows_.phase[a] - p_.pad_lo[1];
                            copy_rows(x + c * args.x_plane_of(p_) + z * plane, y, first, n, rows, to);
                            continue;
                        }
                        for (int64_t r = 0; r < rows; r++, to += l.pitch) {
                            const int64_t y = axis_source(
                                p_.mode, p_.in_size[1],
                                (band.rows.begin + r) * p_.stride[1] + rows_.phase[a] - p_.pad_lo[1]);
                            if (z < 0 || y < 0) {
                                std::fill(to, to + n, T(0));
                            } else {
                                rows_of<T>().pack(x + c * args.x_plane_of(p_) + z * plane + y * line, line,
                                                  p_.mode, first, p_.stride[2], to, n);
                            }
                        }
                    }
            }
        }
    }

    // Rows of n numbers one below the other, the first from row y and column `first` of a plane, zeros outside it.
    void copy_rows(const T* plane, int64_t y, int64_t first, int64_t n, int64_t rows, T* to) const {
        const int64_t step = p_.stride[1], line = p_.in_size[2];
        const int64_t low = std::clamp<int64_t>(ceil_div(-y, step), 0, rows),
                      high = std::clamp<int64_t>(ceil_div(p_.in_size[1] - y, step), low, rows);
        std::fill(to, to + low * n, T(0));
        rows_of<T>().copy(plane + (y + low * step) * line, step * line, high - low, first, line, to + low * n,
                          n);
        std::fill(to + high * n, to + rows * n, T(0));
    }

    ConvProblem p_;
    Phases rows_, columns_;
    int64_t blocks_;
    std::vector<RowBlock> row_blocks_;
};

}  // namespace

template <class T>
std::unique_ptr<ConvKernel> make_direct_first(const ConvProblem& problem) {
    return std::make_unique<DirectFirst<T>>(problem);
}

template std::unique_ptr<ConvKernel> make_direct_first<float>(const ConvProblem&);
template std::unique_ptr<ConvKernel> make_direct_first<double>(const ConvProblem&);

}  // namespace fastconv
