// The driver of depthwise convolution: what is cut into tasks, and where each kernel reads.
//
// channels first: small planes are done by depthwise_small.cpp; 3x3 and 5x5 kernels read each plane in place.
//   For all others a band of rows of one channel is copied with its padding, columns sorted by stride phase.
//   Where planes are narrow, depthwise_turned.cpp makes them lanes.
// channels last: depthwise_last.cpp.
#include <algorithm>
#include <cmath>
#include <vector>

#include "algorithms/activations.hpp"
#include "algorithms/depthwise_kernels.hpp"
#include "algorithms/depthwise_tasks.hpp"
#include "algorithms/gradient_loops_kernels.hpp"
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
        // What is copied at a time fills an eighth of L2 at most, but is some rows of some planes of depth in
        // any case.
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
        const int64_t lines = copied(1, rows.size());
        for (int64_t d = 0; d < copied(0, planes.size()); d++) {
            const int64_t z =
                axis_source(p_.mode, p_.in_size[0], planes.begin * p_.stride[0] + d - p_.pad_lo[0]);
            T* const to = copy + d * lines * row_;
            if (z < 0)
                std::fill(to, to + lines * row_, T(0));
            else
                copy_lines(x + z * p_.in_size[1] * p_.in_size[2], rows.begin * p_.stride[1] - p_.pad_lo[1],
                           lines, to);
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

    // Padded copies of so many rows of a plane, from row `first` on.
    void copy_lines(const T* plane, int64_t first, int64_t lines, T* to) const {
        const int64_t height = p_.in_size[1], width = p_.in_size[2];
        if (p_.stride[2] == 1 && p_.mode == PadMode::constant) {
            const int64_t above = std::clamp<int64_t>(-first, 0, lines),
                          end = std::clamp<int64_t>(height - first, above, lines);
            std::fill(to, to + above * row_, T(0));
            rows_of<T>().copy(plane + (first + above) * width, width, end - above, -p_.pad_lo[2], width,
                              to + above * row_, row_);
            std::fill(to + end * row_, to + lines * row_, T(0));
            return;
        }
        for (int64_t i = 0; i < lines; i++, to += row_) {
            const int64_t y = axis_source(p_.mode, height, first + i);
            if (y < 0) {
                std::fill(to, to + row_, T(0));
                continue;
            }
            for (const int64_t phase : phases_)
                rows_of<T>().pack(plane + y * width, width, p_.mode, phase - p_.pad_lo[2], p_.stride[2],
                                  to + phase * pitch_, pitch_);
        }
    }

    // Output rows that are a dilation apart share input rows: 3x3 dilated by 3, 64 planes of 40 x 40, 94 to
    // 82 us.
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

// Seconds of pixels in lanes. Planes that are wider than a vector keep more sums at a time.
template <class T>
double seconds_in_rows(const ConvProblem& p) {
    const int64_t lanes = gradient_loops<T>().lanes, width = std::max<int64_t>(1, p.out_size[2]);
    const double full = static_cast<double>(width) / static_cast<double>(round_up(width, lanes));
    const double peak = peak_flops(sizeof(T) == 4 ? DType::f32 : DType::f64);
    const bool narrow = width < lanes;
    if (depthwise_small_takes<T>(p)) return p.flops() / (0.3 * peak);
    // Each plane begins anew: in random problems a small one took that long whatever it held.
    const double begins = 60 * kCycleSeconds * static_cast<double>(p.out_channels * p.out_size[0]);
    if (DepthwiseInPlace<T>::takes(p)) return begins + p.flops() / ((narrow ? 0.3 : 0.47) * full * peak);
    // Copying takes 0.25 ns a value, with strides more; 7x7 to 15x15 on 56 x 56 run at 167 GFLOP/s beside it,
    // on 28 x 28 at 145, on 14 x 14 at 81, on 7 x 7 at 33. Rows that share nothing load each tap by itself.
    const double copied = (p.stride[2] == 1   ? 0.25e-9
                           : p.stride[2] == 2 ? 0.6e-9
                                              : 1e-9) *
                          static_cast<double>(p.in_channels * p.in_pixels() * sizeof(T)) / 4;
    const double rate = narrow ? 0.4 : width <= 2 * lanes ? 0.74 : 0.84;
    const bool shared = p.stride[1] == 1 && p.kernel[1] >= 3;
    return begins + copied + p.flops() / ((shared ? 1.0 : 0.43) * rate * full * peak);
}

// Whether 3x3 is computed by the block of its own (nine_block).
bool nine_taps(const ConvProblem& p, DType dtype) {
    return dtype == DType::f32 && depthwise_of<float>().paired == kWideTaps && p.kernel[0] == 1 &&
           p.kernel[1] == 3 && p.kernel[2] == 3 && p.dilation[2] == 1 && p.stride[2] <= 2;
}

// Seconds channels last, a row in so many calls. Tap rows that lie in the padding as a whole are left out.
double seconds_last(const ConvProblem& p, DType dtype, double calls = 1) {
    const int64_t taps = p.kernel[2];
    double flops = p.flops();
    for (const int axis : {0, 1})
        flops *= std::min(1.0, static_cast<double>(p.in_size[axis]) /
                                   static_cast<double>((p.kernel[axis] - 1) * p.dilation[axis] + 1));
    // Fitted to 9 layers of stride 1 and 8 of stride 2, of 16 to 960 channels in L2: within 15%.
    if (nine_taps(p, dtype)) {
        const double vectors = std::ceil(static_cast<double>(p.in_channels) / 16),
                     begins = 4 * vectors + 79 * calls;
        return flops / ((p.stride[2] == 1 ? 0.64 : 0.5) * peak_flops(dtype)) +
               static_cast<double>(p.out_size[1]) * begins * kCycleSeconds;
    }
    // Tap columns with a tile of their own run at 90 to 160 GFLOP/s, others at 35 to 60.
    const double rate = depthwise_tiled(p, dtype) ? (taps > 5   ? 0.6
                                                     : taps > 3 ? 0.5
                                                                : 0.4)
                        : taps <= 2               ? 0.4
                                                  : 0.18;
    // Each row begins anew for every vector of channels, and looks for its tap rows.
    const int64_t lanes = dtype == DType::f32 ? micro<float>().lanes : micro<double>().lanes;
    const auto rows = static_cast<double>(p.out_size[0] * p.out_size[1]),
               vectors = static_cast<double>(ceil_div(p.in_channels, lanes)),
               tap_rows = static_cast<double>(p.kernel[0] * p.kernel[1]);
    const double begins =
        depthwise_tiled(p, dtype) ? 77 * vectors + 17 * tap_rows : 41 * vectors + 30 * tap_rows;
    return flops / (rate * peak_flops(dtype)) + rows * begins * kCycleSeconds;
}

// Turning a value there and back takes 0.28 to 0.45 ns, with every square that is begun.
template <class T>
double seconds_turned(const ConvProblem& p) {
    const int64_t lanes = gradient_loops<T>().lanes;
    const double blocks = static_cast<double>(round_up(p.in_channels, lanes));
    const int64_t values = round_up(p.in_pixels(), lanes) + round_up(p.out_pixels(), lanes);
    return 0.18e-9 * blocks * static_cast<double>(values * sizeof(T)) / 4 +
           blocks / static_cast<double>(p.in_channels) *
               seconds_last(p, sizeof(T) == 4 ? DType::f32 : DType::f64, blocks / static_cast<double>(lanes));
}

template <class T>
bool turned_pays(const ConvProblem& p) {
    return depthwise_turned_takes<T>(p) && seconds_turned<T>(p) < seconds_in_rows<T>(p);
}

template <class T>
double seconds_first(const ConvProblem& p) {
    return turned_pays<T>(p) ? seconds_turned<T>(p) : seconds_in_rows<T>(p);
}

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
    std::unique_ptr<ConvKernel> rows;
    if (DepthwiseInPlace<T>::takes(problem))
        rows = std::make_unique<DepthwiseInPlace<T>>(problem);
    else
        rows = std::make_unique<DepthwiseFirst<T>>(problem);
    return turned_pays<T>(problem) ? make_depthwise_turned<T>(problem, std::move(rows)) : std::move(rows);
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
    const int64_t lanes = dtype == DType::f32 ? micro<float>().lanes : micro<double>().lanes;
    const double filled =
        static_cast<double>(p.in_channels) / static_cast<double>(round_up(p.in_channels, lanes));
    const double busy = p.channels_last && p.in_channels > 1 ? seconds_last(p, dtype) / filled
                        : dtype == DType::f32                ? seconds_first<float>(p)
                                                             : seconds_first<double>(p);
    return std::max(busy, bytes / 40e9);
}

std::unique_ptr<ConvKernel> make_depthwise(const ConvProblem& problem, DType dtype) {
    if (dtype == DType::f32) return make<float>(problem);
    return make<double>(problem);
}

}  // namespace fastconv
