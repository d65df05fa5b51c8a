// The driver of depthwise convolution: what is cut into tasks, and where each kernel reads.
//
// channels first: small planes are done by depthwise_small.cpp; 3x3 and 5x5 kernels read each plane in place. For all
//   others a band of rows of one channel is copied with its padding, columns sorted by stride phase.
// channels last: depthwise_last.cpp.
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
        // What is copied at a time fills an eighth of L2 at most, but is some rows of some planes of depth in any case.
        row_ = pitch_ * static_cast<int64_t>(phases_.size());
        const int64_t lines = static_cast<int64_t>(l2_bytes() / 8 / sizeof(T)) / row_;
        const auto part = [&](int axis, int64_t copied, int64_t least) {
            const int64_t out = p_.out_size[axis];
            return std::clamp((copied - reach(axis)) / p_.stride[axis] + 1, std::min(least, out), out);
        };
        band_ = part(1, lines / reach(0), 8);
        slab_ = part(0, lines / copied(1, band_), 4);
    }

    size_t scratch_bytes() const override { return static_cast<size_t>(scratch()) * sizeof(T); }
    bool takes_bands() const override { return true; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        // Few large planes are cut into smaller bands, so that they go round.
        const int64_t height = p_.out_size[1], slabs = ceil_div(p_.out_size[0], slab_);
        const int64_t blocks = args.batch * p_.in_channels * slabs;
        const int64_t bands = std::max(
            ceil_div(height, band_),
            std::min(ceil_div(int64_t{threads() > 1} * 4 * threads(), blocks), ceil_div(height, 16)));
        const int64_t units = blocks * bands;
        const int64_t tasks = tasks_for(units, p_.flops() / 2 * static_cast<double>(args.batch));
        const auto run_part = [&](int64_t task) {
            ScratchFrame frame;
            T* const copy = frame.take<T>(scratch());
            const Range part = part_of(units, tasks, task);
            for (int64_t unit = part.begin; unit < part.end; unit++) {
                const int64_t block = unit / bands;
                run_block(args, block / slabs, part_of(p_.out_size[0], slabs, block % slabs),
                          part_of(height, bands, unit % bands), copy);
            }
        };
        parallel_for(tasks, run_part, threads(), depthwise_seconds<T>(p_, args.batch));
    }

  private:
    int64_t reach(int axis) const { return (p_.kernel[axis] - 1) * p_.dilation[axis] + 1; }
    // Positions of an axis that so many neighbouring outputs read.
    int64_t copied(int axis, int64_t outputs) const { return (outputs - 1) * p_.stride[axis] + reach(axis); }
    int64_t width() const { return copied(2, p_.out_size[2]); }
    int64_t scratch() const { return copied(0, slab_) * copied(1, band_) * row_ + 5 * 64 / sizeof(T); }

    // Some rows of some planes of depth. `index` counts images and input channels.
    void run_block(const ConvArgs& args, int64_t index, Range planes, Range rows, T* copy) const {
        const T* const x = static_cast<const T*>(args.x) + index * args.x_plane_of(p_);
        const int64_t lines = copied(1, rows.size()), deep = copied(0, planes.size());
        T* to = copy;
        for (int64_t d = 0; d < deep; d++) {
            const int64_t z =
                axis_source(p_.mode, p_.in_size[0], planes.begin * p_.stride[0] + d - p_.pad_lo[0]);
            for (int64_t i = 0; i < lines; i++, to += row_) {
                const int64_t y =
                    axis_source(p_.mode, p_.in_size[1], rows.begin * p_.stride[1] + i - p_.pad_lo[1]);
                if (y < 0 || z < 0) {
                    std::fill(to, to + row_, T(0));
                    continue;
                }
                for (const int64_t phase : phases_)
                    rows_of<T>().pack(x + (z * p_.in_size[1] + y) * p_.in_size[2], p_.in_size[2], p_.mode,
                                      phase - p_.pad_lo[2], p_.stride[2], to + phase * pitch_, pitch_);
            }
        }
        const int64_t multiplier = p_.group_out();
        const int64_t image = index / p_.in_channels, channel = index % p_.in_channels;
        PlaneRows<T> call;
        call.x_step = p_.stride[1] * row_;
        call.tap_row = p_.dilation[1] * row_;
        call.tap_plane = p_.dilation[0] * lines * row_;
        call.columns = columns_.data();
        call.tap_planes = p_.kernel[0];
        call.tap_rows = p_.kernel[1];
        call.tap_columns = p_.kernel[2];
        call.out_row = call.width = p_.out_size[2];
        call.rows = rows.size();
        call.clamp = clamp_of(args.activation);
        for (int64_t m = 0; m < multiplier; m++) {
            const int64_t k = channel * multiplier + m;
            call.w = static_cast<const T*>(args.weight) + k * p_.taps();
            if (args.bias != nullptr) call.bias = static_cast<const T*>(args.bias)[k];
            for (int64_t d = 0; d < planes.size(); d++) {
                const int64_t at = (image * p_.out_channels + k) * args.out_plane_of(p_) +
                                   ((planes.begin + d) * p_.out_size[1] + rows.begin) * p_.out_size[2];
                call.x = copy + d * p_.stride[0] * lines * row_;
                call.out = static_cast<T*>(args.out) + at;
                if (args.add != nullptr) call.add = static_cast<const T*>(args.add) + at;
                run_planes(call);
                if (needs_pass(args.activation))
                    rows_of<T>().activate(args.activation, call.out, 1, 0, rows.size() * p_.out_size[2]);
            }
        }
    }

    // Output rows that are a dilation apart share input rows: 3x3 dilated by 3, 64 planes of 40 x 40, 94 to 82 us.
    void run_planes(PlaneRows<T> call) const {
        const int64_t apart = p_.stride[1] == 1 ? p_.dilation[1] : 1, rows = call.rows, row = call.out_row;
        call.out_row *= apart;
        const PlaneRows<T> first = call;
        for (int64_t i = 0; i < std::min(apart, rows); i++) {
            call.x = first.x + i * first.x_step;
            call.x_step = apart * first.x_step;
            call.out = first.out + i * row;
            if (first.add != nullptr) call.add = first.add + i * row;
            call.rows = ceil_div(rows - i, apart);
            depthwise_of<T>().plane(call);
        }
    }

    ConvProblem p_;
    int64_t pitch_, row_, band_, slab_;  // band: output rows at a time, slab: planes of depth
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
               stride == p.stride[2] && p.dilation[1] == 1 && p.dilation[2] == 1 && p.taps() <= kMostInPlace;
    }

    size_t scratch_bytes() const override { return static_cast<size_t>(p_.kernel[0]) * sizeof(T*); }
    bool takes_bands() const override { return true; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        // Few large planes are cut into bands of rows.
        const int64_t deep = p_.out_size[0], height = p_.out_size[1];
        const int64_t planes = args.batch * p_.out_channels * deep;
        const int64_t bands =
            std::clamp<int64_t>(ceil_div(4 * num_threads(), planes), 1, ceil_div(height, 16));
        const int64_t units = planes * bands;
        const int64_t tasks = tasks_for(units, p_.flops() / 2 * static_cast<double>(args.batch));
        const auto run_part = [&](int64_t task) {
            ScratchFrame frame;
            const T** const taps = frame.take<const T*>(p_.kernel[0]);
            const Range part = part_of(units, tasks, task);
            for (int64_t unit = part.begin; unit < part.end; unit++) {
                const int64_t plane = unit / bands;
                run_plane(args, plane / deep, plane % deep, part_of(height, bands, unit % bands), taps);
            }
        };
        parallel_for(tasks, run_part, threads(), depthwise_seconds<T>(p_, args.batch));
    }

  private:
    // `index` counts images and output channels.
    void run_plane(const ConvArgs& args, int64_t index, int64_t depth, Range rows, const T** taps) const {
        const int64_t image = index / p_.out_channels, k = index % p_.out_channels;
        const int64_t at = index * args.out_plane_of(p_) + depth * p_.out_size[1] * p_.out_size[2];
        const T* const x = static_cast<const T*>(args.x) +
                           (image * p_.in_channels + k / p_.group_out()) * args.x_plane_of(p_);
        for (int64_t d = 0; d < p_.kernel[0]; d++) {
            const int64_t z = depth * p_.stride[0] + d * p_.dilation[0] - p_.pad_lo[0];
            taps[d] = z < 0 || z >= p_.in_size[0] ? nullptr : x + z * p_.in_size[1] * p_.in_size[2];
        }
        PlaneInPlace<T> call;
        call.x = taps;
        call.tap_planes = p_.kernel[0];
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
std::unique_ptr<ConvKernel> make(const ConvProblem& problem) {
    if (problem.channels_last &&
        problem.out_channels == 1) {  // an image and its filter are the same in both layouts
        ConvProblem first = problem;
        first.channels_last = false;
        return make<T>(first);
    }
    if (problem.channels_last) return make_depthwise_last<T>(problem);
    if (auto small = make_depthwise_small<T>(problem)) return small;
    if (DepthwiseInPlace<T>::takes(problem)) return std::make_unique<DepthwiseInPlace<T>>(problem);
    return std::make_unique<DepthwiseFirst<T>>(problem);
}

}  // namespace

std::string why_not_depthwise(const ConvProblem& p, DType) {
    if (p.group_in() != 1) return "it needs one input channel per group";
    if (p.channels_last && p.group_out() != 1) return "channels last, it needs one output channel per group";
    if (p.taps() > 512) return "it adds at most 512 terms into one sum";
    return "";
}

double predict_depthwise(const ConvProblem& p, DType dtype) {
    const double bytes =
        (dtype == DType::f32 ? 4.0 : 8.0) * (p.in_channels * p.in_pixels() + p.out_channels * p.out_pixels());
    const auto all = [&](const int64_t (&of)[3], int64_t n) { return of[1] == n && of[2] == n; };
    const int64_t taps = p.kernel[2];
    const bool square = all(p.dilation, 1) && p.kernel[1] == taps, small = taps == 3 || taps == 5;
    double rate = 0;
    if (p.channels_last && p.in_channels > 1) {
        // Tap columns with a tile of their own run at 90 to 140 GFLOP/s, others at 35 to 60.
        rate = depthwise_tiled(p, dtype) ? (taps > 3 ? 0.5 : 0.4) : taps <= 2 ? 0.4 : 0.18;
    } else if (square &&
               ((small && (all(p.stride, 1) || all(p.stride, 2))) || (taps <= 2 && all(p.stride, 1)))) {
        rate = 0.4;
    } else {
        // Rows are whole vectors: 7x7 to 21x21 at 56x56 59 to 105, where direct would take up to twice the time. Planes
        // narrower than a vector at half of that, 9x9 and more where it is wide at 1.3 times; rows that share nothing at 0.75 times.
        const double filled =
            static_cast<double>(p.out_size[2]) / static_cast<double>(round_up(p.out_size[2], 16));
        const double wide = p.out_size[2] < 16 ? 0.5 : taps >= 9 ? 1.3 : 1.0;
        // Stride or dilation along the row halves the rate: 7x7 with stride 2 at 56x56 0.20 ms, not 0.10; 3x3 dilated 0.12, not
        // 0.05. More rows to sum than one plane has run faster: 7x7x7 on 64x64x64 145 GFLOP/s.
        const double apart = p.stride[2] > 1 || p.dilation[2] > 1 ? 0.5 : 1.0,
                     deep = p.kernel[0] >= 3 ? 1.5 : 1.0;
        rate = 0.4 * filled * wide * apart * deep * (p.stride[1] == 1 && p.kernel[1] >= 3 ? 1.0 : 0.75);
    }
    return std::max(p.flops() / (rate * peak_flops(dtype)), bytes / 40e9);
}

std::unique_ptr<ConvKernel> make_depthwise(const ConvProblem& problem, DType dtype) {
    if (dtype == DType::f32) return make<float>(problem);
    return make<double>(problem);
}

}  // namespace fastconv
