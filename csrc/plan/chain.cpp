#include "plan/chain.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "algorithms/pool.hpp"
#include "algorithms/pool_turned.hpp"
#include "runtime/machine.hpp"
#include "runtime/scratch.hpp"

namespace fastconv {

namespace {

constexpr int64_t kLeastRows = 8;  // of a piece, where L2 allows it
constexpr int64_t kSlack = 64;     // elements that a kernel may read past a buffer's end

std::string kilobytes(size_t bytes) {
    char text[32];
    std::snprintf(text, sizeof text, "%.0f KB", static_cast<double>(bytes) / 1024);
    return text;
}

}  // namespace

Range Chain::Walk::rows_for(Range rows) const {
    return {std::max<int64_t>(0, rows.begin * stride - pad),
            std::min(in, (rows.end - 1) * stride - pad + span)};
}

Chain::Walk Chain::walk(size_t step) const {
    const ChainStep& s = steps_[step];
    if (s.kernel == nullptr)
        return {s.pool.in[1], s.pool.out[1], s.pool.span(1), s.pool.stride[1], s.pool.before[1]};
    const ConvProblem& p = s.problem;
    return {p.in_size[1], p.out_size[1], (p.kernel[1] - 1) * p.dilation[1] + 1, p.stride[1], p.pad_lo[1]};
}

size_t Chain::pool_scratch(const ChainStep& step, const PoolShape& shape) const {
    return pool_scratch_bytes(shape, dtype_ == DType::f32 ? PoolType::f32 : PoolType::f64, step.average);
}

int64_t Chain::step_of(size_t step) const {
    return steps_[step].kernel == nullptr ? 1 : steps_[step].kernel->band_step();
}

bool Chain::channels_last(size_t step) const {
    const ChainStep& s = steps_[step];
    return s.kernel == nullptr ? s.pool.channels_last : s.problem.channels_last;
}

int64_t Chain::channels_out(size_t step) const {
    const ChainStep& s = steps_[step];
    return s.kernel == nullptr ? s.pool.channels : s.problem.out_channels;
}

int64_t Chain::width_out(size_t step) const {
    const ChainStep& s = steps_[step];
    return s.kernel == nullptr ? s.pool.out[2] : s.problem.out_size[2];
}

int64_t Chain::image_in(size_t step) const {
    const ChainStep& s = steps_[step];
    return s.kernel == nullptr ? s.pool.channels * s.pool.in_volume()
                               : s.problem.in_channels * s.problem.in_pixels();
}

int64_t Chain::image_out(size_t step) const {
    const ChainStep& s = steps_[step];
    return s.kernel == nullptr ? s.pool.channels * s.pool.out_volume()
                               : s.problem.out_channels * s.problem.out_pixels();
}

// Why a step cannot be one of several in a pass; empty if it can.
std::string Chain::why_alone(size_t step) const {
    const ChainStep& s = steps_[step];
    const Walk w = walk(step);
    if (w.pad >= w.span || (w.out - 1) * w.stride - w.pad >= w.in)
        return "some of its windows lie in the padding alone";
    if (image_out(step) == 0 || image_in(step) == 0) return "it has no elements";
    if (s.kernel == nullptr) {
        if (s.pool.in[0] != 1 || s.pool.out[0] != 1 || s.pool.kernel[0] != 1) return "it has a depth axis";
        if (s.average && (s.pool.kernel[1] > 4 || s.pool.kernel[2] > 4 || s.pool.out[2] == 1))
            return "averages are joined for windows up to 4x4 and results wider than one pixel";
        if (s.average && turned_planes(s.pool, PoolPass::average, static_cast<int64_t>(item_)) > 0)
            return "its planes are so small that many are averaged at once";
        return "";
    }
    const ConvProblem& p = s.problem;
    if (p.has_depth()) return "it has a depth axis";
    if (p.mode != PadMode::constant && p.reads_padding(1)) return "its padding copies rows from elsewhere";
    if (!s.kernel->takes_bands()) return std::string(s.algorithm->name) + " does not run on bands";
    if (s.limited) return "its scratch is limited";
    return "";
}

// Why a step and the next are run one after the other; empty if they may be joined.
std::string Chain::why_apart(size_t step) const {
    for (const size_t i : {step, step + 1}) {
        const std::string reason = why_alone(i);
        if (!reason.empty()) return (i == step ? "of this step, " : "of the next, ") + reason;
    }
    const auto depthwise = [&](size_t i) {
        return steps_[i].kernel != nullptr && steps_[i].problem.groups > 1 &&
               steps_[i].problem.group_in() == 1;
    };
    if (steps_[step + 1].kernel != nullptr && !depthwise(step) && !depthwise(step + 1))
        return "neither is depthwise, nor is the second a pooling: arithmetic hides what passes between them";
    return "";
}

Chain::Chain(std::vector<ChainStep> steps, DType dtype)
    : steps_(std::move(steps)), dtype_(dtype), item_(dtype == DType::f32 ? 4 : 8) {
    for (size_t first = 0; first < steps_.size();) {
        // As many steps as can be joined, then fewer until they settle.
        size_t last = first + 1;
        std::string apart;
        while (last < steps_.size() && last - first < kMostJoined && (apart = why_apart(last - 1)).empty())
            last++;
        Pass pass;
        for (;; last--) {
            pass = Pass{};
            pass.first = first;
            pass.last = last;
            pass.apart = last < steps_.size() ? apart : "";
            if (last == first + 1 || settle(pass)) break;
            apart = pass.apart;
        }
        passes_.push_back(std::move(pass));
        first = last;
    }
}

Chain::~Chain() = default;

// Finds how many rows are made at a time, so that what lies between stays in L2 beside the kernels' own scratch.
bool Chain::settle(Pass& pass) const {
    const size_t l2 = l2_bytes();
    size_t scratch = 0, weights = 0;
    for (size_t i = pass.first; i < pass.last; i++) {
        if (steps_[i].kernel == nullptr) continue;
        scratch = std::max(scratch, steps_[i].kernel->scratch_within(SIZE_MAX));
        weights += std::max(steps_[i].kernel->packed_bytes(),
                            static_cast<size_t>(steps_[i].problem.weights()) * item_);
    }
    // Half a megabyte of 2 MB is best: blocks of MobileNetV2 at 56x56 took 0.61 of the separate steps' time with 8 rows of
    // 300 KB and 0.68 with 19 rows of 1.3 MB. Below 8 rows the kernels' own tiles suffer: 0.68 with 4, 0.8 with 2.
    // Two convolutions, channels last, share L2 with what the second asks for (coming_after): half of that, 16 images
    // of 128 > 128 at 56 x 56 13.3 and 12.5 ms, and a quarter where it asks for all, 32 > 64 at 112 x 112 7.2 and 6.9,
    // 96 > 24 at 112 x 112, stride 2 4.8 and 5.4. Channels first a plane cut in two costs the first of them a fifth.
    const bool asks = pass.size() == 2 && channels_last(pass.first) &&
                      steps_[pass.last - 1].kernel != nullptr && steps_[pass.last - 1].kernel->asks_ahead();
    const int64_t ends = (image_in(pass.first) + image_out(pass.last - 1)) * static_cast<int64_t>(item_);
    pass.all_asked =
        asks && steps_[pass.last - 1].problem.flops() / kFlopsOfByte >= static_cast<double>(ends);
    const size_t part = pass.all_asked ? l2 / 16 : asks ? l2 / 8 : l2 / 4;
    const size_t used = std::min(l2, scratch + weights), most = std::max(l2 / 4, (l2 - used) * 3 / 4);
    const int64_t height = walk(pass.last - 1).out, step = step_of(pass.last - 1);
    const auto bytes_of = [&](int64_t piece) {
        const Band band = walk_band(pass, {0, height}, piece);
        size_t bytes = 0;
        for (size_t i = 0; i + 1 < pass.size(); i++)
            bytes +=
                static_cast<size_t>(band.rows[i] * width_out(pass.first + i) * channels_out(pass.first + i)) *
                item_;
        return bytes;
    };
    int64_t piece = !channels_last(pass.first) && bytes_of(height) + weights <= l2 * 2 / 3 ? height : 0;
    for (int64_t rows = std::min(step, height); piece < height && rows <= height;
         rows += rows == height ? 1 : std::min(step, height - rows)) {
        const size_t bytes = bytes_of(rows);
        if (bytes > most || (bytes > part && piece >= kLeastRows)) break;
        piece = rows;
    }
    if (piece == 0) {
        pass.apart =
            kilobytes(bytes_of(std::min(step, height))) + " between them at the least, too much for L2";
        return false;
    }
    // Passing whole images through scratch is then no slower: 16 images of 960 > 320 at 7 x 7 3.02 ms joined and 3.06, on
    // matrix tiles, whose weights are larger, 2.2 and 2.0.
    if (weights > l2 / 2) {
        pass.apart = "their weights, " + kilobytes(weights) + ", would be read again for every few images";
        return false;
    }
    const int64_t pieces = ceil_div(height, piece);
    pass.piece = std::min(height, round_up(ceil_div(height, pieces), step));
    const Band whole = walk_band(pass, {0, height}, pass.piece);
    for (size_t i = 0; i + 1 < pass.size(); i++) {
        const size_t at = pass.first + i;
        const int64_t row = width_out(at);
        int64_t plane = whole.rows[i] * row;
        // Channels whole pages apart would fall onto the same cache sets.
        if (plane * static_cast<int64_t>(item_) % 1024 == 0) plane += 64 / static_cast<int64_t>(item_);
        pass.plane.push_back(channels_last(at) ? 0 : plane);
        pass.room.push_back(static_cast<size_t>(
            (channels_last(at) ? whole.rows[i] * row : plane) * channels_out(at) + kSlack));
    }
    auto bands = std::make_unique<Bands>(1, whole);
    if (!make_kernels(pass, bands->front())) {
        pass.apart = "weights are packed otherwise for a few rows";
        return false;
    }
    pass.scratch = scratch;
    for (size_t i = pass.first + 1; i < pass.last; i++) {
        const Walk w = walk(i);
        const auto rows = static_cast<double>(w.span - w.stride);
        pass.twice = std::max(pass.twice, rows / static_cast<double>(w.in));
    }
    for (size_t i = pass.first; i < pass.last; i++) {
        pass.alone.emplace_back();
        pass.alone.back().first = i;
        pass.alone.back().last = i + 1;
    }
    for (const Move& move : bands->front().moves) {
        const size_t mine = move.kernel != nullptr ? move.kernel->scratch_within(SIZE_MAX)
                            : move.out_rows > 0    ? pool_scratch(steps_[pass.first + move.stage], move.shape)
                                                   : 0;
        pass.scratch = std::max(pass.scratch, mine);
    }
    const std::vector<Move>& moves = bands->front().moves;
    if (std::all_of(moves.begin(), moves.end(), [&](const Move& m) { return whole_image(pass, m); })) {
        pass.together = std::max<int64_t>(1, static_cast<int64_t>(l2 / 4 / bytes_of(height)));
    }
    bands_[{pass.first, 1}] = std::move(bands);
    return true;
}

// Whether a move is a convolution of an image as it stands, so that several images are as many of them in a row.
bool Chain::whole_image(const Pass& pass, const Move& move) const {
    const size_t at = pass.first + move.stage;
    const Walk w = walk(at);
    const bool last = move.stage + 1 == pass.size();
    return move.kernel != nullptr && move.in_rows == w.in && move.out_rows == w.out && move.in_row == 0 &&
           move.out_row == 0 &&
           (last || channels_last(at) || pass.plane[move.stage] == w.out * width_out(at));
}

// The moves that make `rows` of the pass's last step, `piece` rows at a time.
Chain::Band Chain::walk_band(const Pass& pass, Range rows, int64_t piece) const {
    const size_t n = pass.size();
    Band band;
    band.rows.assign(n - 1, 0);
    std::vector<Range> have(n, {-1, -1}), fresh(n);  // rows of each stage in its buffer, and those to be made
    for (int64_t begin = rows.begin; begin < rows.end; begin += piece) {
        fresh[n - 1] = {begin, std::min(rows.end, begin + piece)};
        std::vector<int64_t> keep(n, 0);
        for (size_t i = n - 1; i > 0; i--) {
            const int64_t step = step_of(pass.first + i - 1);
            Range& before = have[i - 1];
            if (fresh[i].size() == 0) {
                keep[i - 1] = before.begin;
                fresh[i - 1] = {before.end, before.end};
                continue;
            }
            const Range need = walk(pass.first + i).rows_for(fresh[i]);
            if (before.begin < 0 || need.begin >= before.end)
                before.begin = before.end = need.begin / step * step;
            keep[i - 1] = std::max(before.begin, need.begin);
            const int64_t end = std::min(walk(pass.first + i - 1).out, round_up(need.end, step));
            fresh[i - 1] = {before.end, std::max(before.end, end)};
        }
        for (size_t i = 0; i < n; i++) {
            Move move{};
            move.stage = i;
            if (i + 1 < n) {
                Range& mine = have[i];
                const int64_t kept = std::min(keep[i], mine.end);
                move.dropped = kept - mine.begin;
                move.kept = mine.end - kept;
                mine.begin = kept;
            }
            if (fresh[i].size() == 0 && move.dropped == 0) continue;
            if (fresh[i].size() > 0) {
                const Range in = walk(pass.first + i).rows_for(fresh[i]);
                move.in_row = in.begin - (i == 0 ? 0 : have[i - 1].begin);
                move.in_rows = in.size();
                move.first = fresh[i].begin;
                move.out_row = fresh[i].begin - (i + 1 == n ? 0 : have[i].begin);
                move.out_rows = fresh[i].size();
            }
            band.moves.push_back(move);
            if (i + 1 < n) {
                have[i].end = fresh[i].end;
                band.rows[i] = std::max(band.rows[i], have[i].size());
            }
        }
    }
    return band;
}

// Gives every move its kernel; false if one does not take the weights as they are packed.
bool Chain::make_kernels(const Pass& pass, Band& band) const {
    for (Move& move : band.moves) {
        if (move.out_rows == 0) continue;
        const size_t at = pass.first + move.stage;
        const ChainStep& step = steps_[at];
        const Walk w = walk(at);
        const int64_t top = std::max<int64_t>(0, w.pad - move.first * w.stride);
        if (step.kernel != nullptr) {
            move.kernel = band_kernel(at, move.in_rows, top, move.out_rows);
            if (move.kernel == nullptr) return false;
            continue;
        }
        move.shape = step.pool;
        move.shape.in[1] = move.in_rows;
        move.shape.out[1] = move.out_rows;
        move.shape.before[1] = top;
        if (!move.shape.channels_last) move.shape.channels = 1;
    }
    return true;
}

// The step's algorithm for some of its rows. Null where it would pack the weights in another order.
const ConvKernel* Chain::band_kernel(size_t at, int64_t in_rows, int64_t top, int64_t out_rows) const {
    std::unique_ptr<ConvKernel>& kept = kernels_[{static_cast<int64_t>(at), in_rows, top, out_rows}];
    if (kept != nullptr) return kept.get();
    const ChainStep& step = steps_[at];
    ConvProblem p = step.problem;
    p.whole_in = p.in_size[1];
    p.whole_out = p.out_size[1];
    p.whole_pad = p.pad_lo[1];
    p.in_size[1] = in_rows;
    p.out_size[1] = out_rows;
    p.pad_lo[1] = top;
    p.pad_hi[1] = (out_rows - 1) * p.stride[1] + (p.kernel[1] - 1) * p.dilation[1] + 1 - top - in_rows;
    if (!step.algorithm->why_not(p, dtype_).empty()) return nullptr;
    std::unique_ptr<ConvKernel> kernel = step.algorithm->make(p, dtype_);
    const size_t bytes = kernel->packed_bytes();
    if (bytes != step.kernel->packed_bytes() || kernel->band_step() != step.kernel->band_step())
        return nullptr;
    if (bytes > 0) {
        // Any weights tell the order, as long as no two are alike.
        ScratchFrame frame;
        const int64_t n = p.weights();
        void* const weight = frame.take_bytes(static_cast<size_t>(n) * item_);
        for (int64_t i = 0; i < n; i++) {
            if (dtype_ == DType::f32)
                static_cast<float*>(weight)[i] = static_cast<float>(i % 8388593);
            else
                static_cast<double*>(weight)[i] = static_cast<double>(i);
        }
        void *const mine = frame.take_bytes(bytes), *const whole = frame.take_bytes(bytes);
        kernel->pack(weight, mine);
        step.kernel->pack(weight, whole);
        if (std::memcmp(mine, whole, bytes) != 0) return nullptr;
    }
    kept = std::move(kernel);
    return kept.get();
}

// The bands of an image cut into `count`; the whole image where they cannot be had.
const Chain::Bands& Chain::bands_of(const Pass& pass, int64_t count) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::unique_ptr<Bands>& kept = bands_[{pass.first, count}];
    if (kept != nullptr) return *kept;
    const int64_t height = walk(pass.last - 1).out, step = step_of(pass.last - 1);
    auto bands = std::make_unique<Bands>();
    for (int64_t i = 0; i < count; i++) {
        Range rows = part_of(ceil_div(height, step), count, i);
        rows = {rows.begin * step, std::min(height, rows.end * step)};
        bands->push_back(walk_band(pass, rows, pass.piece));
        const Band& whole = bands_[{pass.first, 1}]->front();
        bool fits = make_kernels(pass, bands->back());
        for (size_t s = 0; s < whole.rows.size(); s++) fits = fits && bands->back().rows[s] <= whole.rows[s];
        if (!fits) {
            bands = std::make_unique<Bands>(*bands_[{pass.first, 1}]);
            break;
        }
    }
    kept = std::move(bands);
    return *kept;
}

std::string Chain::describe(size_t first) const {
    std::string text;
    for (const Pass& pass : passes_) {
        const std::string begin = std::to_string(first + pass.first),
                          end = std::to_string(first + pass.last - 1);
        if (pass.size() == 1) {
            text += "step " + begin + " by itself";
        } else {
            size_t bytes = 0;
            for (const size_t room : pass.room) bytes += room * item_;
            text += "steps " + begin + " to " + end + " in one pass, " + std::to_string(pass.piece) + " of " +
                    std::to_string(walk(pass.last - 1).out) + " rows at a time, " + kilobytes(bytes) +
                    " between them";
            if (pass.together > 1) text += ", up to " + std::to_string(pass.together) + " images";
        }
        if (!pass.apart.empty()) text += "; the next apart: " + pass.apart;
        text += "\n";
    }
    return text;
}

}  // namespace fastconv
