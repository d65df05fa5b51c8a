#include "algorithms/pointwise.hpp"

#include <algorithm>
#include <cmath>

#include "algorithms/activations.hpp"
#include "algorithms/direct.hpp"
#include "algorithms/microkernel_kernels.hpp"
#include "algorithms/panel_tile_kernels.hpp"
#include "algorithms/rows_kernels.hpp"
#include "plan/candidates.hpp"
#include "runtime/float_mode.hpp"
#include "runtime/machine.hpp"
#include "runtime/scratch.hpp"
#include "runtime/thread_pool.hpp"
#include "simd/dispatch.hpp"

namespace fastconv {

namespace {

// Whether the weights of a group leave L2 no room.
bool is_heavy(const ConvProblem& p, size_t element) {
    return static_cast<size_t>(p.group_in() * p.group_out()) * element >= l2_bytes() / 2;
}

template <class T>
class PointwiseFirst final : public ConvKernel {
  public:
    explicit PointwiseFirst(const ConvProblem& problem)
        : p_(problem), lanes_(micro<T>().lanes), tile_pixels_(kPanelVectors * lanes_) {
        // The panel of one tile takes three quarters of L1; tiles of fewer channels share that.
        const int64_t most = static_cast<int64_t>(l1_bytes() * 3 / 4 / sizeof(T)) / tile_pixels_;
        const int64_t chain = std::clamp<int64_t>(most, 16, kChainAim);
        blocks_ = std::max<int64_t>(1, ceil_div(p_.group_in(), chain));
        row_blocks_ = ceil_div(p_.group_out(), panel_tiles<T>().rows);
        vectors_ = ceil_div(p_.out_pixels(), lanes_);
        // One pixel beyond the last full vector goes with it, as a tile of two.
        beside_ = vectors_ > 1 && p_.out_pixels() % lanes_ == 1 && panel_tiles<T>().beside[1] != nullptr;
        before_ = beside_ ? vectors_ - 2 : vectors_ - (vectors_ - 1) % kPanelVectors - 1;
        tiles_ = ceil_div(before_, kPanelVectors) + 1;
        // Weights that do not stay in L2 pass over four tiles at a time, whose panels wait there: 1024 > 256 at 14 x 14
        // took 179 GFLOP/s instead of 168. With the two tiles of 7 x 7 the sums that wait cost more than that saves.
        heavy_ = is_heavy(p_, sizeof(T)) && tiles_ >= 4;
        together_ = std::min(
            tiles_, std::max<int64_t>(heavy_ ? 4 : 1, chain / std::max<int64_t>(1, largest_block())));
        dense_ = p_.in_pixels() == p_.out_pixels();
    }

    // A vector is read from the last weights too.
    size_t packed_bytes() const override { return static_cast<size_t>(p_.weights() + lanes_) * sizeof(T); }

    void pack(const void* weight, void* packed) const override {
        pack_on(static_cast<const T*>(weight), static_cast<T*>(packed), num_threads());
    }

    // Rows of weights that leave L2 come faster with a fingerprint and the packed copy: 512 > 2048 at 7x7 781 -> 707 us an
    // eager call, 1024 > 2048 1.69 -> 1.49 ms.
    bool keeps_packed() const override { return packed_bytes() > l2_bytes(); }

    size_t scratch_bytes() const override { return bytes(together_) + packed_bytes(); }
    size_t scratch_within(size_t budget) const override { return bytes(together_within(budget)); }
    bool takes_bands() const override { return true; }

    void run(const ConvArgs& given) const override {
        const FlushToZero flush;
        const ScratchShare share = scratch_share();
        const int threads = share.threads;
        ConvArgs args = given;
        ScratchFrame frame;
        if (args.packed == nullptr && packs(args.batch)) {
            T* const packed = frame.take<T>(p_.weights() + lanes_);
            pack_on(static_cast<const T*>(args.weight), packed, threads);
            args.packed = packed;
        }
        const double work = p_.flops() * args.batch / 2;
        const int64_t outer = args.batch * p_.groups;
        const Cut cut = cut_outputs(outer, share, work);
        const int64_t units = outer * cut.bands * cut.chunks;
        const int64_t tasks = tasks_for(units, work);
        const auto run_part = [&](int64_t task) {
            ScratchFrame frame;
            T* const panel = frame.take<T>(panel_size(cut.together));
            T* const partial = frame.take<T>(partial_size(cut.together));
            const Range part = part_of(units, tasks, task);
            for (int64_t unit = part.begin; unit < part.end; unit++) {
                const Band band = band_of(cut, unit);
                const bool more = unit + 1 < part.end;
                run_band(args, band, more ? band_of(cut, unit + 1) : Band{},
                         part_of(row_blocks_, cut.chunks, band.chunk), panel, partial,
                         cut.together * tile_pixels_);
            }
        };
        note_weight_parts(tasks == units ? cut.chunks : 1);
        parallel_for(tasks, run_part, threads, least_seconds<T>(p_.flops() * args.batch));
    }

  private:
    // How one call cuts its outputs. Sums do not depend on it.
    struct Cut {
        int64_t together;  // tiles of a band
        int64_t bands, chunks;
    };
    // How much longer than its even share of the vectors the busiest thread works.
    double idle(const Cut& cut, int64_t outer, int threads) const {
        const double rows = static_cast<double>(ceil_div(row_blocks_, cut.chunks)),
                     all = static_cast<double>(row_blocks_);
        if (outer * cut.chunks % threads == 0) return rows * static_cast<double>(cut.chunks) / all;
        const double vectors = static_cast<double>(vectors_) - (beside_ ? 0.9 : 0),
                     most = static_cast<double>(ceil_div(outer * cut.bands * cut.chunks, threads) *
                                                std::min(cut.together * kPanelVectors, vectors_));
        return most * rows * threads / (static_cast<double>(outer) * vectors * all);
    }
    // As few chunks and as large bands as leave no thread idle. Two threads: 14 x 14 are seven tiles, 256 > 1024 took 282 us
    // in one chunk and 255 in two; 128 > 512 at 28 x 28 (13 bands) 301 and 268, 576 > 160 at 7 x 7 35 and 31; 512 > 256 at
    // 28 x 28 (25 bands) 500 and 508.
    Cut cut_outputs(int64_t outer, const ScratchShare& share, double work) const {
        const int64_t whole = together_within(share.budget);
        Cut best{whole, ceil_div(tiles_, whole), 1};
        double least = idle(best, outer, share.threads);
        for (int64_t together = whole; share.threads > 1 && least > 1.05 && together > 0; together /= 2) {
            for (int64_t chunks = 1; chunks <= std::min<int64_t>(row_blocks_, 2 * share.threads); chunks++) {
                const Cut cut{together, ceil_div(tiles_, together), chunks};
                const auto units = static_cast<double>(outer * cut.bands * chunks);
                if (units > 1 && work / units < kTaskWork) break;
                // Each chunk stages the pixels again, and outputs of smaller bands are shorter runs.
                const double time = idle(cut, outer, share.threads) *
                                    (1 + 0.02 * static_cast<double>(chunks - 1)) *
                                    (together == whole ? 1 : 1.02);
                if (time >= least) continue;
                least = time;
                best = cut;
            }
            if (heavy_) break;
        }
        return best;
    }
    // Tiles of pixels that share a panel, against a chunk of the output channels.
    struct Band {
        int64_t image = 0, group = 0, chunk = 0;
        Range tiles{0, 0};
    };

    // An eager call packs what several images read: 16 images of 960 > 160 at 7 x 7 1.74 ms with weights read where they
    // are and 1.52 packed, of 960 > 320 3.46 and 2.82. One image of 14 x 14 loses 4 to 9% by it, 28 x 28 is level.
    bool packs(int64_t batch) const { return batch > 1 && batch * p_.out_pixels() >= 96; }
    // [group][channel block][row block][channel][row], turned over by vectors: what one writes beyond the rows of its block
    // belongs to the channels that follow and is overwritten by them. The last channels are written one by one.
    void pack_on(const T* weight, T* packed, int threads) const {
        const auto one = [&](int64_t task) {
            const int64_t i = task % row_blocks_, b = task / row_blocks_ % blocks_,
                          g = task / row_blocks_ / blocks_;
            const Range channels = part_of(p_.group_in(), blocks_, b),
                        rows = part_of(p_.group_out(), row_blocks_, i);
            const T* const from = weight + (g * p_.group_out() + rows.begin) * p_.group_in() + channels.begin;
            T* const to = packed + g * p_.group_out() * p_.group_in() + channels.begin * p_.group_out() +
                          rows.begin * channels.size();
            const int64_t n = channels.size(), most = round_up(lanes_, rows.size()) / rows.size(),
                          turned = std::max<int64_t>(0, n - most);
            for (int64_t r = (rows.size() - 1) / lanes_ * lanes_; r >= 0 && turned > 0; r -= lanes_)
                rows_of<T>().panel(from + r * p_.group_in(), p_.group_in(), rows.size() - r, turned, 1,
                                   to + r, rows.size());
            for (int64_t c = turned; c < n; c++)
                for (int64_t r = 0; r < rows.size(); r++)
                    to[c * rows.size() + r] = from[r * p_.group_in() + c];
        };
        const int64_t tasks = p_.groups * blocks_ * row_blocks_;
        parallel_for(tasks, one, p_.weights() > 65536 ? threads : 1);
        std::fill_n(packed + p_.weights(), lanes_, T(0));
    }

    int64_t largest_block() const { return ceil_div(p_.group_in(), blocks_); }
    int64_t panel_size(int64_t together) const { return largest_block() * tile_pixels_ * together; }
    int64_t partial_size(int64_t together) const {
        return blocks_ == 1 ? 0 : p_.group_out() * tile_pixels_ * together;
    }
    size_t bytes(int64_t together) const {
        return static_cast<size_t>(panel_size(together) + partial_size(together)) * sizeof(T);
    }
    int64_t together_within(size_t budget) const {
        int64_t together = together_;
        while (together > 1 && bytes(together) > budget) together--;
        return together;
    }
    // Bands of a chunk follow each other: threads then write planes of their own.
    Band band_of(const Cut& cut, int64_t unit) const {
        const int64_t outer = unit / cut.bands / cut.chunks;
        return {outer / p_.groups, outer % p_.groups, unit / cut.bands % cut.chunks,
                part_of(tiles_, cut.bands, unit % cut.bands)};
    }
    // All tiles before the last hold `before_` vectors.
    int64_t vectors_of(int64_t tile) const {
        return tile + 1 == tiles_ ? vectors_ - before_
                                  : std::min<int64_t>(kPanelVectors, before_ - tile * kPanelVectors);
    }
    int64_t pixel_of(int64_t tile) const { return std::min(tile * kPanelVectors, before_) * lanes_; }
    const T* input_of(const ConvArgs& args, const Band& band, int64_t channel) const {
        return static_cast<const T*>(args.x) +
               (band.image * p_.in_channels + band.group * p_.group_in() + channel) * args.x_plane_of(p_);
    }

    // The input of the panel after this one, a few channels of a tile with every call.
    struct Ahead {
        const T* x = nullptr;  // pixel 0 of its first channel; null: nothing to ask for
        int64_t plane = 0, channels = 0, channel = 0, tile = 0, end = 0, each = 0;
    };
    Ahead ahead_of(const ConvArgs& args, const Band& band, int64_t block, int64_t calls) const {
        const Range channels = part_of(p_.group_in(), blocks_, block);
        Ahead ahead;
        if (band.tiles.size() == 0 || !dense_) return ahead;
        ahead.x = input_of(args, band, channels.begin);
        ahead.plane = args.x_plane_of(p_);
        ahead.channels = channels.size();
        ahead.tile = band.tiles.begin;
        ahead.end = band.tiles.end;
        ahead.each = ceil_div(channels.size() * band.tiles.size(), calls);
        return ahead;
    }
    Lines<T> take(Ahead& ahead) const {
        if (ahead.x == nullptr || ahead.tile == ahead.end) return {};
        const int64_t n = std::min(ahead.each, ahead.channels - ahead.channel);
        const Lines<T> lines{ahead.x + ahead.channel * ahead.plane + pixel_of(ahead.tile), ahead.plane, n};
        ahead.channel += n;
        if (ahead.channel == ahead.channels) {
            ahead.channel = 0;
            ahead.tile++;
        }
        return lines;
    }

    // Channel block > row block > tile. `next` is the band that this thread takes then, if any.
    void run_band(const ConvArgs& args, const Band& band, const Band& next, Range row_blocks, T* panel,
                  T* partial, int64_t partial_row) const {
        const int64_t plane = args.out_plane_of(p_), x_plane = args.x_plane_of(p_),
                      out_pixels = p_.out_pixels();
        const PanelTiles<T>& kernels = panel_tiles<T>();
        const int64_t tile_size = largest_block() * tile_pixels_;
        const int64_t calls = row_blocks.size() * band.tiles.size(), first = pixel_of(band.tiles.begin);
        const T* const weight = static_cast<const T*>(args.packed != nullptr ? args.packed : args.weight) +
                                band.group * p_.group_out() * p_.group_in();
        for (int64_t b = 0; b < blocks_; b++) {
            const Range channels = part_of(p_.group_in(), blocks_, b);
            const bool last = b + 1 == blocks_;
            const T* const x = input_of(args, band, channels.begin);
            Ahead ahead = ahead_of(args, last ? next : band, last ? 0 : b + 1, calls);
            for (int64_t i = row_blocks.begin; i < row_blocks.end; i++) {
                const Range rows = part_of(p_.group_out(), row_blocks_, i);
                const int64_t k = band.group * p_.group_out() + rows.begin;
                PanelTile<T> call;
                call.steps = channels.size();
                if (args.packed != nullptr) {
                    call.w = weight + p_.group_out() * channels.begin + rows.begin * channels.size();
                    call.w_row = 1;
                    call.w_step = rows.size();
                } else {
                    call.w = weight + rows.begin * p_.group_in() + channels.begin;
                    call.w_row = p_.group_in();
                    call.w_step = 1;
                }
                call.partial_row = partial_row;
                if (last && args.bias != nullptr) call.bias = static_cast<const T*>(args.bias) + k;
                if (last) call.clamp = clamp_of(args.activation);
                T* const out = static_cast<T*>(args.out) + (band.image * p_.out_channels + k) * plane;
                for (int64_t t = band.tiles.begin; t < band.tiles.end; t++) {
                    const int64_t vectors = vectors_of(t), pixel = pixel_of(t);
                    T* const tile = panel + (t - band.tiles.begin) * tile_size;
                    call.pixels = std::min(vectors * lanes_, out_pixels - pixel);
                    const bool copies = i == row_blocks.begin && dense_ && call.pixels == vectors * lanes_;
                    if (i == row_blocks.begin && !copies)
                        gather(args, x, channels.size(), pixel, call.pixels, tile, vectors * lanes_);
                    call.x = copies ? x + pixel : tile;
                    call.x_step = x_plane;
                    call.copy = tile;
                    T* const sums =
                        blocks_ == 1 ? nullptr : partial + rows.begin * partial_row + pixel - first;
                    if (b > 0) call.partial = sums;
                    call.ahead[0] = take(ahead);
                    call.ahead[1] = {};
                    const auto run = beside_ && t + 1 == tiles_ && args.packed != nullptr
                                         ? kernels.beside[rows.size()]
                                         : kernels.run[copies ? 1 : 0][rows.size()][vectors];
                    call.waits = !last;
                    if (!last) {
                        call.out = sums;
                        call.out_row = partial_row;
                        run(call);
                        continue;
                    }
                    call.out = out + pixel;
                    call.out_row = plane;
                    if (args.add != nullptr)
                        call.add = static_cast<const T*>(args.add) + (call.out - static_cast<T*>(args.out));
                    // The next call's outputs: of the next tile, then of the next rows.
                    if (t + 1 < band.tiles.end)
                        call.ahead[1] = {out + pixel_of(t + 1), plane, rows.size()};
                    else if (i + 1 < row_blocks.end)
                        call.ahead[1] = {out + rows.size() * plane + first, plane, rows.size()};
                    run(call);
                    if (needs_pass(args.activation))
                        rows_of<T>().activate(args.activation, call.out, rows.size(), plane, call.pixels);
                }
            }
        }
    }

    // Output pixels pixel .. pixel+pixels-1 of `count` input channels from x on, one row of the panel each.
    void gather(const ConvArgs& args, const T* x, int64_t count, int64_t pixel, int64_t pixels, T* to,
                int64_t pitch) const {
        const int64_t plane = args.x_plane_of(p_);
        if (dense_) {
            rows_of<T>().tiles(x + pixel, plane, count, nullptr, pixels, to, pitch, 0);
            return;
        }
        // Strided: the runs of the tile that lie in one output row, each from one input row.
        const int64_t height = p_.out_size[1], width = p_.out_size[2];
        for (int64_t done = 0; done < pixels;) {
            const int64_t at = pixel + done, w = at % width, h = at / width % height, d = at / width / height;
            const int64_t n = std::min(width - w, pixels - done);
            const int64_t line = (d * p_.stride[0] * p_.in_size[1] + h * p_.stride[1]) * p_.in_size[2];
            const T* const from = x + line + w * p_.stride[2];
            if (p_.stride[2] == 2) {
                panel_tiles<T>().take_even(from, plane, count, n, to + done, pitch);
            } else {
                for (int64_t c = 0; c < count; c++)
                    for (int64_t i = 0; i < n; i++)
                        to[c * pitch + done + i] = from[c * plane + i * p_.stride[2]];
            }
            done += n;
        }
    }

    ConvProblem p_;
    int64_t lanes_, tile_pixels_;
    int64_t blocks_, row_blocks_, vectors_, before_, tiles_, together_;
    bool heavy_, dense_, beside_;
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

namespace {

// Cycles for one image on one core that starts two vector multiply-adds a cycle, channels first. Fitted to 400 random
// layers (6 to 2048 channels, 1 to 112 pixels wide, half of them of stride 2; AVX-512, one thread, packed weights): the
// faster orientation, or one within 5% of it, was chosen on 98% of them, the worst took 1.2 times as long.
struct PointwiseCycles {
    double lanes, pixels, in, out, groups, weights, narrow;
    bool dense, heavy;

    PointwiseCycles(const ConvProblem& p, DType dtype)
        : lanes(dtype == DType::f32 ? micro<float>().lanes : micro<double>().lanes),
          pixels(static_cast<double>(p.out_pixels())),
          in(static_cast<double>(p.group_in())),
          out(static_cast<double>(p.group_out())),
          groups(static_cast<double>(p.groups)),
          weights(in * out),
          narrow(16 / lanes),
          dense(p.in_pixels() == p.out_pixels()),
          heavy(is_heavy(p, dtype == DType::f32 ? sizeof(float) : sizeof(double))) {}

    double panels(int64_t width) const {
        const double rows = std::ceil(out / panel_tiles<float>().rows),
                     blocks = std::max(1.0, std::ceil(in / kChainAim));
        const double vectors = std::ceil(pixels / lanes), tiles = std::ceil(vectors / kPanelVectors);
        const double together =
            std::max(heavy && tiles >= 4 ? 4.0 : 1.0, std::floor(kChainAim / std::ceil(in / blocks)));
        const double bands = std::ceil(tiles / together);
        // A pixel beside the last vector takes a tenth of one.
        const bool beside =
            pixels > lanes && std::fmod(pixels, lanes) == 1 && panel_tiles<float>().beside[1] != nullptr;
        const double multiply = (vectors - (beside ? 0.9 : 0)) * std::max(out, 4.0) * in / 2;
        const double staged = dense ? 0.16 : 0.55 + 3 * (1 / static_cast<double>(width) + 1 / (2 * lanes));
        const double apart = groups > 1 ? 200 : 0;  // 294 groups of one channel at 7x7, stride 2: 27 us
        return groups * (apart + 0.96 * multiply + 49 * tiles * rows * blocks +
                         narrow * (0.09 + (heavy ? 0.05 : 0)) * bands * weights +
                         narrow * (0.15 + 1.2 * (blocks - 1)) * out * pixels + narrow * staged * in * pixels);
    }

    double channels_in_lanes() const {
        const double vectors = std::ceil(out / lanes), chains = std::max(1.0, std::round(in / kChainAim));
        const double rows = active_isa() == Isa::avx512 ? 14 : 6;
        const double tiles = std::ceil(pixels / rows) * std::ceil(vectors / 2) * chains;
        return groups *
               (1.1 * std::max(pixels, 4.0) * in * vectors / 2 + 97 * tiles +
                narrow * ((0.035 + (heavy ? 0.17 : 0)) * weights + (dense ? 0.76 : 1.86) * in * pixels +
                          (heavy ? 0.7 : 0.44) * out * pixels));
    }
};

// The same for some rows of a problem as for all of them.
bool panels_pay(const ConvProblem& problem, DType dtype) {
    const ConvProblem p = problem.whole();
    const PointwiseCycles cycles(p, dtype);
    return cycles.panels(p.out_size[2]) <= cycles.channels_in_lanes();
}

}  // namespace

// Images of one pixel are the same in both layouts: all of them are one matrix product.
bool one_pixel(const ConvProblem& problem) {
    const ConvProblem p = problem.whole();
    return p.in_pixels() == 1 && p.out_pixels() == 1 && p.groups == 1;
}

double predict_pointwise(const ConvProblem& problem, DType dtype) {
    ConvProblem p = problem;
    p.channels_last |= one_pixel(p);
    if (p.channels_last) {
        // With a stride pixels are gathered: 10 > 12 channels at 56x56 10.3 us, direct 7.4; 238 > 456 at 40x40 430 and 474.
        const double gathered =
            p.stride[1] * p.stride[2] > 1 ? 3.5e-9 * static_cast<double>(p.out_pixels()) : 0;
        return 0.98 * std::min(predict_direct(p, dtype), predict_direct(problem, dtype)) + gathered;
    }
    const PointwiseCycles cycles(p, dtype);
    const double least = panels_pay(p, dtype) ? cycles.panels(p.out_size[2]) : cycles.channels_in_lanes();
    const double groups = p.groups > 1 ? 80e-9 * static_cast<double>(p.groups) : 0;  // each begins anew
    return least * 4 * cycles.lanes / peak_flops(dtype) + groups;
}

std::unique_ptr<ConvKernel> make_pointwise(const ConvProblem& problem, DType dtype) {
    if (problem.channels_last || one_pixel(problem)) {
        if (problem.groups > 1) return make_direct(problem, dtype);
        return dtype == DType::f32 ? make_pointwise_last<float>(problem)
                                   : make_pointwise_last<double>(problem);
    }
    const bool panels = panels_pay(problem, dtype);
    if (dtype == DType::f32)
        return panels ? make_pointwise_first<float>(problem) : make_direct_lanes<float>(problem);
    return panels ? make_pointwise_first<double>(problem) : make_direct_lanes<double>(problem);
}

}  // namespace fastconv
