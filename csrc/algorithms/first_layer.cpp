// First layers: at most four input channels.
//
// All taps of all input channels are one sum of 27 to 147 terms, so a tile of the output is finished in one go and
// written once, straight from registers: the output is the traffic (12.8 MB at 224 x 224 x 64). A band of input rows is
// copied to scratch with its padding, columns sorted by the phase of the stride; a few output channels then run
// over all rows of the band, so that they write few long runs of memory, then the next few.
// 3 > 64 channels at 224 x 224: 1.15 ms, where the direct form, which finishes tiles by way of L1, takes 1.85 (one
// core of 226 GFLOP/s; its arithmetic alone is 0.77, writing the output alone 0.55).
// Channels last, as long as the output channels fill half a vector at most, the same on planes: input pixels are split into
// planes row by row, some rows of sums at a time are turned into pixels out of L1. 3 > 8 channels with 4x4 at 64 x 64
// 34 us, where the direct form, which has channels in lanes, takes 55; 3 > 4 with 3x3 at 128 x 128 42 and 137. With more
// output channels: first_layer_stem.cpp.
// Tried and dropped: non-temporal stores (1.26 ms), a copy of each row for every tap so that loads do not cross
// lines (larger kernels fall out of L1: 7x7 1.37 -> 1.53 ms, 3x3 the same).
#include <algorithm>
#include <vector>

#include "algorithms/activations.hpp"
#include "algorithms/first_layer_kernels.hpp"
#include "algorithms/first_layer_stem.hpp"
#include "algorithms/microkernel_kernels.hpp"
#include "algorithms/rows_kernels.hpp"
#include "plan/candidates.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/machine.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr int64_t kMostTerms = 512;

template <class T>
class FirstLayerKernel final : public ConvKernel {
  public:
    explicit FirstLayerKernel(const ConvProblem& problem) : p_(problem) {
        const int64_t stride = p_.stride[2], taps = p_.kernel[2], dilation = p_.dilation[2];
        // Taps of the same phase of the stride share one copy of a row.
        std::vector<int64_t> copy, shift;  // of each tap
        int64_t most = 0;
        for (int64_t t = 0; t < taps; t++) {
            const int64_t at = t * dilation, first = at % stride;
            const auto found = std::find(copies_.begin(), copies_.end(), first);
            copy.push_back(found - copies_.begin());
            shift.push_back(at / stride);
            most = std::max(most, shift.back());
            if (found == copies_.end()) copies_.push_back(first);
        }
        const int64_t line = 64 / sizeof(T), copies = static_cast<int64_t>(copies_.size());
        filled_ = p_.out_size[2] + most;
        pitch_ = round_up(filled_, line);
        row_ = p_.in_channels * copies * pitch_;
        for (int64_t c = 0; c < p_.in_channels; c++)
            for (int64_t h = 0; h < p_.kernel[1]; h++)
                for (int64_t t = 0; t < taps; t++)
                    offsets_.push_back(h * p_.dilation[1] * row_ + (c * copies + copy[t]) * pitch_ +
                                       shift[t]);
        blocks_ = ceil_div(p_.out_channels, kFirstRows);
        group_ = std::max<int64_t>(1, static_cast<int64_t>(l1_bytes() / 4 / sizeof(T)) /
                                          std::max<int64_t>(1, p_.out_channels * p_.out_size[2]));
        // A band's input takes a sixteenth of L2 at most, but a band has some rows in any case.
        const int64_t lines = static_cast<int64_t>(l2_bytes() / 16 / sizeof(T)) / row_;
        band_ = std::clamp<int64_t>((lines - reach()) / p_.stride[1] + 1,
                                    std::min<int64_t>(4, p_.out_size[1]), p_.out_size[1]);
    }

    size_t packed_bytes() const override {
        return static_cast<size_t>(p_.out_channels * p_.in_channels * p_.taps()) * sizeof(T);
    }

    // [block][term][channel]
    void pack(const void* weight, void* packed) const override {
        const T* const from = static_cast<const T*>(weight);
        T* to = static_cast<T*>(packed);
        for (int64_t b = 0; b < blocks_; b++) {
            const Range channels = part_of(p_.out_channels, blocks_, b);
            for (int64_t i = 0; i < terms(); i++)
                for (int64_t k = channels.begin; k < channels.end; k++)
                    *to++ = p_.channels_last
                                ? from[(i % p_.taps() * p_.in_channels + i / p_.taps()) * p_.out_channels + k]
                                : from[k * terms() + i];
        }
    }

    size_t scratch_bytes() const override {
        return static_cast<size_t>(input_size(band_) + p_.out_channels + split_size() + sums_size()) *
                   sizeof(T) +
               packed_bytes();
    }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        ScratchFrame frame;
        const T* packed = static_cast<const T*>(args.packed);
        if (packed == nullptr) {
            T* const fresh = frame.take<T>(p_.out_channels * terms());
            pack(args.weight, fresh);
            packed = fresh;
        }
        const T* bias = static_cast<const T*>(args.bias);
        if (bias == nullptr) {
            T* const zeros = frame.take<T>(p_.out_channels);
            std::fill(zeros, zeros + p_.out_channels, T(0));
            bias = zeros;
        }
        const int64_t height = p_.out_size[1];
        int64_t bands = ceil_div(height, band_);
        const double enough = 60e3;  // multiply-adds worth a task of their own
        const double work = p_.flops() * args.batch / 2;
        const int threads = this->threads();
        while (threads > 1 && args.batch * bands < 3 * threads && bands < height &&
               work / (args.batch * bands) > enough)
            bands++;
        const auto run_part = [&](int64_t task) {
            run_band(args, task / bands, part_of(height, bands, task % bands), packed, bias);
        };
        parallel_for(args.batch * bands, run_part, threads, least_seconds<T>(p_.flops() * args.batch));
    }

    bool takes_bands() const override { return true; }

  private:
    int64_t terms() const { return p_.in_channels * p_.taps(); }
    int64_t reach() const { return (p_.kernel[1] - 1) * p_.dilation[1] + 1; }
    int64_t input_rows(int64_t rows) const { return (rows - 1) * p_.stride[1] + reach(); }
    int64_t input_size(int64_t rows) const { return input_rows(rows) * row_ + 2 * kFirstMargin; }
    // Channels last: one row of input planes, and the sums of group_ rows, each plane a vector longer.
    int64_t split_size() const { return p_.channels_last ? p_.in_channels * p_.in_size[2] : 0; }
    int64_t sums_plane() const {
        const int64_t line = 64 / sizeof(T);
        return round_up(group_ * p_.out_size[2], line) + line;
    }
    int64_t sums_size() const { return p_.channels_last ? p_.out_channels * sums_plane() : 0; }

    // Columns before each row that make the vectors fall onto whole lines of the output, where all rows agree on them and
    // are so long that one vector more costs less than stores across lines (8% at width 224). Fewer than a vector's lanes:
    // only the first vector of a row is masked at its begin.
    int64_t columns_before(const ConvArgs& args) const {
        const int64_t line = 64 / sizeof(T), width = p_.out_size[2];
        if (width < 12 * line || width % line != 0 || args.out_plane_of(p_) % line != 0) return 0;
        return static_cast<int64_t>(reinterpret_cast<uintptr_t>(args.out) / sizeof(T)) % micro<T>().lanes;
    }

    void run_band(const ConvArgs& args, int64_t image, Range rows, const T* packed, const T* bias) const {
        const int64_t before = p_.channels_last ? 0 : columns_before(args);
        ScratchFrame frame;
        T* const input = frame.take<T>(input_size(rows.size())) + kFirstMargin + before;
        fill(args, image, rows, input, frame.take<T>(split_size()));
        const int64_t width = p_.out_size[2];
        FirstLayer<T> call;
        call.x = input;
        call.x_step = p_.stride[1] * row_;
        call.offsets = offsets_.data();
        call.terms = terms();
        call.width = width;
        call.before = before;
        if (!p_.channels_last) {
            const int64_t pixels = args.out_plane_of(p_),
                          at = image * p_.out_channels * pixels + rows.begin * width;
            call.out = static_cast<T*>(args.out) + at;
            call.plane = pixels;
            call.rows = rows.size();
            if (args.add != nullptr) call.add = static_cast<const T*>(args.add) + at;
            call.clamp = clamp_of(args.activation);
            run_blocks(call, packed, bias);
            if (needs_pass(args.activation))
                rows_of<T>().activate(args.activation, call.out, p_.out_channels, pixels,
                                      rows.size() * width);
            return;
        }
        T* const sums = frame.take<T>(sums_size());
        const int64_t groups = ceil_div(rows.size(), group_);
        for (int64_t g = 0; g < groups; g++) {
            const Range part = part_of(rows.size(), groups, g);
            const int64_t n = part.size() * width,
                          at = ((image * p_.out_size[1] + rows.begin + part.begin) * width) * p_.out_channels;
            call.x = input + part.begin * call.x_step;
            call.out = sums;
            call.plane = sums_plane();
            call.rows = part.size();
            T* const out = static_cast<T*>(args.out) + at;
            const T* const add = args.add == nullptr ? nullptr : static_cast<const T*>(args.add) + at;
            if (add == nullptr) call.clamp = clamp_of(args.activation);
            run_blocks(call, packed, bias);
            first_layers<T>().turn(sums, call.plane, n, p_.out_channels, add, out);
            if (args.activation != Activation::none && (add != nullptr || needs_pass(args.activation)))
                rows_of<T>().activate(args.activation, out, 1, 0, n * p_.out_channels);
        }
    }

    // All output channels of some rows.
    void run_blocks(const FirstLayer<T>& all, const T* packed, const T* bias) const {
        for (int64_t b = 0; b < blocks_; b++) {
            const Range channels = part_of(p_.out_channels, blocks_, b);
            FirstLayer<T> call = all;
            call.w = packed + channels.begin * terms();
            call.bias = bias + channels.begin;
            call.out += channels.begin * all.plane;
            if (call.add != nullptr) call.add += channels.begin * all.plane;
            first_layers<T>().run[channels.size()](call);
        }
    }

    // The padded rows that the output rows `rows` read.
    void fill(const ConvArgs& args, int64_t image, Range rows, T* to, T* planes) const {
        const int64_t line = p_.in_size[2], plane = args.x_plane_of(p_);
        const T* const x = static_cast<const T*>(args.x) + image * p_.in_channels * plane;
        for (int64_t r = 0; r < input_rows(rows.size()); r++) {
            const int64_t y =
                axis_source(p_.mode, p_.in_size[1], rows.begin * p_.stride[1] + r - p_.pad_lo[1]);
            if (y < 0) {
                std::fill(to, to + row_, T(0));
                to += row_;
                continue;
            }
            if (p_.channels_last)
                first_layers<T>().split[p_.in_channels](x + y * line * p_.in_channels, line, planes, line);
            for (int64_t c = 0; c < p_.in_channels; c++)
                for (const int64_t first : copies_) {
                    rows_of<T>().pack(p_.channels_last ? planes + c * line : x + c * plane + y * line, line,
                                      p_.mode, first - p_.pad_lo[2], p_.stride[2], to, filled_);
                    to += pitch_;
                }
        }
    }

    ConvProblem p_;
    int64_t filled_, pitch_, row_, band_, blocks_;
    int64_t group_;                 // channels last: rows of sums that wait in L1 to be turned
    std::vector<int64_t> copies_;   // of each copy of a row its first column
    std::vector<int64_t> offsets_;  // of each term
};

double predict_planes(const ConvProblem& p, DType dtype) {
    const int64_t lanes = dtype == DType::f32 ? 16 : 8;
    const double filled = static_cast<double>(p.out_size[2]) / round_up(p.out_size[2], lanes);
    const double rows = std::min(1.0, p.out_channels / 4.0);
    const double outputs = static_cast<double>(p.out_channels) * p.out_pixels();
    // A row shorter than a vector costs more than its empty lanes: 5x5 on 9 wide took twice the direct form's time.
    const double rate = (p.taps() == 1 ? 0.4 : p.out_size[2] < lanes ? 0.65 : 0.9) * filled * rows;
    // What an image begins with, and its rows' copies, are most of the time of a few outputs.
    const double copies = 0.3e-6 + 0.15e-9 * static_cast<double>(p.in_channels * p.in_pixels());
    const double turned =
        p.channels_last ? 0.15e-9 * outputs + 0.2e-9 * p.in_channels * p.in_pixels() : copies;
    return p.flops() / (rate * peak_flops(dtype)) + outputs * 0.06e-9 + turned;
}

// Channels last, planes are turned for few output channels only.
bool turns(const ConvProblem& p, DType dtype) {
    return p.out_channels <=
           (dtype == DType::f32 ? first_layers<float>().turned : first_layers<double>().turned);
}

// Channels last, with output channels in lanes: where planes cannot be, and where it is predicted to take less time. The factor
// chose best on 480 random layers where both can be: 11% less time, in the mean, than planes take. (Channels first, the same
// with rows of pixels turned into planes takes 0.65 to 1.3 times the time of planes, and no less than the direct form.)
bool is_stem(const ConvProblem& problem, DType dtype) {
    const ConvProblem p = problem.whole();
    if (!p.channels_last) return false;
    return !turns(p, dtype) ||
           (why_not_stem(p, dtype).empty() && 0.75 * predict_stem(p) < predict_planes(p, dtype));
}

}  // namespace

std::string why_not_first_layer(const ConvProblem& p, DType dtype) {
    if (p.in_channels < 1 || p.in_channels > kFirstChannels) return "it needs one to four input channels";
    if (p.groups != 1) return "it has no groups";
    if (p.has_depth()) return "it has no depth axis";
    if (p.in_channels * p.taps() > kMostTerms) return "it adds at most 512 terms into one sum";
    return p.channels_last && !turns(p, dtype) ? why_not_stem(p, dtype) : "";
}

double predict_first_layer(const ConvProblem& p, DType dtype) {
    return is_stem(p, dtype) ? predict_stem(p) : predict_planes(p, dtype);
}

std::unique_ptr<ConvKernel> make_first_layer(const ConvProblem& problem, DType dtype) {
    if (is_stem(problem, dtype)) return make_stem(problem);
    if (dtype == DType::f32) return std::make_unique<FirstLayerKernel<float>>(problem);
    return std::make_unique<FirstLayerKernel<double>>(problem);
}

}  // namespace fastconv
