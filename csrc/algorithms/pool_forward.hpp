// The forward walk of max and average pooling: one template on what combines two values (MaxOp, AddOp).
//
// Four ways, chosen from the geometry alone:
// - one run: a window that is a whole plane, channels first;
// - positions: channels last, windows that overlap little: channels in lanes, the whole window in registers;
// - strips: channels first, small windows: neighbouring windows in lanes, the whole window in registers;
// - rows (pool_rows.hpp): everything else.
#pragma once

#include "algorithms/pool_rows.hpp"

FASTCONV_BEGIN_ISA
namespace {

// ---- positions: channels in lanes

template <class T, class Op, int B, bool kTail>
FASTCONV_INLINE void reduce_block(const T* p, const int64_t n[3], const int64_t step[3], T* out, T divisor,
                                  int64_t left) {
    using V = vec<T, kLanes<T>>;
    const auto tail = upto<V>(left);
    V acc[B];
    for (int v = 0; v < B; v++) acc[v] = broadcast<V>(Op::template init<T>());
    for (int64_t a = 0; a < n[0]; a++) {
        for (int64_t b = 0; b < n[1]; b++) {
            const T* q = p + a * step[0] + b * step[1];
            V row[B];
            for (int v = 0; v < B; v++) row[v] = kTail ? load<V>(q, tail) : load<V>(q + v * lanes_of<V>);
            for (int64_t j = 1; j < n[2]; j++) {
                q += step[2];
                for (int v = 0; v < B; v++)
                    row[v] = Op::apply(row[v], kTail ? load<V>(q, tail) : load<V>(q + v * lanes_of<V>));
            }
            for (int v = 0; v < B; v++) acc[v] = Op::apply(acc[v], row[v]);
        }
    }
    for (int v = 0; v < B; v++) {
        if (divisor != T(1)) acc[v] = acc[v] / broadcast<V>(divisor);
        if (kTail) {
            store(out, acc[v], tail);
        } else {
            store(out + v * lanes_of<V>, acc[v]);
        }
    }
}

// Windows of so many taps, of pixels of so many bytes, are read pixel by pixel as they lie in memory, with the sums of a row of
// taps in the first-level cache: a few registers of channels would read some lines of every pixel, which no hardware prefetch
// follows. The order of additions is that of reduce_block.
constexpr int64_t kManyTaps = 16, kLongPixel = 1024, kStreamed = 2048;

template <class T, class Op>
void reduce_stream(const T* p, const int64_t n[3], const int64_t step[3], T* out, T divisor, int64_t width) {
    using V = vec<T, kLanes<T>>;
    T row[kStreamed];
    for (int64_t c0 = 0; c0 < width; c0 += kStreamed) {
        const int64_t count = width - c0 < kStreamed ? width - c0 : kStreamed;
        T* const to = out + c0;
        for (int64_t r = 0; r < n[0] * n[1]; r++) {
            const T* q = p + r / n[1] * step[0] + r % n[1] * step[1] + c0;
            for (int64_t j = 0; j < n[2]; j++, q += step[2])
                each_vector<V>(count, [&](int64_t i, auto part) {
                    const V v = load<V>(q + i, part);
                    store(row + i, j > 0 ? Op::apply(load<V>(row + i, part), v) : v, part);
                });
            each_vector<V>(count, [&](int64_t i, auto part) {
                const V before = r > 0 ? load<V>(to + i, part) : broadcast<V>(Op::template init<T>());
                store(to + i, Op::apply(before, load<V>(row + i, part)), part);
            });
        }
        if (divisor == T(1)) continue;
        each_vector<V>(count, [&](int64_t i, auto part) {
            store(to + i, load<V>(to + i, part) / broadcast<V>(divisor), part);
        });
    }
}

template <class T, class Op>
void forward_positions(const PoolShape& s, Divisors counts, const T* x, T* out, const PoolPart& part) {
    using V = vec<T, kLanes<T>>;
    const int64_t c = s.unit(), h = s.in[1], w = s.in[2], d0 = s.dilation[0], d1 = s.dilation[1],
                  d2 = s.dilation[2];
    const int64_t step[3] = {d0 * h * w * c, d1 * w * c, d2 * c};
    const bool long_pixels = (part.c1 - part.c0) * static_cast<int64_t>(sizeof(T)) >= kLongPixel;
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        const T* const image = x + slab * s.in_volume() * c;
        for (int64_t row = part.row0; row < part.row1; row++) {
            const int64_t od = row / s.out[1], oh = row % s.out[1];
            const Taps td = taps_of(s, 0, od), th = taps_of(s, 1, oh);
            T* to = out + (slab * s.out_volume() + row * s.out[2]) * c;
            for (int64_t ow = 0; ow < s.out[2]; ow++, to += c) {
                const Taps tw = taps_of(s, 2, ow);
                if (td.empty() || th.empty() || tw.empty()) {
                    fill(to + part.c0, part.c1 - part.c0, Op::template init<T>());
                    continue;
                }
                const int64_t n[3] = {td.last - td.first, th.last - th.first, tw.last - tw.first};
                const T* p = image + ((td.start + td.first * d0) * h + th.start + th.first * d1) * w * c +
                             (tw.start + tw.first * d2) * c;
                const T divisor =
                    counts ? static_cast<T>(counts[0][od] * counts[1][oh] * counts[2][ow]) : T(1);
                if constexpr (kFloating<T>) {
                    if (long_pixels && n[0] * n[1] * n[2] >= kManyTaps) {
                        reduce_stream<T, Op>(p + part.c0, n, step, to + part.c0, divisor, part.c1 - part.c0);
                        continue;
                    }
                }
                int64_t i = part.c0;
                for (; i + 4 * lanes_of<V> <= part.c1; i += 4 * lanes_of<V>)
                    reduce_block<T, Op, 4, false>(p + i, n, step, to + i, divisor, 0);
                for (; i + lanes_of<V> <= part.c1; i += lanes_of<V>)
                    reduce_block<T, Op, 1, false>(p + i, n, step, to + i, divisor, 0);
                if (i < part.c1) reduce_block<T, Op, 1, true>(p + i, n, step, to + i, divisor, part.c1 - i);
            }
        }
    }
}

// ---- strips: channels first, small windows, the whole window in registers and nothing in between

// With stride 1 every tap is one unaligned load; with stride 2 the rows of two neighbouring vectors are
// combined first, then their even and odd lanes. No scratch: for rows as short as 7 a store that is loaded
// again at another offset costs more than the row.
template <class T, class Op, int kStride, bool kInside>
FASTCONV_INLINE vec<T, kLanes<T>> strip_block(const PoolShape& s, const T* const* rows, int64_t count,
                                              int64_t q) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    const int64_t k = s.kernel[2], d = s.dilation[2], w = s.in[2];
    const V none = broadcast<V>(Op::template init<T>());
    // columns outside, rows inside: what lies inside the row is found once per column
    V acc = none;
    if (kStride == 1) {
        for (int64_t j = 0; j < k; j++) {
            const int64_t p = q + j * d;
            const auto range = range_of<V>(p, w);
            for (int64_t r = 0; r < count; r++)
                acc = Op::apply(acc, kInside ? load<V>(rows[r] + p) : load(rows[r] + p, range, none));
        }
        return acc;
    }
    const int64_t step = d == 1 ? 2 : 1;  // taps served by one pair of vectors
    for (int64_t j = 0; j < k; j += step) {
        const int64_t p = q + j * d;
        const auto low = range_of<V>(p, w), high = range_of<V>(p + L, w);
        V a = none, b = none;
        for (int64_t r = 0; r < count; r++) {
            a = Op::apply(a, kInside ? load<V>(rows[r] + p) : load(rows[r] + p, low, none));
            b = Op::apply(b, kInside ? load<V>(rows[r] + p + L) : load(rows[r] + p + L, high, none));
        }
        acc = Op::apply(acc, even_lanes(a, b));
        if (step == 2 && j + 1 < k) acc = Op::apply(acc, odd_lanes(a, b));
    }
    return acc;
}

template <class T, class Op, int kStride>
void forward_strips(const PoolShape& s, Divisors counts, const T* x, T* out, const PoolPart& part, T* columns,
                    const T** rows) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    const int64_t reach = kStride * L + s.span(2) - 1;  // positions that a block reads
    if (counts)
        for (int64_t o = 0; o < s.out[2]; o++)
            columns[o] = static_cast<T>(counts[2][o] > 0 ? counts[2][o] : 1);
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        const T* const in = x + slab * s.in_volume();
        int64_t od = part.row0 / s.out[1], oh = part.row0 % s.out[1];
        T* to = out + slab * s.out_volume() + part.row0 * s.out[2];
        for (int64_t row = part.row0; row < part.row1; row++, to += s.out[2]) {
            const int64_t count = window_rows(s, in, od, oh, rows);
            const int64_t divisor = counts ? counts[0][od] * counts[1][oh] : 0;
            if (++oh == s.out[1]) {
                oh = 0;
                od++;
            }
            if (count == 0) {
                fill(to, s.out[2], Op::template init<T>());
                continue;
            }
            const V by = broadcast<V>(static_cast<T>(divisor > 0 ? divisor : 1));
            for (int64_t i = 0; i < s.out[2]; i += L) {
                const int64_t q = i * kStride - s.before[2];
                V y = q >= 0 && q + reach <= s.in[2] ? strip_block<T, Op, kStride, true>(s, rows, count, q)
                                                     : strip_block<T, Op, kStride, false>(s, rows, count, q);
                const auto part_of_row = upto<V>(s.out[2] - i);
                if (counts) y = y / (by * load<V>(columns + i));
                store(to + i, y, part_of_row);
            }
        }
    }
}

// Up to here the taps of a strip cost less than a padded row.
inline bool is_strip(const PoolShape& s) {
    const int64_t taps = s.kernel[0] * s.kernel[1] * s.kernel[2];
    return !s.channels_last && (s.stride[2] == 2 || (s.stride[2] == 1 && taps <= 27)) && s.kernel[2] <= 16 &&
           !(s.kernel[1] >= kBlocksFrom && s.stride[1] == 1);
}

// ---- one run: the window is the whole volume

template <class T, class Op>
T reduce_run(const T* p, int64_t n) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    V total = broadcast<V>(Op::template init<T>());
    // a fresh set of sums every 64 vectors keeps the longest chain of additions short
    for (int64_t begin = 0; begin < n; begin += 64 * L) {
        const int64_t end = begin + 64 * L < n ? begin + 64 * L : n;
        V acc[4];
        for (int v = 0; v < 4; v++) acc[v] = broadcast<V>(Op::template init<T>());
        int64_t i = begin;
        for (; i + 4 * L <= end; i += 4 * L)
            for (int v = 0; v < 4; v++) acc[v] = Op::apply(acc[v], load<V>(p + i + v * L));
        for (; i + L <= end; i += L) acc[0] = Op::apply(acc[0], load<V>(p + i));
        if (i < end)
            acc[1] =
                Op::apply(acc[1], load(p + i, range_of<V>(0, end - i), broadcast<V>(Op::template init<T>())));
        total = Op::apply(total, Op::apply(Op::apply(acc[0], acc[1]), Op::apply(acc[2], acc[3])));
    }
    return combine_lanes<Op>(total);
}

inline bool is_whole(const PoolShape& s) { return !s.channels_last && is_one_window(s); }

// Whether forward_positions is the way: for channels last where a direct window costs no more loads than
// rows, and for windows so far apart or so dilated that a padded row would be out of proportion.
inline bool is_by_position(const PoolShape& s) {
    if (s.adaptive) return true;
    const int64_t reach = (s.out[2] - 1) * s.stride[2] + s.span(2) + s.before[2];
    if (reach > 8 * (s.in[2] + s.out[2]) + 4096) return true;
    if (!s.channels_last || s.channels < 8) return false;
    int64_t overlap = 1;  // how many windows an element lies in, about
    for (int a = 0; a < 3; a++) {
        const int64_t windows = s.stride[a] < s.kernel[a] ? (s.kernel[a] + s.stride[a] - 1) / s.stride[a] : 1;
        overlap *= windows < s.out[a] ? windows : s.out[a];
    }
    return overlap <= 9;
}

template <class T, class Op>
void forward_whole(const PoolShape& s, Divisors counts, const T* x, T* out, const PoolPart& part) {
    const int64_t n = s.in_volume();
    const T divisor = counts ? static_cast<T>(counts[0][0] * counts[1][0] * counts[2][0]) : T(1);
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        const T value = reduce_run<T, Op>(x + slab * n, n);
        out[slab] = counts ? value / divisor : value;
    }
}

inline int64_t forward_scratch(const PoolShape& s) {  // elements
    return is_by_position(s) ? 0 : rows_scratch(s) + s.out[2] + kVectorBytes;
}

template <class T, class Op>
void forward(const PoolShape& s, Divisors counts, const void* x, void* out, const PoolPart& part,
             void* scratch, const void** rows) {
    const T* const from = static_cast<const T*>(x);
    T* const to = static_cast<T*>(out);
    if (is_by_position(s)) return forward_positions<T, Op>(s, counts, from, to, part);
    T* const room = static_cast<T*>(scratch);
    const T** const pointers = reinterpret_cast<const T**>(rows);
    if constexpr (kFloating<T>) {  // integers always go by rows: as right, and quicker to compile
        if (is_whole(s)) return forward_whole<T, Op>(s, counts, from, to, part);
        if (is_strip(s) && s.stride[2] == 1)
            return forward_strips<T, Op, 1>(s, counts, from, to, part, room, pointers);
        if (is_strip(s)) return forward_strips<T, Op, 2>(s, counts, from, to, part, room, pointers);
        if (by_blocks(s)) return forward_blocks<T, Op>(s, counts, from, to, part, room);
    }
    forward_rows<T, Op>(s, counts, from, to, part, room, pointers);
}

}  // namespace
FASTCONV_END_ISA
