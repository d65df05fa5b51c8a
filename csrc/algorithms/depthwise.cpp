// The driver of depthwise convolution: what is cut into tasks, and where each kernel reads.
//
// channels first: small planes are done by depthwise_small.cpp; 3x3 and 5x5 kernels read each plane in place. For all
//   others a band of rows of one channel is copied with its padding, columns sorted by stride phase.
// channels last: nothing is copied. Tap rows in the padding are left out, columns whose taps reach into the padding are
//   done one by one, all others in runs.
#include <algorithm>
#include <vector>

#include "algorithms/activations.hpp"
#include "algorithms/depthwise_kernels.hpp"
#include "algorithms/depthwise_tasks.hpp"
#include "algorithms/rows_kernels.hpp"
#include "plan/candidates.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/machine.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

template <class T>
class DepthwiseFirst final : public ConvKernel {
  public:
    explicit DepthwiseFirst(const ConvProblem& problem) : p_(problem) {
        const int64_t stride = p_.stride[2];
        for (int64_t phase = 0; phase < std::min(stride, width()); phase++) phases_.push_back(phase);
        pitch_ = ceil_div(width(), stride);
        for (int64_t kw = 0; kw < p_.kernel[2]; kw++) {
            const int64_t at = kw * p_.dilation[2];
            columns_.push_back(at % stride * pitch_ + at / stride);
        }
        // A band fills an eighth of L2 at most, but holds some rows in any case.
        row_ = pitch_ * static_cast<int64_t>(phases_.size());
        const int64_t lines = static_cast<int64_t>(l2_bytes() / 8 / sizeof(T)) / row_;
        band_ = std::clamp<int64_t>((lines - tap_reach()) / p_.stride[1] + 1,
                                    std::min<int64_t>(8, p_.out_size[1]), p_.out_size[1]);
    }

    size_t scratch_bytes() const override { return static_cast<size_t>(scratch()) * sizeof(T); }
    bool takes_bands() const override { return true; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        // Few large planes are cut into smaller bands, so that they go round.
        const int64_t planes = args.batch * p_.in_channels, height = p_.out_size[1];
        const int64_t bands = std::max(
            ceil_div(height, band_),
            std::min(ceil_div(int64_t{threads() > 1} * 4 * threads(), planes), ceil_div(height, 16)));
        const int64_t units = planes * bands;
        const int64_t tasks = tasks_for(units, p_.flops() / 2 * static_cast<double>(args.batch));
        const auto run_part = [&](int64_t task) {
            ScratchFrame frame;
            T* const plane = frame.take<T>(scratch());
            const Range part = part_of(units, tasks, task);
            for (int64_t unit = part.begin; unit < part.end; unit++)
                run_band(args, unit / bands, part_of(p_.out_size[1], bands, unit % bands), plane);
        };
        parallel_for(tasks, run_part, threads(), depthwise_seconds<T>(p_, args.batch));
    }

  private:
    int64_t width() const {
        return (p_.out_size[2] - 1) * p_.stride[2] + (p_.kernel[2] - 1) * p_.dilation[2] + 1;
    }
    int64_t tap_reach() const { return (p_.kernel[1] - 1) * p_.dilation[1] + 1; }
    int64_t scratch() const { return ((band_ - 1) * p_.stride[1] + tap_reach()) * row_ + 5 * 64 / sizeof(T); }

    // `index` counts images and input channels.
    void run_band(const ConvArgs& args, int64_t index, Range rows, T* plane) const {
        const T* const x = static_cast<const T*>(args.x) + index * args.x_plane_of(p_);
        const int64_t lines = (rows.size() - 1) * p_.stride[1] + tap_reach();
        for (int64_t i = 0; i < lines; i++) {
            const int64_t y =
                axis_source(p_.mode, p_.in_size[1], rows.begin * p_.stride[1] + i - p_.pad_lo[1]);
            T* const to = plane + i * row_;
            if (y < 0) {
                std::fill(to, to + row_, T(0));
                continue;
            }
            for (const int64_t phase : phases_)
                rows_of<T>().pack(x + y * p_.in_size[2], p_.in_size[2], p_.mode, phase - p_.pad_lo[2],
                                  p_.stride[2], to + phase * pitch_, pitch_);
        }
        const int64_t multiplier = p_.group_out();
        const int64_t pixels = args.out_plane_of(p_);
        const int64_t image = index / p_.in_channels, channel = index % p_.in_channels;
        for (int64_t m = 0; m < multiplier; m++) {
            const int64_t k = channel * multiplier + m;
            const int64_t at = (image * p_.out_channels + k) * pixels + rows.begin * p_.out_size[2];
            PlaneRows<T> call;
            call.x = plane;
            call.x_row = row_;
            call.x_step = p_.stride[1] * row_;
            call.tap_row = p_.dilation[1] * row_;
            call.columns = columns_.data();
            call.tap_rows = p_.kernel[1];
            call.tap_columns = p_.kernel[2];
            call.w = static_cast<const T*>(args.weight) + k * p_.taps();
            call.out = static_cast<T*>(args.out) + at;
            call.out_row = call.width = p_.out_size[2];
            call.rows = rows.size();
            if (args.add != nullptr) call.add = static_cast<const T*>(args.add) + at;
            if (args.bias != nullptr) call.bias = static_cast<const T*>(args.bias)[k];
            call.clamp = clamp_of(args.activation);
            depthwise_of<T>().plane(call);
            if (needs_pass(args.activation))
                rows_of<T>().activate(args.activation, call.out, 1, 0, rows.size() * p_.out_size[2]);
        }
    }

    ConvProblem p_;
    int64_t pitch_, row_, band_;
    std::vector<int64_t> phases_, columns_;
};

// Square kernels of 3 and 5, and the up to 2x2 taps of a phase, with zero padding.
template <class T>
class DepthwiseInPlace final : public ConvKernel {
  public:
    explicit DepthwiseInPlace(const ConvProblem& problem) : p_(problem) {}

    static bool takes(const ConvProblem& p) {
        const int64_t rows = p.kernel[1], columns = p.kernel[2], stride = p.stride[1];
        const bool square = rows == columns && (rows == 3 || rows == 5) && stride <= 2,
                   phase = rows <= 2 && columns <= 2 && stride == 1;
        return (p.mode == PadMode::constant || !p.reads_padding()) && (square || phase) &&
               stride == p.stride[2] && p.dilation[1] == 1 && p.dilation[2] == 1;
    }

    size_t scratch_bytes() const override { return 0; }
    bool takes_bands() const override { return true; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        // Few large planes are cut into bands of rows.
        const int64_t planes = args.batch * p_.out_channels, height = p_.out_size[1];
        const int64_t bands =
            std::clamp<int64_t>(ceil_div(4 * num_threads(), planes), 1, ceil_div(height, 16));
        const int64_t units = planes * bands;
        const int64_t tasks = tasks_for(units, p_.flops() / 2 * static_cast<double>(args.batch));
        const auto run_part = [&](int64_t task) {
            const Range part = part_of(units, tasks, task);
            for (int64_t unit = part.begin; unit < part.end; unit++)
                run_plane(args, unit / bands, part_of(height, bands, unit % bands));
        };
        parallel_for(tasks, run_part, 0, depthwise_seconds<T>(p_, args.batch));
    }

  private:
    // `index` counts images and output channels.
    void run_plane(const ConvArgs& args, int64_t index, Range rows) const {
        const int64_t image = index / p_.out_channels, k = index % p_.out_channels;
        const int64_t at = index * args.out_plane_of(p_);
        PlaneInPlace<T> call;
        call.x = static_cast<const T*>(args.x) +
                 (image * p_.in_channels + k / p_.group_out()) * args.x_plane_of(p_);
        call.in_rows = p_.in_size[1];
        call.in_width = p_.in_size[2];
        call.pad_top = p_.pad_lo[1];
        call.pad_left = p_.pad_lo[2];
        call.w = static_cast<const T*>(args.weight) + k * p_.taps();
        call.out = static_cast<T*>(args.out) + at;
        call.width = p_.out_size[2];
        call.first_row = rows.begin;
        call.end_row = rows.end;
        if (args.add != nullptr) call.add = static_cast<const T*>(args.add) + at;
        if (args.bias != nullptr) call.bias = static_cast<const T*>(args.bias)[k];
        call.clamp = clamp_of(args.activation);
        depthwise_of<T>().in_place(call, p_.kernel[1], p_.kernel[2], p_.stride[1]);
        if (needs_pass(args.activation))
            rows_of<T>().activate(args.activation, call.out + rows.begin * call.width, 1, 0,
                                  rows.size() * call.width);
    }

    ConvProblem p_;
};

template <class T>
class DepthwiseLast final : public ConvKernel {
  public:
    explicit DepthwiseLast(const ConvProblem& problem) : p_(problem) {
        // The run of columns whose taps all lie in the input.
        const int64_t s = p_.stride[2], last = (p_.kernel[2] - 1) * p_.dilation[2] - p_.pad_lo[2];
        const bool wide = p_.kernel[2] == 3 || p_.kernel[2] == 5,
                   special = p_.dilation[2] == 1 && (s == 1 ? wide || p_.kernel[2] <= 2 : wide && s == 2);
        inner_.begin = inner_.end = 0;
        const bool zeros = p_.mode == PadMode::constant || !p_.reads_padding();
        if (special && zeros) {
            inner_.end = p_.out_size[2];
        } else if (special && p_.in_size[2] > last) {
            inner_.begin = std::min(ceil_div(p_.pad_lo[2], s), p_.out_size[2]);
            inner_.end = std::clamp((p_.in_size[2] - 1 - last) / s + 1, inner_.begin, p_.out_size[2]);
        }
        const bool pairs =
            special && p_.kernel[1] == p_.kernel[2] && p_.stride[1] == 1 && s == 1 && p_.dilation[1] == 1;
        together_ = pairs ? depthwise_of<T>().run_rows : 1;
        for (int64_t ow = 0; ow < p_.out_size[2]; ow++)
            for (int64_t kw = 0; kw < p_.kernel[2]; kw++) {
                const int64_t at =
                    axis_source(p_.mode, p_.in_size[2], ow * s + kw * p_.dilation[2] - p_.pad_lo[2]);
                columns_.push_back(at < 0 ? -1 : at * p_.in_channels);
            }
    }

    size_t scratch_bytes() const override { return static_cast<size_t>(tap_rows()) * sizeof(T*); }
    bool takes_bands() const override { return true; }
    bool places_pixels() const override { return true; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        // Rows, in pairs, and runs of channels where an image alone has too few of them to go round.
        const int64_t height = p_.out_size[1], lines = ceil_div(height, together_);
        const int64_t parts = std::max<int64_t>(1, std::min(ceil_div(p_.in_channels, 64), 16 / lines));
        const int64_t units = args.batch * lines * parts;
        const int64_t tasks = tasks_for(units, p_.flops() / 2 * static_cast<double>(args.batch));
        const auto run_part = [&](int64_t task) {
            ScratchFrame frame;
            const T** const taps = frame.take<const T*>(tap_rows());
            const Range part = part_of(units, tasks, task);
            for (int64_t unit = part.begin; unit < part.end; unit++) {
                const int64_t row = unit % lines * together_, outer = unit / lines;
                Range channels = part_of(ceil_div(p_.in_channels, 64), parts, outer % parts);
                channels = {channels.begin * 64, std::min(channels.end * 64, p_.in_channels)};
                run_rows(args, outer / parts, {row, std::min(row + together_, height)}, channels, taps);
            }
        };
        parallel_for(tasks, run_part, 0, depthwise_seconds<T>(p_, args.batch));
    }

  private:
    int64_t tap_rows() const { return p_.kernel[1] + together_ - 1; }

    // One row, or two that share their input rows.
    void run_rows(const ConvArgs& args, int64_t image, Range rows, Range channels, const T** taps) const {
        const T* const x =
            static_cast<const T*>(args.x) + image * p_.in_pixels() * p_.in_channels + channels.begin;
        for (int64_t i = 0; i < p_.kernel[1] + rows.size() - 1; i++) {
            const int64_t y = axis_source(p_.mode, p_.in_size[1],
                                          rows.begin * p_.stride[1] + i * p_.dilation[1] - p_.pad_lo[1]);
            taps[i] = y < 0 ? nullptr : x + y * p_.in_size[2] * p_.in_channels;
        }
        const Placement place = args.placement(p_);
        const int64_t line = image * place.image + rows.begin * place.row + channels.begin;
        const auto call_at = [&](int64_t row, int64_t column) {
            const int64_t at = line + row * place.row + column * place.pixel;
            ChannelRun<T> call;
            call.tap_rows = taps + row;
            call.rows = p_.kernel[1];
            call.columns = columns_.data() + column * p_.kernel[2];
            call.tap_columns = p_.kernel[2];
            call.pixel = p_.in_channels;
            call.w = static_cast<const T*>(args.weight) + channels.begin;
            call.w_tap = p_.out_channels;
            call.out = static_cast<T*>(args.out) + at;
            call.out_pixel = place.pixel;
            call.channels = channels.size();
            if (args.bias != nullptr) call.bias = static_cast<const T*>(args.bias) + channels.begin;
            if (args.add != nullptr) call.add = static_cast<const T*>(args.add) + at;
            call.clamp = clamp_of(args.activation);
            return call;
        };
        if (inner_.size() > 0) {
            ChannelRun<T> call = call_at(0, inner_.begin);
            call.pixels = inner_.size();
            call.pad_left = p_.pad_lo[2] - inner_.begin * p_.stride[2];
            call.in_columns = p_.in_size[2];
            call.out_rows = rows.size();
            call.out_row = place.row;
            depthwise_of<T>().run(call, p_.stride[2]);
        }
        for (int64_t row = 0; row < rows.size(); row++)
            for (int64_t column = 0; column < p_.out_size[2]; column++) {
                if (column == inner_.begin) column = inner_.end;
                if (column == p_.out_size[2]) break;
                ChannelRun<T> call = call_at(row, column);
                call.pixels = 1;
                depthwise_of<T>().pixel(call);
            }
        if (needs_pass(args.activation))
            for (int64_t row = 0; row < rows.size(); row++)
                rows_of<T>().activate(args.activation, static_cast<T*>(args.out) + line + row * place.row,
                                      p_.out_size[2], place.pixel, channels.size());
    }

    ConvProblem p_;
    Range inner_;       // columns of `run`
    int64_t together_;  // output rows of one call
    std::vector<int64_t> columns_;
};

template <class T>
std::unique_ptr<ConvKernel> make(const ConvProblem& problem) {
    if (problem.channels_last &&
        problem.out_channels == 1) {  // an image and its filter are the same in both layouts
        ConvProblem first = problem;
        first.channels_last = false;
        return make<T>(first);
    }
    if (problem.channels_last) return std::make_unique<DepthwiseLast<T>>(problem);
    if (auto small = make_depthwise_small<T>(problem)) return small;
    if (DepthwiseInPlace<T>::takes(problem)) return std::make_unique<DepthwiseInPlace<T>>(problem);
    return std::make_unique<DepthwiseFirst<T>>(problem);
}

}  // namespace

std::string why_not_depthwise(const ConvProblem& p, DType) {
    if (p.group_in() != 1) return "it needs one input channel per group";
    if (p.channels_last && p.group_out() != 1) return "channels last, it needs one output channel per group";
    if (p.has_depth()) return "it has no depth axis";
    if (p.taps() > 512) return "it adds at most 512 terms into one sum";
    return "";
}

double predict_depthwise(const ConvProblem& p, DType dtype) {
    const double bytes =
        (dtype == DType::f32 ? 4.0 : 8.0) * (p.in_channels * p.in_pixels() + p.out_channels * p.out_pixels());
    // Kernels other than 3 and 5 have no tile of their own: 7x7 ran at 30 GFLOP/s channels last; channels first rows
    // are whole vectors: 7x7 to 21x21 at 56x56 59 to 105, where direct would take up to twice the time.
    const bool own = p.kernel[2] <= 3 || p.kernel[2] == 5;
    const double filled =
        static_cast<double>(p.out_size[2]) / static_cast<double>(round_up(p.out_size[2], 16));
    // Planes narrower than a vector at half of that, 9x9 and more where it is wide at 1.3 times.
    const double wide = p.out_size[2] < 16 ? 0.5 : p.kernel[2] >= 9 ? 1.3 : 1.0;
    const double rate = own ? 0.4 : p.channels_last && p.in_channels > 1 ? 0.15 : 0.4 * filled * wide;
    return std::max(p.flops() / (rate * peak_flops(dtype)), bytes / 40e9);
}

std::unique_ptr<ConvKernel> make_depthwise(const ConvProblem& problem, DType dtype) {
    if (dtype == DType::f32) return make<float>(problem);
    return make<double>(problem);
}

}  // namespace fastconv
