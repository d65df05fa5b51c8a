// float32 input in thirds, as the tiles of bf16x3.hpp read it.
#include <algorithm>
#include <cstring>

#include "algorithms/bf16x3.hpp"
#include "algorithms/rows_kernels.hpp"
#include "runtime/scratch.hpp"

namespace fastconv {

namespace {

class Splitter {
  public:
    Splitter(const Bf16x3Shape& shape, const ConvArgs& args, const Bf16x3Band& band, char* to)
        : s_(shape),
          p_(shape.problem),
          band_(band),
          third_(shape.third(band)),
          to_(to),
          plane_(p_.channels_last ? p_.in_pixels() : args.x_plane_of(p_)),
          x_(static_cast<const float*>(args.x)) {}

    void run() const {
        ScratchFrame frame;
        auto* const rows = s_.form == Bf16x3Form::turned
                               ? frame.take<float>(static_cast<int64_t>(split_row_bytes(s_) / 4))
                               : nullptr;
        for (int64_t i = 0; i < band_.images.size(); i++) {
            const float* const x = x_ + (band_.images.begin + i) * p_.in_channels * plane_;
            if (s_.dense) {
                char* const to = to_ + i * s_.plane(band_) * s_.unit();
                p_.channels_last
                    ? pixels(x + band_.lines.begin * p_.in_channels, p_.in_channels, band_.lines.size(), to)
                    : pairs(x + band_.lines.begin, to);
                continue;
            }
            for (int64_t phase = 0; phase < s_.rows.count(); phase++)
                for (int64_t line = 0; line < band_.lines.size() + s_.rows.reach; line++) {
                    const int64_t y = axis_source(
                        p_.mode, p_.in_size[1],
                        (band_.lines.begin + line) * p_.stride[1] + s_.rows.phases[phase] - p_.pad_lo[1]);
                    const int64_t at = s_.position(band_, phase, 0, i) + line * s_.width();
                    if (y < 0)
                        zero_line(at);
                    else if (p_.channels_last)
                        line_of_pixels(x + y * p_.in_size[2] * p_.in_channels, at);
                    else
                        line_of_planes(x + y * p_.in_size[2], at, rows);
                }
        }
    }

  private:
    // From a phase of columns to the next one.
    int64_t phase_step() const { return s_.position(band_, 0, 1, 0); }

    void zero(int64_t at, int64_t n) const {
        for (int64_t i = 0; i < 3 * s_.blocks; i++)
            std::memset(to_ + i * third_ + at * 64, 0, static_cast<size_t>(n) * 64);
    }
    void zero_line(int64_t at) const {
        for (int64_t phase = 0; phase < s_.columns.count(); phase++)
            zero(at + phase * phase_step(), s_.width());
    }

    // n pixels of all channels, a tile at a time.
    void pixels(const float* x, int64_t step, int64_t n, char* to) const {
        for (int64_t i = 0; i < n; i += kTilePixels)
            for (int64_t block = 0; block < s_.blocks; block++)
                bf16x3_kernels()->split_pixels(x + i * step + block * kTileDepth, step,
                                               std::min(kTilePixels, n - i),
                                               std::min(kTileDepth, p_.in_channels - block * kTileDepth),
                                               to + i * 64 + 3 * block * third_, third_);
    }

    void line_of_pixels(const float* row, int64_t at) const {
        const int64_t c = p_.in_channels, stride = p_.stride[2], n = s_.width();
        for (int64_t phase = 0; phase < s_.columns.count(); phase++, at += phase_step()) {
            const int64_t first = s_.columns.phases[phase] - p_.pad_lo[2];
            // Positions from `begin` to `end` read columns of the input, the others what the padding says.
            const int64_t begin = std::clamp<int64_t>(first < 0 ? ceil_div(-first, stride) : 0, 0, n);
            const int64_t end = std::clamp<int64_t>(
                first < p_.in_size[2] ? (p_.in_size[2] - 1 - first) / stride + 1 : 0, begin, n);
            for (int64_t i = 0; i < n; i++) {
                const int64_t column = axis_source(p_.mode, p_.in_size[2], first + i * stride);
                char* const to = to_ + (at + i) * 64;
                if (i == begin && begin < end) {
                    pixels(row + column * c, stride * c, end - begin, to);
                    i = end - 1;
                } else if (column >= 0) {
                    pixels(row + column * c, c, 1, to);
                } else {
                    zero(at + i, 1);
                }
            }
        }
    }

    // A padded row of 32 channels at a time; its columns go to the phases in turn.
    void line_of_planes(const float* row, int64_t at, float* rows) const {
        const int64_t stride = p_.stride[2], n = s_.width() * stride;
        const bool in_place = p_.pad_lo[2] <= 0 && n - p_.pad_lo[2] <= p_.in_size[2];
        for (int64_t block = 0; block < s_.blocks; block++) {
            const int64_t c = block * kTileDepth, channels = std::min(kTileDepth, p_.in_channels - c);
            const float* from = row + c * plane_ - p_.pad_lo[2];
            int64_t pitch = plane_;
            if (!in_place) {
                for (int64_t k = 0; k < channels; k++)
                    rows_of<float>().pack(row + (c + k) * plane_, p_.in_size[2], p_.mode, -p_.pad_lo[2], 1,
                                          rows + k * n, n);
                from = rows;
                pitch = n;
            }
            char* phases[kMostColumnPhases];
            for (int64_t j = 0; j < stride; j++) phases[j] = nullptr;
            for (int64_t phase = 0; phase < s_.columns.count(); phase++)
                phases[s_.columns.phases[phase]] =
                    to_ + (at + phase * phase_step()) * 64 + 3 * block * third_;
            bf16x3_kernels()->split_rows(from, pitch, n, channels, phases, stride, third_);
        }
    }

    // Runs of the next pair of channels: each begins on a page of its own, where the processor's own prefetching begins anew.
    void ask_for_pair(const float* x, int64_t c, int64_t n) const {
        for (const int64_t k : {c, c + 16})
            for (int64_t j = 0; k < p_.in_channels && j < n; j += 16) __builtin_prefetch(x + k * plane_ + j);
    }

    // Channels i and i + 16 of each block.
    void pairs(const float* x, char* to) const {
        const int64_t n = band_.lines.size(), line = s_.line(band_);
        for (int64_t block = 0; block < s_.blocks; block++)
            for (int64_t i = 0; i < 16; i++) {
                const int64_t c = block * kTileDepth + i;
                char* const at = to + 3 * block * third_ + i * line;
                ask_for_pair(x, c + 1, n);
                if (c < p_.in_channels) {
                    bf16x3_kernels()->split_pair(x + c * plane_,
                                                 c + 16 < p_.in_channels ? x + (c + 16) * plane_ : nullptr, n,
                                                 at, third_);
                } else {
                    for (int t = 0; t < 3; t++)
                        std::memset(at + t * third_, 0, static_cast<size_t>(round_up(n, 16) * 4));
                }
            }
    }

    const Bf16x3Shape& s_;
    const ConvProblem& p_;
    const Bf16x3Band& band_;
    int64_t third_;
    char* to_;
    int64_t plane_;  // from one channel to the next, channels first
    const float* x_;
};

}  // namespace

void split_input(const Bf16x3Shape& shape, const ConvArgs& args, const Bf16x3Band& band, char* to) {
    Splitter(shape, args, band, to).run();
}

}  // namespace fastconv
