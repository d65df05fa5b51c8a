// The gradient of max pooling over windows that do not overlap, channels last, ties "first", windows of depth one: every input
// belongs to one window or none, so a window is searched and its taps are written at once, in one pass over memory.
#pragma once

#include "algorithms/max_pool_rows.hpp"

FASTCONV_BEGIN_ISA
namespace {

inline bool is_apart(const PoolShape& s) {
    return s.channels_last && s.kernel[0] == 1 && s.stride[1] >= s.span(1) && s.stride[2] >= s.span(2) &&
           s.dilation[1] == 1 && s.dilation[2] == 1;
}

// One window of `deep` x `wide` inputs whose first is at x; rows low .. high - 1 of dx are written. kDeep and kWide, where not
// zero, say that all of the window is there.
template <class T, int kDeep, int kWide>
FASTCONV_INLINE void apart_window(const T* x, T* dx, const T* g, int64_t row, int64_t pixel, int64_t deep,
                                  int64_t wide, int64_t low, int64_t high, int64_t width) {
    using V = vec<T, kLanes<T>>;
    constexpr bool kWhole = kDeep > 0;
    for (int64_t c = 0; c < width; c += lanes_of<V>) {
        const auto part = upto<V>(width - c);
        const V share = load<V>(g + c, part), one = broadcast<V>(T(1));
        Search<V, Want::number> search{load<V>(x + c, part), V{}};
        V number{};
#pragma GCC unroll 2
        for (int64_t a = 0; a < (kWhole ? kDeep : deep); a++)
#pragma GCC unroll 2
            for (int64_t b = 0; b < (kWhole ? kWide : wide); b++) {
                if (a + b > 0) search.see(load<V>(x + a * row + b * pixel + c, part), number);
                number += one;
            }
#pragma GCC unroll 2
        for (int64_t a = kWhole ? 0 : low; a < (kWhole ? kDeep : high); a++) {
            V tap = broadcast<V>(static_cast<T>(a * (kWhole ? kWide : wide)));
#pragma GCC unroll 2
            for (int64_t b = 0; b < (kWhole ? kWide : wide); b++) {
                store(dx + a * row + b * pixel + c, select(equal(search.number, tap), share, V{}), part);
                tap += one;
            }
        }
    }
}

template <class T>
void backward_apart(const PoolShape& s, const T* dy, const T* x, T* dx, const PoolPart& part) {
    const int64_t u = s.channels, row = s.in[2] * u, width = part.c1 - part.c0, h = s.in[1];
    const auto zeros = [&](T* to, int64_t begin, int64_t end) {  // of pixels of a row
        if (width == u) return fill(to + begin * u, (end - begin) * u, T(0));
        for (int64_t i = begin; i < end; i++) fill(to + i * u, width, T(0));
    };
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        for (int64_t at = part.row0; at < part.row1;) {
            const int64_t id = at / h, ih = at % h, limit = part.row1 - id * h < h ? part.row1 - id * h : h;
            const int64_t p = id + s.before[0], od = p / s.stride[0], q = ih + s.before[1],
                          oh = q / s.stride[1];
            const int64_t plane = (slab * s.in[0] + id) * h;
            const Taps th = taps_of(s, 1, oh);
            const int64_t top = th.start + th.first,
                          bottom = th.start + th.last;  // rows of the window that lie inside
            if (p % s.stride[0] != 0 || od >= s.out[0] || oh >= s.out[1] || ih >= bottom) {
                zeros(dx + (plane + ih) * row + part.c0, 0, s.in[2]);
                at++;
                continue;
            }
            const int64_t end = bottom < limit ? bottom : limit, deep = bottom - top;
            const T* const g = dy + ((slab * s.out[0] + od) * s.out[1] + oh) * s.out[2] * u + part.c0;
            const T* const from = x + (plane + top) * row + part.c0;
            T* const to = dx + (plane + top) * row + part.c0;
            int64_t done = 0;  // columns written
            for (int64_t o = 0; o < s.out[2]; o++) {
                const Taps tw = taps_of(s, 2, o);
                if (tw.empty()) continue;
                const int64_t left = tw.start + tw.first, wide = tw.last - tw.first;
                for (int64_t i = ih; done < left && i < end; i++) zeros(to + (i - top) * row, done, left);
                if (deep == 2 && wide == 2 && ih == top && end == bottom)
                    apart_window<T, 2, 2>(from + left * u, to + left * u, g + o * u, row, u, 2, 2, 0, 2,
                                          width);
                else
                    apart_window<T, 0, 0>(from + left * u, to + left * u, g + o * u, row, u, deep, wide,
                                          ih - top, end - top, width);
                done = left + wide;
            }
            for (int64_t i = ih; done < s.in[2] && i < end; i++) zeros(to + (i - top) * row, done, s.in[2]);
            at += end - ih;
        }
    }
}

}  // namespace
FASTCONV_END_ISA
