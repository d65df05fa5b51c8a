// Stems: first layers of a network, channels last, with output channels in lanes. For AVX-512 and float32.
//
// A few rows of the input are copied with their padding, so few that they stay in L1, while those of the next band are asked
// for; the kernel (stem.hpp) runs along rows of outputs, up to 64 channels at a time. Outputs that leave the caches are streamed
// from registers: arrays begin anywhere in a line, so a tile whose pixels follow each other in memory is shifted by what the
// tile before left over, and every line is written once and whole. Where that cannot be (channels that fill no vectors, or
// more of them; activations that are a pass of their own), a row waits in a stage.
// One thread, in ms, the direct form before and this after: 3 > 32 at 224 x 224, stride 2, one image 0.154 and 0.139, 16 images
// 3.13 and 2.34; 3 > 16 at 320 x 320, stride 2, 0.251 and 0.195, 4.53 and 3.14; 3 > 64 at 224 x 224 1.23 and 0.98,
// 25.8 and 14.6; 7 x 7, stride 2, 1.15 and 1.10, 20.9 and 17.9; 9 x 9, 1 > 64 at 96 x 96 0.54 and 0.47, 9.5 and 7.0.
// Tried: 16 images of 3 > 32 with the outputs' lines asked for (prefetchw too) the same to 30% slower; a stage in L1 instead of
// shifted registers 3.3 instead of 2.8; bands of whole images instead of L1's 5 to 8% slower.
#include "algorithms/first_layer_stem.hpp"

#include <algorithm>
#include <vector>

#include "algorithms/activations.hpp"
#include "algorithms/lanes_input.hpp"
#include "algorithms/rows_kernels.hpp"
#include "algorithms/stem_kernels.hpp"
#include "algorithms/stream.hpp"
#include "plan/candidates.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/machine.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr int64_t kLanes = 16;
// Inputs and outputs of a call from which its outputs are streamed from registers. 35 MB, 16 images of 3 > 32 at 224 x 224, took
// 2.5 ms streamed and 2.35 by plain stores while the shared cache was otherwise idle, 2.8 and 3.0 while it was not; 116 MB of
// 3 > 64 8.0 and 12.
constexpr size_t kStreamed = 48 << 20;

struct Block {  // output channels of one call of the kernel
    int64_t first, vectors;
};

// All channels of a pixel by one call, or two vectors by each: where they are more, and where L1 does not hold
// the weights of one call.
std::vector<Block> blocks_of(const ConvProblem& p) {
    const int64_t vectors = ceil_div(p.out_channels, kLanes);
    const auto panel = static_cast<size_t>(p.in_channels * p.taps() * vectors * kLanes) * sizeof(float);
    const int64_t each = vectors <= kStemVectors && panel <= l1_bytes() ? vectors : 2;
    std::vector<Block> blocks;
    for (int64_t v = 0; v < vectors; v += each) blocks.push_back({v * kLanes, std::min(each, vectors - v)});
    return blocks;
}

// The tiles of one row, and the pixels that they compute; those beyond the row's are not stored.
struct RowOfTiles {
    int64_t count, pixels;
    RowOfTiles(int64_t vectors, int64_t row) {
        const int64_t most = kStemTiles[vectors][0];
        count = row / most;
        pixels = count * most;
        for (; pixels < row; count++) pixels += stem_tile_of(static_cast<int>(vectors), row - pixels);
    }
};

// No padding, and no pixels beyond a row for which a tile would read beyond the array.
bool reads_in_place(const ConvProblem& p, const std::vector<Block>& blocks) {
    if (p.reads_padding()) return false;
    return std::all_of(blocks.begin(), blocks.end(), [&](const Block& block) {
        return RowOfTiles(block.vectors, p.out_size[2]).pixels == p.out_size[2];
    });
}

// Elements of an input row, as far as it is read.
int64_t row_of(const ConvProblem& p) {
    return ((p.out_size[2] - 1) * p.stride[2] + (p.kernel[2] - 1) * p.dilation[2] + 1) * p.in_channels;
}

class Stem final : public ConvKernel {
  public:
    explicit Stem(const ConvProblem& problem)
        : p_(problem), blocks_(blocks_of(problem)), input_(problem, !reads_in_place(problem, blocks_)) {
        const int64_t taps = p_.kernel[2], channels = p_.in_channels;
        row_ = reads_in_place(p_, blocks_) ? p_.in_size[2] * channels : row_of(p_);
        int64_t before = 0;
        for (int64_t i = 1; i <= terms(); i++) {
            const int64_t tap = i / channels, at = tap / taps * p_.dilation[1] * row_ +
                                                   tap % taps * p_.dilation[2] * channels + i % channels;
            steps_.push_back(i == terms() ? 0 : at - before);
            before = at;
        }
        const int64_t lines = static_cast<int64_t>(l1_bytes() / 2 / sizeof(float)) / row_;
        band_ = std::clamp<int64_t>((lines - reach()) / p_.stride[1] + 1,
                                    std::min<int64_t>(4, p_.out_size[1]), p_.out_size[1]);
    }

    size_t packed_bytes() const override { return static_cast<size_t>(width() * terms()) * sizeof(float); }

    // [block][term][lane], lanes beyond the channels zero
    void pack(const void* weight, void* packed) const override {
        const auto* const from = static_cast<const float*>(weight);
        auto* to = static_cast<float*>(packed);
        for (const Block& block : blocks_)
            for (int64_t i = 0; i < terms(); i++, to += block.vectors * kLanes)
                copy_lanes(from + i * p_.out_channels, block, to);
    }

    size_t scratch_bytes() const override {
        return static_cast<size_t>(input_size() + width() + stage_size()) * sizeof(float) + packed_bytes();
    }

    bool takes_bands() const override { return true; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        ScratchFrame frame;
        const auto* packed = static_cast<const float*>(args.packed);
        if (packed == nullptr) {
            auto* const fresh = frame.take<float>(width() * terms());
            pack(args.weight, fresh);
            packed = fresh;
        }
        auto* const bias = frame.take<float>(width());
        for (const Block& block : blocks_) {
            if (args.bias == nullptr)
                std::fill_n(bias + block.first, block.vectors * kLanes, 0.0f);
            else
                copy_lanes(static_cast<const float*>(args.bias), block, bias + block.first);
        }
        // A task is an image, or some bands of it where threads would idle.
        const int64_t height = p_.out_size[1];
        const double enough = 60e3;  // multiply-adds worth a task of their own
        const double work = p_.flops() * args.batch / 2;
        const int threads = this->threads();
        int64_t parts = 1;
        while (threads > 1 && args.batch * parts < 4 * threads && parts < height &&
               work / (args.batch * parts) > enough)
            parts++;
        const Writing way = writing(args);
        const auto run_part = [&](int64_t task) {
            run_rows(args, task / parts, part_of(height, parts, task % parts), way, packed, bias);
        };
        parallel_for(args.batch * parts, run_part, threads, least_seconds<float>(p_.flops() * args.batch));
    }

  private:
    enum class Writing { plainly, streamed, staged };

    int64_t terms() const { return p_.in_channels * p_.taps(); }
    int64_t width() const { return round_up(p_.out_channels, kLanes); }
    int64_t reach() const { return (p_.kernel[1] - 1) * p_.dilation[1] + 1; }
    // Behind the last row, what a tile reads for pixels that it does not store.
    int64_t input_size() const {
        return input_.size(band_, p_.out_size[2]) + kStemTiles[1][0] * p_.stride[2] * p_.in_channels;
    }
    int64_t row_outputs() const { return p_.out_size[2] * p_.out_channels; }
    bool whole_lines() const { return blocks_.size() == 1 && p_.out_channels % kLanes == 0; }
    // None where L2 would not keep it: rows may be as long as a signal.
    int64_t stage_size() const {
        return static_cast<size_t>(row_outputs()) * sizeof(float) <= l2_bytes() / 2 ? row_outputs() : 0;
    }

    // Channels of one block out of all of them.
    void copy_lanes(const float* from, const Block& block, float* to) const {
        const int64_t count = std::min(block.vectors * kLanes, p_.out_channels - block.first);
        std::copy_n(from + block.first, count, to);
        std::fill(to + count, to + block.vectors * kLanes, 0.0f);
    }

    Writing writing(const ConvArgs& args) const {
        const int64_t values = p_.out_channels * p_.out_pixels() + p_.in_channels * p_.in_pixels();
        const size_t bytes = static_cast<size_t>(args.batch * values) * sizeof(float);
        if (whole_lines() && !needs_pass(args.activation))
            return bytes >= kStreamed ? Writing::streamed : Writing::plainly;
        return stage_size() > 0 && past_caches(bytes, terms()) ? Writing::staged : Writing::plainly;
    }

    // Output rows of one image, band by band.
    void run_rows(const ConvArgs& args, int64_t image, Range rows, Writing way, const float* packed,
                  const float* bias) const {
        ScratchFrame frame;
        auto* const input = frame.take<float>(input_size());
        float* const stage = way == Writing::staged ? frame.take<float>(stage_size()) : nullptr;
        StemCarry carry;
        const int64_t bands = ceil_div(rows.size(), band_), line = p_.in_size[2] * p_.in_channels;
        const bool last = image + 1 == args.batch;
        for (int64_t b = 0; b < bands; b++) {
            Range band = part_of(rows.size(), bands, b);
            band = {rows.begin + band.begin, rows.begin + band.end};
            const BandInput<float> x = input_.stage(static_cast<const float*>(args.x), image, 0, 0, band,
                                                    {0, p_.out_size[2]}, input);
            // Rows that the next band reads and this one did not, those of the next image after the last.
            Range next{std::max<int64_t>(0, (band.end - 1) * p_.stride[1] + reach() - p_.pad_lo[1]), 0};
            if (band.end == p_.out_size[1]) next.begin = p_.in_size[1];
            next.end = next.begin + band_ * p_.stride[1];
            if (last) next.end = std::min(next.end, p_.in_size[1]);
            for (int64_t y = band.begin; y < band.end; y++) {
                const Range lines = part_of(std::max<int64_t>(0, next.size()), band.size(), y - band.begin);
                StemRow row;
                row.ahead =
                    reinterpret_cast<const char*>(static_cast<const float*>(args.x) +
                                                  (image * p_.in_size[1] + next.begin + lines.begin) * line);
                row.ahead_lines = lines.size() * line * int64_t{sizeof(float)} / 64;
                row.x = x.base + (y - band.begin) * p_.stride[1] * row_;
                row.carry = way == Writing::streamed ? &carry : nullptr;
                run_row(args, (image * p_.out_size[1] + y) * row_outputs(), row, stage, packed, bias);
            }
        }
        if (way == Writing::streamed) {
            float* const end =
                static_cast<float*>(args.out) + (image * p_.out_size[1] + rows.end) * row_outputs();
            const int64_t left =
                static_cast<int64_t>(reinterpret_cast<uintptr_t>(end) / sizeof(float)) % kLanes;
            std::copy_n(carry.last + kLanes - left, left, end - left);
        }
        if (way != Writing::plainly) stream_fence();
    }

    // One row of outputs, which begins at `at`.
    void run_row(const ConvArgs& args, int64_t at, StemRow row, float* stage, const float* packed,
                 const float* bias) const {
        float* const out = static_cast<float*>(args.out) + at;
        const float* const add = args.add == nullptr ? nullptr : static_cast<const float*>(args.add) + at;
        row.x_pixel = p_.stride[2] * p_.in_channels;
        row.steps = steps_.data();
        row.terms = terms();
        row.triples = p_.in_channels == 3 || (p_.dilation[2] == 1 && p_.in_channels * p_.kernel[2] % 3 == 0);
        row.out_pixel = p_.out_channels;
        row.pixels = p_.out_size[2];
        row.clamp = clamp_of(args.activation);
        for (const Block& block : blocks_) {
            row.w = packed + block.first * terms();
            row.bias = bias + block.first;
            row.out = (stage != nullptr ? stage : out) + block.first;
            row.add = add == nullptr ? nullptr : add + block.first;
            row.channels = std::min(block.vectors * kLanes, p_.out_channels - block.first);
            stems().row[block.vectors](row);
            row.ahead_lines = 0;
        }
        float* const written = stage != nullptr ? stage : out;
        if (needs_pass(args.activation))
            rows_of<float>().activate(args.activation, written, 1, 0, row_outputs());
        if (stage != nullptr) rows_of<float>().stream(stage, out, row_outputs());
    }

    ConvProblem p_;
    std::vector<Block> blocks_;
    LanesInput<float> input_;
    int64_t row_, band_;          // elements from one input row to the next; output rows of a band
    std::vector<int64_t> steps_;  // from the input of each term to that of the next
};

}  // namespace

std::string why_not_stem(const ConvProblem& p, DType dtype) {
    if (stems().row[1] == nullptr || dtype != DType::f32)
        return "channels last, for more output channels than half a vector it needs AVX-512 and float32";
    if (p.taps() == 1) return "it needs more than one tap where channels are in lanes";
    if (p.placed) return "its rows of outputs follow each other in memory";
    return "";
}

// Cycles on the scale of the direct form's (direct.cpp), fitted to 940 random layers (2x2 to 11x11, stride 1 to 4, 9 to 128
// channels, 8 to 224 pixels wide; one thread): a tenth of them is predicted more than 15% off.
double predict_stem(const ConvProblem& p) {
    const std::vector<Block> blocks = blocks_of(p);
    const double rows = static_cast<double>(p.out_size[1]),
                 terms = static_cast<double>(p.in_channels * p.taps());
    double row = 20;
    for (const Block& block : blocks) {
        const RowOfTiles tiles(block.vectors, p.out_size[2]);
        row += 1.1 * terms * static_cast<double>(tiles.pixels * block.vectors) / 2 +
               43 * static_cast<double>(tiles.count);
    }
    const double copied =
        reads_in_place(p, blocks) ? 0 : 0.43 * static_cast<double>(p.in_channels * p.in_pixels());
    const int64_t reach = (p.kernel[1] - 1) * p.dilation[1] + 1;
    // Rows so long that those under one window leave L2: a direct convolution cuts them.
    const bool cut = static_cast<size_t>(reach * row_of(p)) * sizeof(float) > l2_bytes() / 2;
    return (cut ? 2 : 1) * (rows * row + copied) / 3e9;
}

std::unique_ptr<ConvKernel> make_stem(const ConvProblem& problem) { return std::make_unique<Stem>(problem); }

}  // namespace fastconv
