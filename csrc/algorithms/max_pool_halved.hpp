// The gradient of max pooling with windows of 3 x 3 at a stride of two, channels first, ties "first", windows of depth one.
//
// The one overlapping pooling that nearly every network with a stem has. Lanes are neighbouring windows: even and odd columns of
// three rows are searched in registers, and what each of the nine taps gets lies in the lane of its column or of the next one.
// Odd rows of dx (counted with the padding) meet one row of windows and are written at once; what an even one gets from the
// windows above waits in a run that stays in the first-level cache. By the runs of max_pool_flat.hpp, beside: 96 planes of
// 55 x 55 132 us, here 85; 64 of 112 x 112 510 and 280; 8 images of those 8.4 ms and 2.7, one thread.
#pragma once

#include "algorithms/max_pool_rows.hpp"

FASTCONV_BEGIN_ISA
namespace {

// float32 only, for the size of the code; vectors of four lanes gain nothing.
template <class T>
constexpr bool kHalves = kVectorBytes >= 32 && sizeof(T) == 4;

inline bool is_halved(const PoolShape& s) {
    if (s.channels_last || s.kernel[0] != 1) return false;
    for (int a = 1; a < 3; a++)
        if (s.kernel[a] != 3 || s.stride[a] != 2 || s.dilation[a] != 1 || s.before[a] > 1 ||
            (s.out[a] - 1) * 2 - s.before[a] >= s.in[a])
            return false;
    return true;
}

// The maxima of three neighbours in a row, and the windows whose first maximum is their second one, unless it is the third.
template <class V>
struct Thirds {
    V best;
    Hits<V> second, third;
};

// What is the same for all rows of windows: where blocks of them lie inside the rows of x, and what of the others does.
template <class T>
struct Halved {
    using V = vec<T, kLanes<T>>;
    static constexpr int L = lanes_of<V>;
    struct Edge {
        int64_t i;  // the first window
        Range<V> range[4];
        Hits<V> outside;  // windows whose first column is padding
    };
    int64_t w, before, windows, pairs;
    int64_t begin, end;  // whole blocks
    int edges = 0;
    Edge edge[3];
    T *carry, *none;  // what even rows of dx get from the windows above; a row of -inf
    Thirds<V>* kept;  // of the last row of x, which is the first of the next windows

    __attribute__((noinline)) explicit Halved(const PoolShape& s)
        : w(s.in[2]), before(s.before[2]), windows(s.out[2]), pairs((s.in[2] + s.before[2] + 1) / 2) {
        begin = end = before > 0 ? L : 0;
        while (2 * end - before + 2 * L + 2 <= w) end += L;
        if (before > 0) add_edge(0);
        for (int64_t i = end; i < pairs; i += L) add_edge(i);
    }
    __attribute__((noinline)) void add_edge(int64_t i) {
        Edge& e = edge[edges++];
        const int64_t q = 2 * i - before;
        V left{};
        left[0] = q < 0 ? T(1) : T(0);
        e.i = i;
        e.outside = greater(left, V{});
        for (int v = 0; v < 4; v++) e.range[v] = range_of<V>(q + v / 2 * L + v % 2 * 2, w);
    }
    // Hands the scratch out; returns how many bytes it takes.
    int64_t place(void* scratch) {
        Pieces pieces(scratch);
        kept = pieces.take<Thirds<V>>((pairs + L - 1) / L);
        carry = pieces.take<T>(2 * (pairs + L));
        none = pieces.take<T>(w);
        return pieces.bytes();
    }
};

// A row of windows; null rows of dx are not written.
template <class T>
struct HalvedRow {
    const T *x[3], *dy;
    T *even_row, *odd_row;  // of dx
    bool top;               // x[0] is padding
};

template <class T, bool kInside>
FASTCONV_INLINE Thirds<vec<T, kLanes<T>>> search_thirds(const T* p, const typename Halved<T>::Edge* edge) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    const V none = broadcast<V>(least<T>());
    const auto read = [&](int v) {
        const T* const at = p + v / 2 * L + v % 2 * 2;
        return kInside ? load<V>(at) : load(at, edge->range[v], none);
    };
    const V a = read(0), b = read(2), first = even_lanes(a, b), second = odd_lanes(a, b),
            third = even_lanes(read(1), read(3));
    Thirds<V> found;
    found.second = greater(second, first);
    if (!kInside) found.second = either(found.second, edge->outside);
    found.best = select(found.second, second, first);
    found.third = greater(third, found.best);
    found.best = select(found.third, third, found.best);
    return found;
}

template <class T, bool kInside>
FASTCONV_INLINE void halved_block(const Halved<T>& h, const HalvedRow<T>& r, int64_t i,
                                  const typename Halved<T>::Edge* edge, vec<T, kLanes<T>> (&last)[3]) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    using All = typename MakeLanes<L>::type;
    const V zero{};
    const int64_t q = 2 * i - h.before;
    const Thirds<V> row[3] = {h.kept[i / L], search_thirds<T, kInside>(r.x[1] + q, edge),
                              search_thirds<T, kInside>(r.x[2] + q, edge)};
    h.kept[i / L] = row[2];
    Hits<V> second = greater(row[1].best, row[0].best);
    if (r.top) second = equal(zero, zero);
    const Hits<V> third = greater(row[2].best, select(second, row[1].best, row[0].best));
    const V g = load<V>(r.dy + i, upto<V>(h.windows - i)), others = select(third, zero, g);
    const V share[3] = {select(second, zero, others), select(second, others, zero), select(third, g, zero)};
    V even[3], odd[3];
#pragma GCC unroll 3
    for (int k = 0; k < 3; k++) {
        const V right = select(row[k].third, share[k], zero), rest = select(row[k].third, zero, share[k]);
        odd[k] = select(row[k].second, rest, zero);
        even[k] = select(row[k].second, zero, rest) + every<1, L - 1>(last[k], right, All());
        last[k] = right;
    }
    even[0] += load<V>(h.carry + 2 * i);
    odd[0] += load<V>(h.carry + 2 * i + L);
    store(h.carry + 2 * i, even[2]);
    store(h.carry + 2 * i + L, odd[2]);
    const auto write = [&](T* to, V a, V b) {
        if (to == nullptr) return;
        if (kInside) {
            store(to + q, interleave_low(a, b));
            store(to + q + L, interleave_high(a, b));
        } else {
            store(to + q, interleave_low(a, b), edge->range[0]);
            store(to + q + L, interleave_high(a, b), edge->range[2]);
        }
    };
    write(r.even_row, even[0], odd[0]);
    write(r.odd_row, even[1], odd[1]);
}

template <class T>
void halved_windows(const Halved<T>& h, const HalvedRow<T>& r) {
    using V = vec<T, kLanes<T>>;
    V last[3] = {V{}, V{}, V{}};
    const typename Halved<T>::Edge* edge = h.edge;
    for (int64_t i = 0; i < h.pairs; i += lanes_of<V>) {
        if (i >= h.begin && i < h.end)
            halved_block<T, true>(h, r, i, nullptr, last);
        else
            halved_block<T, false>(h, r, i, edge++, last);
    }
}

// Before the first row of windows of a band: what its first row of x holds, and nothing from windows above.
template <class T>
__attribute__((noinline)) void begin_halved(const Halved<T>& h, const T* x) {
    constexpr int L = kLanes<T>;
    fill(h.carry, 2 * (h.pairs + L), T(0));
    const T* const from = x - h.before;
    for (int64_t i = h.begin; i < h.end; i += L)
        h.kept[i / L] = search_thirds<T, true>(from + 2 * i, nullptr);
    for (const auto* e = h.edge; e < h.edge + h.edges; e++)
        h.kept[e->i / L] = search_thirds<T, false>(from + 2 * e->i, e);
}

// What the last row of windows leaves.
template <class T>
__attribute__((noinline)) void write_carry(const Halved<T>& h, T* row) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    for (int64_t i = 0; i < h.pairs; i += L) {
        const V a = load<V>(h.carry + 2 * i), b = load<V>(h.carry + 2 * i + L);
        const int64_t q = 2 * i - h.before;
        store(row + q, interleave_low(a, b), range_of<V>(q, h.w));
        store(row + q + L, interleave_high(a, b), range_of<V>(q + L, h.w));
    }
}

// Rows r0 .. r1 - 1 of a plane of dx; `windows` rows of windows, none where no window lies on the plane.
template <class T>
void halved_rows(const PoolShape& s, const Halved<T>& plan, const T* x, const T* dy, T* dx, int64_t r0,
                 int64_t r1, int64_t windows) {
    const int64_t w = s.in[2], h = s.in[1], before = s.before[1];
    const auto row_of = [&](int64_t r) { return r >= r0 && r < r1 ? dx + r * w : nullptr; };
    int64_t o = r0 + before < 2 ? 0 : (r0 + before - 1) / 2;  // the first that reaches row r0
    for (bool first = true; 2 * o - before < r1; o++) {
        const int64_t r = 2 * o - before;
        T *const even = row_of(r), *const odd = row_of(r + 1);
        if (o < windows) {
            const auto from = [&](int64_t i) { return i >= 0 && i < h ? x + i * w : plan.none; };
            if (first) begin_halved(plan, from(r));
            halved_windows(
                plan, HalvedRow<T>{{from(r), from(r + 1), from(r + 2)}, dy + o * s.out[2], even, odd, r < 0});
            first = false;
            continue;
        }
        if (even != nullptr && !first && o == windows)
            write_carry(plan, even);
        else if (even != nullptr)
            fill(even, w, T(0));
        if (odd != nullptr) fill(odd, w, T(0));
    }
}

template <class T>
void backward_halved(const PoolShape& s, const T* dy, const T* x, T* dx, const PoolPart& part,
                     void* scratch) {
    Halved<T> plan(s);
    plan.place(scratch);
    fill(plan.none, s.in[2], least<T>());
    const int64_t h = s.in[1];
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        for (int64_t id = part.row0 / h; id * h < part.row1; id++) {
            const int64_t r0 = part.row0 > id * h ? part.row0 - id * h : 0;
            const int64_t r1 = part.row1 - id * h < h ? part.row1 - id * h : h;
            const int64_t p = id + s.before[0], od = p / s.stride[0];
            const int64_t at = slab * s.in_volume() + id * h * s.in[2];
            const bool none = p % s.stride[0] != 0 || od >= s.out[0];
            const T* const g = dy + slab * s.out_volume() + (none ? 0 : od * s.out[1] * s.out[2]);
            halved_rows(s, plan, x + at, g, dx + at, r0, r1, none ? 0 : s.out[1]);
        }
    }
}

}  // namespace
FASTCONV_END_ISA
