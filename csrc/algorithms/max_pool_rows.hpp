// Rows of max pooling windows: searched for where their maxima stand, and gathered into rows of the gradient.
//
// A searched row holds `mark`, the number of the tap that holds the maximum (ties "first") or the maximum
// itself
// ("all", "split"), and `g`, what a hit adds. See max_pool.hpp for the walk that joins the two.
#pragma once

#include "algorithms/pool_shape.hpp"
#include "algorithms/pool_simd.hpp"

FASTCONV_BEGIN_ISA
namespace {

// Cuts scratch into pieces, each from a cache line on and with a line behind it; counts only where there is no scratch.
// Those who lay scratch out with it do so out of line: a run and the question for its bytes share the code.
struct Pieces {
    char *base, *at;
    explicit Pieces(void* scratch) : base(static_cast<char*>(scratch)), at(base) {}
    template <class U>
    U* take(int64_t count) {
        U* const piece = reinterpret_cast<U*>(at);
        at += (count * static_cast<int64_t>(sizeof(U)) + 127) / 64 * 64;
        return piece;
    }
    int64_t bytes() const { return at - base; }
};

// One input row that a row of windows reads, and the number of its first tap.
template <class T>
struct TapRow {
    const T* row;
    int64_t number;
};

template <class T>
int64_t tap_rows(const PoolShape& s, const T* slab, int64_t od, int64_t oh, TapRow<T>* rows) {
    const Taps td = taps_of(s, 0, od), th = taps_of(s, 1, oh);
    const int64_t pitch = s.in[2] * s.unit();
    int64_t count = 0;
    for (int64_t a = td.first; a < td.last; a++)
        for (int64_t b = th.first; b < th.last; b++)
            rows[count++] = {
                slab + ((td.start + a * s.dilation[0]) * s.in[1] + th.start + b * s.dilation[1]) * pitch,
                (a * s.kernel[1] + b) * s.kernel[2]};
    return count;
}

// What one row of windows is searched for: the number of the tap that holds the maximum, or the maximum
// itself.
enum class Want { number, maximum };

// The running state of a search: the maximum, and the number of the tap that holds it.
template <class V, Want kWant>
struct Search {
    V best, number;
    FASTCONV_INLINE void see(V x, V tap) {
        if (kWant == Want::number) {
            const Hits<V> h = greater(x, best);
            best = select(h, x, best);
            number = select(h, tap, number);
        } else {
            best = MaxOp::apply(best, x);
        }
    }
};

// ---- channels first: neighbouring windows in lanes

// Calls see(x, tap number) for every tap of the windows whose first tap lies at q, q + stride, ...
template <class T, int kStride, bool kInside, class See>
FASTCONV_INLINE void for_each_tap(const PoolShape& s, const TapRow<T>* rows, int64_t count, int64_t q,
                                  See see) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    const int64_t k = s.kernel[2], d = s.dilation[2], w = s.in[2], stride = s.stride[2];
    const V none = broadcast<V>(least<T>()), one = broadcast<V>(T(1));
    // what lies inside the row is the same for all rows: found once for the first taps, which are mostly all
    constexpr int kKept = 8;
    Range<V> low[kKept], high[kKept];
    for (int64_t j = 0; !kInside && kStride > 0 && j < k && j < kKept; j++) {
        low[j] = range_of<V>(q + j * d, w);
        if (kStride == 2) high[j] = range_of<V>(q + j * d + L, w);
    }
    const auto at = [&](const T* row, int64_t j) {
        const int64_t p = q + j * d;
        return kInside ? load<V>(row + p) : load(row + p, j < kKept ? low[j] : range_of<V>(p, w), none);
    };
    const auto above = [&](const T* row, int64_t j) {
        const int64_t p = q + j * d + L;
        return kInside ? load<V>(row + p) : load(row + p, j < kKept ? high[j] : range_of<V>(p, w), none);
    };
    for (int64_t r = 0; r < count; r++) {
        const T* const row = rows[r].row;
        V tap = broadcast<V>(static_cast<T>(rows[r].number));
        for (int64_t j = 0; j < k; j++, tap = tap + one) {
            if constexpr (kStride == 1) {
                see(at(row, j), tap);
            } else if constexpr (kStride == 2) {
                const V a = at(row, j), b = above(row, j);
                see(even_lanes(a, b), tap);
                if (d == 1 && j + 1 < k) {
                    tap = tap + one;
                    j++;
                    see(odd_lanes(a, b), tap);
                }
            } else {
                T lanes[L];
                for (int64_t l = 0; l < L; l++) {
                    const int64_t e = q + j * d + l * stride;
                    lanes[l] = e >= 0 && e < w ? row[e] : least<T>();
                }
                see(load<V>(lanes), tap);
            }
        }
    }
}

// Marks of one row of windows: out of `rows`, into mark[0..), g[0..) (g from dy, divided by the number of
// ties where a share is wanted) and, where given, the values. `leading` holds the first tap inside of each
// window of the row.
template <class T, Want kWant, int kStride, bool kInside>
FASTCONV_INLINE void search_block(const PoolShape& s, const TapRow<T>* rows, int64_t count, int64_t i,
                                  const T* leading, const T* dy, bool shared, T* mark, T* g, T* values) {
    using V = vec<T, kLanes<T>>;
    const int64_t q = i * s.stride[2] - s.before[2];
    const auto tail = upto<V>(s.out[2] - i);
    Search<V, kWant> search{broadcast<V>(least<T>()), load<V>(leading + i)};
    if (count > 0) search.number = search.number + broadcast<V>(static_cast<T>(rows[0].number));
    for_each_tap<T, kStride, kInside>(s, rows, count, q, [&](V x, V tap) { search.see(x, tap); });
    store(mark + i, kWant == Want::number ? search.number : search.best, tail);
    if (values) store(values + i, search.best, tail);
    if (!g) return;
    V share = load<V>(dy + i, tail);
    if (kWant == Want::maximum && shared) {
        V ties{};
        const V one = broadcast<V>(T(1));
        // padding never counts: where the maximum is -inf it would, so there the taps inside are counted by
        // place
        for_each_tap<T, kStride, kInside>(s, rows, count, q,
                                          [&](V x, V) { ties = add_where(hits(x, search.best), ties, one); });
        T number[lanes_of<V>], low[lanes_of<V>];
        store(number, ties);
        store(low, search.best);
        for (int64_t l = 0; l < lanes_of<V> && i + l < s.out[2]; l++) {
            if (low[l] != least<T>()) continue;
            const Taps tw = taps_of(s, 2, i + l);
            number[l] = static_cast<T>(tw.empty() || count == 0 ? 1 : count * (tw.last - tw.first));
        }
        share = share / load<V>(number);
    }
    store(g + i, share, tail);
}

template <class T, Want kWant, int kStride>
__attribute__((noinline)) void search_row_as(const PoolShape& s, const TapRow<T>* rows, int64_t count,
                                             const T* leading, const T* dy, bool shared, T* mark, T* g,
                                             T* values) {
    constexpr int L = kLanes<T>;
    const int64_t reach = kStride * L + s.span(2) - 1;
    for (int64_t i = 0; i < s.out[2]; i += L) {
        const int64_t q = i * s.stride[2] - s.before[2];
        if (kStride > 0 && q >= 0 && q + reach <= s.in[2]) {
            search_block<T, kWant, kStride, kStride != 0>(s, rows, count, i, leading, dy, shared, mark, g,
                                                          values);
        } else {
            search_block<T, kWant, kStride, false>(s, rows, count, i, leading, dy, shared, mark, g, values);
        }
    }
}

template <class T, Want kWant>
void search_windows(const PoolShape& s, const TapRow<T>* rows, int64_t count, const T* leading, const T* dy,
                    bool shared, T* mark, T* g, T* values) {
    if (s.stride[2] == 1)
        return search_row_as<T, kWant, 1>(s, rows, count, leading, dy, shared, mark, g, values);
    if (s.stride[2] == 2)
        return search_row_as<T, kWant, 2>(s, rows, count, leading, dy, shared, mark, g, values);
    search_row_as<T, kWant, 0>(s, rows, count, leading, dy, shared, mark, g, values);
}

// First tap inside of every window along a row; a window of padding only gets a number that no tap has.
template <class T>
void leading_taps(const PoolShape& s, T* leading) {
    for (int64_t o = 0; o < s.out[2]; o++) {
        const Taps tw = taps_of(s, 2, o);
        leading[o] = tw.empty() ? -static_cast<T>(int64_t{1} << 24) * T(4) : static_cast<T>(tw.first);
    }
}

// A row of windows that covers the input row at hand, and the number of the tap row it does so with.
template <class T>
struct CoverRow {
    const T *mark, *g;
    int64_t number, window;  // `window`: the row of windows, counted through the slab
};

template <int N>
struct Count {
    static constexpr int value = N;
};

// Calls f(Count<n>()) for the usual numbers of taps, f(Count<0>()) for the others: few for doubles, none without vectors to speak
// of, since each is code for every loop over taps.
template <class T, class F>
FASTCONV_INLINE void with_count(int64_t n, F f) {
    if constexpr (kVectorBytes >= 32) {
        if (n == 2) return f(Count<2>());
        if (n == 3) return f(Count<3>());
        if constexpr (sizeof(T) == 4) {
            if (n == 1) return f(Count<1>());
            if (n == 5) return f(Count<5>());
        }
    }
    f(Count<0>());
}

// What those that chose it give to each place: sums of `g` where `mark` is the number of the row, over n pairs of runs. They are
// `width` long, and there are `rows` of them, so far apart as the pitches say.
template <class T>
void take_chosen(const CoverRow<T>* cover, int64_t n, int64_t rows, int64_t width, int64_t mark_pitch,
                 int64_t g_pitch, int64_t sum_pitch, T* sum) {
    using V = vec<T, kLanes<T>>;
    with_count<T>(n, [&](auto fixed) {
        constexpr int64_t kFixed = decltype(fixed)::value;
        // at hand in registers: the stores below might be to these
        CoverRow<T> kept[kFixed > 0 ? kFixed : 1];
        V numbers[kFixed > 0 ? kFixed : 1];
#pragma GCC unroll 5
        for (int64_t e = 0; e < kFixed; e++) {
            kept[e] = cover[e];
            numbers[e] = broadcast<V>(static_cast<T>(cover[e].number));
        }
        for (int64_t o = 0; o < rows; o++) {
            each_vector<V>(width, [&](int64_t c, auto part) {
                V total{};
                const int64_t at = o * mark_pitch + c, from = o * g_pitch + c;
                if constexpr (kFixed > 0) {
#pragma GCC unroll 5
                    for (int64_t e = 0; e < kFixed; e++)
                        total = add_where(equal(load<V>(kept[e].mark + at, part), numbers[e]), total,
                                          load<V>(kept[e].g + from, part));
                } else {
                    for (int64_t e = 0; e < n; e++)
                        total = add_where(equal(load<V>(cover[e].mark + at, part),
                                                broadcast<V>(static_cast<T>(cover[e].number))),
                                          total, load<V>(cover[e].g + from, part));
                }
                store(sum + o * sum_pitch + c, total, part);
            });
        }
    });
}

// dx over L positions of one phase: x there, marks and g of the windows whose tap j lies there at [m -
// shift].
template <class T, Want kWant>
FASTCONV_INLINE vec<T, kLanes<T>> gather(const PoolShape& s, const CoverRow<T>* rows, int64_t count,
                                         int64_t stride, int64_t phase, int64_t m, vec<T, kLanes<T>> x) {
    using V = vec<T, kLanes<T>>;
    const int64_t k = s.kernel[2], d = s.dilation[2];
    V sum{};
    const V step = broadcast<V>(T(1));
    for (int64_t r = 0; r < count; r++) {
        V tap = broadcast<V>(static_cast<T>(rows[r].number));
        for (int64_t j = 0; j < k; j++, tap = tap + step) {
            const int64_t along = j * d;
            if (stride == 2 && ((along ^ phase) & 1)) continue;
            const int64_t at = m - (stride == 2 ? along >> 1 : along);
            const V mark = load<V>(rows[r].mark + at);
            sum = add_where(kWant == Want::number ? equal(mark, tap) : hits(x, mark), sum,
                            load<V>(rows[r].g + at));
        }
    }
    return sum;
}

template <class T, Want kWant>
void gather_row(const PoolShape& s, const CoverRow<T>* rows, int64_t count, const T* x, T* dx) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    const int64_t w = s.in[2], before = s.before[2], k = s.kernel[2], d = s.dilation[2], stride = s.stride[2];
    if (stride == 1) {
        for (int64_t i = 0; i < w; i += L) {
            const auto tail = upto<V>(w - i);
            const V here = kWant == Want::number ? V{} : load<V>(x + i, tail);
            store(dx + i, gather<T, kWant>(s, rows, count, 1, 0, i + before, here), tail);
        }
    } else if (stride == 2) {
        // the first phase holds positions 0, 2, ...; the second 1, 3, ...
        const int64_t p0 = before & 1, p1 = p0 ^ 1, m0 = before >> 1, m1 = (before + 1) >> 1;
        for (int64_t i = 0; i < w; i += 2 * L) {
            const auto low = upto<V>(w - i), high = upto<V>(w - i - L);
            V here0{}, here1{};
            if (kWant != Want::number) {
                const V a = load<V>(x + i, low), b = load<V>(x + i + L, high);
                here0 = even_lanes(a, b);
                here1 = odd_lanes(a, b);
            }
            const V a = gather<T, kWant>(s, rows, count, 2, p0, m0 + i / 2, here0);
            const V b = gather<T, kWant>(s, rows, count, 2, p1, m1 + i / 2, here1);
            store(dx + i, interleave_low(a, b), low);
            if (i + L < w) store(dx + i + L, interleave_high(a, b), high);
        }
    } else {
        fill(dx, w, T(0));
        for (int64_t r = 0; r < count; r++) {
            for (int64_t o = 0; o < s.out[2]; o++) {
                const T mark = rows[r].mark[o], g = rows[r].g[o];
                const int64_t q = o * stride - before;
                if (kWant == Want::number) {
                    const T j = mark - static_cast<T>(rows[r].number);
                    if (j >= T(0) && j < static_cast<T>(k)) dx[q + static_cast<int64_t>(j) * d] += g;
                } else {
                    const Taps tw = taps_of(s, 2, o);
                    for (int64_t j = tw.first; j < tw.last; j++)
                        if (const T v = x[q + j * d]; v == mark || v != v) dx[q + j * d] += g;
                }
            }
        }
    }
}

// ---- channels last: channels in lanes

// B vectors of channels of one window, from channel c on; `p` is where its first tap inside lies in a row.
template <class T, Want kWant, int B>
FASTCONV_INLINE void search_channels(const TapRow<T>* rows, int64_t count, const Taps& tw, int64_t p,
                                     int64_t step, First<vec<T, kLanes<T>>> tail, T lead, const T* dy,
                                     bool shared, T* mark, T* g, T* values) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    const auto read = [&](const T* q, int v) { return B == 1 ? load<V>(q, tail) : load<V>(q + v * L); };
    const auto write = [&](T* q, V x, int v) { B == 1 ? store(q, x, tail) : store(q + v * L, x); };
    Search<V, kWant> search[B];
    for (int v = 0; v < B; v++) search[v] = {broadcast<V>(least<T>()), broadcast<V>(lead)};
    for (int64_t r = 0; r < count; r++) {
        const T* q = rows[r].row + p;
        V tap = broadcast<V>(static_cast<T>(rows[r].number + tw.first));
        for (int64_t j = tw.first; j < tw.last; j++, q += step, tap = tap + broadcast<V>(T(1)))
            for (int v = 0; v < B; v++) search[v].see(read(q, v), tap);
    }
    for (int v = 0; v < B; v++) write(mark, kWant == Want::number ? search[v].number : search[v].best, v);
    if (values)
        for (int v = 0; v < B; v++) write(values, search[v].best, v);
    if (!g) return;
    for (int v = 0; v < B; v++) {
        V share = read(dy, v);
        if (kWant == Want::maximum && shared) {
            V ties{};
            for (int64_t r = 0; r < count; r++) {
                const T* q = rows[r].row + p;
                for (int64_t j = tw.first; j < tw.last; j++, q += step)
                    ties = add_where(hits(read(q, v), search[v].best), ties, broadcast<V>(T(1)));
            }
            share = share / ties;
        }
        write(g, share, v);
    }
}

template <class T, Want kWant>
__attribute__((noinline)) void search_positions(const PoolShape& s, const TapRow<T>* rows, int64_t count,
                                                int64_t c0, int64_t c1, const T* dy, bool shared, T* mark,
                                                T* g, T* values) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    const int64_t u = s.unit(), step = s.dilation[2] * u, width = c1 - c0;
    for (int64_t o = 0; o < s.out[2]; o++) {
        const Taps tw = taps_of(s, 2, o);
        const int64_t n = tw.empty() ? 0 : count, from = o * u + c0, to = o * width;
        const int64_t p = (tw.start + tw.first * s.dilation[2]) * u + c0;
        const T lead = n == 0 ? T(-1) : static_cast<T>(rows[0].number + tw.first);
        const auto search = [&](auto many, int64_t c) {
            search_channels<T, kWant, decltype(many)::value>(
                rows, n, tw, p + c, step, upto<V>(width - c), lead, dy + from + c, shared, mark + to + c,
                g ? g + to + c : nullptr, values ? values + from + c : nullptr);
        };
        int64_t c = 0;
        for (; c + 4 * L <= width; c += 4 * L) search(Count<4>(), c);
        for (; c < width; c += L) search(Count<1>(), c);
    }
}

// For each input column the windows that cover it: (output column, tap), from begin[iw] to begin[iw + 1].
struct Columns {
    int64_t *begin, *window, *tap;
};

template <class T, Want kWant>
void gather_positions(const PoolShape& s, const Columns& columns, const CoverRow<T>* rows, int64_t count,
                      int64_t c0, int64_t c1, const T* x, T* dx) {
    using V = vec<T, kLanes<T>>;
    const int64_t u = s.unit(), width = c1 - c0;
    for (int64_t i = 0; i < s.in[2]; i++) {
        const int64_t begin = columns.begin[i], end = columns.begin[i + 1];
        for (int64_t c = 0; c < width; c += lanes_of<V>) {
            const auto tail = upto<V>(width - c);
            const V here = kWant == Want::number ? V{} : load<V>(x + i * u + c0 + c, tail);
            V sum{};
            for (int64_t r = 0; r < count; r++) {
                for (int64_t e = begin; e < end; e++) {
                    const int64_t at = columns.window[e] * width + c;
                    const V mark = load<V>(rows[r].mark + at);  // rings have room beyond a row's end
                    const Hits<V> h =
                        kWant == Want::number
                            ? equal(mark, broadcast<V>(static_cast<T>(rows[r].number + columns.tap[e])))
                            : hits(here, mark);
                    sum = add_where(h, sum, load<V>(rows[r].g + at));
                }
            }
            store(dx + i * u + c0 + c, sum, tail);
        }
    }
}

}  // namespace
FASTCONV_END_ISA
