// The driver of bf16x3; see bf16x3.hpp.
#include "algorithms/bf16x3.hpp"

#include <cmath>
#include <cstring>
#include <numeric>

#include "algorithms/activations.hpp"
#include "plan/candidates.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/machine.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

#if FASTCONV_HAVE_AMX
namespace avx512 {
extern const Bf16x3Kernels bf16x3_amx;
}
#endif

const Bf16x3Kernels* bf16x3_kernels() {
#if FASTCONV_HAVE_AMX
    if (has_matrix_tiles()) return &avx512::bf16x3_amx;
#endif
    return nullptr;
}

AxisTaps::AxisTaps(int64_t taps, int64_t dilation, int64_t stride) {
    const int64_t period = stride / std::gcd(dilation, stride);
    for (int64_t t = 0; t < taps; t++) {
        if (t < period) phases.push_back(t * dilation % stride);
        phase.push_back(t % period);
        shift.push_back(t * dilation / stride);
        reach = std::max(reach, shift.back());
    }
}

namespace {

constexpr int64_t kMostTaps = 65536;

bool is_dense(const ConvProblem& p) {
    return p.taps() == 1 && p.in_pixels() == p.out_pixels() && !p.reads_padding() && p.stride[1] == 1 &&
           p.stride[2] == 1 && p.pad_lo[1] == 0 && p.pad_lo[2] == 0;
}

}  // namespace

Bf16x3Shape::Bf16x3Shape(const ConvProblem& p)
    : problem(p),
      dense(is_dense(p)),
      joined(dense && p.channels_last),
      form(p.channels_last ? Bf16x3Form::pixels
           : dense         ? Bf16x3Form::planes
                           : Bf16x3Form::turned),
      rows(p.kernel[1], p.dilation[1], p.stride[1]),
      columns(p.kernel[2], p.dilation[2], p.stride[2]),
      blocks(ceil_div(p.in_channels, kTileDepth)),
      tiles(ceil_div(p.out_channels, kTilePixels)),
      steps(blocks * p.taps()),
      lines(dense ? p.out_pixels() : p.out_size[1]) {}

namespace {

// Whether thirds are made while those before them are multiplied, so that none wait in L2, where all weights are: 512 > 128
// at 28 x 28 362 to 300 us, but 1024 > 256 at 14 x 14 355 to 370. Channels first, all planes are written 32 pixels at a time:
// 16 images of 64 > 256 at 56 x 56 took 15.1 ms so, 7.5 by bands.
bool splits_ahead(const Bf16x3Shape& s) {
    const auto bytes = [](int64_t n) { return static_cast<size_t>(n); };
    return s.dense && s.blocks <= 16 && bytes(s.tiles * s.steps * kTileStep) <= l2_bytes() / 2 &&
           (s.form == Bf16x3Form::pixels ||
            (bytes(s.problem.in_channels * s.problem.out_pixels() * 4) <= l2_bytes() &&
             bytes(s.problem.out_channels * s.problem.out_pixels() * 4) <= l2_bytes() / 2));
}

// Planes of so few pixels are not shared among threads, which would write the same lines of the cache: 64 > 384 at 14 x 14 on
// two threads 34 us, by output channels 22; 96 > 576 58 and 40.
constexpr int64_t kSmallPlane = 1024;

class Bf16x3Kernel final : public ConvKernel {
  public:
    explicit Bf16x3Kernel(const ConvProblem& problem) : s_(problem), p_(s_.problem) {}

    size_t packed_bytes() const override { return static_cast<size_t>(s_.tiles * s_.steps * kTileStep); }
    bool keeps_packed() const override { return true; }

    void pack(const void* weight, void* packed) const override {
        const FlushToZero flush;
        pack_thirds(s_, static_cast<const float*>(weight), static_cast<char*>(packed));
    }

    size_t scratch_bytes() const override { return packed_bytes() + scratch_within(SIZE_MAX); }
    size_t scratch_within(size_t budget) const override { return band_bytes(largest_band(budget)); }
    bool takes_bands() const override { return true; }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        const ScratchShare share = scratch_share();
        ScratchFrame frame;
        const char* packed = static_cast<const char*>(args.packed);
        if (packed == nullptr) {
            char* const fresh = frame.take<char>(static_cast<int64_t>(packed_bytes()));
            pack(args.weight, fresh);
            packed = fresh;
        }
        const int64_t images = s_.joined ? 1 : args.batch, lines = s_.lines * (s_.joined ? args.batch : 1);
        const Bf16x3Band most = largest_band(share.budget);
        int64_t groups = ceil_div(images, most.images.size()), bands = ceil_div(lines, most.lines.size()),
                chunks = 1;
        // Few tasks are as many for each thread; few lines are cut by output channels instead.
        const int64_t threads = share.threads;
        if (groups * bands < 4 * threads) {
            const int64_t even = round_up(bands, threads / std::gcd(images, threads));
            if (bands == 1 && images % threads == 0)
                groups = round_up(groups, threads);
            else if (s_.form == Bf16x3Form::planes && lines <= kSmallPlane && s_.tiles >= 2 * threads)
                chunks = threads;
            else if (even == bands || even * least_lines() <= lines)
                groups = images, bands = even;
            else
                chunks = std::min(threads, ceil_div(s_.tiles, 2));
        }
        note_weight_parts(chunks);
        const auto run_part = [&](int64_t task) {
            const int64_t band = task / chunks, pairs = ceil_div(s_.tiles, 2);
            const Range channels = part_of(pairs, chunks, task % chunks);
            run_band(args, packed,
                     {part_of(images, groups, band / bands), part_of(lines, bands, band % bands)},
                     {channels.begin * 2, std::min(channels.end * 2, s_.tiles)});
        };
        parallel_for(groups * bands * chunks, run_part, share.threads,
                     least_seconds<float>(p_.flops() * args.batch));
        if (needs_pass(args.activation)) activate_output<float>(p_, args);
    }

  private:
    static const Bf16x3Kernels& kernels() { return *bf16x3_kernels(); }

    int64_t least_lines() const { return ceil_div(4 * kTilePixels, s_.width()); }
    int64_t tiles_of(const Bf16x3Band& band) const { return band.images.size() * s_.tiles_of_image(band); }
    size_t band_bytes(const Bf16x3Band& band) const {
        if (splits_ahead(s_))
            return static_cast<size_t>(dense_bytes() + s_.steps * 8) + 2 * kScratchAlignment;
        const int64_t tables = tiles_of(band) * (2 + 8 + 8) + s_.steps * 8;
        return static_cast<size_t>(s_.input_bytes(band) + tables) + split_row_bytes(s_) +
               6 * kScratchAlignment;
    }
    // L2 does not hold the weights: as many outputs as possible should read them at a time.
    bool heavy() const { return packed_bytes() > l2_bytes(); }
    // The most lines, or images, whose thirds stay in L2 beside the weights that pass over them, and within `budget`.
    // 1x1, 1024 > 256: 64 pixels (384 KB) 435 GFLOP/s, 256 pixels 285.
    Bf16x3Band largest_band(size_t budget) const {
        if (splits_ahead(s_)) return {{0, 64}, {0, s_.joined ? 64 * s_.lines : s_.lines}};
        const size_t most = std::min(budget, l2_bytes() * 3 / (heavy() ? 8 : 16));
        const auto lines_fit = [&](int64_t i) { return band_bytes({{0, 1}, {0, i}}) <= most; };
        const auto images_fit = [&](int64_t i) { return band_bytes({{0, i}, {0, s_.lines}}) <= most; };
        if (!s_.joined && lines_fit(s_.lines)) return {{0, last_that(images_fit, 64)}, {0, s_.lines}};
        const int64_t n = last_that(lines_fit, s_.joined ? 64 * s_.lines : s_.lines);
        return {{0, 1}, {0, s_.dense && n > kTilePixels ? n / kTilePixels * kTilePixels : n}};
    }
    // The largest n of 1 .. most for which `holds`; 1 where none does.
    template <class F>
    static int64_t last_that(F holds, int64_t most) {
        int64_t does = 1, fails = most + 1;
        while (fails - does > 1) {
            const int64_t middle = does + (fails - does) / 2;
            (holds(middle) ? does : fails) = middle;
        }
        return does;
    }

    int64_t dense_bytes() const { return 2 * s_.blocks * 3 * kDensePixels * 64; }

    // What a product of this band says in any case; bias and what follows begin with the first channel of `tiles`.
    Bf16x3Product product_of(const ConvArgs& args, const char* packed, const Bf16x3Band& band,
                             Range tiles) const {
        Bf16x3Product product;
        product.form = s_.form;
        product.w = packed + tiles.begin * s_.steps * kTileStep;
        product.steps = s_.steps;
        const int64_t channel = tiles.begin * kTilePixels, plane = args.out_plane_of(p_);
        product.channels = std::min(tiles.end * kTilePixels, p_.out_channels) - channel;
        product.out_row = p_.channels_last ? p_.out_channels : plane;
        const int64_t begin = band.lines.begin * s_.outputs(),
                      at = band.images.begin * p_.out_channels * plane +
                           (p_.channels_last ? begin * p_.out_channels + channel : channel * plane + begin);
        product.out = static_cast<float*>(args.out) + at;
        if (args.bias != nullptr) product.bias = static_cast<const float*>(args.bias) + channel;
        if (args.add != nullptr) product.add = static_cast<const float*>(args.add) + at;
        product.clamp = clamp_of(args.activation);
        return product;
    }

    void run_dense(const ConvArgs& args, const char* packed, const Bf16x3Band& band, Range tiles) const {
        ScratchFrame frame;
        Bf16x3Dense dense;
        dense.thirds = frame.take<char>(dense_bytes());
        int64_t* const offsets = frame.take<int64_t>(s_.steps);
        for (int64_t block = 0; block < s_.blocks; block++) offsets[block] = 3 * block * kDensePixels * 64;
        dense.pixels = band.lines.size();
        dense.in_channels = p_.in_channels;
        const int64_t plane = args.x_plane_of(p_);
        dense.step = p_.channels_last ? p_.in_channels : plane;
        for (int64_t image = band.images.begin; image < band.images.end; image++) {
            const Bf16x3Band one{{image, image + 1}, band.lines};
            dense.product = product_of(args, packed, one, tiles);
            dense.product.x_offsets = offsets;
            // Outputs that L2 does not hold: 16 images of 64 > 256 at 56 x 56 6.7 to 6.1 ms; those it holds take 5% longer.
            if (p_.channels_last &&
                args.batch * p_.out_channels * p_.out_pixels() * 4 > static_cast<int64_t>(l2_bytes()))
                dense.product.out_ahead = kDensePixels * p_.out_channels;
            dense.x = static_cast<const float*>(args.x) + image * p_.in_channels * plane +
                      band.lines.begin * (p_.channels_last ? p_.in_channels : 1);
            if (kernels().multiply_dense(dense))
                compute_again(args, packed, one, dense.product, tiles.begin * kTilePixels,
                              reinterpret_cast<float*>(dense.thirds));
        }
    }

    void run_band(const ConvArgs& args, const char* packed, const Bf16x3Band& band, Range tiles) const {
        if (splits_ahead(s_)) return run_dense(args, packed, band, tiles);
        ScratchFrame frame;
        char* const thirds = frame.take<char>(s_.input_bytes(band));
        split_input(s_, args, band, thirds);
        int64_t* const offsets = frame.take<int64_t>(s_.steps);
        for (int64_t block = 0, at = 0; block < s_.blocks; block++)
            for (int64_t h = 0; h < p_.kernel[1]; h++)
                for (int64_t w = 0; w < p_.kernel[2]; w++, at++)
                    offsets[at] = 3 * block * s_.third(band) +
                                  (s_.position(band, s_.rows.phase[h], s_.columns.phase[w], 0) +
                                   s_.rows.shift[h] * s_.width() + s_.columns.shift[w]) *
                                      s_.unit();
        Bf16x3Product product = product_of(args, packed, band, tiles);
        product.x = thirds;
        product.x_line = s_.line(band);
        product.x_split = s_.third(band);
        product.x_offsets = offsets;
        product.w_ahead = heavy() ? 4 * kTileStep : 0;
        product.tiles = tiles_of(band);
        int64_t* const places = frame.take<int64_t>(product.tiles);
        uint16_t* const valid = frame.take<uint16_t>(product.tiles);
        int64_t* const first = frame.take<int64_t>(product.tiles);
        const int64_t tiles_each = s_.tiles_of_image(band);
        for (int64_t i = 0; i < band.images.size(); i++)
            mark_image(band, i, i * p_.out_channels * args.out_plane_of(p_), places + i * tiles_each,
                       valid + i * tiles_each, first + i * tiles_each);
        product.places = places;
        product.valid = valid;
        product.first = first;
        // The input's thirds have been read; a tap has a position of its own among them, of more bytes than its weights.
        if (kernels().multiply(product))
            compute_again(args, packed, band, product, tiles.begin * kTilePixels,
                          reinterpret_cast<float*>(thirds));
    }

    // The tiles of one image: where they begin, which of their positions are outputs, and where the first of these goes.
    void mark_image(const Bf16x3Band& band, int64_t image, int64_t out, int64_t* places, uint16_t* valid,
                    int64_t* first) const {
        // Dense lines are one pixel each, without gaps: one long row.
        const int64_t row = s_.dense ? band.lines.size() : s_.outputs(), all = s_.dense ? row : s_.width(),
                      end = s_.dense ? row : (band.lines.size() - 1) * all + row,
                      step = p_.channels_last ? p_.out_channels : 1;
        for (int64_t at = 0, column = 0; at < end; places++, valid++, first++) {
            *places = (s_.position(band, 0, 0, image) + at) * s_.unit();
            *first = out;
            uint32_t bits = 0;
            for (int i = 0; i < kTilePixels && at < end; i++, at++) {
                if (column < row) {
                    bits |= 1u << i;
                    out += step;
                }
                if (++column == all) column = 0;
            }
            *valid = static_cast<uint16_t>(bits);
        }
    }

    // Outputs that are not finite, term by term: infinite numbers have no thirds, and first thirds may overflow where numbers do
    // not. Where a NaN among the weights, the bias or what is added made them so, they are right already. `weights` has room
    // for those of an output channel.
    void compute_again(const ConvArgs& args, const char* packed, const Bf16x3Band& band,
                       const Bf16x3Product& product, int64_t channel, float* weights) const {
        const int64_t pixels = band.lines.size() * s_.outputs(), begin = band.lines.begin * s_.outputs();
        for (int64_t k = 0; k < product.channels; k++) {
            if (product.bias != nullptr && std::isnan(product.bias[k])) continue;
            bool known = false, numbers = true;
            for (int64_t i = 0; numbers && i < band.images.size() * pixels; i++) {
                const int64_t image = i / pixels, pixel = begin + i % pixels;
                const int64_t at =
                    image * p_.out_channels * args.out_plane_of(p_) +
                    (p_.channels_last ? i % pixels * product.out_row + k : k * product.out_row + i % pixels);
                if (std::isfinite(product.out[at])) continue;
                if (product.add != nullptr && std::isnan(product.add[at])) continue;
                if (!known) numbers = unpack_thirds(s_, packed, channel + k, weights);
                known = true;
                if (!numbers) continue;
                float sum = s_.joined
                                ? one_output(args, weights, pixel / p_.out_pixels(), pixel % p_.out_pixels())
                                : one_output(args, weights, band.images.begin + image, pixel);
                if (product.bias != nullptr) sum += product.bias[k];
                if (product.add != nullptr) sum += product.add[at];
                if (product.clamp != Clamp::none && sum < 0) sum = 0;
                if (product.clamp == Clamp::relu6 && sum > 6) sum = 6;
                product.out[at] = sum;
            }
        }
    }

    float one_output(const ConvArgs& args, const float* weights, int64_t image, int64_t pixel) const {
        const int64_t from = p_.channels_last ? p_.in_pixels() : args.x_plane_of(p_);
        const auto* const x = static_cast<const float*>(args.x) + image * p_.in_channels * from;
        const int64_t top = pixel / p_.out_size[2] * p_.stride[1] - p_.pad_lo[1],
                      left = pixel % p_.out_size[2] * p_.stride[2] - p_.pad_lo[2];
        float sum = 0;
        for (int64_t tap = 0; tap < p_.taps(); tap++) {
            const int64_t row =
                              axis_source(p_.mode, p_.in_size[1], top + tap / p_.kernel[2] * p_.dilation[1]),
                          column =
                              axis_source(p_.mode, p_.in_size[2], left + tap % p_.kernel[2] * p_.dilation[2]);
            for (int64_t c = 0; c < p_.in_channels; c++) {
                const int64_t at = row * p_.in_size[2] + column;
                const float value = row < 0 || column < 0 ? 0
                                    : p_.channels_last    ? x[at * p_.in_channels + c]
                                                          : x[c * from + at];
                sum += value * *weights++;
                if (std::isnan(sum)) return sum;
            }
        }
        return sum;
    }

    const Bf16x3Shape s_;
    const ConvProblem& p_;
};

}  // namespace

std::string why_not_bf16x3(const ConvProblem& p, DType dtype) {
    if (dtype != DType::f32) return "it is for float32";
    if (bf16x3_kernels() == nullptr) return "it needs a processor with matrix tiles of bfloat16 (AMX)";
    if (p.groups != 1) return "it has no groups";
    if (p.stride[2] > kMostColumnPhases) return "it takes strides up to 16 along a row";
    if (p.has_depth()) return "it has no depth axis";
    if (p.in_channels < 1 || p.out_channels < 1 || p.out_pixels() < 1)
        return "it needs something to multiply";
    if (p.taps() > kMostTaps) return "it takes kernels of up to 65536 taps";
    // Rows are not cut. On two threads, 32 > 32 channels of 400,000 pixels with 8 taps and stride 4: 35 ms, direct 7.
    const auto most = static_cast<int64_t>(l2_bytes()) * (p.out_size[1] > 1 ? 2 : 1);
    if (Bf16x3Shape(p).input_bytes({{0, 1}, {0, 1}}) > most)
        return "what one row of outputs reads does not stay in L2";
    return "";
}

// Microseconds as measured on the machine above, times what the other predictions are too long by.
double predict_bf16x3(const ConvProblem& p, DType) {
    const Bf16x3Shape s(p);
    const auto positions =
        static_cast<double>(s.dense ? p.out_pixels() : (p.out_size[1] - 1) * s.width() + p.out_size[2]);
    // One image and sixteen, which count twice: where these are one line of pixels, they fill tiles and read weights together.
    const double full = std::ceil(positions / kTilePixels),
                 tiles = s.joined ? (full + 2 * positions / kTilePixels) / 3
                                  : std::max(full, 1.6),  // weights from L2
        channels = static_cast<double>(s.tiles), blocks = static_cast<double>(s.blocks);
    const auto read = static_cast<double>(s.dense ? p.out_pixels()
                                                  : s.rows.count() * s.columns.count() *
                                                        (p.out_size[1] + s.rows.reach) * s.width());
    const double turned = s.form == Bf16x3Form::turned ? 2 : 1;
    const bool ahead = splits_ahead(s);
    const double multiply = (ahead ? 0.033 : 0.035) * tiles * channels * static_cast<double>(s.steps),
                 write = (ahead ? 0.022 : 0.03) * turned * tiles * channels,
                 split = (ahead ? 0.04 : 0.063) * turned * read / kTilePixels * blocks;
    const auto floats = static_cast<double>(p.in_channels * p.in_pixels() + p.out_channels * p.out_pixels()),
               weights = static_cast<double>(s.tiles * s.steps * kTileStep);
    const bool heavy = weights > static_cast<double>(l2_bytes());
    const double read_once = heavy      ? weights / 40e3
                             : s.joined ? weights / 60e3
                                        : 0,
                 memory = floats * 4 / 45e3 + (s.joined ? 0.375 : 1) * read_once;
    const double too_long = p.taps() > 1 ? 1.3 : p.channels_last ? 1.5 : 1.15;
    return too_long * 1e-6 * (1.5 + multiply + write + split + memory);
}

std::unique_ptr<ConvKernel> make_bf16x3(const ConvProblem& problem, DType) {
    return std::make_unique<Bf16x3Kernel>(problem);
}

}  // namespace fastconv
