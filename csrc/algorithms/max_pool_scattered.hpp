// The gradient of max pooling over windows of any sizes (adaptive pooling), one window after another: its maxima
// are found and what they get is added to dx at once.
//
// Channels last, lanes are channels; a task has whole planes, so that no two write to one place. Channels first, lanes are what
// lies beside each other in a window: each keeps its first maximum, then the first of the greatest is taken. That has no branch
// to be guessed, so that windows overlap; one costs some 18 ns and 1.7 a row. 64 planes of 56 x 56 to 5 x 5: turned so that planes
// are lanes 115 us, here 64; 256 of 13 x 13 25 and 40.
#pragma once

#include "algorithms/max_pool_rows.hpp"

FASTCONV_BEGIN_ISA
namespace {

template <class T>
void backward_scattered(const PoolShape& s, Ties ties, const T* dy, const T* x, T* dx, const PoolPart& part) {
    using V = vec<T, kLanes<T>>;
    const int64_t u = s.unit(), width = part.c1 - part.c0;
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        const T* const from = x + slab * s.in_volume() * u + part.c0;
        T* const to = dx + slab * s.in_volume() * u + part.c0;
        for (int64_t i = 0; i < s.in_volume(); i++) fill(to + i * u, width, T(0));
        for (int64_t o = 0; o < s.out_volume(); o++) {
            const Taps d = taps_of(s, 0, o / s.out[2] / s.out[1]), h = taps_of(s, 1, o / s.out[2] % s.out[1]),
                       w = taps_of(s, 2, o % s.out[2]);
            const auto each_tap = [&](auto use) {
                for (int64_t a = d.first; a < d.last; a++)
                    for (int64_t b = h.first; b < h.last; b++)
                        for (int64_t j = w.first; j < w.last; j++)
                            use((((d.start + a) * s.in[1] + h.start + b) * s.in[2] + w.start + j) * u);
            };
            const T* const g = dy + (slab * s.out_volume() + o) * u + part.c0;
            each_vector<V>(width, [&](int64_t c, auto lanes) {
                const V one = broadcast<V>(T(1));
                V share = load<V>(g + c, lanes), number{};
                Search<V, Want::number> search{broadcast<V>(least<T>()), V{}};
                each_tap([&](int64_t at) {
                    search.see(load<V>(from + at + c, lanes), number);
                    number += one;
                });
                if (ties == Ties::split) {
                    V many{};
                    each_tap([&](int64_t at) {
                        many = add_where(hits(load<V>(from + at + c, lanes), search.best), many, one);
                    });
                    share = share / many;
                }
                number = V{};
                each_tap([&](int64_t at) {
                    const Hits<V> hit = ties == Ties::first
                                            ? equal(number, search.number)
                                            : hits(load<V>(from + at + c, lanes), search.best);
                    store(to + at + c, add_where(hit, load<V>(to + at + c, lanes), share), lanes);
                    number += one;
                });
            });
        }
    }
}

struct MinOp {
    template <class V>
    static FASTCONV_INLINE V apply(V a, V x) {
        return a < x ? a : x;
    }
};

// Where the first maximum of planes * rows runs of `wide` values stands that are so far apart: its row and its place there. All
// must number fewer than a T counts.
template <class T>
FASTCONV_INLINE void first_place(const T* p, int64_t planes, int64_t plane, int64_t rows, int64_t pitch,
                                 int64_t wide, int64_t& row, int64_t& place) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = lanes_of<V>;
    const int64_t whole = wide / L * L, room = wide > whole ? whole + L : whole;
    const auto rest = range_of<V>(0, wide - whole);
    const V none = broadcast<V>(least<T>()), step = broadcast<V>(T(L));
    T lanes[L];
    for (int l = 0; l < L; l++) lanes[l] = static_cast<T>(l);
    V number = load<V>(lanes);  // lanes that came before
    Search<V, Want::number> search{none, number};
    for (int64_t a = 0; a < planes; a++)
        for (int64_t r = 0; r < rows; r++) {
            const T* const from = p + a * plane + r * pitch;
            for (int64_t i = 0; i < whole; i += L, number += step) search.see(load<V>(from + i), number);
            if (room > whole) {
                search.see(load(from + whole, rest, none), number);
                number += step;
            }
        }
    const V most = broadcast<V>(combine_lanes<MaxOp>(search.best)),
            far = broadcast<V>(static_cast<T>(1 << 30));
    const auto first =
        static_cast<int64_t>(combine_lanes<MinOp>(select(hits(search.best, most), search.number, far)));
    row = first / room;
    place = first - row * room;
}

template <class T>
bool has_places(const PoolShape& s) {
    constexpr int64_t L = kLanes<T>;
    return s.adaptive && !s.channels_last &&
           s.kernel[0] * s.kernel[1] * ((s.kernel[2] + L - 1) / L * L) < int64_t{1} << 24;
}

// The windows of an axis one after another, without a division for each.
struct Windows {
    int64_t size, count, step, rest, begin = 0, over = 0;
    Windows(const PoolShape& s, int axis)
        : size(s.in[axis]), count(s.out[axis]), step(size / count), rest(size % count) {}
    int64_t length() const { return step + (over + rest > 0) + (over + rest > count); }
    void next() {
        begin += step;
        over += rest;
        if (over < count) return;
        over -= count;
        begin++;
    }
};

template <class T>
void backward_places(const PoolShape& s, const T* dy, const T* x, T* dx, const PoolPart& part) {
    const int64_t w = s.in[2], plane = s.in[1] * w;
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        const T* const from = x + slab * s.in_volume();
        const T* g = dy + slab * s.out_volume();
        T* const to = dx + slab * s.in_volume();
        fill(to, s.in_volume(), T(0));
        Windows d(s, 0);
        for (int64_t od = 0; od < s.out[0]; od++, d.next()) {
            Windows h(s, 1);
            for (int64_t oh = 0; oh < s.out[1]; oh++, h.next()) {
                Windows along(s, 2);
                for (int64_t ow = 0; ow < s.out[2]; ow++, along.next()) {
                    const int64_t at = d.begin * plane + h.begin * w + along.begin, rows = h.length();
                    int64_t row = 0, place = 0;
                    first_place(from + at, d.length(), plane, rows, w, along.length(), row, place);
                    to[at + row / rows * plane + row % rows * w + place] += *g++;
                }
            }
        }
    }
}

}  // namespace
FASTCONV_END_ISA
