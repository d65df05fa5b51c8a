// Depthwise convolution of small planes, channels first: 3x3 and 5x5 kernels on planes whose output rows are
// shorter than a vector, any stride and dilation, zero padding.
//
// Row by row, a 7 x 7 plane leaves more than half of each vector empty, and masks, weights and the end of the
// plane cost as much as the sums. Here a vector holds whole rows and one call runs over many planes, for
// which the places that lanes come from are worked out once (SmallShape). Vectors beside each other share the
// input rows that both read, permutations included.
// One core of 226 GFLOP/s, 3x3: 960 planes of 7 x 7 in 15.5 us (row by row 46), 576 of 14 x 14 with stride 2
// in 15 (50), 192 of 28 x 28 with stride 2 in 14 (27), 384 of 14 x 14 in 19 (28); 5x5: 960 of 7 x 7 in 32
// (79).
// Tried and dropped: every vector by itself (7 x 7 18 us, 14 x 14 24, 5x5 on 14 x 14 108 instead of 72).
#include <algorithm>
#include <vector>

#include "algorithms/activations.hpp"
#include "algorithms/depthwise_small_kernels.hpp"
#include "algorithms/depthwise_tasks.hpp"
#include "algorithms/rows_kernels.hpp"
#include "runtime/float_mode.hpp"

namespace fastconv {

namespace {

constexpr int64_t kMostSources = 128;  // as many as the kernel has room for

struct SmallLayout {
    int64_t rows = 0;     // output rows of a vector; 0 where the problem is none of these
    bool packed = false;  // one load takes the input rows of all of them

    SmallLayout(const ConvProblem& p, int64_t lanes) {
        const int64_t height = p.out_size[1], width = p.out_size[2], in_width = p.in_size[2];
        if (p.has_depth()) return;
        if (p.kernel[1] != p.kernel[2] || (p.kernel[1] != 3 && p.kernel[1] != 5) || width > lanes) return;
        if (p.mode != PadMode::constant && p.reads_padding()) return;
        if (p.stride[1] == 1 && in_width <= lanes) {
            packed = true;
            rows = std::min({lanes / width, lanes / in_width, height});
        } else if (2 * width <= lanes && in_width <= lanes && height > 1) {
            rows = 2;
        } else if (in_width <= 2 * lanes) {
            rows = 1;
        }
        if (rows > 0 && ceil_div(height, rows) * p.kernel[1] > kMostSources) rows = 0;
    }
};

template <class T>
class DepthwiseSmallPlanes final : public ConvKernel {
  public:
    DepthwiseSmallPlanes(const ConvProblem& problem, SmallLayout layout) : p_(problem) {
        const int64_t lanes = depthwise_small<T>().lanes, rows = layout.rows, width = p_.out_size[2];
        const int64_t in_rows = p_.in_size[1], in_width = p_.in_size[2];
        shape_.kernel = p_.kernel[1];
        shape_.vectors = ceil_div(p_.out_size[1], rows);
        shape_.step = rows * width;
        shape_.two = !layout.packed && (rows == 2 || in_width > lanes);
        shape_.last = (p_.out_size[1] - (shape_.vectors - 1) * rows) * width;
        // Neighbours that share input rows share sources.
        const int64_t between = rows * p_.stride[1];
        shape_.apart = p_.dilation[1] == 1 && between <= 2 ? between : p_.kernel[1];
        for (int64_t j = 0; j < shape_.vectors; j++) {
            const bool all = j + 1 == shape_.vectors || shape_.apart == p_.kernel[1];
            for (int64_t kh = 0; kh < (all ? p_.kernel[1] : shape_.apart); kh++) {
                const int64_t y = j * between + kh * p_.dilation[1] - p_.pad_lo[1];
                const auto inside = [&](int64_t row) { return row >= 0 && row < in_rows; };
                TapSource source = {{y * in_width, 0, 0}, {0, 0, 0}};
                if (layout.packed) {
                    source.rows.low = std::clamp<int64_t>(-y, 0, rows) * in_width;
                    source.rows.high = std::clamp<int64_t>(in_rows - y, 0, rows) * in_width;
                } else {
                    const int64_t next = y + p_.stride[1];
                    if (inside(y)) source.rows.high = std::min(in_width, lanes);
                    source.more.at = rows == 2 ? next * in_width : source.rows.at + lanes;
                    if (rows == 2 && inside(next)) source.more.high = in_width;
                    if (rows == 1 && inside(y)) source.more.high = std::max<int64_t>(0, in_width - lanes);
                }
                sources_.push_back(source);
            }
        }
        for (int64_t kw = 0; kw < p_.kernel[2]; kw++)
            for (int64_t lane = 0; lane < kSmallLanes; lane++) {
                const int64_t row = lane / width,
                              column = lane % width * p_.stride[2] + kw * p_.dilation[2] - p_.pad_lo[2];
                const bool read = row < rows && column >= 0 && column < in_width;
                const int64_t from = layout.packed ? row * in_width + column : row * lanes + column;
                shape_.order[kw][lane] = read ? static_cast<int32_t>(from) : -1;
            }
        shape_.straight = layout.packed;
        for (int64_t lane = 0; lane < shape_.step; lane++)
            shape_.straight = shape_.straight && shape_.order[p_.kernel[2] / 2][lane] == lane;
        shape_.sources = sources_.data();
    }

    size_t scratch_bytes() const override { return 0; }
    bool takes_bands() const override { return true; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        const int64_t planes = args.batch * p_.out_channels;
        const int64_t tasks = tasks_for(planes, p_.flops() / 2 * static_cast<double>(args.batch));
        const auto run_part = [&](int64_t task) {
            const Range part = part_of(planes, tasks, task);
            SmallPlanes<T> call;
            call.shape = &shape_;
            call.x = static_cast<const T*>(args.x);
            call.x_plane = args.x_plane_of(p_);
            call.multiplier = p_.group_out();
            call.w = static_cast<const T*>(args.weight);
            call.channels = p_.out_channels;
            call.first = part.begin;
            call.planes = part.size();
            call.out = static_cast<T*>(args.out);
            call.out_plane = args.out_plane_of(p_);
            call.bias = static_cast<const T*>(args.bias);
            call.add = static_cast<const T*>(args.add);
            call.clamp = clamp_of(args.activation);
            depthwise_small<T>().run(call);
            if (needs_pass(args.activation))
                rows_of<T>().activate(args.activation, call.out + part.begin * call.out_plane, part.size(),
                                      call.out_plane, p_.out_pixels());
        };
        parallel_for(tasks, run_part, 0, depthwise_seconds<T>(p_, args.batch));
    }

  private:
    ConvProblem p_;
    SmallShape shape_;
    std::vector<TapSource> sources_;
};

}  // namespace

template <class T>
bool depthwise_small_takes(const ConvProblem& problem) {
    return depthwise_small<T>().run != nullptr && SmallLayout(problem, depthwise_small<T>().lanes).rows > 0;
}

template <class T>
std::unique_ptr<ConvKernel> make_depthwise_small(const ConvProblem& problem) {
    if (!depthwise_small_takes<T>(problem)) return nullptr;
    return std::make_unique<DepthwiseSmallPlanes<T>>(problem,
                                                     SmallLayout(problem, depthwise_small<T>().lanes));
}

template bool depthwise_small_takes<float>(const ConvProblem&);
template bool depthwise_small_takes<double>(const ConvProblem&);

template std::unique_ptr<ConvKernel> make_depthwise_small<float>(const ConvProblem&);
template std::unique_ptr<ConvKernel> make_depthwise_small<double>(const ConvProblem&);

}  // namespace fastconv
