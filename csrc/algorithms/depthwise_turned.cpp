// Depthwise convolution, channels first, by the kernels of channels last: as many planes as a vector has
// lanes are turned in registers, so that each is a lane, computed line by line (depthwise_lines.hpp), and
// turned back.
//
// Pixels in lanes need a padded copy for kernels other than 3x3 and 5x5, leave lanes empty where planes are
// narrow, and load every tap at its own address. Turning costs as much as some 12 taps, whatever the plane's
// width; input rows are turned just before the first line that reads them, and lines are turned back while
// they are in L1.
#include <algorithm>
#include <utility>

#include "algorithms/depthwise_lines.hpp"
#include "algorithms/depthwise_tasks.hpp"
#include "algorithms/gradient_loops_kernels.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/machine.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

template <class T>
class DepthwiseTurned final : public ConvKernel {
  public:
    explicit DepthwiseTurned(const ConvProblem& problem, std::unique_ptr<ConvKernel> rows = nullptr)
        : p_(problem), lanes_(gradient_loops<T>().lanes), lines_(problem, lanes_), rows_(std::move(rows)) {
        const bool deep = p_.has_depth();
        chunk_ = deep ? p_.in_size[1] : full_rows(p_.in_size[2], 1);
        group_ = std::min(full_rows(p_.out_size[2], lines_.block_rows()), p_.out_size[1]);
    }

    size_t scratch_bytes() const override { return scratch_within(SIZE_MAX); }
    size_t scratch_within(size_t budget) const override {
        return in_rows_ ? rows_->scratch_within(budget) : scratch(band(budget));
    }
    void limit_workspace(size_t bytes) override {
        ConvKernel::limit_workspace(bytes);
        in_rows_ = rows_ != nullptr && scratch(band(0)) + kScratchRounding > bytes;
        if (in_rows_) rows_->limit_workspace(bytes);
    }
    bool takes_bands() const override { return true; }

    static bool takes(const ConvProblem& p) {
        if (p.channels_last || p.group_out() != 1) return false;
        if (p.mode != PadMode::constant && p.reads_padding()) return false;
        const DepthwiseTurned turned(p);
        return turned.scratch(turned.band(0)) <= l2_bytes() / 4;
    }

    void run(const ConvArgs& args) const override {
        if (in_rows_) return rows_->run(args);
        const FlushToZero flush;
        const ScratchShare share = scratch_share();
        const int64_t height = p_.out_size[1], most = band(share.budget);
        const int64_t blocks = args.batch * ceil_div(p_.out_channels, lanes_);
        // Few blocks of planes are cut into more bands, so that they go round.
        int64_t bands = ceil_div(height, most);
        if (share.threads > 1 && !p_.has_depth())
            bands =
                std::max(bands, std::min(ceil_div(int64_t{2} * share.threads, blocks), ceil_div(height, 16)));
        const int64_t units = blocks * bands, parts = ceil_div(height, lines_.block_rows());
        const int64_t tasks = tasks_for(units, p_.flops() / 2 * static_cast<double>(args.batch));
        const auto run_part = [&](int64_t task) {
            ScratchFrame frame;
            Buffers b;
            b.x = frame.take<T>(strip(most));
            b.out = frame.take<T>(group_ * out_row());
            b.add = frame.take<T>(group_ * out_row());
            b.w = frame.take<T>(p_.taps() * lanes_);
            b.taps = frame.take<const T*>(lines_.pointers());
            int64_t block_before = -1;
            const Range part = part_of(units, tasks, task);
            for (int64_t unit = part.begin; unit < part.end; unit++) {
                const int64_t image = unit / bands % args.batch, block = unit / bands / args.batch;
                const int64_t first = block * lanes_, count = std::min(lanes_, p_.out_channels - first);
                if (block != block_before)
                    gradient_loops<T>().transpose(static_cast<const T*>(args.weight) + first * p_.taps(),
                                                  p_.taps(), count, p_.taps(), b.w, lanes_);
                block_before = block;
                Range rows = part_of(parts, bands, unit % bands);
                rows = {rows.begin * lines_.block_rows(), std::min(rows.end * lines_.block_rows(), height)};
                run_band(args, image, {first, first + count}, rows, b);
            }
        };
        parallel_for(tasks, run_part, share.threads, depthwise_seconds<T>(p_, args.batch));
    }

  private:
    struct Buffers {
        T *x, *out, *add, *w;
        const T** taps;
    };

    // Rows, a multiple of `step`, of which most squares of a vector's lanes are full.
    int64_t full_rows(int64_t width, int64_t step) const {
        int64_t rows = step;
        while (rows * width < 4 * lanes_ && 15 * round_up(rows * width, lanes_) > 16 * rows * width)
            rows += step;
        return rows;
    }
    int64_t reach() const { return (p_.kernel[1] - 1) * p_.dilation[1] + 1; }
    int64_t out_row() const { return p_.out_size[2] * lanes_; }
    // Elements of the input that so many output rows read; of volumes all.
    int64_t strip(int64_t rows) const {
        const int64_t read = p_.has_depth() ? p_.in_size[1] : (rows - 1) * p_.stride[1] + reach();
        return p_.in_size[0] * std::min(read, p_.in_size[1]) * p_.in_size[2] * lanes_;
    }
    size_t scratch(int64_t rows) const {
        return static_cast<size_t>(strip(rows) + 2 * group_ * out_row() + p_.taps() * lanes_) * sizeof(T) +
               static_cast<size_t>(lines_.pointers()) * sizeof(T*);
    }
    // Output rows at a time, so that their input fills an eighth of L2 at most.
    int64_t band(size_t budget) const {
        const int64_t height = p_.out_size[1], block = lines_.block_rows();
        if (p_.has_depth()) return height;
        const int64_t row = p_.in_size[2] * lanes_ * static_cast<int64_t>(sizeof(T));
        const size_t rest = scratch(1) - static_cast<size_t>(strip(1)) * sizeof(T);
        const size_t room = std::min<size_t>(l2_bytes() / 8, budget > rest ? budget - rest : 0);
        const int64_t rows = static_cast<int64_t>(room) / row;
        if (rows >= p_.in_size[1]) return height;
        return std::clamp((rows - reach()) / p_.stride[1] / block * block, std::min(block, height), height);
    }

    void run_band(const ConvArgs& args, int64_t image, Range channels, Range rows, const Buffers& b) const {
        const auto turn = gradient_loops<T>().transpose;
        const int64_t count = channels.size(), x_plane = args.x_plane_of(p_),
                      out_plane = args.out_plane_of(p_);
        const T* const x =
            static_cast<const T*>(args.x) + (image * p_.in_channels + channels.begin) * x_plane;
        const int64_t height = p_.in_size[1], width = p_.in_size[2];
        const Range read = {
            std::clamp<int64_t>(rows.begin * p_.stride[1] - p_.pad_lo[1], 0, height),
            std::clamp<int64_t>((rows.end - 1) * p_.stride[1] + reach() - p_.pad_lo[1], 0, height)};
        int64_t filled = read.begin;
        const auto fill = [&](int64_t end) {
            while (filled < std::min(end, read.end)) {
                const int64_t n = std::min(chunk_, read.end - filled);
                for (int64_t z = 0; z < p_.in_size[0]; z++)
                    turn(x + (z * height + filled) * width, x_plane, count, n * width,
                         b.x + (z * height + filled - read.begin) * width * lanes_, lanes_);
                filled += n;
            }
        };
        LineArrays<T> a;
        a.x = b.x;
        a.x_row = read.begin;
        a.w = b.w;
        a.w_tap = lanes_;
        a.out = b.out;
        a.place = {0, 0, out_row(), lanes_};
        a.channels = count;
        if (args.bias != nullptr) a.bias = static_cast<const T*>(args.bias) + channels.begin;
        if (args.add != nullptr) a.add = b.add;
        a.activation = args.activation;
        for (int64_t depth = 0; depth < p_.out_size[0]; depth++)
            for (int64_t begin = rows.begin; begin < rows.end; begin += group_) {
                const Range group = {begin, std::min(begin + group_, rows.end)};
                const int64_t pixels = group.size() * p_.out_size[2];
                const int64_t at = (image * p_.out_channels + channels.begin) * out_plane +
                                   (depth * p_.out_size[1] + begin) * p_.out_size[2];
                a.out_row = begin;
                if (args.add != nullptr)
                    turn(static_cast<const T*>(args.add) + at, out_plane, count, pixels, b.add, lanes_);
                for (int64_t line = 0; line < lines_.lines(group.size()); line++) {
                    const int64_t last = std::min(begin + lines_.last_row(line), group.end - 1);
                    fill(last * p_.stride[1] + reach() - p_.pad_lo[1]);
                    lines_.run(a, depth, line, group, b.taps);
                }
                turn(b.out, lanes_, pixels, count, static_cast<T*>(args.out) + at, out_plane);
            }
    }

    ConvProblem p_;
    int64_t lanes_;
    DepthwiseLines<T> lines_;
    std::unique_ptr<ConvKernel> rows_;
    bool in_rows_ = false;
    int64_t chunk_, group_;  // input rows turned at a time, and output rows turned back
};

}  // namespace

template <class T>
bool depthwise_turned_takes(const ConvProblem& problem) {
    return DepthwiseTurned<T>::takes(problem);
}

template <class T>
std::unique_ptr<ConvKernel> make_depthwise_turned(const ConvProblem& problem,
                                                  std::unique_ptr<ConvKernel> rows) {
    return std::make_unique<DepthwiseTurned<T>>(problem, std::move(rows));
}

template bool depthwise_turned_takes<float>(const ConvProblem&);
template bool depthwise_turned_takes<double>(const ConvProblem&);
template std::unique_ptr<ConvKernel> make_depthwise_turned<float>(const ConvProblem&,
                                                                  std::unique_ptr<ConvKernel>);
template std::unique_ptr<ConvKernel> make_depthwise_turned<double>(const ConvProblem&,
                                                                   std::unique_ptr<ConvKernel>);

}  // namespace fastconv
