// Winograd convolution of stride 2: packed weights, blocks of tiles, threads. The idea stands in winograd.hpp; stride 1 is done by
// winograd_tiles.cpp.
#include <algorithm>
#include <cstring>
#include <vector>

#include "algorithms/activations.hpp"
#include "algorithms/microkernel_kernels.hpp"
#include "algorithms/winograd_kernels.hpp"
#include "plan/candidates.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/machine.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"

namespace fastconv {

namespace {

constexpr int kPanelVectors = 2;
// Additions into one accumulator before a partial sum is set aside: keeps the error bound of long reductions.
constexpr int64_t kChain = 256;

// How a batch is cut. Sums do not depend on it: every row of a matrix product is computed by itself.
struct Blocks {
    int64_t tiles;      // of the batch
    int64_t per_block;  // tiles that are transformed together
    int64_t count;
    bool shared;  // too few tiles: they are all transformed first, then the weights' panels are shared out
};

template <class T>
class Winograd final : public ConvKernel {
  public:
    // `runs`: else it only predicts, and needs no maps, which are as long as the image.
    Winograd(const ConvProblem& p, const WinogradScheme& scheme, bool runs)
        : p_(p),
          scheme_(scheme),
          planes_(scheme.planes()),
          taps_(p.taps()),
          lanes_(micro<T>().lanes),
          width_(kPanelVectors * lanes_),
          tiles_y_(ceil_div(p.out_size[1], scheme.outputs())),
          tiles_x_(ceil_div(p.out_size[2], scheme.outputs())),
          blocks_(ceil_div(p.in_channels, lanes_)),
          panels_(ceil_div(p.out_channels, width_)),
          panel_size_(planes_ * blocks_ * lanes_ * width_) {
        if (!runs) return;
        // What lies beyond the last output reads zeros.
        const auto map = [&](int axis, int64_t tiles) {
            std::vector<int32_t> to(static_cast<size_t>((tiles - 1) * scheme.step() + scheme.patch()), -1);
            for (int64_t i = 0; i < (p.out_size[axis] - 1) * scheme.stride + scheme.kernel; i++)
                to[static_cast<size_t>(i)] =
                    static_cast<int32_t>(axis_source(p.mode, p.in_size[axis], i - p.pad_lo[axis]));
            return to;
        };
        rows_ = map(1, tiles_y_);
        cols_ = map(2, tiles_x_);
    }

    // [panel][plane][channel][lane], then the weights as they are, [tap][channel][K].
    size_t packed_bytes() const override {
        return static_cast<size_t>(panels_ * panel_size_ + plain_size()) * sizeof(T);
    }
    bool keeps_packed() const override { return true; }

    void pack(const void* weight, void* packed) const override {
        const T* const source = static_cast<const T*>(weight);
        T* const to = static_cast<T*>(packed);
        const int64_t c = p_.in_channels, k = p_.out_channels, row = panels_ * width_;
        const int64_t k_step = p_.channels_last ? 1 : c * taps_, c_step = p_.channels_last ? k : taps_;
        const int64_t tap_step = p_.channels_last ? c * k : 1;
        T* const plain = to + panels_ * panel_size_;
        parallel_for(panels_, [&](int64_t panel) {
            const int vectors = panel_vectors(panel);
            T* const begin = to + panel * panel_size_;
            std::memset(begin, 0, static_cast<size_t>(panel_size_) * sizeof(T));
            for (int v = 0; v < kPanelVectors; v++) {
                const int64_t first = panel * width_ + v * lanes_,
                              count = std::clamp<int64_t>(k - first, 0, lanes_);
                if (v < vectors)
                    kernels().weight(source + first * k_step, k_step, c_step, tap_step, c, count,
                                     begin + v * lanes_, vectors * lanes_,
                                     blocks_ * lanes_ * vectors * lanes_);
                for (int64_t tap = 0; tap < taps_; tap++)
                    for (int64_t i = 0; i < c; i++)
                        for (int64_t j = 0; j < lanes_; j++)
                            plain[(tap * c + i) * row + first + j] =
                                j < count ? source[(first + j) * k_step + i * c_step + tap * tap_step] : T(0);
            }
        });
    }

    size_t scratch_bytes() const override { return scratch_within(SIZE_MAX); }
    size_t scratch_within(size_t budget) const override {
        const int64_t tiles = most_tiles(budget);
        return static_cast<size_t>(tiles_size(tiles) + products_size(tiles)) * sizeof(T) + offsets_bytes();
    }
    // More than by blocks where the tiles of few images are shared.
    size_t workspace_bytes() const override {
        const ScratchShare share = scratch_share();
        size_t most = ConvKernel::workspace_bytes();
        for (int64_t batch = 1; batch * tiles_y_ * tiles_x_ <= 4 * share.threads * micro<T>().channel_rows;
             batch++) {
            const Blocks b = cut(batch, share);
            if (b.shared) most = std::max(most, shared_bytes(b.tiles, share.threads));
        }
        return most;
    }
    bool takes_bands() const override { return true; }
    int64_t band_step() const override { return scheme_.outputs(); }

    void run(const ConvArgs& args) const override {
        const FlushToZero flush;
        const T* const packed = static_cast<const T*>(args.packed);
        const WinogradJob<T> job{static_cast<const T*>(args.x),
                                 static_cast<T*>(args.out),
                                 static_cast<const T*>(args.add),
                                 static_cast<const T*>(args.bias),
                                 clamp_of(args.activation),
                                 p_.channels_last,
                                 p_.in_channels,
                                 p_.out_channels,
                                 p_.in_size[1],
                                 p_.in_size[2],
                                 p_.out_size[1],
                                 p_.out_size[2],
                                 args.x_plane_of(p_),
                                 args.out_plane_of(p_),
                                 tiles_y_,
                                 tiles_x_,
                                 rows_.data(),
                                 cols_.data(),
                                 packed + panels_ * panel_size_,
                                 panels_ * width_};
        ScratchShare share = scratch_share();
        // A job of two halves that wait for each other must be worth it.
        if (least_seconds<T>(p_.flops() * args.batch / 2.25) < kSmallJob) share.threads = 1;
        const Blocks b = cut(args.batch, share);
        if (b.shared && each_transforms(share.threads)) {
            const auto run_part = [&](int64_t part) {
                ScratchFrame frame;
                const WinogradTiles<T> v = lay_out(frame.take<T>(tiles_size(b.tiles)), b.tiles);
                T* const products = frame.take<T>(products_size(b.tiles));
                kernels().input(job, 0, b.tiles, 0, blocks_, v);
                const Range panels = part_of(panels_, share.threads, part);
                for (int64_t panel = panels.begin; panel < panels.end; panel++)
                    multiply(job, packed, 0, b.tiles, panel, v, products);
            };
            parallel_for(share.threads, run_part, share.threads);
        } else if (b.shared) {
            ScratchFrame frame;
            const WinogradTiles<T> v = lay_out(frame.take<T>(tiles_size(b.tiles)), b.tiles);
            parallel_for(
                blocks_, [&](int64_t c) { kernels().input(job, 0, b.tiles, c, c + 1, v); }, share.threads);
            const auto run_panel = [&](int64_t panel) {
                ScratchFrame inner;
                multiply(job, packed, 0, b.tiles, panel, v, inner.take<T>(products_size(b.tiles)));
            };
            note_weight_parts(panels_);
            parallel_for(panels_, run_panel, share.threads);
        } else {
            const auto run_block = [&](int64_t block) {
                const Range tiles = part_of(b.tiles, b.count, block);
                ScratchFrame frame;
                const WinogradTiles<T> v = lay_out(frame.take<T>(tiles_size(tiles.size())), tiles.size());
                T* const products = frame.take<T>(products_size(tiles.size()));
                kernels().input(job, tiles.begin, tiles.size(), 0, blocks_, v);
                for (int64_t panel = 0; panel < panels_; panel++)
                    multiply(job, packed, tiles.begin, tiles.size(), panel, v, products);
            };
            parallel_for(b.count, run_block, share.threads);
        }
        if (needs_pass(args.activation)) activate_output<T>(p_, args);
    }

    // Seconds for one image: a single one counts once, one of a batch of 16 twice; constants seen on AVX-512. 512 channels
    // at 7x7: F(2, 3) 222 and 254 GFLOP/s, F(4, 3) 148 and 313, since its weights stream. Over 60 random layers the choice
    // among the algorithms loses 2% on average.
    double predict(DType dtype) const {
        const double peak = peak_flops(dtype),
                     lane_cycle = 4.0 * lanes_ / peak;  // one vector FMA on each of two units
        const double tiles = static_cast<double>(tiles_y_ * tiles_x_), c = static_cast<double>(blocks_);
        const double k = static_cast<double>(ceil_div(p_.out_channels, lanes_)),
                     p = static_cast<double>(planes_), q = scheme_.positions();
        // An input's line of cache, of little arithmetic, takes 17 cycles channels last and 23 channels first;
        // weights of many small products came at 7 to 12 GB/s.
        const double rate = 0.75, bandwidth = 12e9, input = 20.0;
        const double multiply = tiles * p * c * k * lanes_ * 2.0 * lanes_ / (rate * peak);
        const double transforms = tiles * lane_cycle * (input * p * c + 13.0 * q * k);
        const double weights = static_cast<double>(panels_ * panel_size_) * sizeof(T);
        // Half of the shorter of the two is hidden behind the longer.
        const auto time = [&](int64_t batch) {
            const double passes =
                static_cast<double>(cut(batch, {1, SIZE_MAX}).count) / static_cast<double>(batch);
            const double stream =
                weights > 0.5 * static_cast<double>(l2_bytes()) ? passes * weights / bandwidth : 0;
            const double work = multiply + transforms;
            return std::max(work, stream) + 0.5 * std::min(work, stream);
        };
        return p_.batch_hint > 0 ? time(p_.batch_hint) : (time(1) + 2 * time(16)) / 3;
    }

  private:
    const WinogradKernels<T>& kernels() const { return winograd_kernels_of<T>(scheme_); }
    int64_t plain_size() const { return taps_ * p_.in_channels * panels_ * width_; }
    static constexpr int64_t kLine =
        64 / static_cast<int64_t>(sizeof(T));  // keeps positions out of step in the cache
    int64_t tiles_size(int64_t tiles) const { return planes_ * (tiles * blocks_ * lanes_ + kLine); }
    int64_t products_size(int64_t tiles) const { return scheme_.positions() * (tiles * width_ + kLine); }
    WinogradTiles<T> lay_out(T* values, int64_t tiles) const {
        return {values, tiles * blocks_ * lanes_ + kLine, tiles * lanes_};
    }
    // The last panel is one vector wide where that is enough.
    int panel_vectors(int64_t panel) const {
        return p_.out_channels - panel * width_ > lanes_ ? kPanelVectors : 1;
    }

    int64_t most_segments() const { return int64_t{scheme_.stride} * scheme_.stride * blocks_; }
    size_t offsets_bytes() const { return static_cast<size_t>(most_segments()) * sizeof(int64_t); }
    // Two threads are faster when each transforms all tiles itself than when they fetch half of them from each other's
    // cache: 256 channels at 14x14 0.40 -> 0.36 ms. More of them would repeat too much.
    bool each_transforms(int threads) const { return threads == 2 && panels_ >= 4 && panels_ % 2 == 0; }
    size_t shared_bytes(int64_t tiles, int threads) const {
        const size_t each =
            static_cast<size_t>(products_size(tiles)) * sizeof(T) + offsets_bytes() + kScratchRounding;
        const size_t copies = each_transforms(threads) ? 2 : 1;
        return copies * (static_cast<size_t>(tiles_size(tiles)) * sizeof(T) + kScratchRounding) +
               static_cast<size_t>(threads) * each;
    }

    // Tiles of one block, at most. Transformed tiles, the products of one panel and two positions of its weights share
    // L2, but the weights are not read again for fewer than 28 tiles: 512 channels at 28x28 406 -> 513 GFLOP/s against
    // six tenths of L2 and multiples of 14 tiles, 384 at 13x13 220 -> 309. Where scratch is bounded, fewer rows than the
    // micro-kernel's may have to do.
    int64_t most_tiles(size_t bound) const {
        const int64_t rows = micro<T>().channel_rows,
                      each = planes_ * blocks_ * lanes_ + scheme_.positions() * width_;
        const auto budget = static_cast<int64_t>(l2_bytes() / sizeof(T));
        const int64_t fitting = std::max<int64_t>(0, budget - 2 * most_segments() * lanes_ * width_) / each;
        int64_t most = std::clamp<int64_t>(fitting, 2 * rows, 8 * rows);
        // An image that is little more than a block is one, so that its weights are streamed once.
        const int64_t image = tiles_y_ * tiles_x_;
        if (image > most && image <= most + rows / 2) most = image;
        if (bound == SIZE_MAX) return most;
        const int64_t fixed =
            (planes_ + scheme_.positions()) * kLine * static_cast<int64_t>(sizeof(T)) + offsets_bytes();
        const int64_t left = std::max<int64_t>(0, static_cast<int64_t>(bound) - fixed);
        return std::clamp<int64_t>(left / (each * static_cast<int64_t>(sizeof(T))), 1, most);
    }

    Blocks cut(int64_t batch, const ScratchShare& share) const {
        const int64_t tiles = batch * tiles_y_ * tiles_x_, rows = micro<T>().channel_rows;
        const int threads = share.threads;
        const int64_t most = most_tiles(share.budget);
        int64_t count = ceil_div(tiles, most);
        if (threads > 1 && count < 4 * threads) count = round_up(count, threads);
        const bool few = count <= 4 * threads && 4 * tiles < 3 * count * rows;
        if (threads > 1 && few && shared_bytes(tiles, threads) <= workspace_limit())
            return {tiles, tiles, 1, true};
        return {tiles, ceil_div(tiles, count), count, false};
    }

    // Products of one panel of weights with some tiles, and the outputs they make.
    void multiply(const WinogradJob<T>& job, const T* packed, int64_t first, int64_t count, int64_t panel,
                  const WinogradTiles<T>& v, T* products) const {
        const Micro<T>& kernel = micro<T>();
        const int vectors = panel_vectors(panel);
        const int64_t width = vectors * lanes_, stride = count * width + kLine,
                      tiles = ceil_div(count, kernel.channel_rows);
        ScratchFrame frame;
        const int64_t most = most_segments(), longest = kChain / lanes_;
        int64_t* const offsets = frame.take<int64_t>(most);
        for (int64_t i = 0; i < most; i++)
            offsets[i] = i / blocks_ * v.plane_stride + i % blocks_ * v.block_stride;
        // The next position's weights come into L2 meanwhile, evenly over all row groups, unless all of them
        // stay there: with the micro-kernel's own prefetches 512 channels at 28x28 take 13.4 instead of 19.5
        // ms, 256 at 14x14 0.79 instead of 0.93 and, 16 images, 14.3 instead of 18.
        const bool streams = static_cast<size_t>(panels_ * panel_size_) * sizeof(T) > l2_bytes() / 2;
        ChannelTile<T> call;
        call.x_row = lanes_;
        call.length = lanes_;
        call.out_row = call.channels = width;
        for (int64_t p = 0; p < scheme_.positions(); p++) {
            const int i = static_cast<int>(p) / scheme_.tile, j = static_cast<int>(p) % scheme_.tile;
            const int64_t plane = scheme_.plane(i, j),
                          segments = blocks_ * scheme_.phases(i) * scheme_.phases(j),
                          chain = std::min(longest, segments);
            const T* const w = packed + panel * panel_size_ + plane * blocks_ * lanes_ * width;
            for (int64_t t = 0; t < tiles; t++) {
                const Range rows = part_of(count, tiles, t);
                call.out = products + p * stride + rows.begin * width;
                call.x = v.values + plane * v.plane_stride + rows.begin * lanes_;
                for (int64_t b = 0; b < segments; b += chain) {
                    call.offsets = offsets + b;
                    call.segments = std::min(chain, segments - b);
                    call.w = w + b * lanes_ * width;
                    call.accumulate = b > 0;
                    if (streams) {
                        const Range next = part_of(call.segments * lanes_ * width / kLine, tiles, t);
                        call.ahead = w + (segments + b) * lanes_ * width + next.begin * kLine;
                        call.ahead_lines = ceil_div(next.size(), call.segments);
                    }
                    kernel.channels[rows.size()][vectors](call);
                }
            }
        }
        kernels().output(job, first, count, panel * width_, vectors, products, stride);
    }

    ConvProblem p_;
    WinogradScheme scheme_;
    int64_t planes_, taps_, lanes_, width_, tiles_y_, tiles_x_, blocks_, panels_, panel_size_;
    std::vector<int32_t> rows_, cols_;
};

// Of a square kernel; empty where it can be done.
std::string why_not(const ConvProblem& p) {
    if (p.stride[1] != 2 || p.stride[2] != 2) return "this needs stride 2 in height and width";
    if (p.dilation[1] != 1 || p.dilation[2] != 1) return "Winograd needs dilation 1";
    if (p.has_depth()) return "Winograd needs two-dimensional data";
    if (p.groups != 1) return "Winograd needs groups=1";
    if (p.in_channels == 0) return "there are no input channels";
    return "";
}

double predict(const ConvProblem& p, DType dtype, const WinogradScheme& scheme) {
    return dtype == DType::f32 ? Winograd<float>(p, scheme, false).predict(dtype)
                               : Winograd<double>(p, scheme, false).predict(dtype);
}

std::unique_ptr<ConvKernel> make(const ConvProblem& p, DType dtype, const WinogradScheme& scheme) {
    if (dtype == DType::f32) return std::make_unique<Winograd<float>>(p, scheme, true);
    return std::make_unique<Winograd<double>>(p, scheme, true);
}

// The scheme of stride 2 for this kernel, null where there is none.
const WinogradScheme* strided(const ConvProblem& p) {
    if (p.kernel[0] != 1 || p.kernel[1] != p.kernel[2]) return nullptr;
    for (const WinogradScheme& scheme : kWinogradSchemes)
        if (scheme.stride == 2 && p.kernel[1] == scheme.kernel) return &scheme;
    return nullptr;
}

}  // namespace

std::string why_not_winograd_stride2(const ConvProblem& p, DType) {
    if (strided(p) == nullptr) return "this needs a square kernel of 3x3, 4x4, 5x5 or 7x7";
    return why_not(p);
}
double predict_winograd_stride2(const ConvProblem& p, DType dtype) { return predict(p, dtype, *strided(p)); }
std::unique_ptr<ConvKernel> make_winograd_stride2(const ConvProblem& p, DType dtype) {
    return make(p, dtype, *strided(p));
}

}  // namespace fastconv
