// The input of a band of outputs, as convolutions with channels in lanes read it: scalar by scalar, from anywhere.
//
//   in place   channels last, where no padding is read
//   gathered   1x1: the pixels of each tile of the micro-kernel, channel by channel (channels first: a step of
//              the sum reads one cache line), or the pixels that a stride keeps (channels last, with a line
//              between them: pixels at multiples of 4 KB share their cache sets)
//   padded     everything else: a copy of the band with its borders, pixel by pixel, so that a step of the sum reads the
//              neighbour of the last: planes are turned over in registers. Groups stand one after another, so that a
//              pixel and its neighbour are one run: with 16 channels of 128 a row of the kernel is 48 steps, not three
//              times 16 from lines half a KB apart. So do blocks of channels that are summed one after another: pixels of
//              512 channels two apart lie on the same cache sets
//
// A 1x1 convolution sees its pixels as one line.
#pragma once

#include "algorithms/microkernel_kernels.hpp"
#include "plan/problem.hpp"

namespace fastconv {

// A row of outputs in tiles of the micro-kernel: all of one size but the last.
template <class T>
struct RowTiles {
    int64_t columns, count, size;
    explicit RowTiles(int64_t n)
        : columns(n), count(ceil_div(n, micro<T>().channel_rows)), size(ceil_div(n, count)) {}
    Range operator[](int64_t i) const { return {i * size, i + 1 < count ? (i + 1) * size : columns}; }
};

// Where the staged input of a band stands. All in elements.
template <class T>
struct BandInput {
    const T* base;       // channel 0 of the pixel under the first tap of the band's first output
    int64_t channel;     // from one channel of a group to the next
    int64_t group;       // from one group, or block of channels, to the next
    int64_t pixel;       // from one input pixel to the next
    int64_t row, depth;  // from one input row to the next; from one plane of taps to the next
    int64_t tile = 0;    // from one tile of the micro-kernel to the next where they are gathered so, else 0
};

// From one gathered pixel to the next, channels last: with a line between them.
template <class T>
constexpr int64_t gathered_pixel(int64_t channels) {
    constexpr int64_t line = 64 / sizeof(T);
    return round_up(channels, line) + line;
}

template <class T>
class LanesInput {
  public:
    // `padded`: a copy in any case. Blocks: equal parts of a group's channels that a copy keeps apart.
    explicit LanesInput(const ConvProblem& problem, bool padded = false, int64_t blocks = 1);
    // Of each group, blocks that are kept apart.
    int64_t apart() const { return way_ == Way::padded ? blocks_ : 1; }
    // The problem as the loops see it.
    const ConvProblem& view() const { return view_; }
    // Whether the channels of a group, and those of the neighbouring pixel, follow one another.
    bool by_pixels() const { return way_ == Way::padded || (p_.channels_last && p_.groups == 1); }
    // Scratch for a band of so many output rows and columns.
    int64_t size(int64_t rows, int64_t columns) const;
    // What such a band reads, copied or not.
    int64_t footprint(int64_t rows, int64_t columns) const;
    // The input of outputs rows x columns at one depth of one image of x. Channels first: `plane` elements from one
    // channel to the next, 0 for their own size.
    BandInput<T> stage(const T* x, int64_t image, int64_t plane, int64_t depth, Range rows, Range columns,
                       T* scratch) const;

  private:
    enum class Way { in_place, gathered, padded };
    int64_t reach(int axis) const { return (view_.kernel[axis] - 1) * view_.dilation[axis] + 1; }
    int64_t band_rows(int64_t rows) const { return (rows - 1) * view_.stride[1] + reach(1); }
    int64_t band_columns(int64_t columns) const { return (columns - 1) * view_.stride[2] + reach(2); }
    int64_t gathered_tile(int64_t columns) const;
    int64_t sources_size(int64_t columns) const;
    void gather(const T* image, int64_t plane, Range pixels, const BandInput<T>& in, T* to) const;
    void copy_rows(const T* image, int64_t plane, int64_t depth, Range rows, Range columns,
                   const BandInput<T>& in, T* to) const;

    ConvProblem p_, view_;
    Way way_;
    int64_t blocks_;
};

}  // namespace fastconv
