// Depthwise convolution, channels last, line by line: what depthwise_last.cpp and depthwise_turned.cpp have
// in common.
#pragma once

#include <algorithm>
#include <vector>

#include "algorithms/activations.hpp"
#include "algorithms/depthwise_kernels.hpp"
#include "algorithms/rows_kernels.hpp"
#include "plan/conv.hpp"

namespace fastconv {

// One image's arrays and a run of its channels, from the first of these on.
template <class T>
struct LineArrays {
    const T* x;
    int64_t x_row = 0;  // the input row that stands at x
    const T* w;
    int64_t w_tap;  // from one tap's weights to the next one's
    T* out;
    int64_t out_row = 0;  // the output row that stands at out
    Placement place;      // without regard to images
    int64_t channels;
    const T* bias = nullptr;
    const T* add = nullptr;  // laid out as out
    Activation activation = Activation::none;
    bool asked = false;  // the rows of the next line are asked for beforehand
};

// A line is an output row of a plane of depth, or two that share their input: they are as far apart as taps
// are.
template <class T>
class DepthwiseLines {
  public:
    // `pixel`: channels of the input's pixels.
    DepthwiseLines(const ConvProblem& problem, int64_t pixel) : p_(problem), pixel_(pixel) {
        // The run of columns whose taps need no look at the padding: all with zeros, those inside with other
        // modes.
        const int64_t s = p_.stride[2], last = (p_.kernel[2] - 1) * p_.dilation[2] - p_.pad_lo[2];
        const bool zeros = p_.mode == PadMode::constant || !p_.reads_padding();
        run_ = {0, p_.out_size[2]};
        if (!zeros) {
            run_.begin = std::min(ceil_div(std::max<int64_t>(0, p_.pad_lo[2]), s), p_.out_size[2]);
            run_.end = p_.in_size[2] > last
                           ? std::clamp((p_.in_size[2] - 1 - last) / s + 1, run_.begin, p_.out_size[2])
                           : run_.begin;
        }
        const int64_t taps = p_.kernel[2];
        if (s == 1 && zeros && p_.out_size[2] >= 4 * p_.dilation[2]) phases_ = p_.dilation[2];
        const int paired = depthwise_of<T>().paired;
        const bool square = taps == p_.kernel[1] && taps % 2 == 1 && taps > 1 && taps <= paired,
                   wide = taps > kWideTaps && paired == kWideTaps;
        const bool pairs =
            (square || wide) && p_.stride[1] == 1 && s == 1 && (phases_ > 1 || p_.dilation[2] == 1);
        together_ = pairs ? 2 : 1;
        apart_ = pairs ? p_.dilation[1] : 1;
        if (zeros) return;  // no pixel is done by itself
        for (int64_t ow = run_.begin > 0 ? 0 : run_.end; ow < p_.out_size[2];
             ow = ow + 1 == run_.begin ? run_.end : ow + 1)
            for (int64_t kw = 0; kw < p_.kernel[2]; kw++) {
                const int64_t at =
                    axis_source(p_.mode, p_.in_size[2], ow * s + kw * p_.dilation[2] - p_.pad_lo[2]);
                columns_.push_back(at < 0 ? -1 : at * pixel_);
            }
    }

    // Lines come in blocks of rows that are complete before the next one begins.
    int64_t block_rows() const { return together_ * apart_; }
    int64_t lines(int64_t rows) const {
        return rows / block_rows() * apart_ + std::min(rows % block_rows(), apart_);
    }
    int64_t lines() const { return lines(p_.out_size[1]); }
    int64_t first_row(int64_t line) const { return line / apart_ * block_rows() + line % apart_; }
    int64_t last_row(int64_t line) const { return first_row(line) + (together_ - 1) * apart_; }
    // Places for the tap rows of one line.
    int64_t pointers() const { return p_.kernel[0] * tap_rows(); }

    // Line `line` of those that begin at output row `begin` and end before row `end`.
    void run(const LineArrays<T>& a, int64_t depth, int64_t line, Range of, const T** taps) const {
        const int64_t row = of.begin + first_row(line), rows = row + apart_ < of.end ? together_ : 1;
        for (int64_t d = 0; d < p_.kernel[0]; d++) {
            const int64_t z =
                axis_source(p_.mode, p_.in_size[0], depth * p_.stride[0] + d * p_.dilation[0] - p_.pad_lo[0]);
            for (int64_t i = 0; i < p_.kernel[1] + rows - 1; i++) {
                const int64_t y = axis_source(p_.mode, p_.in_size[1],
                                              row * p_.stride[1] + i * p_.dilation[1] - p_.pad_lo[1]);
                taps[d * tap_rows() + i] =
                    y < 0 || z < 0 ? nullptr
                                   : a.x + (z * p_.in_size[1] + y - a.x_row) * p_.in_size[2] * pixel_;
            }
            if (rows < together_) taps[(d + 1) * tap_rows() - 1] = nullptr;
        }
        const int64_t at = depth * a.place.plane + (row - a.out_row) * a.place.row,
                      next = apart_ * a.place.row;
        if (phases_ > 1) {
            run_phases(a, at, rows, taps);
        } else if (run_.size() > 0) {
            ChannelRun<T> call = call_at(a, at, run_.begin, taps);
            call.pixels = run_.size();
            call.stride = p_.stride[2];
            call.dilation = p_.dilation[2];
            call.pad_left = p_.pad_lo[2] - run_.begin * p_.stride[2];
            call.in_columns = p_.in_size[2];
            call.out_rows = rows;
            call.out_row = next;
            if (a.asked && p_.kernel[0] == 1 && p_.dilation[1] == 1) call.ahead = together_ * p_.stride[1];
            depthwise_of<T>().run(call);
        }
        for (int64_t r = 0; r < rows; r++)
            for (int64_t column = 0; column < p_.out_size[2]; column++) {
                if (column == run_.begin) column = run_.end;
                if (column == p_.out_size[2]) break;
                ChannelRun<T> call = call_at(a, at + r * next, column, taps + r);
                call.pixels = 1;
                depthwise_of<T>().pixel(call);
            }
        if (needs_pass(a.activation))
            for (int64_t r = 0; r < rows; r++)
                rows_of<T>().activate(a.activation, a.out + at + r * next, p_.out_size[2], a.place.pixel,
                                      a.channels);
    }

  private:
    int64_t tap_rows() const { return p_.kernel[1] + together_ - 1; }

    ChannelRun<T> call_at(const LineArrays<T>& a, int64_t at, int64_t column, const T* const* taps) const {
        at += column * a.place.pixel;
        ChannelRun<T> call;
        call.tap_rows = taps;
        call.rows = p_.kernel[1];
        call.planes = p_.kernel[0];
        call.tap_plane = tap_rows();
        const int64_t alone = column < run_.begin ? column : column - run_.size();
        call.columns = columns_.empty() ? nullptr : columns_.data() + alone * p_.kernel[2];
        call.tap_columns = p_.kernel[2];
        call.pixel = pixel_;
        call.w = a.w;
        call.w_tap = a.w_tap;
        call.out = a.out + at;
        call.out_pixel = a.place.pixel;
        call.channels = a.channels;
        call.bias = a.bias;
        if (a.add != nullptr) call.add = a.add + at;
        call.clamp = clamp_of(a.activation);
        return call;
    }

    // Columns that are a dilation apart are a row without dilation, of pixels so far apart: 3x3 dilated by 2,
    // 576 channels at 14 x 14 55 to 25 us, 384 at 28 x 28 160 to 84.
    void run_phases(const LineArrays<T>& a, int64_t at, int64_t rows, const T** taps) const {
        const int64_t d = p_.dilation[2];
        int64_t shifted = 0;  // pixels by which the tap rows stand further
        for (int64_t phase = 0; phase < phases_; phase++) {
            const int64_t first = phase - p_.pad_lo[2];  // the input column of tap 0
            const int64_t left = first < 0 ? ceil_div(-first, d) : -(first / d), shift = first + left * d;
            for (int64_t i = 0; i < pointers(); i++)
                if (taps[i] != nullptr) taps[i] += (shift - shifted) * pixel_;
            shifted = shift;
            ChannelRun<T> call = call_at(a, at, phase, taps);
            call.pixels = ceil_div(p_.out_size[2] - phase, d);
            call.pixel = d * pixel_;
            call.out_pixel = d * a.place.pixel;
            call.pad_left = left;
            call.in_columns = ceil_div(std::max<int64_t>(0, p_.in_size[2] - shift), d);
            call.out_rows = rows;
            call.out_row = apart_ * a.place.row;
            depthwise_of<T>().run(call);
        }
    }

    ConvProblem p_;
    int64_t pixel_;
    Range run_;                     // columns of `run`
    int64_t phases_ = 1;            // columns so far apart are computed together
    int64_t together_;              // output rows of one call
    int64_t apart_;                 // and from one of them to the next
    std::vector<int64_t> columns_;  // of each column the pixels of its taps
};

}  // namespace fastconv
