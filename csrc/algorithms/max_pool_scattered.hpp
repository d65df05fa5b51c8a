// The gradient of max pooling over windows of any sizes (adaptive pooling), one window after another: its maxima are found and
// what they get is added to dx at once. Lanes are channels; a task has whole planes, so that no two write to one place.
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

}  // namespace
FASTCONV_END_ISA
