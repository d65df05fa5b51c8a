// Running a chain; how it is cut into passes, bands and moves stands in chain.cpp.
#include <algorithm>
#include <cstring>

#include "algorithms/pool.hpp"
#include "plan/chain.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr int64_t kBetween = int64_t{8} << 20;  // bytes between two passes, but one image at least
// An input of so many bytes is not in the caches when a pass reads it: the next rows are asked for beforehand.
constexpr int64_t kPastCaches = int64_t{24} << 20;

}  // namespace

// Multiply-adds for one image.
double Chain::work_of(const Pass& pass) const {
    double work = 0;
    for (size_t i = pass.first; i < pass.last; i++)
        if (steps_[i].kernel != nullptr) work += steps_[i].problem.flops() / 2;
    return work;
}

// Bands of an image, so that every thread has as much to do as the others; more than that only costs the rows that two
// bands both make.
int64_t Chain::band_count(const Pass& pass, int64_t batch) const {
    const int64_t threads = num_threads(), units = ceil_div(walk(pass.last - 1).out, step_of(pass.last - 1));
    const int64_t most = std::min<int64_t>(units, static_cast<int64_t>(work_of(pass) / kTaskWork));
    int64_t best = 1;
    double least = 0;
    for (int64_t count = 1; count <= std::max<int64_t>(1, std::min(most, 4 * threads)); count++) {
        const double rounds = static_cast<double>(ceil_div(batch * count, threads));
        const double load =
            rounds / static_cast<double>(batch * count) * (1 + 0.03 * static_cast<double>(count));
        if (count == 1 || load < least) {
            best = count;
            least = load;
        }
    }
    return best;
}

int64_t Chain::images_at_once(int64_t batch) const {
    int64_t most = 0;
    for (size_t i = 0; i + 1 < passes_.size(); i++) most = std::max(most, image_out(passes_[i].last - 1));
    if (most == 0) return batch;
    return std::clamp<int64_t>(kBetween / 2 / (most * static_cast<int64_t>(item_)), 1,
                               std::max<int64_t>(1, batch));
}

size_t Chain::between(size_t odd) const {
    int64_t most = 0;
    for (size_t i = odd; i + 1 < passes_.size(); i += 2)
        most = std::max(most, image_out(passes_[i].last - 1));
    return static_cast<size_t>(most) * item_;
}

size_t Chain::workspace_bytes(int64_t batch) const {
    size_t most = 0;
    for (const Pass& pass : passes_) {
        if (pass.size() == 1) {
            const ChainStep& step = steps_[pass.first];
            most = std::max(most, step.kernel != nullptr
                                      ? step.kernel->workspace_bytes()
                                      : pool_scratch(step, step.pool) * static_cast<size_t>(num_threads()));
            continue;
        }
        size_t each = pass.scratch + kScratchRounding;
        for (const size_t room : pass.room) each += room * item_ + kScratchAlignment;
        most = std::max(most, each * static_cast<size_t>(num_threads()));
    }
    const auto images = static_cast<size_t>(images_at_once(batch));
    return most + images * (between(0) + between(1)) + (passes_.size() > 1 ? kScratchRounding : 0);
}

void Chain::run(const ChainArgs& args) const {
    if (args.batch == 0) return;
    const FlushToZero flush;
    ScratchFrame frame;
    const int64_t together = images_at_once(args.batch);
    char* const buffers[2] = {
        static_cast<char*>(frame.take_bytes(static_cast<size_t>(together) * between(0))),
        static_cast<char*>(frame.take_bytes(static_cast<size_t>(together) * between(1)))};
    const int64_t x_image = image_in(0) * static_cast<int64_t>(item_),
                  out_image = image_out(steps_.size() - 1) * static_cast<int64_t>(item_);
    for (int64_t n = 0; n < args.batch; n += together) {
        const int64_t images = std::min(together, args.batch - n);
        const char* from = static_cast<const char*>(args.x) + n * x_image;
        for (size_t i = 0; i < passes_.size(); i++) {
            const bool last = i + 1 == passes_.size();
            char* const to = last ? static_cast<char*>(args.out) + n * out_image : buffers[i % 2];
            const char* const add =
                last && args.add != nullptr ? static_cast<const char*>(args.add) + n * out_image : nullptr;
            if (passes_[i].size() == 1) {
                run_alone(passes_[i].first, args, images, from, add, to);
            } else {
                run_pass(passes_[i], args, images, from, add, to);
            }
            from = to;
        }
    }
}

void Chain::run_alone(size_t index, const ChainArgs& args, int64_t batch, const char* x, const char* add,
                      char* out) const {
    const ChainStep& step = steps_[index];
    if (step.kernel == nullptr) return run_pool(step, step.pool, 0, batch, x, out);
    if (image_out(index) == 0) return;
    ConvArgs call = conv_args(step, args.weights[index]);
    call.batch = batch;
    call.x = x;
    call.add = add;
    call.out = out;
    step.kernel->run(call);
}

// `first`: the row, of the whole result, of the shape's first.
void Chain::run_pool(const ChainStep& step, const PoolShape& shape, int64_t first, int64_t batch,
                     const char* x, char* out) const {
    const PoolType type = dtype_ == DType::f32 ? PoolType::f32 : PoolType::f64;
    if (!step.average) return max_pool(shape, type, batch, x, out, nullptr);
    const int64_t* const counts[3] = {step.counts[0].data(), step.counts[1].data() + first,
                                      step.counts[2].data()};
    avg_pool(shape, counts, type, batch, x, out);
}

ConvArgs Chain::conv_args(const ChainStep& step, const ChainWeights& weights) {
    ConvArgs call{1, nullptr, weights.weight};
    call.packed = weights.packed;
    call.bias = weights.bias;
    call.activation = step.activation;
    return call;
}

void Chain::run_pass(const Pass& pass, const ChainArgs& args, int64_t batch, const char* x, const char* add,
                     char* out) const {
    const Bands& bands = bands_of(pass, band_count(pass, batch));
    const auto count = static_cast<int64_t>(bands.size());
    const int64_t x_image = image_in(pass.first) * static_cast<int64_t>(item_),
                  out_image = image_out(pass.last - 1) * static_cast<int64_t>(item_);
    const bool past_caches = batch * x_image >= kPastCaches;
    const auto run_task = [&](int64_t task) {
        const int64_t n = task / count;
        run_band(pass, bands[static_cast<size_t>(task % count)], args, past_caches, x + n * x_image,
                 add == nullptr ? nullptr : add + n * out_image, out + n * out_image);
    };
    const double worth = work_of(pass) * static_cast<double>(batch) / kTaskWork;
    parallel_for(batch * count, run_task,
                 std::max(1, static_cast<int>(std::min<double>(num_threads(), worth))));
}

// One band of one image; x, add and out are the image's.
void Chain::run_band(const Pass& pass, const Band& band, const ChainArgs& args, bool past_caches,
                     const char* x, const char* add, char* out) const {
    ScratchFrame frame;
    const size_t n = pass.size();
    char* buffers[kMostJoined];
    for (size_t i = 0; i + 1 < n; i++)
        buffers[i] = static_cast<char*>(frame.take_bytes(pass.room[i] * item_));
    const auto item = static_cast<int64_t>(item_);
    for (const Move& move : band.moves) {
        const size_t at = pass.first + move.stage;
        const ChainStep& step = steps_[at];
        const bool last = move.stage + 1 == n, planes = !channels_last(at);
        const int64_t channels = channels_out(at);
        const int64_t line = width_out(at) * (planes ? 1 : channels) * item;  // bytes of a row of the result
        const int64_t plane = last ? walk(at).out * width_out(at) : pass.plane[move.stage];
        char* const to = last ? out : buffers[move.stage];
        if (move.dropped > 0 && move.kept > 0)
            for (int64_t c = 0; c < (planes ? channels : 1); c++)
                std::memmove(to + c * plane * item, to + c * plane * item + move.dropped * line,
                             static_cast<size_t>(move.kept * line));
        if (move.out_rows == 0) continue;
        const Walk w = walk(at);
        const int64_t in_channels = step.kernel == nullptr ? step.pool.channels : step.problem.in_channels;
        const int64_t in_width = step.kernel == nullptr ? step.pool.in[2] : step.problem.in_size[2];
        const int64_t in_plane = move.stage == 0 ? w.in * in_width : pass.plane[move.stage - 1];
        const char* const from = (move.stage == 0 ? x : buffers[move.stage - 1]) +
                                 move.in_row * in_width * (planes ? 1 : in_channels) * item;
        if (step.kernel == nullptr) {
            for (int64_t c = 0; c < (planes ? in_channels : 1); c++)
                run_pool(step, move.shape, move.first, 1, from + c * in_plane * item,
                         to + c * plane * item + move.out_row * line);
            continue;
        }
        ConvArgs call = conv_args(step, args.weights[at]);
        call.x = from;
        call.past_caches = move.stage == 0 && past_caches;
        call.out = to + move.out_row * line;
        if (last && add != nullptr) call.add = add + move.out_row * line;
        if (planes) {
            call.x_plane = in_plane;
            call.out_plane = plane;
        }
        move.kernel->run(call);
    }
}

}  // namespace fastconv
