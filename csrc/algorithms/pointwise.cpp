#include "algorithms/pointwise.hpp"

#include <algorithm>
#include <cstring>
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

template <class T>
class PointwiseFirst final : public ConvKernel {
  public:
    explicit PointwiseFirst(const ConvProblem& problem) : p_(problem) {
        // The tile of one channel block takes two thirds of L1.
        const int64_t most = static_cast<int64_t>(l1_bytes() * 2 / 3 / sizeof(T)) / vector_pixels();
        blocks_ = std::max<int64_t>(1, ceil_div(p_.group_in(), std::clamp<int64_t>(most, 16, kChainAim)));
        row_blocks_ = ceil_div(p_.group_out(), micro<T>().pixel_rows);
        for (int64_t c = 0; c < largest_block(); c++) offsets_.push_back(c * vector_pixels());
    }

    size_t scratch_bytes() const override {
        return static_cast<size_t>(input_size() + partial_size()) * sizeof(T);
    }

    bool takes_bands() const override { return true; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        const int64_t pixels = p_.out_pixels();
        const int64_t tiles = ceil_div(ceil_div(pixels, micro<T>().lanes), micro<T>().pixel_vectors);
        const int threads = scratch_share().threads;
        // Tiles go round first; output channels are cut only where tiles are few. One chunk gathers its own
        // pixels.
        int64_t chunks = 1;
        const double work = p_.flops() * args.batch / 2;
        const int64_t columns = args.batch * p_.groups * tiles;
        while (threads > 1 && columns * chunks < 3 * threads && chunks < row_blocks_ &&
               work / (columns * chunks) > kTaskWork)
            chunks++;
        const int64_t units = columns * chunks;
        const int64_t worth = static_cast<int64_t>(std::max(1.0, work / kTaskWork));
        const int64_t tasks = std::min<int64_t>({units, 8 * int64_t{threads}, std::max<int64_t>(worth, 1)});
        const auto run_part = [&](int64_t task) {
            ScratchFrame frame;
            T* const input = frame.take<T>(input_size());
            T* const partial = frame.take<T>(partial_size());
            const Range part = part_of(units, tasks, task);
            for (int64_t unit = part.begin; unit < part.end; unit++) {
                const int64_t chunk = unit % chunks, tile = unit / chunks % tiles,
                              outer = unit / chunks / tiles;
                run_tile(args, outer / p_.groups, outer % p_.groups,
                         part_of(ceil_div(pixels, micro<T>().lanes), tiles, tile),
                         part_of(row_blocks_, chunks, chunk), input, partial);
            }
        };
        note_weight_parts(tasks == units ? chunks : 1);
        parallel_for(tasks, run_part, threads, least_seconds<T>(p_.flops() * args.batch));
    }

  private:
    static int64_t vector_pixels() { return int64_t{micro<T>().pixel_vectors} * micro<T>().lanes; }
    int64_t largest_block() const { return ceil_div(p_.group_in(), blocks_); }
    int64_t input_size() const { return largest_block() * vector_pixels(); }
    int64_t partial_size() const { return blocks_ == 1 ? 0 : p_.group_out() * vector_pixels(); }

    // The pixels of `vectors` of one group against its output channels in `rows`.
    void run_tile(const ConvArgs& args, int64_t image, int64_t group, Range vectors, Range rows, T* input,
                  T* partial) const {
        const int64_t lanes = micro<T>().lanes, plane = args.out_plane_of(p_);
        const int64_t pixel = vectors.begin * lanes,
                      pixels = std::min(vectors.end * lanes, p_.out_pixels()) - pixel;
        for (int64_t b = 0; b < blocks_; b++) {
            const Range channels = part_of(p_.group_in(), blocks_, b);
            gather(args, image, group * p_.group_in() + channels.begin, channels.size(), pixel, pixels,
                   input);
            for (int64_t i = rows.begin; i < rows.end; i++) {
                const Range r = part_of(p_.group_out(), row_blocks_, i);
                const int64_t k = group * p_.group_out() + r.begin;
                PixelTile<T> call;
                call.x = input;
                call.offsets = offsets_.data();
                call.steps = channels.size();
                call.w = static_cast<const T*>(args.weight) + k * p_.group_in() + channels.begin;
                call.w_row = p_.group_in();
                if (b > 0) call.partial = partial + r.begin * vector_pixels();
                call.partial_row = vector_pixels();
                const auto run = micro<T>().pixels[r.size()][vectors.size()];
                if (b + 1 < blocks_) {
                    call.out = partial + r.begin * vector_pixels();
                    call.out_row = vector_pixels();
                    call.pixels = vectors.size() * lanes;
                    run(call);
                    continue;
                }
                const int64_t at = (image * p_.out_channels + k) * plane + pixel;
                call.out = static_cast<T*>(args.out) + at;
                call.out_row = plane;
                call.pixels = pixels;
                if (args.bias != nullptr) call.bias = static_cast<const T*>(args.bias) + k;
                if (args.add != nullptr) call.add = static_cast<const T*>(args.add) + at;
                call.clamp = clamp_of(args.activation);
                run(call);
                if (needs_pass(args.activation))
                    rows_of<T>().activate(args.activation, call.out, r.size(), plane, pixels);
            }
        }
    }

    // Output pixels pixel .. pixel+pixels-1 of `count` input channels, one row of the tile each.
    void gather(const ConvArgs& args, int64_t image, int64_t channel, int64_t count, int64_t pixel,
                int64_t pixels, T* to) const {
        const int64_t plane = args.x_plane_of(p_);
        const T* x = static_cast<const T*>(args.x) + (image * p_.in_channels + channel) * plane;
        const int64_t pitch = vector_pixels();
        if (p_.in_pixels() == p_.out_pixels()) {
            for (int64_t c = 0; c < count; c++)
                std::memcpy(to + c * pitch, x + c * plane + pixel, static_cast<size_t>(pixels) * sizeof(T));
            return;
        }
        // Strided: the runs of the tile that lie in one output row, each from one input row.
        const int64_t height = p_.out_size[1], width = p_.out_size[2];
        for (int64_t done = 0; done < pixels;) {
            const int64_t at = pixel + done, w = at % width, h = at / width % height, d = at / width / height;
            const int64_t n = std::min(width - w, pixels - done);
            const int64_t line = (d * p_.stride[0] * p_.in_size[1] + h * p_.stride[1]) * p_.in_size[2];
            for (int64_t c = 0; c < count; c++)
                rows_of<T>().pack(x + c * plane + line, p_.in_size[2], p_.mode, w * p_.stride[2],
                                  p_.stride[2], to + c * pitch + done, n);
            done += n;
        }
    }

    ConvProblem p_;
    int64_t blocks_, row_blocks_;
    std::vector<int64_t> offsets_;
};

}  // namespace

template <class T>
std::unique_ptr<ConvKernel> make_pointwise_first(const ConvProblem& problem) {
    return std::make_unique<PointwiseFirst<T>>(problem);
}

template std::unique_ptr<ConvKernel> make_pointwise_first<float>(const ConvProblem&);
template std::unique_ptr<ConvKernel> make_pointwise_first<double>(const ConvProblem&);

std::string why_not_pointwise(const ConvProblem& p, DType) {
    if (p.taps() != 1) return "it needs a kernel of one tap";
    for (int axis = 0; axis < 3; axis++)
        if (p.pad_lo[axis] != 0 || p.reads_padding(axis)) return "it neither pads nor crops";
    return "";
}

double predict_pointwise(const ConvProblem& p, DType dtype) {
    // Gathering few channels for a large output saves nothing: 16 > 96 at 112 x 112, channels first, took 1.25 to 1.6
    // times as long; 14 > 31 there and 6 > 14 at 40 x 40 did not.
    const bool wide = !p.channels_last && p.group_in() <= 16 && p.out_channels * p.out_pixels() > 800000;
    return (wide ? 1.1 : 0.98) * predict_direct(p, dtype);
}

std::unique_ptr<ConvKernel> make_pointwise(const ConvProblem& problem, DType dtype) {
    if (lanes_pay(problem, dtype)) return make_direct(problem, dtype);
    if (dtype == DType::f32) return make_pointwise_first<float>(problem);
    return make_pointwise_first<double>(problem);
}

}  // namespace fastconv
