// Depthwise convolution, channels last: nothing is copied. Taps in zero padding are left out; columns whose taps reach into
// padding of other modes are done one by one, all others in runs of a row, or of two rows that share their input.
#include <algorithm>
#include <vector>

#include "algorithms/activations.hpp"
#include "algorithms/depthwise_kernels.hpp"
#include "algorithms/depthwise_tasks.hpp"
#include "algorithms/rows_kernels.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

// Arrays so large are not in the caches: what comes next is asked for beforehand. 16 images, one thread, copy 14.5 GB/s:
// 96 channels at 112 x 112, stride 2 (96 MB) 8.6 to 6.7 ms, 144 at 56 x 56 (58 MB) 9.3 to 4.1, which is 14.3 and 14.1 GB/s.
// Without asking for the output 6.9 and 5.6. Where the shared cache holds them after all 5% slower to 40% faster, and with 19 MB
// 30% slower. Streamed stores 6.6 and 4.1, and 2.5 and 5.8 instead of 2.6 where the cache holds them.
constexpr size_t kAskedBytes = size_t{32} << 20;

template <class T>
class DepthwiseLast final : public ConvKernel {
  public:
    explicit DepthwiseLast(const ConvProblem& problem) : p_(problem) {
        // The run of columns whose taps need no look at the padding: all with zeros, those inside with other modes.
        const int64_t s = p_.stride[2], last = (p_.kernel[2] - 1) * p_.dilation[2] - p_.pad_lo[2];
        run_ = {0, p_.out_size[2]};
        if (p_.mode != PadMode::constant && p_.reads_padding()) {
            run_.begin = std::min(ceil_div(std::max<int64_t>(0, p_.pad_lo[2]), s), p_.out_size[2]);
            run_.end = p_.in_size[2] > last
                           ? std::clamp((p_.in_size[2] - 1 - last) / s + 1, run_.begin, p_.out_size[2])
                           : run_.begin;
        }
        const int64_t taps = p_.kernel[2];
        const bool pairs = taps == p_.kernel[1] && taps % 2 == 1 && taps > 1 &&
                           taps <= depthwise_of<T>().paired && p_.stride[1] == 1 && s == 1 &&
                           p_.dilation[1] == 1 && p_.dilation[2] == 1;
        together_ = pairs ? 2 : 1;
        for (int64_t ow = 0; ow < p_.out_size[2]; ow++)
            for (int64_t kw = 0; kw < p_.kernel[2]; kw++) {
                const int64_t at =
                    axis_source(p_.mode, p_.in_size[2], ow * s + kw * p_.dilation[2] - p_.pad_lo[2]);
                columns_.push_back(at < 0 ? -1 : at * p_.in_channels);
            }
    }

    size_t scratch_bytes() const override {
        return static_cast<size_t>(p_.kernel[0] * tap_rows()) * sizeof(T*);
    }
    bool takes_bands() const override { return true; }
    bool places_pixels() const override { return true; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        // Rows, in pairs, and runs of channels where an image alone has too few of them to go round.
        const int64_t height = p_.out_size[1], deep = p_.out_size[0],
                      lines = deep * ceil_div(height, together_);
        const int64_t parts = std::max<int64_t>(1, std::min(ceil_div(p_.in_channels, 64), 16 / lines));
        const int64_t units = args.batch * lines * parts;
        const int64_t tasks = tasks_for(units, p_.flops() / 2 * static_cast<double>(args.batch));
        const auto run_part = [&](int64_t task) {
            ScratchFrame frame;
            const T** const taps = frame.take<const T*>(p_.kernel[0] * tap_rows());
            const Range part = part_of(units, tasks, task);
            for (int64_t unit = part.begin; unit < part.end; unit++) {
                // Planes of depth go innermost: neighbours read the same rows, which are still in L1.
                const int64_t line = unit % lines, row = line / deep * together_, outer = unit / lines;
                Range channels = part_of(ceil_div(p_.in_channels, 64), parts, outer % parts);
                channels = {channels.begin * 64, std::min(channels.end * 64, p_.in_channels)};
                run_rows(args, outer / parts, line % deep, {row, std::min(row + together_, height)}, channels,
                         taps);
            }
        };
        parallel_for(tasks, run_part, threads(), depthwise_seconds<T>(p_, args.batch));
    }

  private:
    int64_t tap_rows() const { return p_.kernel[1] + together_ - 1; }

    // Input rows to the next call's, where that is worth asking for.
    int64_t ahead(const ConvArgs& args, Range channels) const {
        const int64_t values = args.batch * p_.in_channels * (p_.in_pixels() + p_.out_pixels());
        const bool asked = static_cast<size_t>(values) * sizeof(T) >= kAskedBytes && p_.kernel[0] == 1 &&
                           p_.dilation[1] == 1 && args.place == nullptr && channels.size() == p_.in_channels;
        return asked ? together_ * p_.stride[1] : 0;
    }

    // One row, or two that share their input rows, of a plane of depth.
    void run_rows(const ConvArgs& args, int64_t image, int64_t depth, Range rows, Range channels,
                  const T** taps) const {
        const T* const x =
            static_cast<const T*>(args.x) + image * p_.in_pixels() * p_.in_channels + channels.begin;
        for (int64_t d = 0; d < p_.kernel[0]; d++) {
            const int64_t z =
                axis_source(p_.mode, p_.in_size[0], depth * p_.stride[0] + d * p_.dilation[0] - p_.pad_lo[0]);
            for (int64_t i = 0; i < p_.kernel[1] + rows.size() - 1; i++) {
                const int64_t y = axis_source(p_.mode, p_.in_size[1],
                                              rows.begin * p_.stride[1] + i * p_.dilation[1] - p_.pad_lo[1]);
                taps[d * tap_rows() + i] =
                    y < 0 || z < 0 ? nullptr : x + (z * p_.in_size[1] + y) * p_.in_size[2] * p_.in_channels;
            }
        }
        const Placement place = args.placement(p_);
        const int64_t line =
            image * place.image + depth * place.plane + rows.begin * place.row + channels.begin;
        const auto call_at = [&](int64_t row, int64_t column) {
            const int64_t at = line + row * place.row + column * place.pixel;
            ChannelRun<T> call;
            call.tap_rows = taps + row;
            call.rows = p_.kernel[1];
            call.planes = p_.kernel[0];
            call.tap_plane = tap_rows();
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
        if (run_.size() > 0) {
            ChannelRun<T> call = call_at(0, run_.begin);
            call.pixels = run_.size();
            call.stride = p_.stride[2];
            call.dilation = p_.dilation[2];
            call.pad_left = p_.pad_lo[2] - run_.begin * p_.stride[2];
            call.in_columns = p_.in_size[2];
            call.out_rows = rows.size();
            call.out_row = place.row;
            call.ahead = ahead(args, channels);
            depthwise_of<T>().run(call);
        }
        for (int64_t row = 0; row < rows.size(); row++)
            for (int64_t column = 0; column < p_.out_size[2]; column++) {
                if (column == run_.begin) column = run_.end;
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
    Range run_;         // columns of `run`
    int64_t together_;  // output rows of one call
    std::vector<int64_t> columns_;
};

}  // namespace

template <class T>
std::unique_ptr<ConvKernel> make_depthwise_last(const ConvProblem& problem) {
    return std::make_unique<DepthwiseLast<T>>(problem);
}

bool depthwise_tiled(const ConvProblem& p, DType dtype) {
    const int64_t taps = p.kernel[2], stride = p.stride[2];
    const int paired = dtype == DType::f32 ? depthwise_of<float>().paired : depthwise_of<double>().paired;
    return p.dilation[2] == 1 &&
           (taps == 3 || taps == 5 ? stride <= 2 : taps == 7 && taps <= paired && stride == 1);
}

template std::unique_ptr<ConvKernel> make_depthwise_last<float>(const ConvProblem&);
template std::unique_ptr<ConvKernel> make_depthwise_last<double>(const ConvProblem&);

}  // namespace fastconv
