// What every pooling kernel is told: one pooling without its batch size, and which part of the work to do.
//
// A slab is what one pass walks through: a plane (n, c) where channels come first, an image n where they come
// last. An output row is one (depth, height) position of a slab's output.
#pragma once

#include <cstdint>

namespace fastconv {

struct PoolShape {
    bool channels_last;
    int64_t channels;
    int64_t in[3], kernel[3], stride[3], dilation[3], before[3], out[3];
    // Window o of an axis reaches from floor(o * in / out) to ceil((o + 1) * in / out), whatever kernel and stride say.
    bool adaptive = false;

    int64_t unit() const { return channels_last ? channels : 1; }  // elements between neighbours along W
    int64_t in_volume() const { return in[0] * in[1] * in[2]; }
    int64_t out_volume() const { return out[0] * out[1] * out[2]; }
    int64_t span(int axis) const { return (kernel[axis] - 1) * dilation[axis] + 1; }
};

// Slabs, rows (of the output; of the input in the gradient of the average) and channels (channels last only).
struct PoolPart {
    int64_t slab0, slab1, row0, row1, c0, c1;
};

enum class Ties { first, all, split };

// Taps of one output position along one axis: `start` is where tap 0 lies, taps [first, last) lie inside.
struct Taps {
    int64_t start, first, last;
    bool empty() const { return first >= last; }
};

// Always inlined: files of every instruction set share this header, and the linker must have nothing to
// merge.
static inline __attribute__((always_inline)) Taps taps_of(const PoolShape& s, int axis, int64_t o) {
    if (s.adaptive) {
        const int64_t in = s.in[axis], out = s.out[axis], first = o * in / out;
        return {first, 0, ((o + 1) * in + out - 1) / out - first};
    }
    const int64_t start = o * s.stride[axis] - s.before[axis], d = s.dilation[axis],
                  room = s.in[axis] - start;
    if (d == 1) {  // the usual case, without a division
        return {start, start < 0 ? -start : 0, room < s.kernel[axis] ? room : s.kernel[axis]};
    }
    const int64_t first = start < 0 ? (-start + d - 1) / d : 0;
    const int64_t inside = room > 0 ? (room + d - 1) / d : 0;
    return {start, first, inside < s.kernel[axis] ? inside : s.kernel[axis]};
}

// Whether there is one window, which holds the whole volume and no padding.
static inline __attribute__((always_inline)) bool is_one_window(const PoolShape& s) {
    bool one = s.out_volume() == 1;
    for (int a = 0; a < 3; a++) one = one && s.before[a] == 0 && s.dilation[a] == 1 && s.kernel[a] >= s.in[a];
    return one;
}

}  // namespace fastconv
