// A convolution as the kernels see it: already checked and complete, three spatial axes, no batch size.
#pragma once

#include <cstdint>

namespace fastconv {

enum class DType : int { f32, f64 };

enum class PadMode : int { constant, edge, reflect, symmetric, wrap };

enum class Activation : int { none, relu, relu6, leaky_relu, sigmoid, tanh, silu, gelu, hard_swish };

struct ConvProblem {
    bool channels_last;
    int64_t in_channels, out_channels, groups;
    // Padding is negative where a phase of a gradient begins or ends inside its input.
    int64_t in_size[3], kernel[3], stride[3], dilation[3], pad_lo[3], pad_hi[3];
    PadMode mode;
    int64_t out_size[3];     // authoritative
    int64_t batch_hint = 0;  // images for which times are predicted; 0: one and sixteen alike
    // Where this is some rows of another problem: that one's rows and padding. Whatever changes bits is chosen for it.
    int64_t whole_in = 0, whole_out = 0, whole_pad = 0;
    bool placed = false;  // rows of outputs do not follow each other in memory (ConvArgs::place)

    ConvProblem whole() const {
        ConvProblem p = *this;
        if (whole_out == 0) return p;
        p.in_size[1] = whole_in;
        p.out_size[1] = whole_out;
        p.pad_lo[1] = whole_pad;
        p.pad_hi[1] = (whole_out - 1) * stride[1] + (kernel[1] - 1) * dilation[1] + 1 - whole_pad - whole_in;
        p.whole_in = p.whole_out = p.whole_pad = 0;
        return p;
    }

    int64_t group_in() const { return in_channels / groups; }
    int64_t group_out() const { return out_channels / groups; }
    int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
    bool has_depth() const { return in_size[0] != 1 || kernel[0] != 1 || out_size[0] != 1 || pad_lo[0] != 0; }
    int64_t in_pixels() const { return in_size[0] * in_size[1] * in_size[2]; }
    int64_t out_pixels() const { return out_size[0] * out_size[1] * out_size[2]; }
    int64_t weights() const { return out_channels * group_in() * taps(); }
    // The part of the padding that some window really reads; negative "padding after" reads less than the
    // input.
    bool reads_padding(int axis) const {
        return pad_lo[axis] > 0 ||
               (out_size[axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] - pad_lo[axis] >=
                   in_size[axis];
    }
    bool reads_padding() const { return reads_padding(0) || reads_padding(1) || reads_padding(2); }
    double flops() const { return 2.0 * out_channels * out_pixels() * group_in() * taps(); }
};

// Where position `at` of an axis of n (counted from the first unpadded one) is copied from; -1 for a zero.
int64_t axis_source(PadMode mode, int64_t n, int64_t at);

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Part `i` of `parts` nearly even parts of 0 .. total-1.
struct Range {
    int64_t begin, end;
    int64_t size() const { return end - begin; }
};
inline Range part_of(int64_t total, int64_t parts, int64_t i) {
    return {total * i / parts, total * (i + 1) / parts};
}

}  // namespace fastconv
