// Pooling by rows: the vertical maximum (or sum) of a window's rows goes to a padded row in L1, then the
// horizontal one. With stride 1 a row of W * C elements is one run in either layout. Long stride-1 windows:
// van Herk's blocks vertically (three operations per row, whatever the height), binary doubling horizontally.
#pragma once

#include "algorithms/pool_shape.hpp"
#include "algorithms/pool_simd.hpp"

FASTCONV_BEGIN_ISA
namespace {

// What an average divides by: counts per position of each axis; null for a maximum.
using Divisors = const int64_t* const*;

// From these lengths on the other way wins (a direct vertical tap costs one load, a block step about three).
constexpr int64_t kBlocksFrom = 10, kDoublingFrom = 12;

// to[i] = the rows' values at i, combined.
template <class T, class Op, int kCount>
FASTCONV_INLINE void combine_rows(const T* const* rows, int64_t count, T* FASTCONV_RESTRICT to, int64_t n) {
    using V = vec<T, kLanes<T>>;
    if (kCount > 0) count = kCount;
    int64_t i = 0;
    for (; i + 2 * lanes_of<V> <= n; i += 2 * lanes_of<V>) {
        V a = load<V>(rows[0] + i), b = load<V>(rows[0] + i + lanes_of<V>);
        for (int64_t r = 1; r < count; r++) {
            a = Op::apply(a, load<V>(rows[r] + i));
            b = Op::apply(b, load<V>(rows[r] + i + lanes_of<V>));
        }
        store(to + i, a);
        store(to + i + lanes_of<V>, b);
    }
    for (; i < n; i += lanes_of<V>) {
        const auto tail = upto<V>(n - i);
        V a = load<V>(rows[0] + i, tail);
        for (int64_t r = 1; r < count; r++) a = Op::apply(a, load<V>(rows[r] + i, tail));
        store(to + i, a, tail);
    }
}

template <class T, class Op>
void vertical(const T* const* rows, int64_t count, T* to, int64_t n) {
    if constexpr (kFloating<T>) {
        if (count == 2) return combine_rows<T, Op, 2>(rows, 2, to, n);
        if (count == 3) return combine_rows<T, Op, 3>(rows, 3, to, n);
    }
    combine_rows<T, Op, 0>(rows, count, to, n);
}

// to[i] = v[i], v[i + unit], ... combined by doubling: partial results of 1, 2, 4, ... taps, the wanted
// number of taps put together from its binary digits. `temporary` holds n + kernel * unit elements.
template <class T, class Op>
void doubling(const T* v, int64_t kernel, int64_t unit, T* to, int64_t n, T* temporary) {
    const T* current = v;
    int64_t offset = 0;
    bool begun = false;
    for (int64_t width = 1;; width *= 2) {
        if (kernel & width) {
            const T* pair[2] = {begun ? to : current + offset * unit, current + offset * unit};
            using V = vec<T, kLanes<T>>;
            for (int64_t i = 0; i < n; i += lanes_of<V>) {
                const auto tail = upto<V>(n - i);
                const V b = load<V>(pair[1] + i, tail);
                store(to + i, begun ? Op::apply(load<V>(pair[0] + i, tail), b) : b, tail);
            }
            begun = true;
            offset += width;
        }
        if (2 * width > kernel) return;
        // in place after the first step: a vector is read before its elements are written
        using V = vec<T, kLanes<T>>;
        const int64_t length = n + (kernel - 2 * width) * unit;
        for (int64_t i = 0; i < length; i += lanes_of<V>) {
            const auto tail = upto<V>(length - i);
            store(temporary + i,
                  Op::apply(load<V>(current + i, tail), load<V>(current + i + width * unit, tail)), tail);
        }
        current = temporary;
    }
}

// Stride 1: the same run shifted by multiples of `step`.
template <class T, class Op>
FASTCONV_INLINE void horizontal_run(const T* v, int64_t kernel, int64_t step, T* to, int64_t n) {
    using V = vec<T, kLanes<T>>;
    for (int64_t i = 0; i < n; i += lanes_of<V>) {  // v has room beyond its end
        V a = load<V>(v + i);
        for (int64_t j = 1; j < kernel; j++) a = Op::apply(a, load<V>(v + i + j * step));
        store(to + i, a, upto<V>(n - i));
    }
}

// Stride 2, one element per position: even and odd lanes of two vectors.
template <class T, class Op, int kKernel>
FASTCONV_INLINE void horizontal_pairs(const T* v, int64_t kernel, int64_t dilation, T* to, int64_t n) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    if (kKernel > 0) {
        kernel = kKernel;
        dilation = 1;
    }
    for (int64_t i = 0; i < n; i += L) {
        const T* p = v + 2 * i;
        V acc = even_lanes(load<V>(p), load<V>(p + L));
        if (dilation == 1) {
            if (kernel > 1) acc = Op::apply(acc, odd_lanes(load<V>(p), load<V>(p + L)));
            for (int64_t j = 2; j < kernel; j += 2) {
                const V a = load<V>(p + j), b = load<V>(p + j + L);
                acc = Op::apply(acc, even_lanes(a, b));
                if (j + 1 < kernel) acc = Op::apply(acc, odd_lanes(a, b));
            }
        } else {
            for (int64_t j = 1; j < kernel; j++) {
                const T* q = p + j * dilation;
                acc = Op::apply(acc, even_lanes(load<V>(q), load<V>(q + L)));
            }
        }
        store(to + i, acc, upto<V>(n - i));
    }
}

template <class T, class Op>
void horizontal(const PoolShape& s, const T* v, T* to, T* temporary) {
    using V = vec<T, kLanes<T>>;
    const int64_t u = s.unit(), k = s.kernel[2], d = s.dilation[2], stride = s.stride[2], ow = s.out[2];
    if (stride == 1) {
        if constexpr (kFloating<T>) {
            if (d == 1 && k >= kDoublingFrom) return doubling<T, Op>(v, k, u, to, ow * u, temporary);
        }
        return horizontal_run<T, Op>(v, k, d * u, to, ow * u);
    }
    if (u == 1 && stride == 2) {
        if constexpr (kFloating<T>) {
            if (k == 2 && d == 1) return horizontal_pairs<T, Op, 2>(v, k, d, to, ow);
            if (k == 3 && d == 1) return horizontal_pairs<T, Op, 3>(v, k, d, to, ow);
        }
        return horizontal_pairs<T, Op, 0>(v, k, d, to, ow);
    }
    if (u == 1) {
        for (int64_t o = 0; o < ow; o++) {
            T a = v[o * stride];
            for (int64_t j = 1; j < k; j++) a = Op::apply_one(a, v[o * stride + j * d]);
            to[o] = a;
        }
        return;
    }
    for (int64_t o = 0; o < ow; o++) {
        const T* p = v + o * stride * u;
        for (int64_t c = 0; c < u; c += lanes_of<V>) {  // v has room beyond its end
            V a = load<V>(p + c);
            for (int64_t j = 1; j < k; j++) a = Op::apply(a, load<V>(p + j * d * u + c));
            store(to + o * u + c, a, upto<V>(u - c));
        }
    }
}

// Elements of scratch that forward_rows wants: the padded row, its copy for doubling, and where the vertical
// direction goes by blocks their suffix rows, the running prefix and a row of padding.
inline int64_t padded_row(const PoolShape& s) {
    const int64_t u = s.unit(), reach = (s.out[2] - 1) * s.stride[2] + s.span(2), row = s.before[2] + s.in[2];
    return ((reach > row ? reach : row) + 8) * u + 4 * kVectorBytes;
}
inline bool by_blocks(const PoolShape& s) {
    return s.kernel[0] == 1 && s.kernel[1] >= kBlocksFrom && s.stride[1] == 1 && s.dilation[1] == 1;
}
inline int64_t rows_scratch(const PoolShape& s) {
    return 2 * padded_row(s) + (by_blocks(s) ? (s.kernel[1] + 2) * s.in[2] * s.unit() : 0);
}

template <class T>
void divide_row(Divisors counts, int64_t rows_count, int64_t ow, int64_t u, T* to) {
    using V = vec<T, kLanes<T>>;
    for (int64_t o = 0; o < ow; o++) {
        const T divisor = static_cast<T>(rows_count * counts[2][o]);
        if (divisor == T(0)) continue;
        if (u == 1) {
            // runs of equal counts: all but the edges
            int64_t end = o + 1;
            while (end < ow && counts[2][end] == counts[2][o]) end++;
            const V by = broadcast<V>(divisor);
            for (; o < end; o += lanes_of<V>) {
                const auto tail = upto<V>(end - o);
                store(to + o, load<V>(to + o, tail) / by, tail);
            }
            o = end - 1;
        } else {
            const V by = broadcast<V>(divisor);
            for (int64_t c = 0; c < u; c += lanes_of<V>) {
                const auto tail = upto<V>(u - c);
                store(to + o * u + c, load<V>(to + o * u + c, tail) / by, tail);
            }
        }
    }
}

// The rows of one window, top to bottom; returns how many.
template <class T>
int64_t window_rows(const PoolShape& s, const T* slab, int64_t od, int64_t oh, const T** rows) {
    const Taps td = taps_of(s, 0, od), th = taps_of(s, 1, oh);
    const int64_t pitch = s.in[2] * s.unit();
    int64_t count = 0;
    for (int64_t a = td.first; a < td.last; a++)
        for (int64_t b = th.first; b < th.last; b++)
            rows[count++] =
                slab + ((td.start + a * s.dilation[0]) * s.in[1] + th.start + b * s.dilation[1]) * pitch;
    return count;
}

template <class T, class Op>
void forward_rows(const PoolShape& s, Divisors counts, const T* x, T* out, const PoolPart& part, T* scratch,
                  const T** rows) {
    const int64_t u = s.unit(), pitch = s.in[2] * u, padded = padded_row(s);
    T* const v = scratch;
    T* const temporary = scratch + padded;
    T* const middle = v + s.before[2] * u;
    fill(v, 2 * padded, Op::template init<T>());
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        const T* const in = x + slab * s.in_volume() * u;
        for (int64_t row = part.row0; row < part.row1; row++) {
            const int64_t od = row / s.out[1], oh = row % s.out[1];
            T* const to = out + (slab * s.out_volume() + row * s.out[2]) * u;
            const int64_t count = window_rows(s, in, od, oh, rows);
            if (count == 0) {
                fill(to, s.out[2] * u, Op::template init<T>());
                continue;
            }
            vertical<T, Op>(rows, count, middle, pitch);
            horizontal<T, Op>(s, v, to, temporary);
            if (counts) divide_row(counts, counts[0][od] * counts[1][oh], s.out[2], u, to);
        }
    }
}

// Vertical windows by blocks of their own height: a window is the suffix of one block and a prefix of the
// next.
template <class T, class Op>
void forward_blocks(const PoolShape& s, Divisors counts, const T* x, T* out, const PoolPart& part,
                    T* scratch) {
    const int64_t u = s.unit(), pitch = s.in[2] * u, padded = padded_row(s), k = s.kernel[1];
    T* const v = scratch;
    T* const temporary = scratch + padded;
    T* const suffix = temporary + padded;
    T* const prefix = suffix + k * pitch;
    T* const outside = prefix + pitch;
    T* const middle = v + s.before[2] * u;
    fill(v, 2 * padded, Op::template init<T>());
    fill(outside, pitch, Op::template init<T>());
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        for (int64_t row = part.row0; row < part.row1; row++) {
            const int64_t od = row / s.out[1], oh = row % s.out[1], id = od * s.stride[0] - s.before[0];
            T* const to = out + (slab * s.out_volume() + row * s.out[2]) * u;
            if (id < 0 || id >= s.in[0]) {
                fill(to, s.out[2] * u, Op::template init<T>());
                continue;
            }
            const T* const plane = x + (slab * s.in_volume() + id * s.in[1] * s.in[2]) * u;
            const auto at = [&](int64_t t) {  // row t of the padded plane
                const int64_t ih = t - s.before[1];
                return ih < 0 || ih >= s.in[1] ? outside : plane + ih * pitch;
            };
            // blocks begin at multiples of k in the plane, so that a band's start changes no order of
            // additions
            const int64_t place = oh % k, block = oh - place;
            if (place == 0 || row == part.row0) {
                const T* last = at(block + k - 1);
                combine_rows<T, Op, 1>(&last, 1, suffix + (k - 1) * pitch, pitch);
                for (int64_t i = k - 2; i >= place; i--) {
                    const T* pair[2] = {suffix + (i + 1) * pitch, at(block + i)};
                    combine_rows<T, Op, 2>(pair, 2, suffix + i * pitch, pitch);
                }
                for (int64_t i = 0; i < place; i++) {
                    const T* pair[2] = {prefix, at(block + k + i)};
                    combine_rows<T, Op, 0>(pair + (i == 0), 2 - (i == 0), prefix, pitch);
                }
            } else {
                const T* pair[2] = {prefix, at(block + k + place - 1)};
                combine_rows<T, Op, 0>(pair + (place == 1), 2 - (place == 1), prefix, pitch);
            }
            const T* pair[2] = {suffix + place * pitch, prefix};
            combine_rows<T, Op, 0>(pair, place == 0 ? 1 : 2, middle, pitch);
            horizontal<T, Op>(s, v, to, temporary);
            if (counts) divide_row(counts, counts[0][od] * counts[1][oh], s.out[2], u, to);
        }
    }
}

}  // namespace
FASTCONV_END_ISA
