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

// Two bands both make some rows. Where those are a fifth of the image, every step is cut in its own way: one image of 160 >
// 960 > 160 at 7 x 7, channels last, on two threads 115 us joined and 90.
Chain::Run Chain::passes_for(int64_t batch) const {
    Run run;
    for (const Pass& pass : passes_) {
        const int64_t cuts = pass.twice > 0 ? band_count(pass, batch) - 1 : 0;
        const bool joined = static_cast<double>(cuts) * pass.twice <= 0.2;
        if (joined)
            run.push_back(&pass);
        else
            for (const Pass& step : pass.alone) run.push_back(&step);
    }
    return run;
}

int64_t Chain::images_at_once(const Run& passes, int64_t batch) const {
    int64_t most = 0;
    for (size_t i = 0; i + 1 < passes.size(); i++) most = std::max(most, image_out(passes[i]->last - 1));
    if (most == 0) return batch;
    return std::clamp<int64_t>(kBetween / 2 / (most * static_cast<int64_t>(item_)), 1,
                               std::max<int64_t>(1, batch));
}

size_t Chain::between(const Run& passes, size_t odd) const {
    int64_t most = 0;
    for (size_t i = odd; i + 1 < passes.size(); i += 2) most = std::max(most, image_out(passes[i]->last - 1));
    return static_cast<size_t>(most) * item_;
}

size_t Chain::workspace_bytes(int64_t batch) const {
    size_t most = 0;
    const Run passes = passes_for(batch);
    for (const Pass* const pass : passes) {
        if (pass->size() == 1) {
            const ChainStep& step = steps_[pass->first];
            most = std::max(most, step.kernel != nullptr
                                      ? step.kernel->workspace_bytes()
                                      : pool_scratch(step, step.pool) * static_cast<size_t>(num_threads()));
            continue;
        }
        size_t each = pass->scratch + kScratchRounding;
        for (const size_t room : pass->room)
            each += room * static_cast<size_t>(pass->together) * item_ + kScratchAlignment;
        most = std::max(most, each * static_cast<size_t>(num_threads()));
    }
    const auto images = static_cast<size_t>(images_at_once(passes, batch));
    return most + images * (between(passes, 0) + between(passes, 1)) +
           (passes.size() > 1 ? kScratchRounding : 0);
}

void Chain::run(const ChainArgs& args) const {
    if (args.batch == 0) return;
    const FlushToZero flush;
    ScratchFrame frame;
    const Run passes = passes_for(args.batch);
    const int64_t together = images_at_once(passes, args.batch);
    char* const buffers[2] = {
        static_cast<char*>(frame.take_bytes(static_cast<size_t>(together) * between(passes, 0))),
        static_cast<char*>(frame.take_bytes(static_cast<size_t>(together) * between(passes, 1)))};
    const int64_t x_image = image_in(0) * static_cast<int64_t>(item_),
                  out_image = image_out(steps_.size() - 1) * static_cast<int64_t>(item_);
    for (int64_t n = 0; n < args.batch; n += together) {
        const int64_t images = std::min(together, args.batch - n);
        const char* from = static_cast<const char*>(args.x) + n * x_image;
        for (size_t i = 0; i < passes.size(); i++) {
            const bool last = i + 1 == passes.size();
            char* const to = last ? static_cast<char*>(args.out) + n * out_image : buffers[i % 2];
            const char* const add =
                last && args.add != nullptr ? static_cast<const char*>(args.add) + n * out_image : nullptr;
            if (passes[i]->size() == 1) {
                run_alone(passes[i]->first, args, images, from, add, to);
            } else {
                run_pass(*passes[i], args, images, from, add, to);
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
    const double work = work_of(pass) * static_cast<double>(batch);
    const auto threads = std::max(1, static_cast<int>(std::min<double>(num_threads(), work / kTaskWork)));
    const Bands& bands = bands_of(pass, band_count(pass, batch));
    const auto count = static_cast<int64_t>(bands.size());
    // Small images run some at a time, but none of the threads shall wait.
    int64_t together = count > 1 ? 1 : std::min(pass.together, ceil_div(batch, threads));
    together = ceil_div(batch, round_up(ceil_div(batch, together), threads));
    const int64_t x_image = image_in(pass.first) * static_cast<int64_t>(item_),
                  out_image = image_out(pass.last - 1) * static_cast<int64_t>(item_),
                  units = ceil_div(batch, together) * count;
    const int64_t tasks = tasks_for(units, work);
    const bool past_caches = batch * x_image >= kPastCaches;
    const auto piece_of = [&](int64_t unit) {
        const int64_t n = unit / count * together;
        return Piece{&bands[static_cast<size_t>(unit % count)], std::min(together, batch - n),
                     x + n * x_image, add == nullptr ? nullptr : add + n * out_image, out + n * out_image};
    };
    // Units of a task follow each other in memory, so that each can ask for what the next will need.
    const auto run_task = [&](int64_t task) {
        const Range part = part_of(units, tasks, task);
        for (int64_t unit = part.begin; unit < part.end; unit++) {
            const Piece next = unit + 1 < part.end ? piece_of(unit + 1) : Piece{};
            run_band(pass, args, past_caches, piece_of(unit), next);
        }
    };
    parallel_for(tasks, run_task, threads);
}

// What the last step of a pass asks for: what the first one reads next, as far as memory follows while the step computes,
// and the outputs that come after.
Coming Chain::coming_after(const Pass& pass, const Piece& piece, const Piece& next, size_t index) const {
    const std::vector<Move>& moves = piece.band->moves;
    const Move& move = moves[index];
    const ConvProblem& first = steps_[pass.first].problem;
    const int64_t row = first.in_size[2] * first.in_channels,
                  line = width_out(pass.last - 1) * channels_out(pass.last - 1);
    int64_t read = 0;  // rows so far
    const auto reads = [](const Move& m) { return m.stage == 0 && m.out_rows > 0; };
    for (size_t i = 0; i < index; i++)
        if (reads(moves[i])) read = moves[i].in_row + moves[i].in_rows;
    Coming coming;
    const auto from = [&](const char* x, int64_t begin, int64_t end) {
        coming.x = x + begin * row * static_cast<int64_t>(item_);
        coming.values = (end - begin) * row;
    };
    size_t i = index + 1;
    while (i < moves.size() && !reads(moves[i])) i++;
    if (i < moves.size()) {
        from(piece.x, read, std::max(read, moves[i].in_row + moves[i].in_rows));
        coming.outputs = (walk(pass.last - 1).out - move.out_row - move.out_rows) * line;
    } else if (next.band != nullptr) {
        const Move& m = next.band->moves.front();
        from(next.x, m.in_row, next.images > 1 ? next.images * m.in_rows : m.in_rows);
        coming.outputs = next.images * image_out(pass.last - 1);
    }
    const Walk w = walk(pass.last - 1);
    const double share = static_cast<double>(move.out_rows * piece.images) / static_cast<double>(w.out);
    const double bytes = steps_[pass.last - 1].problem.flops() * share / kFlopsOfByte;
    const int64_t most = static_cast<int64_t>(bytes) / static_cast<int64_t>(item_);
    coming.values = std::clamp<int64_t>(most - move.out_rows * line * piece.images, 0, coming.values);
    return coming;
}

// One band of one image, or some images; `next` is what this thread takes then, if any.
void Chain::run_band(const Pass& pass, const ChainArgs& args, bool past_caches, const Piece& piece,
                     const Piece& next) const {
    const char *const x = piece.x, *const add = piece.add;
    char* const out = piece.out;
    ScratchFrame frame;
    const size_t n = pass.size();
    char* buffers[kMostJoined];
    for (size_t i = 0; i + 1 < n; i++)
        buffers[i] =
            static_cast<char*>(frame.take_bytes(pass.room[i] * static_cast<size_t>(piece.images) * item_));
    const auto item = static_cast<int64_t>(item_);
    for (size_t index = 0; index < piece.band->moves.size(); index++) {
        const Move& move = piece.band->moves[index];
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
        call.past_caches = move.stage == 0 && past_caches && !pass.all_asked;
        call.out = to + move.out_row * line;
        if (last && add != nullptr) call.add = add + move.out_row * line;
        call.batch = piece.images;
        Coming coming;
        if (planes && piece.images == 1) {
            call.x_plane = in_plane;
            call.out_plane = plane;
        } else if (last && !planes) {
            coming = coming_after(pass, piece, next, index);
            call.coming = &coming;
        }
        move.kernel->run(call);
    }
}

}  // namespace fastconv
