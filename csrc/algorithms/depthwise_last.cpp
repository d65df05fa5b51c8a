// Depthwise convolution, channels last: nothing is copied. Taps in zero padding are left out; columns whose
// taps reach into padding of other modes are done one by one, all others in runs of a row, or of two rows
// that share their input (depthwise_lines.hpp).
#include <algorithm>

#include "algorithms/depthwise_lines.hpp"
#include "algorithms/depthwise_tasks.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

// Arrays so large are not in the caches: what comes next is asked for beforehand. 16 images, one thread, copy
// 14.5 GB/s: 96 channels at 112 x 112, stride 2 (96 MB) 8.6 to 6.7 ms, 144 at 56 x 56 (58 MB) 9.3 to 4.1,
// which is 14.3 and 14.1 GB/s. Without asking for the output 6.9 and 5.6. Where the shared cache holds them
// after all 5% slower to 40% faster, and with 19 MB 30% slower. Streamed stores 6.6 and 4.1, and 2.5 and 5.8
// instead of 2.6 where the cache holds them.
constexpr size_t kAskedBytes = size_t{32} << 20;

template <class T>
class DepthwiseLast final : public ConvKernel {
  public:
    explicit DepthwiseLast(const ConvProblem& problem) : p_(problem), lines_(problem, problem.in_channels) {}

    size_t scratch_bytes() const override { return static_cast<size_t>(lines_.pointers()) * sizeof(T*); }
    bool takes_bands() const override { return true; }
    bool places_pixels() const override { return true; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        // Lines, and runs of channels where an image alone has too few of them to go round.
        const int64_t deep = p_.out_size[0], lines = deep * lines_.lines();
        if (lines == 0) return;
        const int64_t parts = std::max<int64_t>(1, std::min(ceil_div(p_.in_channels, 64), 16 / lines));
        const int64_t units = args.batch * lines * parts;
        const int64_t tasks = tasks_for(units, p_.flops() / 2 * static_cast<double>(args.batch));
        const auto run_part = [&](int64_t task) {
            ScratchFrame frame;
            const T** const taps = frame.take<const T*>(lines_.pointers());
            const Range part = part_of(units, tasks, task);
            for (int64_t unit = part.begin; unit < part.end; unit++) {
                // Planes of depth go innermost: neighbours read the same rows, which are still in L1.
                const int64_t line = unit % lines, outer = unit / lines;
                Range channels = part_of(ceil_div(p_.in_channels, 64), parts, outer % parts);
                channels = {channels.begin * 64, std::min(channels.end * 64, p_.in_channels)};
                lines_.run(arrays(args, outer / parts, channels), line % deep, line / deep,
                           {0, p_.out_size[1]}, taps);
            }
        };
        parallel_for(tasks, run_part, threads(), depthwise_seconds<T>(p_, args.batch));
    }

  private:
    LineArrays<T> arrays(const ConvArgs& args, int64_t image, Range channels) const {
        LineArrays<T> a;
        a.place = args.placement(p_);
        const int64_t at = image * a.place.image + channels.begin;
        a.x = static_cast<const T*>(args.x) + image * p_.in_pixels() * p_.in_channels + channels.begin;
        a.w = static_cast<const T*>(args.weight) + channels.begin;
        a.w_tap = p_.out_channels;
        a.out = static_cast<T*>(args.out) + at;
        a.channels = channels.size();
        if (args.bias != nullptr) a.bias = static_cast<const T*>(args.bias) + channels.begin;
        if (args.add != nullptr) a.add = static_cast<const T*>(args.add) + at;
        a.activation = args.activation;
        const int64_t values = args.batch * p_.in_channels * (p_.in_pixels() + p_.out_pixels());
        a.asked = (args.past_caches || static_cast<size_t>(values) * sizeof(T) >= kAskedBytes) &&
                  args.place == nullptr && channels.size() == p_.in_channels;
        return a;
    }

    ConvProblem p_;
    DepthwiseLines<T> lines_;
};

}  // namespace

template <class T>
std::unique_ptr<ConvKernel> make_depthwise_last(const ConvProblem& problem) {
    return std::make_unique<DepthwiseLast<T>>(problem);
}

bool depthwise_tiled(const ConvProblem& p, DType dtype) {
    const int64_t taps = p.kernel[2], stride = p.stride[2];
    const int paired = dtype == DType::f32 ? depthwise_of<float>().paired : depthwise_of<double>().paired;
    const bool phases = stride == 1 && p.out_size[2] >= 4 * p.dilation[2] &&
                        (p.mode == PadMode::constant || !p.reads_padding());
    return (p.dilation[2] == 1 || phases) &&
           (taps == 3 || taps == 5 ? stride <= 2 : taps >= kWideTaps && paired == kWideTaps && stride == 1);
}

template std::unique_ptr<ConvKernel> make_depthwise_last<float>(const ConvProblem&);
template std::unique_ptr<ConvKernel> make_depthwise_last<double>(const ConvProblem&);

}  // namespace fastconv
