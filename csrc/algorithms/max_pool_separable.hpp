// The gradient of max pooling one axis at a time, ties "first", windows of depth one.
//
// The first maximum of a window in row-major order lies in the first of its rows that holds the maximum, at that row's own first
// maximum. So each input row is searched once along the width (maximum and tap, for every window position), and each row of
// windows searches only its rows' maxima: kh + kw steps instead of kh * kw. Gradients go back the same way: a row of windows
// hands each value to the chosen input row, and there the chosen column takes the sum.
//
// Lanes are channels. Channels-first planes are transposed in registers, as many at a time as a vector has lanes: rows as short
// as 7 fill their vectors, and no tap is an unaligned load. Rows live in rings that stay in L2: maximum and tap of the input
// rows, chosen rows of the windows. Narrower blocks of channels that would stay in L1 were twice as slow: they leave most of
// every page unread.
#pragma once

#include "algorithms/max_pool_rows.hpp"
#include "simd/transpose.hpp"

FASTCONV_BEGIN_ISA
namespace {

constexpr int64_t kTurnedPixels =
    256;  // transposed at a time: single rows of 20 leave half of a square empty
constexpr int64_t kRingBytes = 1 << 20;  // of one block of channels

// Calls f(Count<n>()) for the usual numbers of taps, f(Count<0>()) for the others.
template <class F>
FASTCONV_INLINE void with_count(int64_t n, F f) {
    if (n == 1) return f(Count<1>());
    if (n == 2) return f(Count<2>());
    if (n == 3) return f(Count<3>());
    if (n == 5) return f(Count<5>());
    f(Count<0>());
}

template <class T>
struct Separable {
    static constexpr int64_t L = kLanes<T>;
    int64_t block;           // channels, or planes, of a block
    int64_t length;          // elements of a row of windows
    int64_t h_rows, w_rows;  // input rows and rows of windows alive at once
    T *best, *tap, *choice;  // rings: of input rows, of input rows, of rows of windows
    int64_t in_band, out_band,
        out_bands;       // channels first: rows turned at a time, and bands of dy alive at once
    T *turned, *x, *dx;  // bands of dy, one of x, one of dx
    T* sum;
    // For each column the windows and taps that lie on it, from cover_begin[i] to cover_begin[i + 1].
    int64_t *cover_begin, *cover_from;
    T* cover_tap;
    TapRow<T>* rows;
    CoverRow<T>* cover;

    explicit Separable(const PoolShape& s) {
        const int64_t span = s.span(1), windows = (span - 1) / s.stride[1] + 2;
        h_rows = span + 1 < s.in[1] ? span + 1 : s.in[1];
        w_rows = windows < s.out[1] ? windows : s.out[1];
        block = L;
        if (s.channels_last) {
            const int64_t each = (2 * h_rows + w_rows + 1) * s.out[2] * static_cast<int64_t>(sizeof(T));
            const int64_t fit = kRingBytes / (each * L), all = (s.channels + L - 1) / L;
            const int64_t vectors = fit < 1     ? 1
                                    : fit < all ? fit
                                                : all,
                          parts = (all + vectors - 1) / vectors;
            block = parts == 1 ? s.channels : (all + parts - 1) / parts * L;
        }
        length = s.out[2] * block;
        const auto band = [](int64_t width, int64_t height) {
            const int64_t fit = (kTurnedPixels + width - 1) / width;
            return fit < height ? fit : height;
        };
        in_band = band(s.in[2], s.in[1]);
        out_band = band(s.out[2], s.out[1]);
        out_bands = (w_rows + 2 * out_band - 2) / out_band;
    }
    // Hands the scratch out; returns how many bytes it takes.
    int64_t place(const PoolShape& s, char* base) {
        char* p = base;
        const auto take = [&](int64_t count, int64_t bytes) {
            char* at = p;
            p += (count * bytes + 127) / 64 * 64;
            return at;
        };
        constexpr auto size = static_cast<int64_t>(sizeof(T));
        const int64_t most = s.out[2] * (s.kernel[2] < s.in[2] ? s.kernel[2] : s.in[2]);
        best = reinterpret_cast<T*>(take(h_rows * length, size));
        tap = reinterpret_cast<T*>(take(h_rows * length, size));
        choice = reinterpret_cast<T*>(take(w_rows * length, size));
        sum = reinterpret_cast<T*>(take(length, size));
        rows = reinterpret_cast<TapRow<T>*>(
            take(s.kernel[1] < s.in[1] ? s.kernel[1] : s.in[1], sizeof(TapRow<T>)));
        cover = reinterpret_cast<CoverRow<T>*>(take(w_rows, sizeof(CoverRow<T>)));
        cover_begin = reinterpret_cast<int64_t*>(take(s.in[2] + 1, 8));
        cover_from = reinterpret_cast<int64_t*>(take(most, 8));
        cover_tap = reinterpret_cast<T*>(take(most, size));
        turned = reinterpret_cast<T*>(take(s.channels_last ? 0 : out_bands * out_band * length, size));
        x = reinterpret_cast<T*>(take(s.channels_last ? 0 : in_band * s.in[2] * block, size));
        dx = reinterpret_cast<T*>(take(s.channels_last ? 0 : in_band * s.in[2] * block, size));
        return p - base;
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
    return s.kernel[0] == 1 && s.kernel[1] > 1 && s.kernel[2] > 1;
}

// Maximum and first tap of `windows` windows along a row of pixels, of n taps each from tap `first` on; `x` is the first one's.
template <class T>
FASTCONV_INLINE void search_alike(const T* x, int64_t step, int64_t next, int64_t first, int64_t n,
                                  int64_t windows, int64_t width, int64_t block, T* best, T* tap) {
    using V = vec<T, kLanes<T>>;
    const V lead = broadcast<V>(n == 0 ? T(-1) : static_cast<T>(first)), one = broadcast<V>(T(1));
    with_count(n, [&](auto fixed) {
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
    with_count(n, [&](auto fixed) {
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

// What the windows give to one input row: dy of those that chose it, in vectors `pixel` apart. `cover` holds the choices in
// `mark`, dy in `g`.
template <class T>
void sum_choices(const CoverRow<T>* cover, int64_t n, int64_t pixels, int64_t pixel, int64_t width,
                 int64_t block, T* sum) {
    using V = vec<T, kLanes<T>>;
    with_count(n, [&](auto fixed) {
        constexpr int64_t kFixed = decltype(fixed)::value;
        // at hand in registers: the stores below might be to these
        CoverRow<T> kept[kFixed > 0 ? kFixed : 1];
        V numbers[kFixed > 0 ? kFixed : 1];
#pragma GCC unroll 5
        for (int64_t e = 0; e < kFixed; e++) {
            kept[e] = cover[e];
            numbers[e] = broadcast<V>(static_cast<T>(cover[e].number));
        }
        for (int64_t o = 0; o < pixels; o++) {
            each_vector<V>(width, [&](int64_t c, auto part) {
                V total{};
                const int64_t at = o * block + c, from = o * pixel + c;
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
                store(sum + at, total, part);
            });
        }
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
        with_count(n, [&](auto fixed) {
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

// Rows r0 .. r1 - 1 of a plane of each of `width` channels; x, dy and dx point at the first one's plane.
template <class T>
void separable_planes(const PoolShape& s, Separable<T>& ring, const T* x, const T* dy, T* dx, int64_t r0,
                      int64_t r1, int64_t width) {
    const bool last = s.channels_last;
    const int64_t u = s.unit(), pitch = s.in[2] * u, before = s.before[1], d = s.dilation[1],
                  stride = s.stride[1];
    const int64_t span = s.span(1), block = ring.block, run = s.out[2] * block, out_pitch = s.out[2] * u;
    const int64_t in_plane = s.in_volume(), out_plane = s.out_volume();
    const bool dense = !last || (block == u && width == u);                       // a row of dy is one run
    int64_t window = r0 + before < span ? 0 : (r0 + before - span) / stride + 1;  // the next to search
    int64_t searched = 0;                                       // the next input row to search
    int64_t x_band = -1, dy_band = window / ring.out_band - 1;  // turned last
    int64_t held = 0;                                           // rows of dx that wait to be turned
    const auto search_row = [&](int64_t row, T* best, T* tap) {
        if (last) return search_columns(s, x + row * pitch, u, width, block, best, tap);
        const int64_t band = row / ring.in_band, first = band * ring.in_band;
        if (band != x_band) {
            const int64_t rows = s.in[1] - first < ring.in_band ? s.in[1] - first : ring.in_band;
            transpose_matrix(x + first * pitch, in_plane, width, rows * pitch, ring.x, block);
            x_band = band;
        }
        search_columns(s, static_cast<const T*>(ring.x) + (row - first) * pitch * block, block, block, block,
                       best, tap);
    };
    const auto dy_row = [&](int64_t row) -> const T* {
        if (last) return dy + row * out_pitch;
        const int64_t band = row / ring.out_band, first = band * ring.out_band;
        const auto place = [&](int64_t i) {
            return ring.turned + i % ring.out_bands * ring.out_band * ring.length;
        };
        for (; dy_band < band; dy_band++) {
            const int64_t begin = (dy_band + 1) * ring.out_band;
            const int64_t rows = s.out[1] - begin < ring.out_band ? s.out[1] - begin : ring.out_band;
            transpose_matrix(dy + begin * out_pitch, out_plane, width, rows * out_pitch, place(dy_band + 1),
                             block);
        }
        return place(band) + (row - first) * ring.length;
    };
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
                    search_row(searched, ring.best + at, ring.tap + at);
                }
                for (int64_t b = th.first; b < th.last; b++)
                    ring.rows[b - th.first] = {ring.best + (th.start + b * d) % ring.h_rows * ring.length, b};
                choose_rows(ring.rows, th.last - th.first, run,
                            ring.choice + window % ring.w_rows * ring.length);
            }
            ring.cover[count++] = {ring.choice + o % ring.w_rows * ring.length, dy_row(o),
                                   d > 1 ? (q - o * stride) / d : q - o * stride, o};
        }
        T* const to = last ? dx + ih * pitch : ring.dx + held * pitch * block;
        const int64_t pixel = last ? u : block;
        if (count == 0) {
            for (int64_t i = 0; i < s.in[2]; i++) fill(to + i * pixel, last ? width : block, T(0));
        } else {
            if (dense)
                sum_choices(ring.cover, count, 1, 0, run, 0, ring.sum);
            else
                sum_choices(ring.cover, count, s.out[2], u, width, block, ring.sum);
            gather_columns(s, ring, ring.tap + ih % ring.h_rows * ring.length, ring.sum, last ? width : block,
                           to, pixel);
        }
        if (!last && (++held == ring.in_band || ih + 1 == r1)) {
            transpose_matrix(static_cast<const T*>(ring.dx), block, held * pitch, width,
                             dx + (ih + 1 - held) * pitch, in_plane);
            held = 0;
        }
    }
}

template <class T>
void backward_separable(const PoolShape& s, const T* dy, const T* x, T* dx, const PoolPart& part,
                        void* scratch) {
    Separable<T> ring(s);
    ring.place(s, static_cast<char*>(scratch));
    ring.cover_columns(s);
    // lanes that no plane fills are searched with the others
    if (!s.channels_last) {
        fill(ring.x, ring.in_band * s.in[2] * ring.block, T(0));
        fill(ring.turned, ring.out_bands * ring.out_band * ring.length, T(0));
    } else {
        fill(ring.best, ring.h_rows * ring.length, T(0));
    }
    const int64_t u = s.unit(), plane = s.in[1] * s.in[2] * u, h = s.in[1];
    const int64_t slabs = s.channels_last ? 1 : ring.block;
    for (int64_t slab = part.slab0; slab < part.slab1; slab += slabs) {
        const int64_t together = part.slab1 - slab < slabs ? part.slab1 - slab : slabs;
        for (int64_t id = part.row0 / h; id * h < part.row1; id++) {
            const int64_t r0 = part.row0 > id * h ? part.row0 - id * h : 0;
            const int64_t r1 = part.row1 - id * h < h ? part.row1 - id * h : h;
            const int64_t q = id + s.before[0], od = q / s.stride[0];
            T* const to = dx + slab * s.in_volume() * u + id * plane;
            if (q % s.stride[0] != 0 || od >= s.out[0]) {
                for (int64_t i = 0; i < (s.channels_last ? (r1 - r0) * s.in[2] : together); i++)
                    s.channels_last ? fill(to + (r0 * s.in[2] + i) * u + part.c0, part.c1 - part.c0, T(0))
                                    : fill(to + i * s.in_volume() + r0 * s.in[2], (r1 - r0) * s.in[2], T(0));
                continue;
            }
            const T* const from = x + slab * s.in_volume() * u + id * plane;
            const T* const g = dy + (slab * s.out_volume() + od * s.out[1] * s.out[2]) * u;
            if (!s.channels_last) {
                separable_planes(s, ring, from, g, to, r0, r1, together);
                continue;
            }
            for (int64_t c = part.c0; c < part.c1; c += ring.block)
                separable_planes(s, ring, from + c, g + c, to + c, r0, r1,
                                 part.c1 - c < ring.block ? part.c1 - c : ring.block);
        }
    }
}

}  // namespace
FASTCONV_END_ISA
