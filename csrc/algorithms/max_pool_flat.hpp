// The gradient of max pooling one axis at a time, channels first, ties "first", windows of depth one.
//
// As in max_pool_separable.hpp a window's first maximum lies in the first of its rows that holds the maximum, at that row's own
// first maximum. Lanes are neighbouring positions here: a plane is copied between columns of -inf and then read as one long run,
// so that a tap is a constant distance, full vectors cross the ends of rows, and what they compute there is met by a gradient of
// zero. Strides are phases: rows, and columns where the stride is two, lie in as many runs, and a tap stays a distance in one
// of them. All of a band is done before the next step, so that no vector is loaded across a store that has just been made.
// A maximum is found first and its place by comparing with it, which needs neither NaN nor -inf: a band that holds an infinity or
// a NaN is searched with care, to the same places.
//
// Before, planes were transposed until channels filled the lanes, and searched as in max_pool_separable.hpp: 96 planes of
// 55 x 55, 3x3 stride 2, took 240 us where this takes 126, 512 of 13 x 13, 5x5 stride 1, 147 beside 120.
#pragma once

#include "algorithms/max_pool_rows.hpp"

FASTCONV_BEGIN_ISA
namespace {

constexpr int64_t kFlatBytes = 128 << 10;  // of a band's runs
constexpr int64_t kTableOfFlat = 4096;     // taps of a row, of all phases

FASTCONV_INLINE int64_t up_to_multiple(int64_t a, int64_t b) {  // ceil(a / b), zero for a below zero
    return a <= 0 ? 0 : (a + b - 1) / b;
}

// The rows of a band that are `stride` apart, as they lie in the runs: rows of x first .. last - 1, of dx begin .. end - 1.
template <class T>
struct FlatPhase {
    int64_t first, last, begin, end;
    const T** from;              // of every tap of a row: where its first row of x lies
    CoverRow<T>*rows, *columns;  // what a row of sums is taken from, and a row of dx
    int64_t covers;              // of rows; of columns there are as many as taps
};

template <class T>
struct Flat {
    static constexpr int64_t L = kLanes<T>;
    int64_t high, wide;      // strides: phases of rows and of columns
    int64_t pitch, rows;     // of a phase of rows
    int64_t band;            // rows of dx
    int64_t windows, guard;  // rows of windows of a band, and rows without gradient before and after them
    int64_t shift;           // of the last tap of a row, at most
    T* x[2];
    T *best, *tap, *sum;  // of input rows
    T *choice, *g;        // of rows of windows
    T* lead;              // for a careful search
    FlatPhase<T>* phases;
    const T** from;  // of every tap of a column: where its first row of maxima lies
    // The band at hand, set by begin_band: rows of windows w0 .. w0 + n - 1; row j of a phase is number (base + j) * high + phase
    // of the padded plane; `used` rows of a phase lie in the band.
    int64_t r0 = -1, r1 = -1, w0 = 0, n = 0, base = 0, used = 0;

    __attribute__((noinline)) explicit Flat(const PoolShape& s) {
        high = s.stride[1];
        wide = s.stride[2];
        shift = (s.span(2) - 1) / wide;
        // a row's padding on the left serves the row before it on the right
        const int64_t reach = s.out[2] + shift - s.before[2] / wide,
                      row = (s.in[2] - 1 + s.before[2]) / wide + 1;
        pitch = reach > row ? reach : row;
        if (pitch < s.out[2]) pitch = s.out[2];
        // rows that begin with a cache line, where that leaves few lanes empty
        if (const int64_t lines = (pitch + L - 1) / L * L; 5 * lines <= 6 * pitch) pitch = lines;
        const int64_t span = s.span(1), height = s.in[1], each = 7 * pitch * static_cast<int64_t>(sizeof(T));
        const int64_t fit = kFlatBytes / each - 2 * span, most = fit > 4 * span ? fit : 4 * span;
        const int64_t bands = (height + most - 1) / most;
        band = (height + bands - 1) / bands;
        const int64_t last = (s.out[1] - 1) * high + span > height + s.before[1]
                                 ? (s.out[1] - 1) * high + span
                                 : height + s.before[1];
        const int64_t touched = band + 2 * span + 2 * high;
        rows = ((touched < last ? touched : last) + high - 1) / high;
        windows = (band + span) / high + 2;
        if (windows > s.out[1]) windows = s.out[1];
        guard = (span - 1) / high + 2;
    }
    int64_t row_of(int64_t phase, int64_t j) const { return (phase * rows + j) * pitch; }
    // Hands the scratch out; returns how many bytes it takes.
    __attribute__((noinline)) int64_t place(const PoolShape& s, void* scratch) {
        Pieces pieces(scratch);
        const int64_t ahead = (shift + L - 1) / L * L, run = ahead + high * rows * pitch + shift + 2 * L,
                      others = (windows + 2 * guard) * pitch + L;
        x[0] = pieces.take<T>(run);
        x[1] = wide == 2 ? pieces.take<T>(run) : nullptr;
        best = pieces.take<T>(run);
        tap = pieces.take<T>(run) + ahead;
        sum = pieces.take<T>(run) + ahead;
        choice = pieces.take<T>(others);
        g = pieces.take<T>(others);
        lead = pieces.take<T>(run > others ? run : others);
        const int64_t k = s.kernel[2];
        phases = pieces.take<FlatPhase<T>>(high);
        from = pieces.take<const T*>(s.kernel[1] + high * k);
        auto* const covers = pieces.take<CoverRow<T>>(high * (s.kernel[1] + k));
        if (scratch == nullptr) return pieces.bytes();
        for (int64_t phase = 0; phase < high; phase++) {
            phases[phase].from = from + s.kernel[1] + phase * k;
            phases[phase].rows = covers + phase * (s.kernel[1] + k);
            phases[phase].columns = phases[phase].rows + s.kernel[1];
        }
        fill(x[0], run, least<T>());
        if (wide == 2) fill(x[1], run, least<T>());
        fill(best, run, least<T>());
        fill(tap - ahead, run, T(0));
        fill(sum - ahead, run, T(0));
        fill(choice, others, T(0));
        fill(g, others, T(0));
        return pieces.bytes();
    }
    void begin_band(const PoolShape& s, int64_t begin, int64_t end);
};

inline bool is_flat(const PoolShape& s) {
    if (s.channels_last || s.kernel[0] != 1 || s.kernel[1] == 1 || s.kernel[2] == 1 || s.stride[2] > 2 ||
        (s.stride[2] == 2 && s.dilation[2] > 1) || s.stride[1] > s.span(1) ||
        s.stride[1] * s.kernel[2] > kTableOfFlat)
        return false;
    for (int a = 1; a < 3; a++) {
        if (s.in[a] - 1 + s.before[a] > s.out[a] * s.stride[a] + s.span(a)) return false;
        for (int64_t o = 0; o < s.out[a]; o++)
            if (taps_of(s, a, o).empty()) return false;
    }
    return true;
}

// Which of n runs holds the first maximum, at every place, and what it is. With `lead`, the first runs that may be it, among
// NaN and -inf too.
template <class T>
void first_maximum(const T* const* from, int64_t n, int64_t width, const T* lead, T* best, T* number) {
    using V = vec<T, kLanes<T>>;
    const auto search = [&](int64_t i, auto part) {
        Search<V, Want::number> search{broadcast<V>(least<T>()), load<V>(lead + i, part)};
        for (int64_t j = 0; j < n; j++)
            search.see(load<V>(from[j] + i, part), broadcast<V>(static_cast<T>(j)));
        if (best) store(best + i, search.best, part);
        store(number + i, search.number, part);
    };
    if (lead) return each_vector<V>(width, search);
    with_count<T>(n, [&](auto fixed) {
        constexpr int64_t kFixed = decltype(fixed)::value, kKept = kFixed > 0 ? kFixed : 1;
        const T* run[kKept];
        V numbers[kKept];
        for (int64_t j = 0; j < kFixed; j++) {
            run[j] = from[j];
            numbers[j] = broadcast<V>(static_cast<T>(j));
        }
        each_vector<V>(width, [&](int64_t i, auto part) {
            V m, place = broadcast<V>(static_cast<T>(n - 1));
            if constexpr (kFixed > 0) {
                V v[kFixed];
#pragma GCC unroll 5
                for (int64_t j = 0; j < kFixed; j++) v[j] = load<V>(run[j] + i, part);
                m = v[0];
#pragma GCC unroll 5
                for (int64_t j = 1; j < kFixed; j++) m = greater_of(m, v[j]);
#pragma GCC unroll 5
                for (int64_t j = kFixed - 2; j >= 0; j--) place = select(equal(v[j], m), numbers[j], place);
            } else {
                m = load<V>(from[0] + i, part);
                for (int64_t j = 1; j < n; j++) m = greater_of(m, load<V>(from[j] + i, part));
                for (int64_t j = n - 2; j >= 0; j--)
                    place =
                        select(equal(load<V>(from[j] + i, part), m), broadcast<V>(static_cast<T>(j)), place);
            }
            if (best) store(best + i, m, part);
            store(number + i, place, part);
        });
    });
}

// Rows of so many elements into runs `pitch` apart.
template <class T>
void lay_gradients(const T* from, int64_t width, int64_t rows, T* to, int64_t pitch) {
    using V = vec<T, kLanes<T>>;
    for (int64_t r = 0; r < rows; r++)
        each_vector<V>(width, [&](int64_t i, auto part) {
            store(to + r * pitch + i, load<V>(from + r * width + i, part), part);
        });
}

// Walks through the rows of a padded plane as they lie in the runs.
struct FlatWalk {
    int64_t high, step, row, phase, at;  // `step`: from one phase to the next; `at`: of the row

    template <class T>
    FlatWalk(const Flat<T>& f, int64_t q)
        : high(f.high),
          step(f.rows * f.pitch),
          row(f.pitch),
          phase(q % f.high),
          at(f.row_of(phase, q / f.high - f.base)) {}
    void next() {
        at += step;
        if (++phase == high) {
            phase = 0;
            at += row - high * step;
        }
    }
};

// Rows of a plane into the runs of x, from row q of the padded plane on; whether all are finite.
template <class T>
bool lay_rows(const PoolShape& s, const Flat<T>& f, const T* from, int64_t rows, int64_t q) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    const int64_t w = s.in[2], before = s.before[2];
    T* const even = f.x[before & (f.wide - 1)] + before / f.wide;
    T* const odd = f.x[(before + 1) & (f.wide - 1)] + (before + 1) / f.wide;
    FlatWalk to(f, q);
    const V zero{};
    V seen{}, also{};  // zero as long as all are finite
    if (f.wide == 1) {
        for (int64_t r = 0; r < rows; r++, from += w, to.next())
            each_vector<V>(w, [&](int64_t i, auto part) {
                const V v = load<V>(from + i, part);
                seen += v * zero;
                store(even + to.at + i, v, part);
            });
    } else {
        const int64_t whole = w / (2 * L) * (2 * L), left = w - whole;
        const auto low = upto<V>(left), high = upto<V>(left - L), evens = upto<V>((left + 1) / 2),
                   odds = upto<V>(left / 2);
        for (int64_t r = 0; r < rows; r++, from += w, to.next()) {
            for (int64_t i = 0; i < whole; i += 2 * L) {
                const V a = load<V>(from + i), b = load<V>(from + i + L);
                seen += a * zero;
                also += b * zero;
                store(even + to.at + i / 2, even_lanes(a, b));
                store(odd + to.at + i / 2, odd_lanes(a, b));
            }
            if (left == 0) continue;
            const V a = load<V>(from + whole, low), b = load<V>(from + whole + L, high);
            seen += a * zero;
            also += b * zero;
            store(even + to.at + whole / 2, even_lanes(a, b), evens);
            store(odd + to.at + whole / 2, odd_lanes(a, b), odds);
        }
    }
    return bits_of(equal(seen + also, zero)) == (uint64_t{1} << L) - 1;
}

// What a vector of places of one phase of the columns takes: at stride two every other tap may lie there.
template <class T, int kPhase, int kFixed>
FASTCONV_INLINE vec<T, kLanes<T>> gather_phase(const T* tap, const T* sum, int64_t k,
                                               const vec<T, kLanes<T>>* numbers) {
    using V = vec<T, kLanes<T>>;
    V total{};
    if constexpr (kFixed > 0) {
#pragma GCC unroll 3
        for (int j = 0; j < (kFixed + 1 - kPhase) / 2; j++)
            total = add_where(equal(load<V>(tap - j), numbers[2 * j + kPhase]), total, load<V>(sum - j));
    } else {
        V number = broadcast<V>(T(kPhase));
        for (int64_t j = 0; 2 * j + kPhase < k; j++, number += broadcast<V>(T(2)))
            total = add_where(equal(load<V>(tap - j), number), total, load<V>(sum - j));
    }
    return total;
}

// Rows of dx from row q of the padded plane on: stride two.
template <class T>
void gather_pairs(const PoolShape& s, const Flat<T>& f, int64_t rows, int64_t q, T* dx) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    const int64_t w = s.in[2], before = s.before[2], k = s.kernel[2];
    const bool turned = (before & 1) != 0;
    const int64_t at[2] = {(before + turned) / 2, (before + !turned) / 2};
    FlatWalk from(f, q);
    const int64_t whole = w / (2 * L) * (2 * L), left = w - whole;
    const auto low = upto<V>(left), high = upto<V>(left - L);
    with_count<T>(k, [&](auto fixed) {
        constexpr int kFixed = decltype(fixed)::value;
        V numbers[kFixed > 0 ? kFixed : 1];
        for (int j = 0; j < kFixed; j++) numbers[j] = broadcast<V>(static_cast<T>(j));
        for (int64_t r = 0; r < rows; r++, dx += w, from.next()) {
            const T *const tap = f.tap + from.at, *const sum = f.sum + from.at;
            const auto block = [&](int64_t i, auto first, auto second, bool both) {
                const int64_t m0 = at[0] + i / 2, m1 = at[1] + i / 2;
                V a = gather_phase<T, 0, kFixed>(tap + m0, sum + m0, k, numbers);
                V b = gather_phase<T, 1, kFixed>(tap + m1, sum + m1, k, numbers);
                if (turned) {
                    const V c = a;
                    a = b;
                    b = c;
                }
                store(dx + i, interleave_low(a, b), first);
                if (both) store(dx + i + L, interleave_high(a, b), second);
            };
            for (int64_t i = 0; i < whole; i += 2 * L) block(i, Whole(), Whole(), true);
            if (left > 0) block(whole, low, high, left > L);
        }
    });
}

// Makes rows begin .. end - 1 of dx, at most a band of them, the band at hand.
template <class T>
void Flat<T>::begin_band(const PoolShape& s, int64_t begin, int64_t end) {
    if (begin == r0 && end == r1) return;
    const bool again = r0 >= 0;
    r0 = begin;
    r1 = end;
    const int64_t before = s.before[1], d1 = s.dilation[1], d2 = s.dilation[2], span = s.span(1);
    const int64_t q0 = r0 + before, q1 = r1 - 1 + before;
    w0 = q0 < span ? 0 : (q0 - span) / high + 1;
    n = (q1 / high < s.out[1] ? q1 / high + 1 : s.out[1]) - w0;
    if (n <= 0) return;
    base = w0 < q0 / high ? w0 : q0 / high;
    const int64_t last = (w0 + n - 1) * high + span - 1;
    used = (last > q1 ? last : q1) / high - base + 1;
    if (again) {
        fill(best, high * rows * pitch, least<T>());
        fill(g, (windows + 2 * guard) * pitch, T(0));
    }
    for (int64_t i = 0; i < s.kernel[1]; i++)
        from[i] = best + (i * d1 % high * rows + w0 - base + i * d1 / high) * pitch;
    for (int64_t phase = 0; phase < high; phase++) {
        FlatPhase<T>& f = phases[phase];
        // rows of the phase from the first at or past a padded position on
        const auto first_of = [&](int64_t q) {
            const int64_t j = up_to_multiple(q - phase, high) - base;
            return j < 0 ? 0 : j < used ? j : used;
        };
        f.first = first_of(before);
        f.last = first_of(before + s.in[1]);
        f.begin = first_of(q0);
        f.end = first_of(q1 + 1);
        f.covers = 0;
        for (int64_t i = 0; i < s.kernel[1]; i++) {
            if (i * d1 % high != phase) continue;
            const int64_t at = (guard + base + f.begin - i * d1 / high - w0) * pitch;
            f.rows[f.covers++] = {choice + at, g + at, i, 0};
        }
        for (int64_t j = 0; j < s.kernel[2]; j++) {
            f.from[j] = x[j * d2 % wide] + row_of(phase, f.first) + j * d2 / wide;
            const int64_t at = row_of(phase, f.begin) + s.before[2] - j * d2;
            f.columns[j] = {tap + at, sum + at, j, 0};
        }
    }
}

// The band at hand of one plane.
template <class T>
void flat_band(const PoolShape& s, const Flat<T>& f, const T* x, const T* dy, T* dx) {
    const int64_t w = s.in[2], high = f.high, pitch = f.pitch;
    if (f.n <= 0) return fill(dx + f.r0 * w, (f.r1 - f.r0) * w, T(0));
    // rows of x that lie in the band
    const int64_t before = s.before[1], low = f.base * high - before, y0 = low > 0 ? low : 0;
    const int64_t end = low + f.used * high, y1 = end < s.in[1] ? end : s.in[1];
    const bool finite = lay_rows(s, f, x + y0 * w, y1 - y0, y0 + before);
    for (int64_t phase = 0; phase < high; phase++) {
        const FlatPhase<T>& p = f.phases[phase];
        const int64_t at = f.row_of(phase, p.first), count = p.last - p.first;
        for (int64_t r = 0; !finite && r < count; r++)
            for (int64_t o = 0; o < s.out[2]; o++)
                f.lead[r * pitch + o] = static_cast<T>(taps_of(s, 2, o).first);
        first_maximum<T>(p.from, s.kernel[2], count * pitch, finite ? nullptr : f.lead, f.best + at,
                         f.tap + at);
    }
    for (int64_t o = 0; !finite && o < f.n; o++)
        fill(f.lead + o * pitch, pitch, static_cast<T>(taps_of(s, 1, f.w0 + o).first));
    first_maximum<T>(f.from, s.kernel[1], f.n * pitch, finite ? nullptr : f.lead, nullptr,
                     f.choice + f.guard * pitch);
    lay_gradients(dy + f.w0 * s.out[2], s.out[2], f.n, f.g + f.guard * pitch, pitch);
    for (int64_t phase = 0; phase < high; phase++) {
        const FlatPhase<T>& p = f.phases[phase];
        const int64_t at = f.row_of(phase, p.begin), count = p.end - p.begin;
        take_chosen(p.rows, p.covers, 1, count * pitch, 0, 0, 0, f.sum + at);
        if (f.wide == 1)
            take_chosen(p.columns, s.kernel[2], count, w, pitch, pitch, high * w,
                        dx + ((f.base + p.begin) * high + phase - before) * w);
    }
    if (f.wide == 2) gather_pairs(s, f, f.r1 - f.r0, f.r0 + before, dx + f.r0 * w);
}

template <class T>
void backward_flat(const PoolShape& s, const T* dy, const T* x, T* dx, const PoolPart& part, void* scratch) {
    Flat<T> f(s);
    f.place(s, scratch);
    const int64_t h = s.in[1], plane = h * s.in[2];
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        for (int64_t id = part.row0 / h; id * h < part.row1; id++) {
            const int64_t r0 = part.row0 > id * h ? part.row0 - id * h : 0;
            const int64_t r1 = part.row1 - id * h < h ? part.row1 - id * h : h;
            const int64_t q = id + s.before[0], od = q / s.stride[0], at = slab * s.in_volume() + id * plane;
            if (q % s.stride[0] != 0 || od >= s.out[0]) {
                fill(dx + at + r0 * s.in[2], (r1 - r0) * s.in[2], T(0));
                continue;
            }
            const T* const g = dy + slab * s.out_volume() + od * s.out[1] * s.out[2];
            for (int64_t r = r0; r < r1; r += f.band) {
                f.begin_band(s, r, r1 - r < f.band ? r1 : r + f.band);
                flat_band(s, f, x + at, g, dx + at);
            }
        }
    }
}

}  // namespace
FASTCONV_END_ISA
