// Average pooling: the forward walk of pool_forward.hpp with AddOp, and the gradient.
//
// The gradient is gathered, so that every element of dx is written once and belongs to one task: the rows of
// dy whose windows cover an input row are added up and divided by their counts (the count is a product over
// the axes, so each row of dy has one and each column another), then each position adds the columns that
// cover it. With stride 1 those are shifted runs of a row padded with zeros; with larger strides the
// positions of one phase (position modulo stride) are runs again.
#pragma once

#include "algorithms/avg_pool_kernels.hpp"
#include "algorithms/pool_forward.hpp"

FASTCONV_BEGIN_ISA
namespace {

// Output positions along one axis whose windows cover input position i: [first, last).
struct Covering {
    int64_t first, last;
};
FASTCONV_INLINE Covering covering(const PoolShape& s, int axis, int64_t i) {
    if (s.adaptive) {
        const int64_t in = s.in[axis], out = s.out[axis];
        return {i * out / in, ((i + 1) * out + in - 1) / in};
    }
    const int64_t q = i + s.before[axis], k = s.kernel[axis], st = s.stride[axis];
    const int64_t first = q < k ? 0 : (q - k) / st + 1, last = q / st + 1;
    return {first, last < s.out[axis] ? last : s.out[axis]};
}

// Layout of the padded row of sums: `lead` zeros before, and the whole length; zero length: go by position.
struct SumRow {
    int64_t lead, length;
    explicit SumRow(const PoolShape& s) {
        const int64_t k = s.kernel[2], st = s.stride[2], reach = (s.before[2] + s.in[2]) / st + 1;
        lead = (k - 1) / st + 1;
        length = lead + (reach > s.out[2] ? reach : s.out[2]) + 1;
        if (length > 8 * (s.in[2] + s.out[2]) + 4096) length = 0;
    }
};

// Phases that hold a position, and both of two.
inline int64_t phases_of(const PoolShape& s) {
    const int64_t positions = s.before[2] + s.in[2] > 2 ? s.before[2] + s.in[2] : 2;
    return s.stride[2] < positions ? s.stride[2] : positions;
}

// v[ow] = sum over the covering rows of dy[row][ow] / (their count * the column's).
template <class T>
void sum_rows(const PoolShape& s, Divisors counts, const T* slab, int64_t id, int64_t ih, T* v) {
    using V = vec<T, kLanes<T>>;
    const int64_t u = s.unit(), n = s.out[2] * u;
    const Covering d = covering(s, 0, id), h = covering(s, 1, ih);
    bool begun = false, uniform = true;  // rows of the same count are added first and divided once
    const int64_t common = d.first < d.last && h.first < h.last ? counts[0][d.first] * counts[1][h.first] : 0;
    for (int64_t a = d.first; a < d.last; a++)
        for (int64_t b = h.first; b < h.last; b++) uniform = uniform && counts[0][a] * counts[1][b] == common;
    for (int64_t a = d.first; a < d.last; a++) {
        for (int64_t b = h.first; b < h.last; b++) {
            const T* row = slab + (a * s.out[1] + b) * n;
            const int64_t count = counts[0][a] * counts[1][b];
            if (uniform) {
                for (int64_t i = 0; i < n; i += lanes_of<V>) {
                    const auto tail = upto<V>(n - i);
                    const V y = load<V>(row + i, tail);
                    store(v + i, begun ? load<V>(v + i, tail) + y : y, tail);
                }
            } else {
                for (int64_t o = 0; o < s.out[2]; o++) {
                    const T divisor = static_cast<T>(count * counts[2][o]);
                    for (int64_t i = o * u; i < (o + 1) * u; i++) {
                        const T y = divisor == T(0) ? T(0) : row[i] / divisor;
                        v[i] = begun ? v[i] + y : y;
                    }
                }
            }
            begun = true;
        }
    }
    if (!begun) {
        fill(v, n, T(0));
    } else if (uniform) {
        divide_row(counts, common, s.out[2], u, v);
    }
}

// to[i] = v[i] + v[i - unit] + ... (taps of them), to[0..n).
template <class T>
FASTCONV_INLINE void add_back(const T* v, int64_t taps, int64_t unit, T* to, int64_t n) {
    using V = vec<T, kLanes<T>>;
    for (int64_t i = 0; i < n; i += lanes_of<V>) {
        V a{};
        for (int64_t t = 0; t < taps; t++) a += load<V>(v + i - t * unit);
        store(to + i, a, upto<V>(n - i));
    }
}

template <class T>
void spread_row(const PoolShape& s, const SumRow& layout, const T* v, T* to, T* temporary) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    const int64_t u = s.unit(), k = s.kernel[2], st = s.stride[2], w = s.in[2], before = s.before[2];
    if (st == 1) {
        if (k < kDoublingFrom) return add_back(v + before * u, k, u, to, w * u);
        return doubling<T, AddOp>(v + (before - k + 1) * u, k, u, to, w * u, temporary);
    }
    if (u == 1) {
        // phase r of position q = iw + before: the sums at m = q / stride and the taps before it
        const int64_t phases = phases_of(s), pitch = layout.length + L;
        for (int64_t r = 0; r < phases; r++)
            add_back(v, r < k ? (k - r - 1) / st + 1 : 0, 1, temporary + r * pitch,
                     (before + w - r + st - 1) / st);
        if (st == 2) {
            const T *first = temporary + before % 2 * pitch + before / 2,
                    *second = temporary + (before + 1) % 2 * pitch + (before + 1) / 2;
            for (int64_t i = 0; i < w; i += 2 * L) {
                const V a = load<V>(first + i / 2), b = load<V>(second + i / 2);
                store(to + i, interleave_low(a, b), upto<V>(w - i));
                store(to + i + L, interleave_high(a, b), upto<V>(w - i - L));
            }
            return;
        }
        for (int64_t r = 0; r < phases; r++) {
            // first position of the phase that lies inside
            const int64_t m = before > r ? (before - r + st - 1) / st : 0;
            const T* from = temporary + r * pitch + m;
            for (int64_t i = m * st + r - before; i < w; i += st) to[i] = *from++;
        }
        return;
    }
    for (int64_t i = 0; i < w; i++) {
        const int64_t q = i + before, m = q / st, r = q % st, taps = r < k ? (k - r - 1) / st + 1 : 0;
        add_back(v + m * u, taps, u, to + i * u, u);
    }
}

template <class T>
void backward_by_position(const PoolShape& s, Divisors counts, const T* dy, T* dx, const PoolPart& part) {
    using V = vec<T, kLanes<T>>;
    const int64_t u = s.unit();
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        const T* const g = dy + slab * s.out_volume() * u;
        for (int64_t row = part.row0; row < part.row1; row++) {
            T* to = dx + (slab * s.in_volume() + row * s.in[2]) * u;
            const Covering d = covering(s, 0, row / s.in[1]), h = covering(s, 1, row % s.in[1]);
            for (int64_t iw = 0; iw < s.in[2]; iw++, to += u) {
                const Covering w = covering(s, 2, iw);
                each_vector<V>(u, [&](int64_t c, auto lanes) {
                    V sum{};
                    for (int64_t a = d.first; a < d.last; a++)
                        for (int64_t b = h.first; b < h.last; b++)
                            for (int64_t e = w.first; e < w.last; e++)
                                if (const int64_t count = counts[0][a] * counts[1][b] * counts[2][e])
                                    sum += load<V>(g + ((a * s.out[1] + b) * s.out[2] + e) * u + c, lanes) /
                                           broadcast<V>(static_cast<T>(count));
                    store(to + c, sum, lanes);
                });
            }
        }
    }
}

// ---- strips: channels first, strides 1 and 2, small windows

// Rows of dy over their counts live in a ring with zeros at either end; every row of dx is written once from
// them.
struct ScaledRows {
    int64_t lead, length, rows;
    explicit ScaledRows(const PoolShape& s) {
        const int64_t room = s.in[2] + s.before[2];
        lead = s.kernel[2] + kVectorBytes;
        length = lead + (room > s.out[2] ? room : s.out[2]) + 4 * kVectorBytes;
        const int64_t alive = (s.kernel[1] - 1) / s.stride[1] + 2;
        rows = alive < s.out[1] ? alive : s.out[1];
    }
};

// Whether it is worth it: windows of depth one, so that a ring is a few rows high.
inline bool is_gathered(const PoolShape& s) {
    return !s.channels_last && s.stride[2] <= 2 && s.kernel[0] == 1 && s.kernel[1] * s.kernel[2] <= 27 &&
           SumRow(s).length > 0;
}

template <class T, int kStride>
FASTCONV_INLINE vec<T, kLanes<T>> gather(const T* const* rows, int64_t count, int64_t kernel, int64_t phase,
                                         int64_t m) {
    using V = vec<T, kLanes<T>>;
    V sum{};
    for (int64_t r = 0; r < count; r++)
        for (int64_t j = phase; j < kernel; j += kStride)
            sum += load<V>(rows[r] + m - (kStride == 2 ? j >> 1 : j));
    return sum;
}

template <class T>
void backward_gathered(const PoolShape& s, Divisors counts, const T* dy, T* dx, const PoolPart& part,
                       T* scratch) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    const ScaledRows ring(s);
    T* const columns = scratch + ring.rows * ring.length;
    const int64_t before_rows = ring.rows * ring.length + s.out[2] + kVectorBytes;
    const T** const rows = reinterpret_cast<const T**>(scratch + (before_rows + 15) / 16 * 16);
    fill(scratch, ring.rows * ring.length, T(0));
    for (int64_t o = 0; o < s.out[2]; o++) columns[o] = static_cast<T>(counts[2][o] > 0 ? counts[2][o] : 1);
    const int64_t w = s.in[2], k = s.kernel[2], before = s.before[2];
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        int64_t scaled = 0, id = part.row0 / s.in[1], ih = part.row0 % s.in[1];
        for (int64_t row = part.row0; row < part.row1; row++) {
            const Covering d = covering(s, 0, id), h = covering(s, 1, ih);
            const int64_t count = d.first < d.last && h.first < h.last ? h.last - h.first : 0;
            for (int64_t e = 0; e < count; e++) {
                const int64_t o = d.first * s.out[1] + h.first + e;
                if (e == 0 && scaled < o) scaled = o;  // no later row needs one before
                for (; scaled <= o; scaled++) {
                    const T* const from = dy + slab * s.out_volume() + scaled * s.out[2];
                    T* const to = scratch + scaled % ring.rows * ring.length + ring.lead;
                    const int64_t divisor = counts[0][d.first] * counts[1][scaled % s.out[1]];
                    const V by = broadcast<V>(static_cast<T>(divisor > 0 ? divisor : 1));
                    for (int64_t i = 0; i < s.out[2]; i += L) {
                        const auto tail = upto<V>(s.out[2] - i);
                        store(to + i, load<V>(from + i, tail) / (by * load<V>(columns + i)), tail);
                    }
                }
                rows[e] = scratch + o % ring.rows * ring.length + ring.lead;
            }
            T* const to = dx + slab * s.in_volume() + row * w;
            if (s.stride[2] == 1) {
                for (int64_t i = 0; i < w; i += L)
                    store(to + i, gather<T, 1>(rows, count, k, 0, i + before), upto<V>(w - i));
            } else {
                const int64_t p0 = before & 1, m0 = before >> 1, m1 = (before + 1) >> 1;
                for (int64_t i = 0; i < w; i += 2 * L) {
                    const V a = gather<T, 2>(rows, count, k, p0, m0 + i / 2);
                    const V b = gather<T, 2>(rows, count, k, p0 ^ 1, m1 + i / 2);
                    store(to + i, interleave_low(a, b), upto<V>(w - i));
                    if (i + L < w) store(to + i + L, interleave_high(a, b), upto<V>(w - i - L));
                }
            }
            if (++ih == s.in[1]) {
                ih = 0;
                id++;
            }
        }
    }
}

// ---- one window that is the whole volume: every position gets the same

template <class T>
void backward_one_window(const PoolShape& s, Divisors counts, const T* dy, T* dx, const PoolPart& part,
                         T* scratch) {
    using V = vec<T, kLanes<T>>;
    const T divisor = static_cast<T>(counts[0][0] * counts[1][0] * counts[2][0]);
    const int64_t u = s.unit(), begin = part.row0 * s.in[2], end = part.row1 * s.in[2];
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        const T* const g = dy + slab * u;
        T* const to = dx + slab * s.in_volume() * u;
        if (!s.channels_last) {
            fill(to + begin, end - begin, *g / divisor);
            continue;
        }
        each_vector<V>(u, [&](int64_t c, auto lanes) {
            store(scratch + c, load<V>(g + c, lanes) / broadcast<V>(divisor), lanes);
        });
        for (int64_t i = begin; i < end; i++)
            each_vector<V>(
                u, [&](int64_t c, auto lanes) { store(to + i * u + c, load<V>(scratch + c, lanes), lanes); });
    }
}

// ---- entries

inline int64_t backward_scratch(const PoolShape& s) {
    if (is_gathered(s)) {
        const ScaledRows ring(s);
        return ring.rows * ring.length + s.out[2] + 2 * kVectorBytes + 2 * (ring.rows + 8);
    }
    const SumRow layout(s);
    const int64_t u = s.unit(), phases = phases_of(s);
    if (is_one_window(s)) return s.channels_last ? u : 0;
    if (layout.length == 0) return 0;
    return (layout.length + 2) * u +
           (u == 1 && s.stride[2] > 1 ? phases * (layout.length + 2 * kVectorBytes)
                                      : (layout.length + s.kernel[2]) * u) +
           4 * kVectorBytes;
}

template <class T>
void backward(const PoolShape& s, Divisors counts, const void* dy, void* dx, const PoolPart& part,
              void* scratch) {
    const T* const g = static_cast<const T*>(dy);
    T* const to = static_cast<T*>(dx);
    const SumRow layout(s);
    if (s.adaptive) return backward_by_position(s, counts, g, to, part);
    if (is_one_window(s)) return backward_one_window(s, counts, g, to, part, static_cast<T*>(scratch));
    if (is_gathered(s)) return backward_gathered(s, counts, g, to, part, static_cast<T*>(scratch));
    if (layout.length == 0) return backward_by_position(s, counts, g, to, part);
    const int64_t u = s.unit(), total = (layout.length + 2) * u + kVectorBytes;
    T* const row_sums = static_cast<T*>(scratch);
    T* const temporary = row_sums + total;
    fill(row_sums, total, T(0));
    T* const v = row_sums + layout.lead * u;
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        for (int64_t row = part.row0; row < part.row1; row++) {
            sum_rows(s, counts, g + slab * s.out_volume() * u, row / s.in[1], row % s.in[1], v);
            spread_row(s, layout, v, to + (slab * s.in_volume() + row * s.in[2]) * u, temporary);
        }
    }
}

}  // namespace

const AvgPoolKernels avg_pool_kernels = {
    forward_scratch,
    {forward<float, AddOp>, forward<double, AddOp>},
    backward_scratch,
    {backward<float>, backward<double>},
};

FASTCONV_END_ISA
