// Depthwise kernels, channels last; the driver is depthwise_last.cpp.
//
// Channels in lanes, seven or eight neighbouring pixels of two rows at once (of one with stride 2 and on
// sixteen registers), so that a loaded input vector serves all tap columns and two tap rows: 40 loads and 18
// weights for 144 multiply-adds. A load that lies in two cache lines takes twice as long: see lanes_before
// (batch of one, in L2: 240 channels at 28 x 28, 5x5, stride 2 37 to 25 us, 672 at 14 x 14 60 to 47, 3x3 192
// at 28 x 28 40 to 26). 3x3 with 512 bits asks nothing while it adds (nine_block): 384 at 14 x 14 17.5 to 10.8
// us, 960 at 7 x 7 11.3 to 7.4, 192 at 28 x 28, stride 2 12.8 to 10.5. 7x7: 768 at 7 x 7 72 to 19, 384 at
// 14 x 14 109 to 53. More than seven tap columns are added seven at a time: 9x9 with 512 channels at 7 x 7
// 83 to 23 us, 13x13 with 1024 at 7 x 7 220 to 76, 11x11 with 96 at 56 x 56 1.35 ms to 0.62.
// Tried and dropped: cutting 32 channels into three vectors instead of two (105 to 118 us at 112 x 112).
#pragma once

#include "algorithms/clamp.hpp"
#include "algorithms/depthwise_kernels.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

template <int N>
struct Int {
    static constexpr int value = N;
};

constexpr int64_t kWeightsInL1 = 24 << 10;  // bytes

// Tap columns of kernels that compute two output rows at once, stride 1. (Not of doubles: a large part of the
// library's size.)
template <class T>
constexpr int kPaired = kRegisters >= 32 && sizeof(T) == 4 ? (kVectorBytes == 64 ? 7 : 5) : 0;

// Lanes from a cache line's begin to the first channel at `at`. Where pixels are whole lines apart, channels
// are cut into vectors so that none of them but the first and the last, which are masked, lies in two lines.
template <class T>
int64_t lanes_before(const ChannelRun<T>& c, const T* at) {
    constexpr int L = kLanes<T>;
    if (kVectorBytes < 64 || c.pixel % L != 0 || c.out_pixel % L != 0 || c.channels < 4 * L) return 0;
    return static_cast<int64_t>(reinterpret_cast<uintptr_t>(at) / sizeof(T)) % L;
}

// Some tap row that is read.
template <class T>
const T* tap_row(const ChannelRun<T>& c) {
    for (int64_t i = 0; i < c.rows; i++)
        if (c.tap_rows[i] != nullptr) return c.tap_rows[i];
    return c.out;
}

template <class V>
FASTCONV_INLINE Mask<V> channel_mask(int64_t channel, int64_t channels) {
    return kVectorBytes < 64 ? mask<V>(channels - channel) : mask<V>(-channel, channels - channel);
}

#if defined(__AVX512F__)
// A clamp as two bounds, so that no output asks which one it is. The second operand is the result where one is NaN or both
// are zero, as in `clamped`; masks of ones, because GCC warns of the undefined vector in the others.
template <class V>
struct Bounds {
    V low, high;
    FASTCONV_INLINE explicit Bounds(Clamp clamp)
        : low(broadcast<V>(clamp == Clamp::none ? -__builtin_inff() : 0)),
          high(broadcast<V>(clamp == Clamp::relu6 ? 6 : __builtin_inff())) {}
    FASTCONV_INLINE V of(V v) const {
        if constexpr (sizeof(scalar_of<V>) == 4)
            return (V)_mm512_maskz_min_ps(0xffff, (__m512)high,
                                          _mm512_maskz_max_ps(0xffff, (__m512)low, (__m512)v));
        else
            return (V)_mm512_maskz_min_pd(0xff, (__m512d)high,
                                          _mm512_maskz_max_pd(0xff, (__m512d)low, (__m512d)v));
    }
};
#else
template <class V>
struct Bounds {
    Clamp clamp;
    FASTCONV_INLINE explicit Bounds(Clamp c) : clamp(c) {}
    FASTCONV_INLINE V of(V v) const { return clamped(v, clamp); }
};
#endif

// Finished sums of P pixels of R rows, from pixel `first` on.
template <class T, int R, int P, class V>
FASTCONV_INLINE void store_pixels(const ChannelRun<T>& c, V (&sum)[R][P], int64_t first, int64_t channel,
                                  Mask<V> m) {
    const V bias = c.bias != nullptr ? load<V>(c.bias + channel, m) : V{};
    const Bounds<V> bounds(c.clamp);
    const int64_t at = first * c.out_pixel + channel, pixel = c.out_pixel, row = c.out_row;
    const auto put = [&](auto adds) __attribute__((always_inline)) {
#pragma GCC unroll 2
        for (int r = 0; r < R; r++) {
            T* out = c.out + at + r * row;
            const T* add = c.add + at + r * row;
#pragma GCC unroll 8
            for (int p = 0; p < P; p++, out += pixel, add += pixel) {
                V v = sum[r][p] + bias;
                if constexpr (decltype(adds)::value != 0) v = v + load<V>(add, m);
                store(out, bounds.of(v), m);
            }
        }
    };
    c.add != nullptr ? put(Int<1>()) : put(Int<0>());
}

#if defined(__AVX512F__)
// 3x3: all nine weights in registers and no question in a row. The first and the last column may lie in the padding:
// there masks keep the sums as they are.
template <int S, int R, int P>
FASTCONV_INLINE void nine_block(const ChannelRun<float>& c, int64_t first, int64_t channel) {
    using V = vec<float, kLanes<float>>;
    constexpr int N = (P - 1) * S + 3;  // columns that are read
    const int64_t pixel = c.pixel, low = c.pad_left - first * S;
    const auto m = channel_mask<V>(channel, c.channels);
    const auto all = static_cast<__mmask16>(m.bits);
    const __mmask16 left = low > 0 ? 0 : all, right = low + c.in_columns < N ? 0 : all;
    __m512 weight[9];
    V sum[R][P] = {};
    const float* w = c.w + channel;
#pragma GCC unroll 9
    for (int i = 0; i < 9; i++, w += c.w_tap) weight[i] = _mm512_maskz_loadu_ps(all, w);
#pragma GCC unroll 4
    for (int i = 0; i < R + 2; i++) {
        if (c.tap_rows[i] == nullptr) continue;
        const float* x = c.tap_rows[i] - low * pixel + channel;
#pragma GCC unroll 17
        for (int n = 0; n < N; n++, x += pixel) {
            const bool inner = n > 0 && n < N - 1;
            const __mmask16 read = inner ? all : n == 0 ? left : right;
            const __m512 in = _mm512_maskz_loadu_ps(read, x);
#pragma GCC unroll 2
            for (int r = 0; r < R; r++)
#pragma GCC unroll 8
                for (int p = 0; p < P; p++) {
                    if (i < r || i > r + 2 || n < p * S || n > p * S + 2) continue;
                    const __m512 tap = weight[(i - r) * 3 + n - p * S];
                    if (inner)
                        sum[r][p] += (V)tap * (V)in;
                    else
                        sum[r][p] = (V)_mm512_mask3_fmadd_ps(tap, in, (__m512)sum[r][p], read);
                }
        }
    }
    store_pixels<float>(c, sum, first, channel, m);
}
#endif

// P neighbouring pixels of R output rows (stride 1 where R is 2: tap row i of the second is tap row i + 1 of
// the first). K tap columns; `Wide`: more, K at a time and the rest one by one.
template <class T, int K, int S, int R, int P, bool Wide>
FASTCONV_INLINE void run_block(const ChannelRun<T>& c, int64_t first, int64_t channel) {
    static_assert(S == 1 || (R == 1 && !Wide));
    using V = vec<T, kLanes<T>>;
    const auto m = channel_mask<V>(channel, c.channels);
    const int64_t pixel = c.pixel, low = c.pad_left - first * S, high = low + c.in_columns;
    const int64_t taps = Wide ? c.tap_columns : K;
    V sum[R][P] = {};
    const T* w = c.w + channel;
    // Some tap columns from `tap` on, of one input row.
    const auto add_taps = [&](auto from, auto to, auto count, const T* row,
                              int64_t tap) __attribute__((always_inline)) {
        constexpr int From = decltype(from)::value, To = decltype(to)::value, N = decltype(count)::value;
        const T* x = row + (tap - low) * pixel + channel;
        const int64_t begin = low - tap, end = high - tap;
        V weight[R][N];
#pragma GCC unroll 2
        for (int r = From; r < To; r++)
#pragma GCC unroll 8
            for (int kw = 0; kw < N; kw++)
                weight[r][kw] = load<V>(w + (tap + kw - (r - From) * taps) * c.w_tap, m);
#pragma GCC unroll 32
        for (int i = 0; i < (P - 1) * S + N; i++, x += pixel) {
            if (i < begin || i >= end) continue;
            const V in = load<V>(x, m);
#pragma GCC unroll 2
            for (int r = From; r < To; r++)
#pragma GCC unroll 8
                for (int p = 0; p < P; p++)
                    if (i - p * S >= 0 && i - p * S < N) sum[r][p] += weight[r][i - p * S] * in;
        }
    };
    const auto add_row = [&](auto from, auto to, const T* row) __attribute__((always_inline)) {
        if (row == nullptr) return;
        int64_t tap = 0;
        do {
            add_taps(from, to, Int<K>(), row, tap);
            tap += K;
        } while (Wide && tap + K <= taps);
        if constexpr (Wide)
            for (; tap < taps; tap++) add_taps(from, to, Int<1>(), row, tap);
    };
    const int64_t w_row = taps * c.w_tap;
    for (int64_t plane = 0; plane < c.planes; plane++, w += w_row) {
        const T* const* row = c.tap_rows + plane * c.tap_plane;
        add_row(Int<0>(), Int<1>(), *row++);
        for (int64_t kh = 1; kh < c.rows; kh++) {
            w += w_row;
            add_row(Int<0>(), Int<R>(), *row++);
        }
        if constexpr (R == 2) add_row(Int<1>(), Int<2>(), *row);
    }
    store_pixels<T>(c, sum, first, channel, m);
}

// P neighbouring pixels of one row, any tap columns: every tap loads its own inputs. `Inside`: none lies in
// the padding.
template <class T, int P, bool Inside>
FASTCONV_INLINE void any_block(const ChannelRun<T>& c, int64_t first, int64_t channel) {
    using V = vec<T, kLanes<T>>;
    const auto m = channel_mask<V>(channel, c.channels);
    const int64_t step = c.stride * c.pixel, taps = c.tap_columns;
    V sum[1][P] = {};
    const T* w = c.w + channel;
    for (int64_t plane = 0; plane < c.planes; plane++)
        for (int64_t kh = 0; kh < c.rows; kh++) {
            const T* const row = c.tap_rows[plane * c.tap_plane + kh];
            if (row == nullptr) {
                w += taps * c.w_tap;
                continue;
            }
            for (int64_t kw = 0; kw < taps; kw++, w += c.w_tap) {
                const V weight = load<V>(w, m);
                const int64_t column = first * c.stride + kw * c.dilation - c.pad_left;
                const T* x = row + column * c.pixel + channel;
#pragma GCC unroll 8
                for (int p = 0; p < P; p++, x += step) {
                    const int64_t at = column + p * c.stride;
                    if (Inside || (at >= 0 && at < c.in_columns)) sum[0][p] += weight * load<V>(x, m);
                }
            }
        }
    store_pixels<T>(c, sum, first, channel, m);
}

// Asks for a share of what the next output rows read and write in some pixels: in the order of memory, which
// the processor's own prefetching then follows.
template <class T>
class Asking {
  public:
    Asking(const ChannelRun<T>& run, int64_t pixels, int64_t shares)
        : c(run), in(lines_of(pixels * c.stride * c.pixel)), out(lines_of(pixels * c.out_pixel)) {
        if (c.ahead == 0) return;
        in_share = (in + shares - 1) / shares;
        out_share = (out + shares - 1) / shares;
    }
    void share(int64_t first, int64_t i) const {
        __asm__ volatile(
            "");  // GCC takes a function that only prefetches for one without effects and drops its calls
        const int64_t all = c.rows + c.out_rows - 1;
        for (int64_t row = c.ahead < all ? all - c.ahead : 0; row < all; row++)
            if (c.tap_rows[row] != nullptr)
                ask(c.tap_rows[row] + (c.ahead * c.in_columns + first * c.stride) * c.pixel, i * in_share,
                    in_share, in);
        for (int64_t r = 0; r < c.out_rows; r++)
            ask(c.out + (c.out_rows + r) * c.out_row + first * c.out_pixel, i * out_share, out_share, out);
    }

  private:
    static constexpr int64_t kLine = 64 / sizeof(T);
    static int64_t lines_of(int64_t values) { return (values + kLine - 1) / kLine; }
    static void ask(const T* from, int64_t line, int64_t count, int64_t lines) {
        for (int64_t i = line; i < line + count && i < lines; i++) prefetch_l2(from + i * kLine);
    }

    const ChannelRun<T>& c;
    int64_t in, out, in_share = 0, out_share = 0;  // lines
};

// Tiles of P pixels by as many channels as leave their weights in L1, so that lines are read in the order of
// memory. `block` computes a vector of channels of a tile, from its first pixel on; the first vector has
// `before` lanes less.
template <class T, int P, class Block>
FASTCONV_INLINE void run_tiles(const ChannelRun<T>& c, int64_t before, const Block& block) {
    constexpr int L = kLanes<T>;
    const int64_t vectors = (c.channels + before + L - 1) / L;
    const int64_t most = kWeightsInL1 / kVectorBytes / (c.planes * c.rows * c.tap_columns),
                  groups = most > 4 ? (vectors + most - 1) / most : (vectors + 3) / 4;
    const int64_t wide = (vectors + groups - 1) / groups * L;
    const Asking<T> asking(c, P, vectors);
    for (int64_t group = -before; group < c.channels; group += wide)
        for (int64_t p = 0; p < c.pixels; p += P) {
            const int64_t first =
                p + P <= c.pixels ? p : c.pixels - P;  // the last tile may compute some pixels again
            for (int64_t channel = group; channel < c.channels && channel < group + wide; channel += L) {
                if (c.ahead != 0) asking.share(first, (channel + before) / L);
                block(first, channel);
            }
        }
}

// Lines are those of the outputs with three taps or less, which read little more than they write, and writing
// across lines is dearer. Where every load serves five taps and more, one vector more is what costs (7x7, 64
// channels at 56 x 56 169 to 146 us, 96 254 to 238).
template <class T, int K, int S, int R, int P, bool Wide = false>
FASTCONV_INLINE void run_own(const ChannelRun<T>& c) {
    const int64_t before = K <= 3 ? lanes_before(c, c.out) : S > 1 ? lanes_before(c, tap_row(c)) : 0;
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4 && K == 3 && (R == 2 || S == 2)) {
        const int64_t low = c.pad_left, end = (c.pixels - 1) * S + 3 - low;
        if (c.rows == 3 && c.planes == 1 && low <= 1 && end <= c.in_columns + 1)
            return run_tiles<T, P>(c, before,
                                   [&](int64_t first, int64_t channel) __attribute__((always_inline)) {
                                       nine_block<S, R, P>(c, first, channel);
                                   });
    }
#endif
    run_tiles<T, P>(c, before, [&](int64_t first, int64_t channel) __attribute__((always_inline)) {
        run_block<T, K, S, R, P, Wide>(c, first, channel);
    });
}

template <class T, int P>
FASTCONV_INLINE void any_row(const ChannelRun<T>& c) {
    const int64_t reach = (c.tap_columns - 1) * c.dilation;
    run_tiles<T, P>(
        c, lanes_before(c, tap_row(c)), [&](int64_t first, int64_t channel) __attribute__((always_inline)) {
            const int64_t low = first * c.stride - c.pad_left, high = low + (P - 1) * c.stride + reach;
            low >= 0 && high < c.in_columns ? any_block<T, P, true>(c, first, channel)
                                            : any_block<T, P, false>(c, first, channel);
        });
}

template <class T>
void run_any(const ChannelRun<T>& c) {
    if (c.pixels >= 8) return any_row<T, 8>(c);
    c.pixels >= 4 ? any_row<T, 4>(c) : any_row<T, 1>(c);
}

// Tiles of seven pixels, where there are registers for two rows, if eight need as many tiles or some are
// left: rows of 7, 14, 28, 56 and 112. False where the row is too narrow.
template <class T, int K, int S, int R, bool Wide>
bool run_row(const ChannelRun<T>& c) {
    constexpr int most = K == 7 ? 7 : kRegisters >= 32 || kVectorBytes == 32 ? 8 : 4;
    if constexpr (kPaired<T> > 0 && (R == 2 || S == 2) && K < 7)
        if (c.pixels % 7 == 0 || (c.pixels >= 7 && (c.pixels + 6) / 7 == (c.pixels + 7) / 8))
            return run_own<T, K, S, R, 7>(c), true;
    if constexpr (sizeof(T) == 4 && R == 1 && S == 1 && most == 8)
        if (c.pixels >= 4 && c.pixels < most) return run_own<T, K, S, R, 4>(c), true;
    if (c.pixels < most) return false;
    return run_own<T, K, S, R, most, Wide>(c), true;
}

template <class T, int K, int S, bool Wide = false>
void run_all(const ChannelRun<T>& c) {
    if constexpr (S == 1 && K <= kPaired<T>)
        if (c.out_rows == 2 && run_row<T, K, S, 2, Wide>(c)) return;
    ChannelRun<T> row = c;
    row.out_rows = 1;
    for (int64_t r = 0; r < c.out_rows; r++) {
        if (!run_row<T, K, S, 1, Wide>(row)) run_any<T>(row);
        row.tap_rows++;
        row.out += c.out_row;
        if (row.add != nullptr) row.add += c.out_row;
    }
}

template <class T>
void channel_run(const ChannelRun<T>& c) {
    const int64_t taps = c.tap_columns;
    if (c.dilation == 1 && c.stride == 1) {
        if (taps == 3) return run_all<T, 3, 1>(c);
        if (taps == 5) return run_all<T, 5, 1>(c);
        if constexpr (kPaired<T> == 7)
            if (taps >= 7) return taps == 7 ? run_all<T, 7, 1>(c) : run_all<T, 7, 1, true>(c);
    } else if (c.dilation == 1 && c.stride == 2) {
        if (taps == 3) return run_all<T, 3, 2>(c);
        if (taps == 5) return run_all<T, 5, 2>(c);
    }
    run_any<T>(c);
}

template <class T, int N>
FASTCONV_INLINE void pixel_block(const ChannelRun<T>& c, int64_t channel) {
    using V = vec<T, kLanes<T>>;
    constexpr int L = kLanes<T>;
    const auto tail = mask<V>(c.channels - channel - (N - 1) * L);
    const auto get = [&](const T* p, int j) {
        return j == N - 1 ? load<V>(p + j * L, tail) : load<V>(p + j * L);
    };
    V sum[N] = {};
    const T* w = c.w + channel;
    for (int64_t i = 0; i < c.planes * c.rows; i++, w += c.tap_columns * c.w_tap) {
        const T* const row = c.tap_rows[i / c.rows * c.tap_plane + i % c.rows];
        if (row == nullptr) continue;
        for (int64_t kw = 0; kw < c.tap_columns; kw++) {
            if (c.columns[kw] < 0) continue;
            const T* x = row + c.columns[kw] + channel;
#pragma GCC unroll 4
            for (int j = 0; j < N; j++) sum[j] += get(w + kw * c.w_tap, j) * get(x, j);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) {
        V v = sum[j] + (c.bias != nullptr ? get(c.bias + channel, j) : V{});
        if (c.add != nullptr) v = v + get(c.add + channel, j);
        v = clamped(v, c.clamp);
        j == N - 1 ? store(c.out + channel + j * L, v, tail) : store(c.out + channel + j * L, v);
    }
}

template <class T>
void channel_pixel(const ChannelRun<T>& c) {
    constexpr int L = kLanes<T>;
    int64_t channel = 0;
    for (; channel + 3 * L < c.channels; channel += 4 * L) pixel_block<T, 4>(c, channel);
    for (; channel < c.channels; channel += L) pixel_block<T, 1>(c, channel);
}

}  // namespace
FASTCONV_END_ISA
