// Max pooling: values, indices, gradient.
//
// The maximum alone is the walk of pool_forward.hpp. Indices and gradient need to know which tap of a window
// holds its maximum; it is found again from x (nothing is kept from the forward pass), a row of windows at a
// time, as a tap number in the lanes of T. The gradient is then gathered: every row of dx is written once,
// from the rows of windows that cover it, so nothing is zeroed first and no two tasks write to one place.
// Scattering was tried: each tap's store is loaded again at another offset by the next one, which stalls (5x5
// stride 1: three times slower).
//
// Rows of windows live in a ring as high as a window covers. Each holds `mark`, the tap number (ties "first")
// or the maximum ("all", "split"), and `g`, what a hit adds; both have zeros in g at either end, so that
// windows that are not there add nothing.
#pragma once

#include "algorithms/max_pool_apart.hpp"
#include "algorithms/max_pool_flat.hpp"
#include "algorithms/max_pool_halved.hpp"
#include "algorithms/max_pool_kernels.hpp"
#include "algorithms/max_pool_rows.hpp"
#include "algorithms/max_pool_scattered.hpp"
#include "algorithms/max_pool_separable.hpp"
#include "algorithms/pool_forward.hpp"

FASTCONV_BEGIN_ISA
namespace {

// ---- the walk: rows of windows are searched as the input rows that they cover come up

constexpr int64_t kTableTaps = 4096;

// Everything the walk keeps in scratch, laid out once. `lead` zeros stand before a row of marks and `length`
// is its pitch; `rows` rows of windows are alive at once.
template <class T>
struct Ring {
    int64_t lead, length, rows, covers;
    T *marks, *gs, *leading;
    TapRow<T>* taps;
    CoverRow<T>* cover;
    Columns columns{};
    int64_t* offsets;  // of every tap from the window's first position; null where there are too many

    __attribute__((noinline)) Ring(const PoolShape& s, int64_t width) {
        const int64_t k = s.span(2), room = s.in[2] + s.before[2];
        lead = s.channels_last ? 0 : (k > s.before[2] ? k - s.before[2] : 0) + kLanes<T>;
        const int64_t reach = s.channels_last ? s.out[2] * width : room > s.out[2] ? room : s.out[2];
        length = lead + reach + 4 * kLanes<T>;
        const auto alive = [&](int a) {
            const int64_t windows = (s.span(a) - 1) / s.stride[a] + 2;
            return windows < s.out[a] ? windows : s.out[a];
        };
        rows = s.kernel[0] == 1 ? alive(1) : alive(0) * s.out[1];
        const int64_t deep = s.kernel[0] < s.out[0] ? s.kernel[0] : s.out[0];
        covers = deep * (s.kernel[1] < s.out[1] ? s.kernel[1] : s.out[1]);
    }
    static int64_t tap_row_limit(const PoolShape& s) {
        return (s.kernel[0] < s.in[0] ? s.kernel[0] : s.in[0]) *
               (s.kernel[1] < s.in[1] ? s.kernel[1] : s.in[1]);
    }
    // Hands the scratch out; returns how many bytes it takes.
    __attribute__((noinline)) int64_t place(const PoolShape& s, void* scratch) {
        Pieces pieces(scratch);
        taps = pieces.take<TapRow<T>>(tap_row_limit(s));
        cover = pieces.take<CoverRow<T>>(covers);
        leading = pieces.take<T>(s.out[2] + kLanes<T>);
        marks = pieces.take<T>(rows * length);
        gs = pieces.take<T>(rows * length);
        const int64_t many = s.kernel[0] * s.kernel[1] * s.kernel[2];
        offsets = many > kTableTaps ? nullptr : pieces.take<int64_t>(many);
        if (s.channels_last) {
            const int64_t most = s.out[2] * (s.kernel[2] < s.in[2] ? s.kernel[2] : s.in[2]);
            columns.begin = pieces.take<int64_t>(s.in[2] + 1);
            columns.window = pieces.take<int64_t>(most);
            columns.tap = pieces.take<int64_t>(most);
        }
        return pieces.bytes();
    }
};

inline void cover_columns(const PoolShape& s, const Columns& columns) {
    for (int64_t i = 0; i <= s.in[2]; i++) columns.begin[i] = 0;
    const auto each = [&](auto use) {
        for (int64_t o = 0; o < s.out[2]; o++) {
            const Taps tw = taps_of(s, 2, o);
            for (int64_t j = tw.first; j < tw.last; j++) use(tw.start + j * s.dilation[2], o, j);
        }
    };
    each([&](int64_t i, int64_t, int64_t) { columns.begin[i + 1]++; });
    for (int64_t i = 0; i < s.in[2]; i++) columns.begin[i + 1] += columns.begin[i];
    each([&](int64_t i, int64_t o, int64_t j) {
        columns.window[columns.begin[i]] = o;
        columns.tap[columns.begin[i]++] = j;
    });
    for (int64_t i = s.in[2]; i > 0; i--) columns.begin[i] = columns.begin[i - 1];
    columns.begin[0] = 0;
}

// First window along one axis that reaches as far as a position.
FASTCONV_INLINE int64_t first_window(const PoolShape& s, int axis, int64_t i) {
    const int64_t q = i + s.before[axis] - s.span(axis);
    return q < 0 ? 0 : q / s.stride[axis] + 1;
}

// Calls use(window, tap) for the windows along one axis that cover a position, ascending.
template <class Use>
FASTCONV_INLINE void covering_windows(const PoolShape& s, int axis, int64_t i, Use use) {
    const int64_t q = i + s.before[axis], st = s.stride[axis], d = s.dilation[axis];
    const int64_t last = q / st < s.out[axis] ? q / st : s.out[axis] - 1;
    for (int64_t o = first_window(s, axis, i); o <= last; o++) {
        const int64_t along = q - o * st;
        if (d == 1) {
            use(o, along);
        } else if (along % d == 0) {
            use(o, along / d);
        }
    }
}

template <class T, Want kWant>
void backward_marks(const PoolShape& s, const T* dy, bool shared, const T* x, T* dx, const PoolPart& part,
                    void* scratch) {
    const int64_t u = s.unit(), pitch = s.in[2] * u;
    Ring<T> ring(s, part.c1 - part.c0);
    ring.place(s, scratch);
    fill(ring.gs, ring.rows * ring.length, T(0));
    fill(ring.marks, ring.rows * ring.length, T(0));
    if (s.channels_last) {
        cover_columns(s, ring.columns);
    } else {
        leading_taps(s, ring.leading);
    }
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        const T* const in = x + slab * s.in_volume() * u;
        const T* const gradient = dy + slab * s.out_volume() * u;
        T* const result = dx + slab * s.in_volume() * u;
        int64_t searched = 0;  // the next row of windows to search
        int64_t id = part.row0 / s.in[1], ih = part.row0 % s.in[1];
        for (int64_t row = part.row0; row < part.row1; row++) {
            int64_t count = 0;
            covering_windows(s, 0, id, [&](int64_t od, int64_t a) {
                covering_windows(s, 1, ih, [&](int64_t oh, int64_t b) {
                    ring.cover[count++] = {nullptr, nullptr, (a * s.kernel[1] + b) * s.kernel[2],
                                           od * s.out[1] + oh};
                });
            });
            if (count > 0) {
                // no later input row needs windows before these; a deep window comes back to a plane's first
                // row
                const int64_t needed =
                    first_window(s, 0, id) * s.out[1] + (s.kernel[0] == 1 ? first_window(s, 1, ih) : 0);
                if (searched < needed) searched = needed;
            }
            for (int64_t e = 0; e < count; e++) {
                CoverRow<T>& cover = ring.cover[e];
                for (; searched <= cover.window; searched++) {
                    const int64_t slot = searched % ring.rows * ring.length + ring.lead;
                    const int64_t n = tap_rows(s, in, searched / s.out[1], searched % s.out[1], ring.taps);
                    const T* const g = gradient + searched * s.out[2] * u;
                    if (s.channels_last) {
                        search_positions<T, kWant>(s, ring.taps, n, part.c0, part.c1, g, shared,
                                                   ring.marks + slot, ring.gs + slot, nullptr);
                    } else {
                        search_windows<T, kWant>(s, ring.taps, n, ring.leading, g, shared, ring.marks + slot,
                                                 ring.gs + slot, nullptr);
                    }
                }
                cover.mark = ring.marks + cover.window % ring.rows * ring.length + ring.lead;
                cover.g = ring.gs + cover.window % ring.rows * ring.length + ring.lead;
            }
            if (s.channels_last) {
                gather_positions<T, kWant>(s, ring.columns, ring.cover, count, part.c0, part.c1,
                                           in + row * pitch, result + row * pitch);
            } else {
                gather_row<T, kWant>(s, ring.cover, count, in + row * pitch, result + row * pitch);
            }
            if (++ih == s.in[1]) {
                ih = 0;
                id++;
            }
        }
    }
}

// ---- 2x2 windows with stride 2, channels first: everything in registers

// Whether windows tile the planes: no padding, nothing past the end, depth as it is.
inline bool is_tile(const PoolShape& s) {
    bool tile =
        !s.channels_last && s.kernel[0] == 1 && s.stride[0] == 1 && s.before[0] == 0 && s.out[0] == s.in[0];
    for (int a = 1; a < 3; a++)
        tile = tile && s.kernel[a] == 2 && s.stride[a] == 2 && s.dilation[a] == 1 && s.before[a] == 0 &&
               2 * s.out[a] <= s.in[a];
    return tile;
}

template <class T>
void backward_tiles(const PoolShape& s, const T* dy, const T* x, T* dx, const PoolPart& part) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    const int64_t w = s.in[2], h = s.in[1], wide = 2 * s.out[2];
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        int64_t id = part.row0 / h, ih = part.row0 % h;
        for (int64_t row = part.row0; row < part.row1; row++) {
            // a band may begin or end inside a tile: each row writes its own half
            const int64_t oh = ih / 2, half = ih % 2;
            T* const to = dx + (slab * s.in_volume() + row * w);
            if (oh >= s.out[1]) {
                fill(to, w, T(0));
            } else {
                const bool both = half == 0 && row + 1 < part.row1;
                const T *top = x + slab * s.in_volume() + (row - half) * w, *bottom = top + w;
                const T* const g = dy + slab * s.out_volume() + (id * s.out[1] + oh) * s.out[2];
                for (int64_t i = 0; i < s.out[2]; i += L) {
                    const auto low = upto<V>(wide - 2 * i), high = upto<V>(wide - 2 * i - L);
                    const V a = load<V>(top + 2 * i, low), b = load<V>(top + 2 * i + L, high);
                    const V c = load<V>(bottom + 2 * i, low), d = load<V>(bottom + 2 * i + L, high);
                    const V tap[4] = {even_lanes(a, b), odd_lanes(a, b), even_lanes(c, d), odd_lanes(c, d)};
                    V m = tap[0];
                    for (int t = 1; t < 4; t++) m = MaxOp::apply(m, tap[t]);
                    const V share = load<V>(g + i, upto<V>(s.out[2] - i));
                    Hits<V> done = hits(tap[0], m);
                    V part_of[4] = {select(done, share, V{}), V{}, V{}, V{}};
                    for (int t = 1; t < 4; t++) {
                        const Hits<V> here = without(hits(tap[t], m), done);
                        part_of[t] = select(here, share, V{});
                        done = either(done, here);
                    }
                    const auto write = [&](T* row_of, V first, V second) {
                        store(row_of + 2 * i, interleave_low(first, second), low);
                        if (2 * i + L < wide) store(row_of + 2 * i + L, interleave_high(first, second), high);
                    };
                    if (half == 0) write(to, part_of[0], part_of[1]);
                    if (both) write(to + w, part_of[2], part_of[3]);
                    if (half == 1) write(to, part_of[2], part_of[3]);
                }
                if (wide < w) to[w - 1] = T(0);
                if (both) {
                    if (wide < w) to[2 * w - 1] = T(0);
                    row++;
                    ih++;
                }
            }
            if (++ih >= h) {
                ih = 0;
                id++;
            }
        }
    }
}

// ---- one long window that is the whole volume, channels first: its maximum, then the first place that holds it

template <class T>
void backward_whole(const PoolShape& s, const T* dy, const T* x, T* dx, const PoolPart& part) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    const int64_t n = s.in_volume(), begin = part.row0 * s.in[2], end = part.row1 * s.in[2];
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        const T* const from = x + slab * n;
        const V best = broadcast<V>(reduce_run<T, MaxOp>(from, n));
        int64_t at = 0;
        for (uint64_t found = 0; found == 0; at += found == 0 ? 4 * L : __builtin_ctzll(found)) {
#pragma GCC unroll 4
            for (int v = 0; v < 4; v++) {  // together: a plane of 7 x 7 leaves no branch to be guessed
                const int64_t i = at + v * L;
                const V here = load(from + i, range_of<V>(0, n - i), broadcast<V>(least<T>()));
                found |= bits_of(hits(here, best)) << (v * L);
            }
        }
        fill(dx + slab * n + begin, end - begin, T(0));
        if (at >= begin && at < end) dx[slab * n + at] = dy[slab];
    }
}

// ---- entries

template <class T>
int64_t gradient_scratch(const PoolShape& s) {
    Ring<T> ring(s, s.channels_last ? s.channels : 1);
    const int64_t bytes = ring.place(s, nullptr);
    int64_t other = 0;
    if (is_flat(s))
        other = Flat<T>(s).place(s, nullptr);
    else if (is_separable(s))
        other = Separable<T>(s).place(s, nullptr);
    if constexpr (kHalves<T>) {
        if (is_halved(s)) other = Halved<T>(s).place(nullptr);
    }
    return bytes > other ? bytes : other;
}

template <class T>
void backward(const PoolShape& s, Ties ties, const void* dy, const void* x, void* dx, const PoolPart& part,
              void* scratch) {
    const T *const g = static_cast<const T*>(dy), *const from = static_cast<const T*>(x);
    T* const to = static_cast<T*>(dx);
    if (ties == Ties::first && has_places<T>(s)) return backward_places(s, g, from, to, part);
    if (ties == Ties::first && is_whole(s)) return backward_whole(s, g, from, to, part);
    if (s.adaptive) return backward_scattered(s, ties, g, from, to, part);
    if (ties == Ties::first && is_tile(s)) return backward_tiles(s, g, from, to, part);
    if (ties == Ties::first && is_apart(s)) return backward_apart(s, g, from, to, part);
    if constexpr (kHalves<T>) {
        if (ties == Ties::first && is_halved(s)) return backward_halved(s, g, from, to, part, scratch);
    }
    if (ties == Ties::first && is_flat(s)) return backward_flat(s, g, from, to, part, scratch);
    if (ties == Ties::first && is_separable(s)) return backward_separable(s, g, from, to, part, scratch);
    if (ties == Ties::first) return backward_marks<T, Want::number>(s, g, false, from, to, part, scratch);
    backward_marks<T, Want::maximum>(s, g, ties == Ties::split, from, to, part, scratch);
}

// Offset of a tap from the window's first position.
FASTCONV_INLINE int64_t tap_offset(const PoolShape& s, int64_t tap) {
    const int64_t k = s.kernel[2], kh = s.kernel[1], a = tap / k / kh, b = tap / k % kh, j = tap % k;
    return (a * s.dilation[0] * s.in[1] + b * s.dilation[1]) * s.in[2] + j * s.dilation[2];
}

template <class T>
void indices(const PoolShape& s, const void* x, void* out, int64_t* numbers, const PoolPart& part,
             void* scratch) {
    const int64_t u = s.unit(), width = part.c1 - part.c0;
    Ring<T> ring(s, width);
    ring.place(s, scratch);
    if (!s.channels_last) leading_taps(s, ring.leading);
    for (int64_t t = 0; ring.offsets && t < s.kernel[0] * s.kernel[1] * s.kernel[2]; t++)
        ring.offsets[t] = tap_offset(s, t);
    T* const mark = ring.marks;
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        const T* const in = static_cast<const T*>(x) + slab * s.in_volume() * u;
        for (int64_t row = part.row0; row < part.row1; row++) {
            const int64_t od = row / s.out[1], oh = row % s.out[1],
                          to = (slab * s.out_volume() + row * s.out[2]) * u;
            const int64_t n = tap_rows(s, in, od, oh, ring.taps);
            T* const values = static_cast<T*>(out) + to;
            if (s.channels_last) {
                search_positions<T, Want::number>(s, ring.taps, n, part.c0, part.c1, nullptr, false, mark,
                                                  nullptr, values);
            } else {
                search_windows<T, Want::number>(s, ring.taps, n, ring.leading, nullptr, false, mark, nullptr,
                                                values);
            }
            const int64_t first_row =
                (od * s.stride[0] - s.before[0]) * s.in[1] + oh * s.stride[1] - s.before[1];
            for (int64_t o = 0; o < s.out[2]; o++) {
                const int64_t base = first_row * s.in[2] + o * s.stride[2] - s.before[2];
                int64_t* const index = numbers + to + o * u + part.c0;
                for (int64_t c = 0; c < width; c++) {
                    const T tap = mark[o * width + c];
                    const auto t = static_cast<int64_t>(tap);
                    index[c] = n == 0 || tap < T(0)
                                   ? -1
                                   : base + (ring.offsets ? ring.offsets[t] : tap_offset(s, t));
                }
            }
        }
    }
}

}  // namespace

const MaxPoolKernels max_pool_kernels = {
    forward_scratch,
    {forward<float, MaxOp>, forward<double, MaxOp>, forward<int8_t, MaxOp>, forward<uint8_t, MaxOp>,
     forward<int16_t, MaxOp>, forward<uint16_t, MaxOp>, forward<int32_t, MaxOp>, forward<uint32_t, MaxOp>,
     forward<int64_t, MaxOp>, forward<uint64_t, MaxOp>},
    {gradient_scratch<float>, gradient_scratch<double>},
    {indices<float>, indices<double>},
    {backward<float>, backward<double>},
};

FASTCONV_END_ISA
