// The gradient of max pooling one axis at a time, channels last, ties "first", windows of depth one.
//
// The first maximum of a window in row-major order lies in the first of its rows that holds the maximum, at that row's own first
// maximum. So each input row is searched once along the width (maximum and tap, for every window position), and each row of
// windows searches only its rows' maxima: kh + kw steps instead of kh * kw. Gradients go back the same way: a row of windows
// hands each value to the chosen input row, and there the chosen column takes the sum.
//
// Lanes are channels. Rows live in rings that stay in L2: maximum and tap of the input rows, chosen rows of the windows. Narrower
// blocks of channels that would stay in L1 were twice as slow: they leave most of every page unread.
#pragma once

#include "algorithms/max_pool_rows.hpp"

FASTCONV_BEGIN_ISA
namespace {

constexpr int64_t kRingBytes = 1 << 20;  // of one block of channels

template <class T>
struct Separable {
    static constexpr int64_t L = kLanes<T>;
    int64_t block;           // channels of a block
    int64_t length;          // elements of a row of windows
    int64_t h_rows, w_rows;  // input rows and rows of windows alive at once
    T *best, *tap, *choice;  // rings: of input rows, of input rows, of rows of windows
    T* sum;
    // For each column the windows and taps that lie on it, from cover_begin[i] to cover_begin[i + 1].
    int64_t *cover_begin, *cover_from;
    T* cover_tap;
    TapRow<T>* rows;
    CoverRow<T>* cover;

    __attribute__((noinline)) explicit Separable(const PoolShape& s) {
        const int64_t span = s.span(1), windows = (span - 1) / s.stride[1] + 2;
        h_rows = span + 1 < s.in[1] ? span + 1 : s.in[1];
        w_rows = windows < s.out[1] ? windows : s.out[1];
        const int64_t each = (2 * h_rows + w_rows + 1) * s.out[2] * static_cast<int64_t>(sizeof(T));
        const int64_t fit = kRingBytes / (each * L), all = (s.channels + L - 1) / L;
        const int64_t vectors = fit < 1 ? 1 : fit < all ? fit : all, parts = (all + vectors - 1) / vectors;
        block = parts == 1 ? s.channels : (all + parts - 1) / parts * L;
        length = s.out[2] * block;
    }
    // Hands the scratch out; returns how many bytes it takes.
    __attribute__((noinline)) int64_t place(const PoolShape& s, void* scratch) {
        Pieces pieces(scratch);
        const int64_t most = s.out[2] * (s.kernel[2] < s.in[2] ? s.kernel[2] : s.in[2]);
        best = pieces.take<T>(h_rows * length);
        tap = pieces.take<T>(h_rows * length);
        choice = pieces.take<T>(w_rows * length);
        sum = pieces.take<T>(length);
        rows = pieces.take<TapRow<T>>(s.kernel[1] < s.in[1] ? s.kernel[1] : s.in[1]);
        cover = pieces.take<CoverRow<T>>(w_rows);
        cover_begin = pieces.take<int64_t>(s.in[2] + 1);
        cover_from = pieces.take<int64_t>(most);
        cover_tap = pieces.take<T>(most);
        return pieces.bytes();
    }
    void cover_columns(const PoolShape& s) {
        for (int64_t i = 0; i <= s.in[2]; i++) cover_begin[i] = 0;
        const auto each = [&](auto use) {
            for (int64_t o = 0; o < s.out[2]; o++) {
                const Taps tw = taps_of(s, 2, o);
                for (int64_t j = tw.first; j < tw.last; j++) use(tw.start + j * s.dilation[2], o, j);
            }
        };
        each([&](int64_t i, int64_t, int64_t) { cover_begin[i + 1]++; });
        for (int64_t i = 0; i < s.in[2]; i++) cover_begin[i + 1] += cover_begin[i];
        each([&](int64_t i, int64_t o, int64_t j) {
            cover_from[cover_begin[i]] = o * block;
            cover_tap[cover_begin[i]++] = static_cast<T>(j);
        });
        for (int64_t i = s.in[2]; i > 0; i--) cover_begin[i] = cover_begin[i - 1];
        cover_begin[0] = 0;
    }
};

inline bool is_separable(const PoolShape& s) {
    return s.channels_last && s.kernel[0] == 1 && s.kernel[1] > 1 && s.kernel[2] > 1;
}

// Maximum and first tap of `windows` windows along a row of pixels, of n taps each from tap `first` on; `x` is the first one's.
template <class T>
FASTCONV_INLINE void search_alike(const T* x, int64_t step, int64_t next, int64_t first, int64_t n,
                                  int64_t windows, int64_t width, int64_t block, T* best, T* tap) {
    using V = vec<T, kLanes<T>>;
    const V lead = broadcast<V>(n == 0 ? T(-1) : static_cast<T>(first)), one = broadcast<V>(T(1));
    with_count<T>(n, [&](auto fixed) {
        constexpr int64_t kFixed = decltype(fixed)::value;
        const int64_t count = kFixed > 0 ? kFixed : n;
        for (int64_t o = 0; o < windows; o++) {
            each_vector<V>(width, [&](int64_t c, auto part) {
                // a search begins with -inf, so that a first NaN wins and a first -inf keeps the first tap
                Search<V, Want::number> search{broadcast<V>(least<T>()), lead};
                V number = lead;
                const T* p = x + o * next + c;
#pragma GCC unroll 5
                for (int64_t j = 0; j < count; j++, p += step, number += one)
                    search.see(load<V>(p, part), number);
                store(best + o * block + c, search.best, part);
                store(tap + o * block + c, search.number, part);
            });
        }
    });
}

// All windows along a row of pixels that are `pixel` apart.
template <class T>
void search_columns(const PoolShape& s, const T* x, int64_t pixel, int64_t width, int64_t block, T* best,
                    T* tap) {
    const int64_t step = s.dilation[2] * pixel, stride = s.stride[2],
                  room = s.in[2] + s.before[2] - s.span(2);
    // windows low .. high - 1 lie inside
    int64_t low = (s.before[2] + stride - 1) / stride, high = room < 0 ? 0 : room / stride + 1;
    if (high > s.out[2]) high = s.out[2];
    if (low > high) low = high;
    for (int64_t o = 0; o < s.out[2];) {
        const Taps tw = taps_of(s, 2, o);
        const int64_t n = tw.empty() ? 0 : tw.last - tw.first,
                      alike = o == low && low < high ? high - low : 1;
        search_alike(x + (tw.start + tw.first * s.dilation[2]) * pixel, step, stride * pixel, tw.first, n,
                     alike, width, block, best + o * block, tap + o * block);
        o += alike;
    }
}

// The first of `count` rows of maxima that holds the greatest, by its number.
template <class T>
void choose_rows(const TapRow<T>* rows, int64_t n, int64_t width, T* choice) {
    using V = vec<T, kLanes<T>>;
    with_count<T>(n, [&](auto fixed) {
        constexpr int64_t kFixed = decltype(fixed)::value;
        const int64_t count = kFixed > 0 ? kFixed : n;
        const V lead = broadcast<V>(static_cast<T>(rows[0].number)), one = broadcast<V>(T(1));
        each_vector<V>(width, [&](int64_t i, auto part) {
            Search<V, Want::number> search{load<V>(rows[0].row + i, part), lead};
            V number = lead;
#pragma GCC unroll 5
            for (int64_t r = 1; r < count; r++) {
                number += one;
                search.see(load<V>(rows[r].row + i, part), number);
            }
            store(choice + i, search.number, part);
        });
    });
}

// One row of dx, pixels `pixel` apart, from the row's taps and sums.
template <class T>
void gather_columns(const PoolShape& s, const Separable<T>& ring, const T* tap, const T* sum, int64_t width,
                    T* dx, int64_t pixel) {
    using V = vec<T, kLanes<T>>;
    for (int64_t i = 0; i < s.in[2]; i++, dx += pixel) {
        const int64_t begin = ring.cover_begin[i], n = ring.cover_begin[i + 1] - begin;
        const int64_t* const from = ring.cover_from + begin;
        const T* const taps = ring.cover_tap + begin;
        with_count<T>(n, [&](auto fixed) {
            constexpr int64_t kFixed = decltype(fixed)::value;
            int64_t kept[kFixed > 0 ? kFixed : 1];
            V numbers[kFixed > 0 ? kFixed : 1];
#pragma GCC unroll 5
            for (int64_t e = 0; e < kFixed; e++) {
                kept[e] = from[e];
                numbers[e] = broadcast<V>(taps[e]);
            }
            each_vector<V>(width, [&](int64_t c, auto part) {
                V total{};
                if constexpr (kFixed > 0) {
#pragma GCC unroll 5
                    for (int64_t e = 0; e < kFixed; e++)
                        total = add_where(equal(load<V>(tap + kept[e] + c, part), numbers[e]), total,
                                          load<V>(sum + kept[e] + c, part));
                } else {
                    for (int64_t e = 0; e < n; e++)
                        total = add_where(equal(load<V>(tap + from[e] + c, part), broadcast<V>(taps[e])),
                                          total, load<V>(sum + from[e] + c, part));
                }
                store(dx + c, total, part);
            });
        });
    }
}

// Rows r0 .. r1 - 1 of `width` channels of a plane; x, dy and dx point at the first channel.
template <class T>
void separable_planes(const PoolShape& s, Separable<T>& ring, const T* x, const T* dy, T* dx, int64_t r0,
                      int64_t r1, int64_t width) {
    const int64_t u = s.channels, pitch = s.in[2] * u, before = s.before[1], d = s.dilation[1],
                  stride = s.stride[1];
    const int64_t span = s.span(1), block = ring.block, run = s.out[2] * block, out_pitch = s.out[2] * u;
    const bool dense = block == u && width == u;                                  // a row of dy is one run
    int64_t window = r0 + before < span ? 0 : (r0 + before - span) / stride + 1;  // the next to search
    int64_t searched = 0;  // the next input row to search
    for (int64_t ih = r0; ih < r1; ih++) {
        const int64_t q = ih + before, end = q / stride < s.out[1] ? q / stride : s.out[1] - 1;
        int64_t count = 0;
        const int64_t begin = q < span ? 0 : (q - span) / stride + 1;
        if (window < begin) window = begin;  // no later row needs windows before this one
        for (int64_t o = begin; o <= end; o++) {
            if (d > 1 && (q - o * stride) % d != 0) continue;
            for (; window <= o; window++) {
                const Taps th = taps_of(s, 1, window);
                if (th.empty()) continue;
                if (searched < th.start) searched = th.start;  // not its first tap: dilated windows interlock
                for (; searched <= th.start + (th.last - 1) * d; searched++) {
                    const int64_t at = searched % ring.h_rows * ring.length;
                    search_columns(s, x + searched * pitch, u, width, block, ring.best + at, ring.tap + at);
                }
                for (int64_t b = th.first; b < th.last; b++)
                    ring.rows[b - th.first] = {ring.best + (th.start + b * d) % ring.h_rows * ring.length, b};
                choose_rows(ring.rows, th.last - th.first, run,
                            ring.choice + window % ring.w_rows * ring.length);
            }
            ring.cover[count++] = {ring.choice + o % ring.w_rows * ring.length, dy + o * out_pitch,
                                   d > 1 ? (q - o * stride) / d : q - o * stride, o};
        }
        T* const to = dx + ih * pitch;
        if (count == 0) {
            for (int64_t i = 0; i < s.in[2]; i++) fill(to + i * u, width, T(0));
            continue;
        }
        if (dense)
            take_chosen(ring.cover, count, 1, run, 0, 0, 0, ring.sum);
        else
            take_chosen(ring.cover, count, s.out[2], width, block, u, block, ring.sum);
        gather_columns(s, ring, ring.tap + ih % ring.h_rows * ring.length, ring.sum, width, to, u);
    }
}

template <class T>
void backward_separable(const PoolShape& s, const T* dy, const T* x, T* dx, const PoolPart& part,
                        void* scratch) {
    Separable<T> ring(s);
    ring.place(s, scratch);
    ring.cover_columns(s);
    fill(ring.best, ring.h_rows * ring.length,
         T(0));  // lanes that no channel fills are searched with the others
    const int64_t u = s.channels, plane = s.in[1] * s.in[2] * u, h = s.in[1];
    for (int64_t slab = part.slab0; slab < part.slab1; slab++) {
        for (int64_t id = part.row0 / h; id * h < part.row1; id++) {
            const int64_t r0 = part.row0 > id * h ? part.row0 - id * h : 0;
            const int64_t r1 = part.row1 - id * h < h ? part.row1 - id * h : h;
            const int64_t q = id + s.before[0], od = q / s.stride[0];
            T* const to = dx + slab * s.in_volume() * u + id * plane;
            if (q % s.stride[0] != 0 || od >= s.out[0]) {
                for (int64_t i = r0 * s.in[2]; i < r1 * s.in[2]; i++)
                    fill(to + i * u + part.c0, part.c1 - part.c0, T(0));
                continue;
            }
            const T* const from = x + slab * s.in_volume() * u + id * plane;
            const T* const g = dy + (slab * s.out_volume() + od * s.out[1] * s.out[2]) * u;
            for (int64_t c = part.c0; c < part.c1; c += ring.block)
                separable_planes(s, ring, from + c, g + c, to + c, r0, r1,
                                 part.c1 - c < ring.block ? part.c1 - c : ring.block);
        }
    }
}

}  // namespace
FASTCONV_END_ISA
